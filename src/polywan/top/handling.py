"""What keys do to a view, and what they ask for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final, TypeAlias

from polywan.api.views.flow_rows import FlowRow
from polywan.top.asking import filter_words
from polywan.top.view import List, Pane, View, next_sort

HELP: Final = (
    ("arrows, j k", "move the selection; Page Up, Page Down, Home, End"),
    ("Tab", "the other list: uplinks, or what is below"),
    ("Enter", "all about the selected uplink, or that of the selected event"),
    ("w", "why the selected connection takes its uplink"),
    ("c, e", "connections, events; again: only the uplinks"),
    ("s", "sort the list with the selection"),
    ("/", "filter connections: an uplink, tcp, :443, 192.168.1.0/24, to:203.0.113.7, or any text; empty: all"),
    ("u", "bits or bytes per second"),
    ("p", "hide public and hardware addresses, so that others may see the screen"),
    ("q, Ctrl-C", "quit; q and Escape also close a text such as this one"),
)
"""The keys."""

PAGE: Final = 10
"""Lines that Page Up and Page Down move."""

LONGEST_FILTER: Final = 200
FAR: Final = 1_000_000
"""Lines to the end of any list."""


@dataclass(frozen=True, slots=True)
class Quit:
    """The user has seen enough."""


@dataclass(frozen=True, slots=True)
class Redraw:
    """Another program has written on the screen."""


@dataclass(frozen=True, slots=True)
class AskWhy:
    """Why a connection takes its uplink."""

    row: FlowRow


Order: TypeAlias = Quit | Redraw | AskWhy | None

_MOVES: Final = {
    "up": -1, "k": -1, "down": 1, "j": 1, "page up": -PAGE, "page down": PAGE, " ": PAGE, "home": -FAR, "end": FAR,
}  # fmt: skip


def press(view: View, key: str) -> tuple[View, Order]:
    """Return the view after a key, and what the key asks for."""
    if view.typing is not None:
        return _typed(view, view.typing, key), None
    if key == "redraw":
        return view, Redraw()
    if view.pane is not None:
        return _in_pane(view, view.pane, key), None
    view = replace(view, refused="")
    if key == "q":
        return view, Quit()
    if key in _MOVES:
        return _moved(view, _MOVES[key]), None
    if key in ("w", "enter") and view.focus == "connections":
        return _asking_why(view)
    action = _ACTIONS.get(key)
    return (action(view) if action else view), None


def _in_pane(view: View, pane: Pane, key: str) -> View:
    if key in _MOVES:
        return replace(view, pane=replace(pane, top=max(0, pane.top + _MOVES[key])))
    if key in ("p", "u"):
        return _ACTIONS[key](view)
    return replace(view, pane=None) if key in ("q", "escape", "enter", "h", "?", "w") else view


def _moved(view: View, by: int) -> View:
    match view.focus:
        case "uplinks":
            uplinks = view.uplinks
            if not uplinks:
                return view
            return replace(view, uplink=uplinks[_within(view.place + by, len(uplinks))].name)
        case "connections":
            rows = view.flows.rows if view.flows else ()
            return replace(view, flow=_within(view.flow + by, len(rows)))
        case "events":
            return replace(view, entry=_within(view.entry + by, len(view.entries)))


def _within(place: int, count: int) -> int:
    return max(0, min(place, count - 1))


def _asking_why(view: View) -> tuple[View, Order]:
    rows = view.flows.rows if view.flows else ()
    if not rows:
        return view, None
    return view, AskWhy(rows[_within(view.flow, len(rows))])


def _typed(view: View, text: str, key: str) -> View:
    """Return the view after a key while the filter is typed."""
    match key:
        case "escape":
            return replace(view, typing=None, refused="")
        case "backspace":
            return replace(view, typing=text[:-1], refused="")
        case "erase":
            return replace(view, typing="", refused="")
        case "enter":
            try:
                filter_words(text, [uplink.name for uplink in view.status.uplinks])
            except ValueError as error:
                return replace(view, refused=str(error))
            return replace(view, typing=None, filter=text.strip(), refused="", flow=0)
    # Names of other keys have more than one character.
    return replace(view, typing=(text + key)[:LONGEST_FILTER], refused="") if len(key) == 1 else view


def _below(view: View, wanted: List) -> View:
    if wanted == "uplinks" or view.below == wanted:
        return replace(view, below=None, focus="uplinks")
    return replace(view, below=wanted, focus=wanted)


def _other_list(view: View) -> View:
    return replace(view, focus=view.below if view.focus == "uplinks" and view.below else "uplinks")


def _details(view: View) -> View:
    if view.focus == "events":
        name = view.entries[-1 - view.entry].uplink if view.entries else None
    else:
        name = view.uplinks[view.place].name if view.uplinks else None
    return view if name is None else replace(view, pane=Pane(kind="uplink", name=name))


def _why_of_none(view: View) -> View:
    return replace(view, below="connections", focus="connections", refused="select a connection, then press w again")


def _filtering(view: View) -> View:
    return replace(view, below="connections", focus="connections", typing=view.filter)


def _private(view: View) -> View:
    return replace(view, display=replace(view.display, private=not view.display.private))


def _units(view: View) -> View:
    return replace(view, display=replace(view.display, in_bytes=not view.display.in_bytes))


_ACTIONS: Final[Mapping[str, Callable[[View], View]]] = {
    "tab": _other_list,
    "enter": _details,
    "w": _why_of_none,
    "c": lambda view: _below(view, "connections"),
    "e": lambda view: _below(view, "events"),
    "s": next_sort,
    "/": _filtering,
    "u": _units,
    "p": _private,
    "h": lambda view: replace(view, pane=Pane(kind="help")),
    "?": lambda view: replace(view, pane=Pane(kind="help")),
    "escape": lambda view: replace(view, focus="uplinks"),
}
