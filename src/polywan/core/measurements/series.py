"""Draw measured intervals as series, and sum them up as the beats of an uplink's life."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from polywan.api.views import measurements as views
from polywan.api.views.measurements import Beat, Series
from polywan.core.measurements.points import LOSS_UNIT, RTT_UNIT, Point, merged
from polywan.core.status.times import iso


class Measured(NamedTuple):
    """A point of an uplink; `start`: begin of the interval, Unix seconds."""

    start: int
    uplink: str
    point: Point


COLUMNS: Final = (
    "time",
    "rx_bps",
    "tx_bps",
    "rx_bps_max",
    "tx_bps_max",
    "rtt_ms",
    "rtt_max_ms",
    "jitter_ms",
    "loss",
    "connections",
    "served",
)


def series(found: Iterable[Measured], names: Iterable[str], since: float, until: float, step: int) -> list[Series]:
    """Return series of the intervals of `step` seconds that touch a span (Unix seconds); null is not known."""
    starts = range(int(since) // step * step, int(until) + 1, step)
    parts: dict[tuple[str, int], list[Point]] = {}
    for one in found:
        parts.setdefault((one.uplink, one.start // step * step), []).append(one.point)
    return [
        Series(
            uplink=name,
            columns=COLUMNS,
            points=tuple((float(start), *_values(parts.get((name, start), ()))) for start in starts),
        )
        for name in names
    ]


def _values(points: Iterable[Point]) -> views.Point:
    together = merged(points)
    known = together.known
    return (
        _mean(8 * together.rx, known),
        _mean(8 * together.tx, known),
        float(8 * together.rx_max) if known else None,
        float(8 * together.tx_max) if known else None,
        _mean(together.rtt * RTT_UNIT, together.rtts, 3),
        round(together.rtt_max * RTT_UNIT, 3) if together.rtts else None,
        _mean(together.jitter * RTT_UNIT, together.jitters, 3),
        _mean(together.loss * LOSS_UNIT, together.losses, 6),
        _mean(together.connections, together.counts, 1),
        # Out of use by order is no outage.
        _mean(together.up + together.degraded, together.lasted - together.off, 4),
    )


def _mean(total: float, count: int, digits: int = 0) -> float | None:
    return round(total / count, digits) if count else None


def beats(
    found: Iterable[Measured],
    names: Iterable[str],
    spans: Sequence[tuple[int, int]],
    reasons: Mapping[tuple[str, int], Sequence[str]],
) -> dict[str, tuple[Beat, ...]]:
    """Return the beats of uplinks.

    Args:
        found: what was measured, in intervals that lie in one span each.
        names: the uplinks.
        spans: begin and end of each beat, Unix seconds, one behind the other.
        reasons: of outages, by uplink and begin of the beat.
    """
    starts = [start for start, _ in spans]
    parts: dict[tuple[str, int], list[Point]] = {}
    for one in sorted(found):
        parts.setdefault((one.uplink, _last_before(starts, one.start)), []).append(one.point)
    return {
        name: tuple(_beat(parts.get((name, a), ()), a, b, reasons.get((name, a), ())) for a, b in spans)
        for name in names
    }


def _last_before(starts: Sequence[int], moment: int) -> int:
    return starts[max(0, bisect_right(starts, moment) - 1)]


def _beat(points: Iterable[Point], start: int, end: int, reasons: Sequence[str]) -> Beat:
    together = merged(points)
    return Beat(
        start=iso(start),
        seconds=end - start,
        up=float(together.up),
        degraded=float(together.degraded),
        down=float(together.down),
        off=float(together.off),
        reasons=tuple(reasons),
    )
