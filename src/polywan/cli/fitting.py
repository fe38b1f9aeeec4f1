"""Text that fits a terminal: tables that lose columns and sentences that lose words, never a line that wraps."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping, Sequence
from typing import NamedTuple

COLUMN_GAP = "  "
CUT = "…"
NARROWEST = 44
"""Columns below which nothing is made to fit: name, state and two shares need so many."""

_ASIDE = re.compile(r" \([^()]*\)")


class Column(NamedTuple):
    """One column: its heading, one cell for each row, and whether it holds numbers."""

    heading: str
    cells: Sequence[str]
    number: bool = False

    @property
    def width(self) -> int:
        """The width that it needs."""
        return max(map(len, (self.heading, *self.cells)))


def terminal_width() -> int | None:
    """Return the columns of the terminal, or what COLUMNS says; None where the output goes elsewhere."""
    said = os.environ.get("COLUMNS", "")
    if said.isascii() and said.isdigit() and int(said) > 0:
        return max(int(said), NARROWEST)
    try:
        return max(os.get_terminal_size(sys.stdout.fileno()).columns, NARROWEST) if sys.stdout.isatty() else None
    except (OSError, ValueError):
        return None


def shortened(text: str, room: int | None) -> str:
    """Return a sentence of at most `room` characters: first what stands in brackets goes, then its last clause."""
    if "\n" in text:
        first, *_, last = (line.strip() for line in text.splitlines())
        text = f"{first} {CUT} {last}"
    if room is None or len(text) <= room:
        return text
    bare = _ASIDE.sub("", text)
    if len(bare) <= room:
        return bare
    kept = bare[: max(0, room - 1)].rstrip()
    clause = max(kept.rfind(": "), kept.rfind("; "))
    # Rather a whole clause than the beginning of one more, as long as most of the line is used.
    return (kept[:clause] if clause > room * 3 // 5 else kept) + CUT


def table(columns: Mapping[str, Column], expendable: Sequence[str], width: int | None) -> list[list[str]]:
    """Return rows of padded cells, headings first, that together fit `width`.

    Args:
        columns: by key, in their order; the first one holds names, which are cut when nothing else helps.
        expendable: keys of columns that go first when there is no room, in this order.
        width: of the terminal; None: all there is.
    """
    kept = dict(columns)
    for key in expendable:
        if width is None or _needed(kept) <= width:
            break
        kept.pop(key, None)
    name, *_ = kept
    if width is not None and (excess := _needed(kept) - width) > 0:
        room = max(4, kept[name].width - excess)
        kept[name] = kept[name]._replace(cells=[shortened(cell, room) for cell in kept[name].cells])
    rows = zip(*((column.heading, *column.cells) for column in kept.values()), strict=True)
    return [
        [
            cell.rjust(column.width) if column.number else cell.ljust(column.width)
            for cell, column in zip(row, kept.values(), strict=True)
        ]
        for row in rows
    ]


def _needed(columns: Mapping[str, Column]) -> int:
    return sum(column.width for column in columns.values()) + len(COLUMN_GAP) * (len(columns) - 1)
