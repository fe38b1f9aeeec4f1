"""Lines of a screen: pieces of text with a style, measured in cells, and what a terminal has to be sent of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple, TypeAlias

from rich.cells import cell_len, set_cell_size

GAP: Final = "  "


class Span(NamedTuple):
    """A piece of a line; styles are the keys of `_CODES`."""

    text: str
    style: str = ""


Line: TypeAlias = tuple[Span, ...]

_CODES: Final = {
    "": "",
    "bold": "1",
    "reverse": "7",
    "red": "31",
    "green": "32",
    "yellow": "33",
    "bright_black": "90",
}
"""Parameters of SGR (ECMA-48, 8.3.117)."""

_PLAIN: Final = frozenset({"bold", "reverse"})
"""Styles that are no colours."""


def fitted(text: str, cells: int, *, cut: str = "", number: bool = False) -> str:
    """Return a text of exactly so many cells; what is cut ends with `cut`."""
    width = cell_len(text)
    if width > cells:
        mark = cut if cell_len(cut) < cells else ""
        return set_cell_size(text, max(0, cells - cell_len(mark))) + mark
    space = " " * (cells - width)
    return space + text if number else text + space


def cursor(line: Line) -> Line:
    """Return a line as the one that keys are about: it loses its colours."""
    return tuple(Span(span.text, "reverse") for span in line)


def painted(line: Line, cells: int, *, colours: bool) -> str:
    """Return what a terminal is sent for a line, without spaces at its end; never more cells than there are."""
    found, room = [], cells
    for text, style in line:
        shown = text if cell_len(text) <= room else set_cell_size(text, room)
        room -= cell_len(shown)
        code = _CODES[style] if colours or style in _PLAIN else ""
        found.append(f"\x1b[{code}m{shown}\x1b[m" if code and shown else shown)
    return "".join(found).rstrip(" ")


def changes(before: Sequence[str], after: Sequence[str]) -> str:
    """Return what turns one screen into another one with as many lines; before the first there is nothing.

    A line is erased first: behind its last cell, erasing to the end would take that cell, too.
    """
    known = before if len(before) == len(after) else [""] * len(after)
    pieces = [] if known is before else ["\x1b[2J"]
    pieces += [
        f"\x1b[{number};1H\x1b[2K{new}"
        for number, (old, new) in enumerate(zip(known, after, strict=True), 1)
        if old != new
    ]
    return "".join(pieces)


class Column(NamedTuple):
    """A column of a table.

    Attributes:
        heading: above it.
        cells: one for each row.
        number: it holds numbers, which end under each other.
        least: cells that it has at least, so that it stays where it is while its numbers change.
        expendable: columns with the highest number go first where there is no room; 0 stays.
    """

    heading: str
    cells: Sequence[Span]
    number: bool = False
    least: int = 0
    expendable: int = 0

    @property
    def width(self) -> int:
        """Cells that it needs."""
        return max(self.least, cell_len(self.heading), *(cell_len(cell.text) for cell in self.cells), 0)


def table(columns: Sequence[Column], room: int, cut: str) -> list[Line]:
    """Return the heading and the rows of a table; columns go, and at last the first one is cut, until it has room."""
    kept = list(columns)
    for column in sorted((c for c in columns if c.expendable), key=lambda c: -c.expendable):
        if _needed(kept) <= room:
            break
        kept.remove(column)
    widths = [column.width for column in kept]
    widths[0] = max(4, widths[0] - max(0, _needed(kept) - room))
    rows = [[Span(column.heading, "bold") for column in kept]]
    rows += [list(cells) for cells in zip(*(column.cells for column in kept), strict=True)]
    return [tuple(_padded(row, kept, widths, cut)) for row in rows]


def _needed(columns: Sequence[Column]) -> int:
    return sum(column.width for column in columns) + len(GAP) * (len(columns) - 1)


def _padded(row: Sequence[Span], columns: Sequence[Column], widths: Sequence[int], cut: str) -> Iterator[Span]:
    for place, (cell, column, width) in enumerate(zip(row, columns, widths, strict=True)):
        if place:
            yield Span(GAP)
        yield Span(fitted(cell.text, width, cut=cut, number=column.number), cell.style)
