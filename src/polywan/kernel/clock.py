"""Whether a time service keeps the system's clock."""

from __future__ import annotations

from ctypes import CDLL, create_string_buffer
from typing import Final

_TIME_ERROR: Final = 5
_ROOM: Final = 512
"""More bytes than a struct timex has on any machine."""


def synchronised() -> bool | None:
    """Return what adjtimex(2) says, which changes nothing when it is asked for nothing; None where it is refused."""
    answer = CDLL(None).adjtimex(create_string_buffer(_ROOM))
    return None if answer < 0 else answer != _TIME_ERROR
