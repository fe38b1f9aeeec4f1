"""Read words of a query."""

from __future__ import annotations

from typing import Final

from polywan.config.faults import shown
from polywan.core.errors import ControlError
from polywan.daemon.journal import HIGHEST

_MOST_DIGITS: Final = len(str(HIGHEST))


def whole(name: str, text: str, most: int | None = None) -> int:
    """Return a whole number, at most `most`.

    Raises:
        ControlError: it is none (400).
    """
    if not (text.isascii() and text.isdigit() and len(text) <= _MOST_DIGITS):
        raise ControlError(f"{name}: expected a whole number, got {shown(text)}", 400)
    return int(text) if most is None else min(int(text), most)
