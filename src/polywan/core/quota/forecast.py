"""How a quota will be used as it goes on: a mean of the last two weeks, in which recent days weigh more."""

from __future__ import annotations

from math import inf
from typing import Final, NamedTuple

from polywan.core.quota.usage import QUOTA_DAY, QUOTA_DAYS, Usage

LEAST_KNOWN: Final = QUOTA_DAY
"""Seconds of counting before anything is said: a day has its busy and its quiet hours."""

RATE_HALF_LIFE: Final = 4.0
"""Days after which a day weighs half as much: a new habit shows within a week, and one large download does not stay."""

FARTHEST: Final = 3650 * QUOTA_DAY
"""Seconds ahead beyond which no end is named."""


class Forecast(NamedTuple):
    """What is to be expected.

    Attributes:
        used: bytes used when the period ends; None where that is not known, and for a bucket.
        runs_out: when all is used, Unix seconds; None if not before the period ends, or not known.
    """

    used: int | None
    runs_out: float | None


NOT_KNOWN: Final = Forecast(None, None)


def rate(usage: Usage, unix: float) -> float | None:
    """Return bytes per second as they go on, probably; None while less than a day was counted.

    Args:
        usage: what is known.
        unix: now, Unix seconds.
    """
    known = dict(usage.days)
    start = max(usage.first, min(known, default=inf) * QUOTA_DAY)
    if unix - start < LEAST_KNOWN:
        return None
    weighed = lasted = 0.0
    # Days without any bytes count as well: the line was there, or was off as it will be again.
    for day in range(max(int(start // QUOTA_DAY), int(unix // QUOTA_DAY) - QUOTA_DAYS), int(unix // QUOTA_DAY) + 1):
        begins, ends = max(day * QUOTA_DAY, start), min((day + 1) * QUOTA_DAY, unix)
        weight = 0.5 ** ((unix - ends) / QUOTA_DAY / RATE_HALF_LIFE)
        weighed += weight * known.get(day, 0)
        lasted += weight * max(0.0, ends - begins)
    return weighed / lasted if lasted > 0 else None


def forecast(usage: Usage, hard: int, unix: float) -> Forecast:
    """Return what is to be expected of a quota of `hard` bytes at a moment, Unix seconds."""
    speed = rate(usage, unix)
    if speed is None or unix < usage.begins:
        return NOT_KNOWN
    used = None if usage.ends == inf else usage.used + round(speed * max(0.0, usage.ends - unix))
    if usage.used >= hard or speed <= 0:
        return Forecast(used, None)
    at = unix + (hard - usage.used) / speed
    return Forecast(used, at if at < min(usage.ends, unix + FARTHEST) else None)
