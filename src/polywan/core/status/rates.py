"""Rates of links: bytes per second over the last few seconds, whoever asks and when. Times are monotonic seconds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, TypeAlias

CADENCE: Final = 1.0
"""Seconds between samples."""

RATE_WINDOW: Final = 5.0
"""Seconds that a rate is about; with the cadence, one is over 4.5 to 5.5 s."""

SHORTEST: Final = 0.25
"""Seconds below which two readings say nothing about a rate."""


class Counters(NamedTuple):
    """Bytes that a device has received and sent; `ifindex` tells it from another one of the same name."""

    ifindex: int
    rx: int
    tx: int


@dataclass(frozen=True, slots=True)
class Sample:
    """The counters of devices, by name, at a time."""

    at: float
    counters: Mapping[str, Counters]


Samples: TypeAlias = tuple[Sample, ...]
"""Oldest first."""


def taken(samples: Samples, new: Sample) -> Samples:
    """Return the samples that rates from now on need."""
    return (*(s for s in samples if new.at - s.at < RATE_WINDOW + CADENCE), new)


def rate(samples: Sequence[Sample], device: str, now: Counters, at: float) -> tuple[float, float]:
    """Return bytes per second received and sent, up to `at`.

    A device that is another one now, or counts from nothing again, has no rate from before that: what is not known
    yet is 0, and never the difference between two devices.
    """
    known = [(s.at, found) for s in samples if (found := s.counters.get(device)) is not None]
    # Newest first, up to the first one that does not belong to the same count.
    base: tuple[float, Counters] | None = None
    for when, then in reversed(known):
        if then.ifindex != now.ifindex or then.rx > now.rx or then.tx > now.tx:
            break
        base = when, then
        if at - when >= RATE_WINDOW - CADENCE / 2:
            break
    if base is None or at - base[0] < SHORTEST:
        return 0.0, 0.0
    span = at - base[0]
    return (now.rx - base[1].rx) / span, (now.tx - base[1].tx) / span
