"""The time zone that the kernel itself keeps: mostly UTC, but local time where the hardware clock runs by that."""

from __future__ import annotations

import os
from ctypes import CDLL, c_int, c_long, c_void_p
from functools import cache
from typing import Final

_GENERIC: Final = 169
_CALL: Final = {"x86_64": 96, **dict.fromkeys(("i386", "i686", "armv6l", "armv7l", "ppc64", "ppc64le", "s390x"), 78)}
"""Numbers of gettimeofday(2) by machine (syscalls(2)); newer architectures share one."""


def minutes_west() -> int:
    """Return the minutes that the kernel's zone lies west of UTC; 0 where it cannot be asked."""
    # The C library's own gettimeofday leaves the zone out, so the system call is made directly.
    machine = os.uname().machine
    number = _CALL.get(machine, _GENERIC if machine in {"aarch64", "riscv64", "loongarch64"} else None)
    zone = (c_int * 2)()
    if number is None or _libc().syscall(c_long(number), c_void_p(), zone) != 0:
        return 0
    return int(zone[0])


@cache
def _libc() -> CDLL:
    return CDLL(None)
