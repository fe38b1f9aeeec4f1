"""What was measured of an uplink in an interval, so that intervals add up to longer ones without a rounding.

All values are whole numbers: sums, numbers of samples, and largest values. The order in which intervals are added
makes no difference, and seconds that nobody measured are in none of them.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Collection, Iterable, Mapping
from typing import Final, NamedTuple

from polywan.core.policy.uplink_state import OUT, UplinkState

RTT_UNIT: Final = 0.01
"""Milliseconds in which round trips and jitter are kept."""

LOSS_UNIT: Final = 1e-6


class Point(NamedTuple):
    """What was measured of an uplink in an interval.

    Attributes:
        rx, tx: bytes; `known`: in how many of the seconds they were counted.
        rx_max, tx_max: the most bytes of one second.
        rtt, rtts: sum and number of the round trips that were shown, second by second; `rtt_max`: the longest.
        jitter, jitters, loss, losses, connections, counts: likewise.
        up, degraded, down, off: seconds in each state; `off`: out of use by order.
    """

    rx: int = 0
    tx: int = 0
    rx_max: int = 0
    tx_max: int = 0
    rtt: int = 0
    rtt_max: int = 0
    jitter: int = 0
    loss: int = 0
    connections: int = 0
    rtts: int = 0
    jitters: int = 0
    losses: int = 0
    counts: int = 0
    known: int = 0
    up: int = 0
    degraded: int = 0
    down: int = 0
    off: int = 0

    @property
    def lasted(self) -> int:
        """Seconds of which the state is known."""
        return self.up + self.degraded + self.down + self.off


_KINDS: Final = "QQQQIIIIQHHHHHHHHH"
"""Of the values of a point, as struct(3) has them."""

_LARGEST: Final = tuple((1 << 8 * struct.calcsize(kind)) - 1 for kind in _KINDS)

_GREATEST: Final = frozenset({"rx_max", "tx_max", "rtt_max"})
_MAXIMA: Final = tuple(name in _GREATEST for name in Point._fields)

_MOST_PACKED: Final = 1 << 20
"""Bytes that a packed interval may have: 10 000 uplinks."""


def merged(points: Iterable[Point]) -> Point:
    """Return what the intervals are together; without any, nothing is known."""
    columns = zip(*points, strict=True)
    found = [max(column) if greatest else sum(column) for column, greatest in zip(columns, _MAXIMA, strict=False)]
    return Point(*found)


class Reading(NamedTuple):
    """How an uplink is at a moment; None where nobody knows.

    Attributes:
        state: its state.
        rtt, jitter: milliseconds; `loss`: 0..1.
        connections: tracked now.
    """

    state: UplinkState
    rtt: float | None
    jitter: float | None
    loss: float | None
    connections: int | None


def point_of(reading: Reading, rx: int, tx: int, *, known: bool) -> Point:
    """Return the point of one second, as it was at its end; `known`: the bytes of it were counted."""
    rtt, jitter = _ticks(reading.rtt, RTT_UNIT), _ticks(reading.jitter, RTT_UNIT)
    loss = _ticks(reading.loss, LOSS_UNIT)
    return Point(
        rx=rx,
        tx=tx,
        rx_max=rx,
        tx_max=tx,
        rtt=rtt or 0,
        rtt_max=rtt or 0,
        jitter=jitter or 0,
        loss=loss or 0,
        connections=reading.connections or 0,
        rtts=rtt is not None,
        jitters=jitter is not None,
        losses=loss is not None,
        counts=reading.connections is not None,
        known=known,
        up=reading.state is UplinkState.UP,
        degraded=reading.state is UplinkState.DEGRADED,
        down=reading.state in OUT,
        off=reading.state in (UplinkState.DISABLED, UplinkState.DRAINING, UplinkState.DRAINED),
    )


def _ticks(value: float | None, unit: float) -> int | None:
    return None if value is None else max(0, min(round(value / unit), 1_000_000))


def packed(points: Mapping[int, Point]) -> bytes:
    """Return the points of uplinks, by number, of one interval as bytes."""
    if not points:
        return b""
    rows = zip(*points.values(), strict=True)
    columns = [
        struct.pack(f"<{len(points)}{kind}", *(min(value, most) for value in column))
        for kind, most, column in zip(_KINDS, _LARGEST, rows, strict=True)
    ]
    return zlib.compress(struct.pack(f"<I{len(points)}I", len(points), *points) + b"".join(columns))


def unpacked(data: object, wanted: Collection[int] | None = None) -> dict[int, Point]:
    """Return the points of one interval, or those of the uplinks that are `wanted`; nothing of what makes no sense."""
    try:
        opened = zlib.decompressobj()
        raw = opened.decompress(data if isinstance(data, bytes) else b"", _MOST_PACKED)
        (count,) = struct.unpack_from("<I", raw)
        numbers, *columns = _columns(raw, count)
    except (zlib.error, struct.error):
        return {}
    if wanted is None:
        return {number: Point(*row) for number, *row in zip(numbers, *columns, strict=True)}
    places = [(place, number) for place, number in enumerate(numbers) if number in wanted]
    return {number: Point(*(column[place] for column in columns)) for place, number in places}


def _columns(raw: bytes, count: int) -> list[tuple[int, ...]]:
    found, at = [], 4
    for kind in ("I", *_KINDS):
        one = struct.Struct(f"<{count}{kind}")
        found.append(one.unpack_from(raw, at))
        at += one.size
    return found
