"""A report as text for a terminal, and as a table for a spreadsheet."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from polywan.api.views.measurements import ClientVolume, Incident
from polywan.cli.units import milliseconds, size
from polywan.core.measurements.report import Day, UplinkReport, WorstHour
from polywan.core.words import counted, lasted

MOST_OUTAGES: Final = 12
LEAST_OUTAGES: Final = 3
"""Outages that are listed of one uplink; of several, all together as many, so that all is on one page."""

MOST_IN_REPORT: Final = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Month:
    """A report.

    Attributes:
        name: as "2026-11"; `host`: of this box.
        now: when it was made, Unix seconds.
        uplinks: what became of each.
        clients: what each moved, those with most first; empty in a report of one uplink.
        problems: why something is missing, for people.
    """

    name: str
    host: str
    now: float
    uplinks: tuple[UplinkReport, ...]
    clients: tuple[ClientVolume, ...]
    problems: tuple[str, ...]

    @property
    def most(self) -> int:
        """How many outages are listed of each uplink."""
        return max(LEAST_OUTAGES, MOST_OUTAGES // max(1, len(self.uplinks)))

    @property
    def made(self) -> str:
        """When it was made, local time with its offset from UTC."""
        return datetime.fromtimestamp(self.now).astimezone().strftime("%Y-%m-%d %H:%M %z")


def percent(part: float | None) -> str:
    """Return a part of 1 with three decimals, never rounded up to 100: ``99.999 %``."""
    return "unknown" if part is None else f"{int(round(part * 100_000, 6)) / 1000:.3f} %"


def loss_of(part: float) -> str:
    """Return loss, or the part of the known time that was an outage, as people read it."""
    return f"{100 * part:.1f} %"


def hour_of(worst: WorstHour) -> str:
    """Return the hour as people read it, local time."""
    return datetime.fromtimestamp(worst.start).astimezone().strftime("%d %b %H:%M")


def moment(iso: str) -> str:
    """Return a moment of a document as people read it, local time."""
    return datetime.fromisoformat(iso).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def cut(outages: tuple[Incident, ...], most: int) -> tuple[tuple[Incident, ...], str]:
    """Return the longest outages, newest first, and what the others come to; empty without any."""
    shown = sorted(outages, key=lambda one: -one.seconds)[:most]
    rest = [one for one in outages if one not in shown]
    text = f"and {counted(len(rest), 'shorter outage')}, {lasted(sum(r.seconds for r in rest))} in all" if rest else ""
    return tuple(one for one in outages if one in shown), text


def text(month: Month) -> str:
    """Return a report for a terminal."""
    return "\n".join(_lines(month)) + "\n"


def _lines(month: Month) -> Iterator[str]:
    yield f"{month.host}, {month.name}, made {month.made}"
    for problem in month.problems:
        yield f"not complete: {problem}"
    for one in month.uplinks:
        yield ""
        yield from _uplink(one, month.most)
    if month.clients:
        yield ""
        yield "clients with most bytes"
        width = max(len(client.client) for client in month.clients[:MOST_IN_REPORT])
        for client in month.clients[:MOST_IN_REPORT]:
            yield f"  {client.client:{width}}  {size(client.rx_bytes)} in, {size(client.tx_bytes)} out"
        if (more := len(month.clients) - MOST_IN_REPORT) > 0:
            yield f"  and {more} more"


def _uplink(one: UplinkReport, most: int) -> Iterator[str]:
    total = one.total
    yield f"{one.name}: available {percent(one.availability)}"
    yield f"  {times(total)}"
    if one.volume is not None:
        volume = one.volume
        yield f"  {size(volume.rx_bytes)} in, {size(volume.tx_bytes)} out; probes {size(volume.probe_bytes)} of these"
    shown, rest = cut(one.outages, most)
    for outage in shown:
        length = f"for {lasted(outage.seconds)}" + ("" if outage.until else ", and it lasts")
        yield f"  {moment(outage.since)}  {outage.state} {length}: {outage.reason or 'began before this month'}"
    if rest:
        yield f"  {rest}"
    for title, hours in worst(one):
        yield f"  {title}: {hours}"


def times(total: Day) -> str:
    """Return the time in each state, as people read it; states that did not occur are left out."""
    parts = [
        (total.up, "up"),
        (total.degraded, "degraded"),
        (total.down, "down"),
        (total.off, "out of use by order"),
        (total.unknown, "unknown"),
    ]
    return ", ".join(f"{lasted(seconds)} {name}" for seconds, name in parts if seconds) or "nothing is known"


def worst(one: UplinkReport) -> Iterator[tuple[str, str]]:
    """Yield a title and the worst hours, for each kind of trouble that there was."""
    kinds = (
        ("hours with most outage", one.darkest, lasted),
        ("hours with most loss", one.lossiest, loss_of),
        ("slowest hours", one.slowest, milliseconds),
    )
    for title, hours, unit in kinds:
        if hours:
            yield title, ", ".join(f"{hour_of(hour)} ({unit(hour.value)})" for hour in hours)


def table(month: Month) -> str:
    """Return a row for each day and uplink: seconds in each state, and outages that began on it."""
    written = io.StringIO()
    rows = csv.writer(written, lineterminator="\n")
    rows.writerow(["uplink", "date", "up_s", "degraded_s", "down_s", "off_s", "unknown_s", "outages"])
    for one in month.uplinks:
        for day in one.days:
            begun = sum(moment(outage.since).startswith(day.date) for outage in one.outages)
            rows.writerow([_cell(one.name), day.date, *(round(seconds) for seconds in day[1:]), begun])
    return written.getvalue()


def _cell(name: str) -> str:
    """Return a name that no spreadsheet takes for a formula."""
    return f"'{name}" if name.startswith(("=", "+", "-", "@")) else name
