"""Count what went by each device since a change of its uplink, over devices that are replaced, and over restarts.

The kernel counts for a device from the moment at which it is made: a PPP session ends with its device, and the next one
counts from zero. What a device moved after the last look at it, 1 s at most, is lost with it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple, TypeAlias

from polywan.core.status.rates import Counters, Sample


class Bytes(NamedTuple):
    """Bytes received and sent."""

    rx: int
    tx: int

    def __sub__(self, other: Bytes) -> Bytes:
        return Bytes(self.rx - other.rx, self.tx - other.tx)


NO_BYTES: Final = Bytes(0, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Count:
    """What is known of one device.

    Attributes:
        now: its counters at the last look; None where there was no such device.
        earlier: what devices of that name had counted before this one.
        marks: what the sum was when a span began, by the name of the span; None when nobody knows.
    """

    now: Counters | None
    earlier: Bytes = NO_BYTES
    marks: Mapping[str, Bytes | None] = field(default_factory=dict)

    @property
    def total(self) -> Bytes:
        """What all devices of that name have counted, as far as they were looked at."""
        seen = self.now or Counters(0, 0, 0)
        return Bytes(self.earlier.rx + seen.rx, self.earlier.tx + seen.tx)

    def since(self, span: str) -> Bytes | None:
        """Return what went by since a span began; None when that is not known."""
        mark = self.marks.get(span)
        return None if mark is None else self.total - mark

    def marked(self, spans: Iterable[str]) -> Count:
        """Begin these spans now."""
        return Count(now=self.now, earlier=self.earlier, marks={**self.marks, **dict.fromkeys(spans, self.total)})


Tally: TypeAlias = Mapping[str, Count]
"""By device."""


def taken(tally: Tally, sample: Sample, devices: Iterable[str]) -> dict[str, Count]:
    """Return the counts of devices after one more look; other devices are forgotten."""
    return {device: _counted(tally.get(device), sample.counters.get(device)) for device in devices}


def _counted(known: Count | None, seen: Counters | None) -> Count:
    if known is None:
        return Count(now=seen)
    if seen is None:
        return known
    if known.now is None or _goes_on(known.now, seen):
        return Count(now=seen, earlier=known.earlier, marks=known.marks)
    # A new device has counted from zero since the last look.
    return Count(now=seen, earlier=known.total, marks=known.marks)


def resumed(stored: Tally, sample: Sample) -> dict[str, Count]:
    """Return the counts that a daemon before has stored, at the first look of this one.

    What happened to a device meanwhile nobody knows, unless it is still the same and has gone on counting.
    """
    return {
        device: Count(now=seen, earlier=known.earlier, marks=known.marks)
        for device, known in stored.items()
        if (seen := sample.counters.get(device)) is not None and known.now is not None and _goes_on(known.now, seen)
    }


def _goes_on(known: Counters, seen: Counters) -> bool:
    return known.ifindex == seen.ifindex and known.rx <= seen.rx and known.tx <= seen.tx
