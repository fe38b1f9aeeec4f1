"""What others may not do by way of us: programs that the daemon starts, and files that root works with."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from ctypes import CDLL, c_uint, c_ulong
from typing import Final

NET_ADMIN: Final = 12

_PR_CAP_AMBIENT: Final = 47
_LOWER: Final = 3
_ASK: Final = 0xFFFF_FFFF
"""No user: setfsuid(2) changes nothing and returns who it is."""


def keep_to_ourselves(capability: int) -> None:
    """Let programs that are started from now on not inherit a capability (capabilities(7)); ours is not touched.

    A unit hands capabilities on by the ambient set; the inheritable one alone gives a program nothing. Root's programs
    have all capabilities whatever is done here. Call it before there is a second thread: each has a set of its own.
    """
    # prctl(2) rather than capset(2), which a unit without @privileged refuses. What is not there cannot be lowered.
    CDLL(None).prctl(_PR_CAP_AMBIENT, c_ulong(_LOWER), c_ulong(capability), c_ulong(0), c_ulong(0))


@contextmanager
def files_of(user: int, group: int) -> Iterator[None]:
    """Where we are root, work with files by the rights of that user, in this thread alone (setfsuid(2)).

    A library that opens what is in a directory of somebody else can then be led to nothing that he could not reach.

    Raises:
        PermissionError: the kernel has no such user, as in a user namespace that does not map him.
    """
    if os.geteuid() != 0 or user == 0:
        yield
        return
    library = CDLL(None)
    former = library.setfsgid(c_uint(group))
    try:
        library.setfsuid(c_uint(user))
        if library.setfsuid(c_uint(_ASK)) != user:
            raise PermissionError(errno.EPERM, f"root cannot act as user {user} here")
        yield
    finally:
        library.setfsuid(c_uint(0))
        library.setfsgid(c_uint(former))
