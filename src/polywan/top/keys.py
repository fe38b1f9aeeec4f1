"""What was pressed, from the bytes that a terminal sends."""

from __future__ import annotations

import codecs
import re
from typing import Final

_NAMED: Final = {
    "\x1b[A": "up", "\x1bOA": "up", "\x1b[B": "down", "\x1bOB": "down",
    "\x1b[5~": "page up", "\x1b[6~": "page down",
    "\x1b[H": "home", "\x1bOH": "home", "\x1b[1~": "home", "\x1b[7~": "home",
    "\x1b[F": "end", "\x1bOF": "end", "\x1b[4~": "end", "\x1b[8~": "end",
    "\r": "enter", "\n": "enter", "\t": "tab", "\x7f": "backspace", "\x08": "backspace", "\x15": "erase",
    "\x0c": "redraw",
}  # fmt: skip
_ESCAPE: Final = "\x1b"
_SEQUENCE: Final = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|O[@-~])")
_BEGUN: Final = re.compile(r"\x1b(?:\[[0-?]*[ -/]*|O)?$")
_LONGEST: Final = 32
"""Characters of a sequence that is waited for; longer ones are none."""


class KeyReader:
    """Splits bytes into keys: names for special ones, otherwise the character."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("ignore")
        self._rest = ""

    @property
    def waits(self) -> bool:
        """What came last may be the Escape key, or the begin of a sequence: `flush` when nothing follows."""
        return bool(self._rest)

    def feed(self, data: bytes) -> list[str]:
        """Return the keys that are complete."""
        text, found = self._rest + self._decoder.decode(data), []
        self._rest = ""
        at = 0
        while at < len(text):
            if text[at] == _ESCAPE and (_BEGUN.match(text, at) and len(text) - at < _LONGEST):
                self._rest = text[at:]
                break
            sequence = _SEQUENCE.match(text, at)
            piece = sequence[0] if sequence else text[at]
            at += len(piece)
            found += _named(piece)
        return found

    def flush(self) -> list[str]:
        """Return the Escape key when it was all that came; forget a sequence that never ended."""
        alone, self._rest = self._rest == _ESCAPE, ""
        return ["escape"] if alone else []


def _named(piece: str) -> list[str]:
    if piece in _NAMED:
        return [_NAMED[piece]]
    if piece == _ESCAPE:
        return ["escape"]
    return [piece] if piece.isprintable() else []
