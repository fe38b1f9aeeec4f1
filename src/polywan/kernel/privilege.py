"""What programs that the daemon starts may not do, although the daemon may (capabilities(7))."""

from __future__ import annotations

from ctypes import CDLL, c_ulong
from typing import Final

NET_ADMIN: Final = 12

_PR_CAP_AMBIENT: Final = 47
_LOWER: Final = 3


def keep_to_ourselves(capability: int) -> None:
    """Let programs that are started from now on not inherit it; ours is not touched.

    A unit hands capabilities on by the ambient set; the inheritable one alone gives a program nothing. Root's programs
    have all capabilities whatever is done here. Call it before there is a second thread: each has a set of its own.
    """
    # prctl(2) rather than capset(2), which a unit without @privileged refuses. What is not there cannot be lowered.
    CDLL(None).prctl(_PR_CAP_AMBIENT, c_ulong(_LOWER), c_ulong(capability), c_ulong(0), c_ulong(0))
