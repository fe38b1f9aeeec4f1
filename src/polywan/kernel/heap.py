"""The C library's heap: what is not needed goes back to the kernel (mallopt(3), malloc_trim(3); glibc only)."""

from __future__ import annotations

from ctypes import CDLL
from typing import Final

_M_ARENA_MAX: Final = -8


def share() -> None:
    """Let all threads use one heap: each would keep a megabyte of its own, and they hardly ever work at once."""
    mallopt = getattr(CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, 1)


def trim() -> None:
    """Give back what is free: libnftables takes a kilobyte for each prefix, and leaves holes. Takes up to 1 ms."""
    malloc_trim = getattr(CDLL(None), "malloc_trim", None)
    if malloc_trim is not None:
        malloc_trim(0)
