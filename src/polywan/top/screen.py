"""The whole screen for a view: what is wrong on top, the uplinks, what is below them, and the keys."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from textwrap import wrap
from typing import Final, NamedTuple

from rich.cells import cell_len

from polywan.api.status import Status
from polywan.cli.events import text as entry_text
from polywan.cli.fitting import shortened
from polywan.cli.oneuplink import text as in_full
from polywan.cli.overview import problems, served
from polywan.core.status.exit_code import exit_code
from polywan.core.words import counted
from polywan.top import below, uplinks
from polywan.top.handling import HELP
from polywan.top.lines import Line, Span, fitted
from polywan.top.view import Pane, View

NARROWEST_SCREEN: Final = 38
SHORTEST_SCREEN: Final = 8

_KEYS: Final = "q quit  h help  s sort  / filter  w why  Enter details  c connections  e events  u units  p hide"
LONGEST_SILENCE: Final = 5.0
"""Seconds without a word, where one is due every second, after which what is shown is called stale."""

_SECOND_COLUMN: Final = re.compile(r" +\S.*?  +")
"""What is before the text in a line with two columns."""

_SHARE_OF_UPLINKS: Final = 0.6
"""Part of the screen that the list of uplinks may take when another list is below it."""

_LEAST_BELOW: Final = 5
"""Lines that the list below gets."""


class Size(NamedTuple):
    """Of a terminal, in cells and lines."""

    columns: int
    rows: int


def screen(view: View, size: Size, now: datetime) -> list[Line]:
    """Return the lines of the screen, as many as it has rows. `now` has the time zone that is shown."""
    if size.columns < NARROWEST_SCREEN or size.rows < SHORTEST_SCREEN:
        text = f"too small: needs {NARROWEST_SCREEN}x{SHORTEST_SCREEN}"
        return _filled([(Span(text),)], size.rows)
    top = _head(view, size, now)
    room = size.rows - len(top) - 1
    if view.pane is not None:
        return [*top, *_filled(_text(view, view.pane, room, size.columns, now), room), _keys(view, size)]
    last = _last_entry(view, size) if view.below != "events" and view.entries else []
    room -= len(last)
    body = _lists(view, room, size.columns, now)
    return [*top, *_filled(body, room), *last, _keys(view, size)]


def _filled(lines: Sequence[Line], rows: int) -> list[Line]:
    return [*lines[:rows], *[()] * (rows - len(lines))]


def _lists(view: View, room: int, columns: int, now: datetime) -> list[Line]:
    if view.below is None:
        return uplinks.listed(view, room, columns, now, whole=room)
    # Two lines for each uplink are given up before the list scrolls, and before nothing is left for what is below.
    most = max(2, min(room - _LEAST_BELOW, int(room * _SHARE_OF_UPLINKS)))
    rows = min(most, uplinks.height(view, most))
    found = uplinks.listed(view, rows, columns, now, whole=most)
    rest = room - len(found)
    draw = below.events if view.below == "events" else below.connections
    return [*found, *draw(view, rest, columns)]


def _head(view: View, size: Size, now: datetime) -> list[Line]:
    """Return the state of everything, the policies, and what is wrong."""
    display, status = view.display, view.status
    word, style, text = _overall(view, now)
    clock = now.strftime("%H:%M:%S")
    room = size.columns - len(word) - len(clock) - 4
    first = (
        Span(f" {word} ", style),
        Span(" " + fitted(display.text(text), room, cut=display.cut)),
        Span(f" {clock}"),
    )
    found: list[Line] = [first]
    wrong = [(display.text(shortened(display.hidden(line), size.columns)), c) for line, c in problems(status, now)]
    most = max(1, size.rows // 6)
    shown = wrong if len(wrong) <= most else wrong[: most - 1]
    found += [(Span(fitted(line, size.columns, cut=display.cut), colour),) for line, colour in shown]
    if len(shown) < len(wrong):
        found.append((Span(f"{counted(len(wrong) - len(shown), 'line')} more: polywan status", "yellow"),))
    policies = [f"{policy.title}: {served(policy)}" for policy in status.policies if not policy.direct]
    if policies:
        text = display.text(shortened(display.hidden("; ".join(policies)), size.columns))
        found.append((Span(fitted(text, size.columns, cut=display.cut), "bright_black"),))
    return found


_STYLES: Final = {"ok": "green", "degraded": "yellow", "down": "red", "starting": "yellow", "stale": "red"}


def _overall(view: View, now: datetime) -> tuple[str, str, str]:
    """Return the state of everything in a word, its style, and a sentence."""
    status = view.status
    if view.problem or (now - view.heard).total_seconds() >= LONGEST_SILENCE:
        since = view.heard.astimezone(now.tzinfo).strftime("%H:%M:%S")
        why = f"trying again: {view.problem}" if view.problem else "the daemon says nothing"
        word, text = "stale", f"as of {since}; {why}"
    elif not status.ready:
        word, text = "starting", "the first plan is not in force yet"
    else:
        word, text = _WORDS[exit_code(status.uplinks)], _counts(status)
    return word.upper(), _STYLES[word], text


_WORDS: Final = {0: "ok", 6: "degraded", 7: "down"}
"""The state of everything by the exit code of `status --check`."""


def _counts(status: Status) -> str:
    states: dict[str, int] = {}
    for uplink in status.uplinks:
        states[uplink.state] = states.get(uplink.state, 0) + 1
    said = ", ".join(f"{number} {state}" for state, number in states.items())
    return f"polywan: {counted(len(status.uplinks), 'uplink')}" + (f": {said}" if said else "")


def _last_entry(view: View, size: Size) -> list[Line]:
    text = view.display.text(f"last event: {entry_text(view.entries[-1], 0)}")
    return [(Span(fitted(text, size.columns, cut=view.display.cut), "bright_black"),)]


def _keys(view: View, size: Size) -> Line:
    display = view.display
    if view.refused:
        return (Span(fitted(display.text(view.refused), size.columns, cut=display.cut), "red"),)
    if view.typing is not None:
        said = display.text(f"filter (Enter: search, Escape: back): {view.typing}_")
        # The end is what is being typed.
        return (Span(said[-size.columns :], "bold"),)
    if view.pane is not None:
        return (Span(fitted("q back  arrows scroll  u units  p hide", size.columns), "bright_black"),)
    marks = [f"uplinks: {view.uplink_sort}"] if view.uplink_sort != "file" else []
    marks += ["addresses hidden"] if display.private else []
    said = "".join(f"[{mark}]  " for mark in marks) + _KEYS
    return (Span(fitted(said, size.columns, cut=display.cut), "bright_black"),)


def _text(view: View, pane: Pane, room: int, columns: int, now: datetime) -> list[Line]:
    """Return a text that covers the lists, scrolled no further than to its end."""
    lines = [view.display.text(line) for line in _lines(view, pane, now)]
    pieces = [piece for line in lines for piece in _wrapped(line, columns)]
    top = max(0, min(pane.top, len(pieces) - room))
    return [(Span(piece),) for piece in pieces[top : top + room]]


def _wrapped(line: str, columns: int) -> list[str]:
    """Return a line in pieces that fit, the later ones indented: below its second column, or a little."""
    if cell_len(line) <= columns:
        return [line]
    begin = _SECOND_COLUMN.match(line)
    indent = " " * min(len(begin[0]) if begin else len(line) - len(line.lstrip()) + 2, columns // 2)
    # Where characters are wide, half as many fit.
    most = columns if cell_len(line) == len(line) else columns // 2
    return wrap(line, most, subsequent_indent=indent, drop_whitespace=True)


def _lines(view: View, pane: Pane, now: datetime) -> Sequence[str]:
    match pane.kind:
        case "help":
            width = max(len(keys) for keys, _ in HELP)
            return [
                "Keys",
                *(f"  {keys:<{width}}  {text}" for keys, text in HELP),
                "",
                "SHARE is the part of new connections by policy `default`, SEEN that of the open ones.",
                "A full bar is the rate at which the uplink is shaped, or else the highest of all in the last minute.",
                "Behind it is the last minute of the uplink itself, up to its own peak.",
            ]
        case "uplink":
            found = next((uplink for uplink in view.status.uplinks if uplink.name == pane.name), None)
            if found is None:
                return [f"{pane.name} is no longer in the configuration"]
            return in_full(found, view.status.policies, now).splitlines()
        case "why":
            return pane.lines
