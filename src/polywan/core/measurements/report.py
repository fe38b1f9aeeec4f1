"""Sum up a month of an uplink, as a provider may see it: availability, outages, volume, the worst hours."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from math import inf
from typing import Final, NamedTuple

from polywan.api.views.measurements import Beat, Incident, Series, UplinkVolume

_HOUR: Final = 3600.0

WORST: Final = 3
"""Hours that are listed for each kind of trouble."""


class WorstHour(NamedTuple):
    """An hour that stands out: its begin (Unix seconds), and what was measured; None where nobody knows."""

    start: float
    value: float


class Day(NamedTuple):
    """A day of local time: seconds in each state; `unknown`: up to now, when nobody knows."""

    date: str
    up: float
    degraded: float
    down: float
    off: float
    unknown: float


@dataclass(frozen=True, slots=True, kw_only=True)
class UplinkReport:
    """What became of an uplink in a month.

    Attributes:
        days: one behind the other, up to today.
        incidents: newest first; those of bad quality too.
        volume: what it moved; None when nothing is known.
        slowest: hours with the longest mean round trip, milliseconds; `lossiest`: with most loss, 0..1; `darkest`: with
            most outage, seconds.
    """

    name: str
    days: tuple[Day, ...]
    incidents: tuple[Incident, ...]
    volume: UplinkVolume | None
    slowest: tuple[WorstHour, ...]
    lossiest: tuple[WorstHour, ...]
    darkest: tuple[WorstHour, ...]

    @property
    def total(self) -> Day:
        """All days together."""
        up, degraded, down, off, unknown = (sum(float(day[place]) for day in self.days) for place in range(1, 6))
        return Day("", up, degraded, down, off, unknown)

    @property
    def availability(self) -> float | None:
        """Part of the known time, in which it was to be in use, that it served; None when there was none."""
        total = self.total
        wanted = total.up + total.degraded + total.down
        return (total.up + total.degraded) / wanted if wanted else None

    @property
    def outages(self) -> tuple[Incident, ...]:
        """Incidents in which it did not serve, newest first."""
        return tuple(one for one in self.incidents if one.state != "degraded")


def report(
    name: str,
    beats: Iterable[Beat],
    incidents: Iterable[Incident],
    volumes: Iterable[UplinkVolume],
    series: Sequence[Series],
    now: float,
) -> UplinkReport:
    """Return what became of an uplink; the arguments are what the daemon answers about all.

    Args:
        name: the uplink.
        beats: its days.
        incidents: of all uplinks, newest first.
        volumes: of all uplinks.
        series: of all uplinks, by hours.
        now: Unix seconds.
    """
    passed = [beat for beat in beats if _unix(beat.start) < now]
    hours = _hours(next((one for one in series if one.uplink == name), None), passed)
    return UplinkReport(
        name=name,
        days=tuple(_day(beat, now) for beat in passed),
        incidents=tuple(one for one in incidents if one.uplink == name),
        volume=next((one for one in volumes if one.uplink == name), None),
        slowest=_worst(hours, "rtt_ms"),
        lossiest=_worst(hours, "loss"),
        darkest=_darkest((one for one in incidents if one.uplink == name and one.state != "degraded"), passed),
    )


def _day(beat: Beat, now: float) -> Day:
    start = _unix(beat.start)
    passed = min(float(beat.seconds), now - start)
    known = beat.up + beat.degraded + beat.down + beat.off
    date = datetime.fromtimestamp(start).astimezone().strftime("%Y-%m-%d")
    return Day(date, beat.up, beat.degraded, beat.down, beat.off, max(0.0, passed - known))


def _hours(found: Series | None, days: Sequence[Beat]) -> Series | None:
    """Return a series without the hours before the first day."""
    if found is None or not days:
        return found
    begin = _unix(days[0].start)
    points = tuple(row for row in found.points if row and (row[0] or 0.0) >= begin)
    return Series(uplink=found.uplink, columns=found.columns, points=points)


def _worst(hours: Series | None, column: str) -> tuple[WorstHour, ...]:
    if hours is None or column not in hours.columns:
        return ()
    place = hours.columns.index(column)
    known = [(row[0], row[place]) for row in hours.points if len(row) > place]
    return _highest((start, value) for start, value in known if start is not None and value is not None)


def _darkest(outages: Iterable[Incident], days: Sequence[Beat]) -> tuple[WorstHour, ...]:
    """Return the hours with most outage in these days: of an hour that was measured in part, points know a part only.

    An outage may have begun before the first day, or go on behind the last one.
    """
    begin, over = (_unix(days[0].start), _unix(days[-1].start) + days[-1].seconds) if days else (-inf, inf)
    seconds: dict[float, float] = {}
    for outage in outages:
        since = _unix(outage.since)
        at, end = max(begin, since), min(over, since + outage.seconds)
        while at < end:
            hour = at - at % _HOUR
            until = min(end, hour + _HOUR)
            seconds[hour] = seconds.get(hour, 0.0) + until - at
            at = until
    return _highest(seconds.items())


def _highest(hours: Iterable[tuple[float, float]]) -> tuple[WorstHour, ...]:
    ranked = sorted((WorstHour(*hour) for hour in hours if hour[1] > 0), key=lambda hour: (-hour.value, hour.start))
    return tuple(ranked[:WORST])


def _unix(time: str) -> float:
    return datetime.fromisoformat(time).timestamp()
