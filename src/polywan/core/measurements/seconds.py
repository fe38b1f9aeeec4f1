"""Give each second of the clock on the wall its measurements, whatever the clock and the samples do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from polywan.core.measurements.points import Point, Reading, point_of
from polywan.core.status.tally import NO_BYTES, Bytes

LONGEST_STRIDE: Final = 5
"""Seconds between two samples up to which all is taken to have been even. Beyond, the machine was suspended, the clock
was set, or the daemon was held up: what happened meanwhile is not known."""


@dataclass(frozen=True, slots=True)
class Seconds:
    """Where the samples are.

    Attributes:
        last: the last second that has a point, Unix seconds; None before the first.
        carried: bytes of uplinks that no second has yet.
    """

    last: int | None = None
    carried: Mapping[str, Bytes] = field(default_factory=dict)


def taken(
    seconds: Seconds, unix: float, readings: Mapping[str, Reading], moved: Mapping[str, Bytes]
) -> tuple[Seconds, dict[int, dict[str, Point]]]:
    """Take in a sample.

    Args:
        seconds: where the samples were.
        unix: when it was taken.
        readings: how each uplink is.
        moved: bytes since the sample before, of those uplinks of which they are known.

    Returns:
        Where the samples are now, and the points of the seconds that are over, by uplink.
    """
    now = int(unix)
    stride = 0 if seconds.last is None else now - seconds.last
    if stride == 0 and seconds.last is not None:
        return Seconds(now, {name: _sum(seconds.carried.get(name, NO_BYTES), one) for name, one in moved.items()}), {}
    if not 0 < stride <= LONGEST_STRIDE:
        return Seconds(now), {now: {name: point_of(one, 0, 0, known=False) for name, one in readings.items()}}
    whole = {name: _sum(seconds.carried.get(name, NO_BYTES), one) for name, one in moved.items()}
    found = {}
    for place in range(stride):
        parts = {name: Bytes(_part(b.rx, place, stride), _part(b.tx, place, stride)) for name, b in whole.items()}
        found[now - stride + 1 + place] = {
            name: point_of(one, *parts.get(name, NO_BYTES), known=name in parts) for name, one in readings.items()
        }
    return Seconds(now), found


def _sum(one: Bytes, other: Bytes) -> Bytes:
    return Bytes(one.rx + other.rx, one.tx + other.tx)


def _part(whole: int, place: int, parts: int) -> int:
    """Return one of so many equal parts; together they are the whole."""
    return whole * (place + 1) // parts - whole * place // parts
