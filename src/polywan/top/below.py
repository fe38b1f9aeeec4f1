"""What is below the uplinks: connections, or what happened."""

from __future__ import annotations

from typing import Final

from polywan.cli.events import text as entry_text
from polywan.cli.flows import HEADINGS, cells
from polywan.top.lines import Column, Line, Span, cursor, fitted, table
from polywan.top.uplinks import MARKER, scrolled
from polywan.top.view import View

_LAYOUT: Final = {
    "CLIENT": (0, False), "DESTINATION": (0, False), "PROTO": (2, False), "STATE": (5, False), "UPLINK": (0, False),
    "AGE": (4, True), "DOWN": (1, True), "UP": (3, True),
}  # fmt: skip
"""Of each column of connections: how soon it goes, and whether it holds numbers."""

_LEAST: Final = {"DOWN": 8, "UP": 8, "AGE": 6}


def connections(view: View, room: int, width: int) -> list[Line]:
    """Return connections below their heading."""
    flows = view.flows
    if flows is None:
        return [_title(view, "connections: reading", width)]
    if flows.problem:
        return [_title(view, f"connections cannot be read: {flows.problem}", width)]
    rows, display = flows.rows, view.display
    first = scrolled(view.flow, len(rows), room - 2)
    shown = rows[first : first + max(0, room - 2)]
    which = f" that match {view.filter}" if view.filter else ""
    part = f", {first + 1} to {first + len(shown)}" if len(shown) < flows.total else ""
    title = f"{flows.total} connection{'s' * (flows.total != 1)}{which}, by {view.flow_sort}{part}"
    texts = list(zip(*cells(shown), strict=True)) if shown else [()] * len(HEADINGS)
    columns = []
    for heading, column in zip(HEADINGS, texts, strict=True):
        goes, number = _LAYOUT[heading]
        spans = [Span(display.text(text)) for text in column]
        columns.append(Column(heading, spans, number=number, least=_LEAST.get(heading, 0), expendable=goes))
    heading_line, *lines = table(columns, width - 2, display.cut)
    found: list[Line] = [_title(view, title, width)]
    if shown:
        found.append((Span(MARKER[0]), *heading_line))
    for at, line in enumerate(lines, first):
        selected = at == view.flow and view.focus == "connections"
        marked = (Span(MARKER[selected]), *line)
        found.append(cursor(marked) if selected else marked)
    return found


def events(view: View, room: int, width: int) -> list[Line]:
    """Return what happened, the newest first, below its heading."""
    entries = view.entries[::-1]
    first = scrolled(view.entry, len(entries), room - 1)
    shown = entries[first : first + max(0, room - 1)]
    names = max((len(entry.uplink) for entry in shown), default=0)
    title = "events, the newest first" if entries else "events: nothing has happened"
    found: list[Line] = [_title(view, title, width)]
    for at, entry in enumerate(shown, first):
        selected = at == view.entry and view.focus == "events"
        text = MARKER[selected] + view.display.text(entry_text(entry, names))
        line = (Span(fitted(text, width, cut=view.display.cut)),)
        found.append(cursor(line) if selected else line)
    return found


def _title(view: View, text: str, width: int) -> Line:
    bar = ("─" if view.display.utf8 else "-") * width
    said = view.display.text(f" {text} ")
    return (Span(fitted(f"{bar[:2]}{said}{bar}", width), "bright_black"),)
