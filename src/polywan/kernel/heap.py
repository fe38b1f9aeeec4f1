"""Memory: what is not needed goes back to the kernel (mallopt(3), malloc_trim(3); glibc only)."""

from __future__ import annotations

import gc
from ctypes import CDLL
from typing import Final

_M_ARENA_MAX: Final = -8

GARBAGE: Final = 10_000
"""New objects that stay, from which garbage is looked for among them: those of a decision at 200 uplinks."""


def share() -> None:
    """Let all threads use one heap: each would keep a megabyte of its own, and they hardly ever work at once."""
    mallopt = getattr(CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, 1)


def settle() -> None:
    """Look for garbage no more among what there is by now, the program itself, and more rarely among what comes.

    A complete search takes 15 to 20 ms, falls into whatever decision is under way, and has nothing to find: what a
    decision makes are values, which refer to each other in one direction only and go when nobody uses them.
    """
    gc.freeze()
    gc.set_threshold(GARBAGE)


def trim() -> None:
    """Give back what is free: libnftables takes a kilobyte for each prefix, and leaves holes. Takes up to 1 ms."""
    malloc_trim = getattr(CDLL(None), "malloc_trim", None)
    if malloc_trim is not None:
        malloc_trim(0)
