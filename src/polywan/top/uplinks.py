"""The list of uplinks: two lines each where there is room, otherwise one."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from polywan.api.status import UplinkStatus
from polywan.cli.overview import COLOURS, word
from polywan.cli.shares import percents
from polywan.cli.units import age, milliseconds
from polywan.top.display import evenly
from polywan.top.lines import Column, Line, Span, cursor, fitted, table
from polywan.top.view import MINUTE, View

MARKER: Final = ("  ", "> ")
"""Before each line, and before the selected one: also where nothing can be shown in reverse."""

_RATE: Final = 9
"""Cells of most rates."""

_LABEL: Final = 19
"""Cells of a direction and its rate before the bar, with those around the bar."""

_LONGEST_BAR: Final = 10
_SHORTEST_SPARK: Final = 8
_QUOTA_STYLES: Final = {"soft": "yellow", "hard": "red"}


def height(view: View, room: int) -> int:
    """Return the lines of the whole list, heading included, as it is drawn where there are `room` lines."""
    return 1 + len(view.uplinks) * (2 if _in_cards(view, room) else 1)


def _in_cards(view: View, room: int) -> bool:
    return 1 + 2 * len(view.uplinks) <= room


def listed(view: View, room: int, cells: int, now: datetime, *, whole: int) -> list[Line]:
    """Return the list.

    Args:
        view: what is to be seen.
        room: lines for it.
        cells: of a line.
        now: for how long states have lasted.
        whole: lines up to which each uplink may take two.
    """
    uplinks = view.uplinks
    if not uplinks:
        return [(Span("  no uplinks yet"),)]
    cards = _in_cards(view, whole)
    rows = (room - 1) // (2 if cards else 1)
    first = scrolled(view.place, len(uplinks), rows)
    title = f"{first + 1}-{first + rows} of {len(uplinks)}" if rows < len(uplinks) else "UPLINK"
    heading, *lines = table(_columns(view, title, cells, now, rates=not cards), cells - 2, view.display.cut)
    highest = (_highest(view, 0), _highest(view, 1)) if cards else (0, 0)
    shown: list[Line] = [(Span(MARKER[0]), *heading)]
    for at in range(first, min(first + rows, len(uplinks))):
        selected = at == view.place and view.focus == "uplinks"
        line = (Span(MARKER[selected]), *lines[at])
        shown.append(cursor(line) if selected else line)
        if cards:
            shown.append(_traffic(view, uplinks[at], cells, highest))
    return shown


def scrolled(place: int, count: int, rows: int) -> int:
    """Return the first of `rows` lines that show the one at `place`, in the middle where that is possible."""
    return max(0, min(place - rows // 2, count - rows))


def _columns(view: View, title: str, cells: int, now: datetime, *, rates: bool) -> Sequence[Column]:
    display, uplinks = view.display, view.uplinks
    seen = [view.seen(uplink.name) for uplink in uplinks]
    quotas = [_quota(uplink) for uplink in uplinks]
    columns = [
        Column(title, [Span(display.text(u.name)) for u in uplinks]),
        Column("STATE", [Span(display.text(word(u)), COLOURS.get(word(u), "")) for u in uplinks], least=8),
        Column("FOR", [Span(age(u.since, now)) for u in uplinks], number=True, least=6, expendable=7),
        Column("SHARE", [Span(text) for text in percents([u.share for u in uplinks])], number=True, least=6),
        Column("SEEN", [Span(_percent(part)) for part in seen], number=True, least=5, expendable=5),
        Column("RTT", [Span(milliseconds(u.rtt_ms)) for u in uplinks], number=True, least=7, expendable=3),
        Column("LOSS", [_loss(u.loss) for u in uplinks], number=True, least=5, expendable=6),
        Column("CONNS", [Span(str(u.connections)) for u in uplinks], number=True, least=5, expendable=2),
    ]
    if any(quota.text for quota in quotas):
        columns.append(Column("QUOTA", quotas, number=True, least=5, expendable=4))
    return [*columns, *_rates(view, cells, columns)] if rates else columns


def _rates(view: View, cells: int, columns: Sequence[Column]) -> list[Column]:
    """Return columns for rates in both directions, with the last minute where there is room."""
    uplinks = view.uplinks
    used = 2 + sum(column.width + 2 for column in columns) + 2 * (_RATE + 2)
    room = min(MINUTE, (cells - used) // 2)
    found = []
    for place, heading in enumerate(("DOWN", "UP")):
        texts = []
        for uplink in uplinks:
            line = view.display.spark(view.rates(uplink.name)[place], room) + " " if room >= _SHORTEST_SPARK else ""
            texts.append(Span(line + view.display.rate(_rate(uplink, place)).rjust(_RATE)))
        found.append(Column(heading, texts, number=True, least=_RATE, expendable=place))
    return found


def _rate(uplink: UplinkStatus, place: int) -> int | None:
    return (uplink.rx_bps, uplink.tx_bps)[place] if uplink.counted else None


def _traffic(view: View, uplink: UplinkStatus, cells: int, highest: tuple[int, int]) -> Line:
    """Return the second line of an uplink: rate, bar and last minute of each direction."""
    if not uplink.counted:
        text = f"    traffic is not known: other uplinks have {uplink.interface}, too"
        return (Span(fitted(view.display.text(text), cells, cut=view.display.cut), "bright_black"),)
    half = (cells - 4) // 2
    room = max(0, half - _LABEL)
    spark = evenly(MINUTE, room - min(_LONGEST_BAR, room // 3))
    bar = max(0, min(_LONGEST_BAR, room - spark))
    spans = [Span(MARKER[0])]
    for place, direction in enumerate(("down", "up")):
        rate = _rate(uplink, place) or 0
        most = _full(uplink, direction) or highest[place]
        spans += [
            Span(f"  {direction:<4} ", "bright_black"),
            Span(f"{view.display.rate(rate):>{_RATE + 1}} "),
            Span(view.display.bar(min(1.0, rate / most) if most else 0.0, bar), COLOURS.get(word(uplink), "")),
            Span(" " + view.display.spark(view.rates(uplink.name)[place], spark) if spark else ""),
        ]
    return tuple(spans)


def _full(uplink: UplinkStatus, direction: str) -> int | None:
    """Return the rate at which an uplink is shaped, bits per second; None when it is not."""
    return next((queue.rate_bps for queue in uplink.shaping if queue.direction == direction and queue.active), None)


def _highest(view: View, place: int) -> int:
    """Return the most that any uplink had in the last minute, bits per second."""
    seen = [rate for uplink in view.uplinks for rate in view.rates(uplink.name)[place] if rate is not None]
    return max([0, *seen, *(_rate(uplink, place) or 0 for uplink in view.uplinks)])


def _percent(part: float | None) -> str:
    return "-" if part is None else f"{100 * part:.0f} %"


def _loss(part: float | None) -> Span:
    return Span(_percent(part), "yellow" if part and part >= 0.01 else "")


def _quota(uplink: UplinkStatus) -> Span:
    quota = uplink.quota
    if quota is None:
        return Span("")
    used = 100 * quota.used_bytes / quota.hard_bytes if quota.hard_bytes else 100.0
    passed = f" {quota.state}" if quota.state in _QUOTA_STYLES else ""
    return Span(f"{used:.0f} %{passed}", _QUOTA_STYLES.get(quota.state, ""))
