"""What is known and what is to be seen of it, as one value; and how what is heard changes it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final, Literal, TypeAlias, get_args

from polywan.api.events import Events, LinkEvent
from polywan.api.status import Status, UplinkStatus
from polywan.api.views.flow_rows import FlowRow
from polywan.api.views.stream import Change, StreamSample
from polywan.core.status.flow_list import SORT_KEYS, SortKey
from polywan.core.views.changes import changed, sampled
from polywan.top.display import Display

MINUTE: Final = 60
"""Samples that are kept: one comes every second."""

MOST_EVENTS_KEPT: Final = 200
"""Entries of the journal that are kept."""

UplinkSort: TypeAlias = Literal["file", "worst first", "traffic", "name"]
UPLINK_SORTS: Final[tuple[UplinkSort, ...]] = get_args(UplinkSort)
List: TypeAlias = Literal["uplinks", "connections", "events"]
"""The lists of the screen; the arrow keys move through one of them."""

_BADNESS: Final = {state: place for place, state in enumerate(("down", "missing", "degraded", "draining", "drained"))}


@dataclass(frozen=True, slots=True, kw_only=True)
class Lost:
    """The daemon does not answer: why, for people."""

    problem: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowsRead:
    """Connections as they were read last.

    Attributes:
        total: how many there are that pass the filter.
        problem: why they could not be read, for people; empty when they could.
    """

    rows: tuple[FlowRow, ...] = ()
    total: int = 0
    problem: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pane:
    """A text that covers the lists.

    Attributes:
        kind: "help", all about the "uplink" of that name, or the answer of "why".
        top: lines that were scrolled away.
    """

    kind: Literal["help", "uplink", "why"]
    name: str = ""
    lines: tuple[str, ...] = ()
    top: int = 0


News: TypeAlias = Status | Change | StreamSample | LinkEvent | Events | FlowsRead | Pane | Lost
"""What may be heard."""


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """What is known, and what is to be seen of it.

    Attributes:
        status: of the daemon, with what was measured last.
        samples: of the last minute, oldest first.
        entries: of the journal, oldest first.
        flows: connections; None until they were read.
        problem: why the daemon does not answer; empty while it does. `heard`: when it said something last.
        below: the list below the uplinks, if one is.
        focus: the list that keys move in.
        uplink: name of the selected uplink; None for the first one.
        flow, entry: number of the selected line of the other lists.
        typing: the filter while it is typed.
        refused: what is wrong with what was typed, for people.
    """

    display: Display
    status: Status
    heard: datetime
    samples: tuple[StreamSample, ...] = ()
    entries: tuple[LinkEvent, ...] = ()
    flows: FlowsRead | None = None
    problem: str = ""
    below: Literal["connections", "events"] | None = "connections"
    focus: List = "uplinks"
    uplink: str | None = None
    flow: int = 0
    entry: int = 0
    uplink_sort: UplinkSort = "file"
    flow_sort: SortKey = "bytes"
    filter: str = ""
    typing: str | None = None
    refused: str = ""
    pane: Pane | None = None

    @property
    def uplinks(self) -> Sequence[UplinkStatus]:
        """The uplinks in the order in which they are shown."""
        uplinks = self.status.uplinks
        match self.uplink_sort:
            case "worst first":
                return sorted(uplinks, key=lambda u: _BADNESS.get(u.state, len(_BADNESS)))
            case "traffic":
                return sorted(uplinks, key=lambda u: -(u.rx_bps + u.tx_bps if u.counted else 0))
            case "name":
                return sorted(uplinks, key=lambda u: u.name)
            case "file":
                return uplinks

    @property
    def place(self) -> int:
        """Where the selected uplink is among them."""
        return next((at for at, uplink in enumerate(self.uplinks) if uplink.name == self.uplink), 0)

    def rates(self, name: str) -> tuple[list[int | None], list[int | None]]:
        """Return what an uplink received and sent in each second of the last minute, bits per second."""
        found = [None] * (MINUTE - len(self.samples)) + [sample.uplinks.get(name) for sample in self.samples]
        return [one.rx_bps if one else None for one in found], [one.tx_bps if one else None for one in found]

    def seen(self, name: str) -> float | None:
        """Return the uplink's part of all connections that there are, 0..1; None when nobody knows."""
        sample = self.samples[-1].uplinks.get(name) if self.samples else None
        return sample.share_seen if sample else None


def hear(view: View, news: News, now: datetime) -> View:
    """Return the view after something was heard."""
    match news:
        case Status():
            view = replace(view, status=news)
        case Change():
            view = replace(view, status=changed(view.status, news))
        case StreamSample():
            samples = (*view.samples, news)[-MINUTE:]
            view = replace(view, status=sampled(view.status, news), samples=samples)
        case LinkEvent():
            view = _with_entries(view, (*view.entries, news))
        case Events():
            view = _with_entries(view, (*news.events, *view.entries))
        case FlowsRead():
            flow = min(view.flow, max(0, len(news.rows) - 1))
            return replace(view, flows=_after(view.flows, news), flow=_same(view, news, flow))
        case Pane():
            return replace(view, pane=news)
        case Lost():
            return view if view.problem else replace(view, problem=news.problem)
    return replace(view, heard=now, problem="")


def _with_entries(view: View, entries: Sequence[LinkEvent]) -> View:
    """Return the view with these entries: of what was heard twice once, and of too many the last ones."""
    known = {(entry.time, entry.id): entry for entry in entries}
    return replace(view, entries=tuple(known[key] for key in sorted(known))[-MOST_EVENTS_KEPT:])


def _after(before: FlowsRead | None, news: FlowsRead) -> FlowsRead:
    """Return what is shown: where they could not be read, those that are known."""
    return replace(before, problem=news.problem) if news.problem and before else news


def _same(view: View, news: FlowsRead, otherwise: int) -> int:
    """Return where the selected connection is now."""
    if news.problem or view.focus != "connections" or view.flows is None or view.flow >= len(view.flows.rows):
        return otherwise
    ends = _ends(view.flows.rows[view.flow])
    return next((at for at, row in enumerate(news.rows) if _ends(row) == ends), otherwise)


def _ends(row: FlowRow) -> tuple[object, ...]:
    return row.protocol, row.client, row.client_port, row.destination, row.port


def next_sort(view: View) -> View:
    """Return the view with the list in focus, or the uplinks, in the next order."""
    if view.focus == "connections":
        return replace(view, flow_sort=SORT_KEYS[(SORT_KEYS.index(view.flow_sort) + 1) % len(SORT_KEYS)], flow=0)
    order = UPLINK_SORTS[(UPLINK_SORTS.index(view.uplink_sort) + 1) % len(UPLINK_SORTS)]
    return replace(view, uplink_sort=order)
