"""Line numbers of the keys in a TOML file: tomllib(3) gives values without places."""

from __future__ import annotations

import re
import tomllib
from bisect import bisect_right
from contextlib import suppress
from typing import Final

from polywan.config.faults import Path

_SPACE: Final = re.compile(r"[ \t]*")
_BLANK: Final = re.compile(r"(?:[ \t\r\n]+|#[^\n]*)*")
_STRING: Final = re.compile(
    r"""
    \"{3}(?:\\.|[^\\])*?\"{3,5}    # multi-line basic: up to two quotes may precede the closing three
    | '{3}.*?'{3,5}                 # multi-line literal
    | "(?:\\.|[^"\\\n])*"
    | '[^'\n]*'
    """,
    re.DOTALL | re.VERBOSE,
)
_BARE: Final = re.compile(r"[A-Za-z0-9_-]+")
_SCALAR: Final = re.compile(r"[^,\]}#\n]+")
_DEEPEST: Final = 8
"""No key of ours lies deeper; what does is not looked at."""


class _Lost(Exception):  # noqa: N818 - never leaves this module
    """The text is not what was expected here; what was found so far stands."""


def key_lines(text: str) -> dict[Path, int]:
    """Return the line of every key and table, counted from 1; `text` is TOML that tomllib accepts.

    A table made by the dotted name of another one is where that name stands; an item of an array is where the
    item begins. Never raises: in text that is not TOML the keys before the first mistake are found.
    """
    scanner = _Scanner(text)
    with suppress(_Lost, RecursionError):
        scanner.document()
    return scanner.lines


class _Scanner:
    """Reads keys and skips values; the grammar is that of the TOML 1.0 specification."""

    __slots__ = ("_breaks", "_counts", "_pos", "_text", "lines")

    def __init__(self, text: str) -> None:
        self._text = text
        self._pos = 0
        self._breaks = [m.start() for m in re.finditer("\n", text)]
        self._counts: dict[Path, int] = {}
        self.lines: dict[Path, int] = {}

    def document(self) -> None:
        """Read the whole text."""
        table: Path = ()
        while True:
            self._skip(_BLANK)
            if self._pos >= len(self._text):
                return
            if self._at("["):
                table = self._header()
            else:
                self._pair(table)

    def _header(self) -> Path:
        start = self._pos
        double = self._text.startswith("[[", start)
        self._pos += 2 if double else 1
        keys = self._keys()
        self._expect("]]" if double else "]")
        path: Path = ()
        for place, key in enumerate(keys):
            path = (*path, key)
            self._note(path, start)
            if double and place == len(keys) - 1:
                self._counts[path] = self._counts.get(path, -1) + 1
            if path in self._counts:
                path = (*path, self._counts[path])
                self._note(path, start)
        return path

    def _pair(self, table: Path) -> None:
        start = self._pos
        path = table
        for key in self._keys():
            path = (*path, key)
            self._note(path, start)
        self._expect("=")
        self._skip(_SPACE)
        self._value(path)

    def _value(self, path: Path) -> None:
        if self._at("["):
            self._array(path)
        elif self._at("{"):
            self._inline_table(path)
        elif self._at('"') or self._at("'"):
            self._take(_STRING)
        else:
            self._take(_SCALAR)

    def _array(self, path: Path) -> None:
        self._pos += 1
        place = 0
        while True:
            self._skip(_BLANK)
            if self._at("]"):
                break
            self._note((*path, place), self._pos)
            self._value((*path, place))
            place += 1
            self._skip(_BLANK)
            if not self._at(","):
                break
            self._pos += 1
        self._expect("]")

    def _inline_table(self, path: Path) -> None:
        self._pos += 1
        while True:
            self._skip(_BLANK)
            if self._at("}"):
                break
            self._pair(path)
            self._skip(_BLANK)
            if not self._at(","):
                break
            self._pos += 1
        self._expect("}")

    def _keys(self) -> list[str]:
        keys = [self._key()]
        while self._at("."):
            self._pos += 1
            keys.append(self._key())
        # Beyond our depth the prefixes of a dotted name would only fill memory.
        return keys[:_DEEPEST]

    def _key(self) -> str:
        self._skip(_SPACE)
        if self._at('"') or self._at("'"):
            token = self._take(_STRING)
            try:
                key = str(tomllib.loads(f"k = {token}")["k"])
            except tomllib.TOMLDecodeError as error:
                raise _Lost from error
        else:
            key = self._take(_BARE)
        self._skip(_SPACE)
        return key

    def _note(self, path: Path, position: int) -> None:
        if len(path) <= _DEEPEST:
            self.lines.setdefault(path, bisect_right(self._breaks, position - 1) + 1)

    def _at(self, char: str) -> bool:
        return self._text.startswith(char, self._pos)

    def _expect(self, token: str) -> None:
        if not self._at(token):
            raise _Lost
        self._pos += len(token)

    def _skip(self, pattern: re.Pattern[str]) -> None:
        if found := pattern.match(self._text, self._pos):
            self._pos = found.end()

    def _take(self, pattern: re.Pattern[str]) -> str:
        found = pattern.match(self._text, self._pos)
        if not found:
            raise _Lost
        self._pos = found.end()
        return found.group()
