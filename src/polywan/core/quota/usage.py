"""What is known of the use of a quota, as a value: bytes counted, what the provider says, what was bought.

Within a period bytes are only added. So the level of an uplink only rises, and cannot flap: it falls when a period
begins, or by what people enter.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import tzinfo
from enum import StrEnum
from math import inf
from typing import Final

from polywan.config.model.quota import Quota
from polywan.core.quota.counting import Moved, Seen, moved
from polywan.core.quota.period import Period, period_at

QUOTA_DAY: Final = 86400.0
"""Seconds of a day of `Usage.days`, which begin at midnight UTC."""

QUOTA_DAYS: Final = 14
"""Days whose bytes are kept: a forecast looks at two weeks, so that each day of the week is in it twice."""

FIRST_OF_MONTH: Final = 1
"""Billing day of a quota that names none."""


class QuotaKind(StrEnum):
    """How a quota begins anew: each month, or when more is bought."""

    MONTHLY = "monthly"
    PREPAID = "prepaid"


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """The use of one uplink's quota; times are Unix seconds.

    Attributes:
        kind: monthly or prepaid; a quota of the other kind begins anew.
        begins: of the period, or when the bucket was filled; `ends`: of the period, endless for a bucket.
        next_day: local date of `ends`, ISO 8601; empty for a bucket.
        counted: bytes counted since `begins`, or since the provider's reading.
        reading, reading_at: what the provider said was used, and when that was entered; None without.
        bought: bytes that were added to a monthly quota in this period, or what the bucket held when it was filled;
            None for what the file says.
        first: since when anything is counted.
        days: bytes of the last days, as (days since 1970, bytes), oldest first.
        seen: the last look at the counters; None before the first.
    """

    kind: QuotaKind
    begins: float
    ends: float = inf
    next_day: str = ""
    counted: int = 0
    reading: int | None = None
    reading_at: float | None = None
    bought: int | None = None
    first: float
    days: tuple[tuple[int, int], ...] = ()
    seen: Seen | None = None

    @property
    def used(self) -> int:
        """Bytes used since `begins`."""
        return (self.reading or 0) + self.counted


def kind_of(quota: Quota) -> QuotaKind:
    """Return the kind of a quota."""
    return QuotaKind.PREPAID if quota.monthly is None else QuotaKind.MONTHLY


def begun(quota: Quota, unix: float, zone: tzinfo) -> Usage:
    """Return the use of a quota of which nothing is known yet."""
    usage = Usage(kind=kind_of(quota), begins=unix, first=unix)
    return _in_period(usage, _period(quota, unix, zone))


def counted(usage: Usage | None, quota: Quota, seen: Seen | None, unix: float, zone: tzinfo) -> Usage:
    """Return the use after a look at the counters.

    Args:
        usage: what was known; None at first.
        quota: what the file says.
        seen: the counters; None where there is no such device now.
        unix: Unix seconds.
        zone: local time.
    """
    before, usage = usage, followed(usage, quota, unix, zone)
    if seen is None:
        return usage
    went = round(_counting(quota, moved(usage.seen, seen)) * _part_of_period(before, usage, unix))
    return replace(usage, seen=seen, counted=usage.counted + went, days=_with(usage.days, unix, went))


def _part_of_period(before: Usage | None, usage: Usage, unix: float) -> float:
    """Return which part of the bytes since the look before is of this period, when that was on a day before it.

    A quota may come back to the file after months, or a daemon after days: nobody knows when the bytes went by, and
    all of them would use up a period that has just begun.
    """
    looked = (before.days[-1][0] + 1) * QUOTA_DAY if before and before.days else inf
    if looked >= min(usage.begins, unix):
        return 1.0
    return (unix - usage.begins) / (unix - looked) if unix > usage.begins else 0.0


def followed(usage: Usage | None, quota: Quota, unix: float, zone: tzinfo) -> Usage:
    """Return the use as it is at a moment: a new one for a quota of another kind, a new period once the old one ended.

    A clock that is set back begins no period: one that is unset after a boot would end the right one when it is set.
    """
    if usage is None or usage.kind is not kind_of(quota):
        return replace(begun(quota, unix, zone), seen=usage.seen if usage else None)
    period = _period(quota, unix, zone)
    if period is None or unix < usage.begins:
        return usage
    if unix >= usage.ends:
        anew = replace(usage, counted=0, reading=None, reading_at=None, bought=None)
        return _in_period(anew, period)
    # Another billing day, or another time zone: what was used stays used.
    return usage if period.ends == usage.ends else _in_period(usage, period)


def read(usage: Usage, quota: Quota, reading: int, unix: float, zone: tzinfo) -> Usage:
    """Return the use after the provider's own count was entered, which is right from then on.

    It is of the period of this moment, also where the clock was wrong when the one before began.
    """
    period = _period(quota, unix, zone)
    known = usage if period is None or usage.begins <= unix < usage.ends else _in_period(usage, period)
    return replace(known, reading=reading, reading_at=unix, counted=0)


def refilled(usage: Usage, quota: Quota, added: int, unix: float) -> Usage:
    """Return the use after more was bought: for this period, or a bucket with what is left and what was bought."""
    if usage.kind is QuotaKind.MONTHLY:
        return replace(usage, bought=(usage.bought or 0) + added)
    left_over = max(0, available(usage, quota) - usage.used)
    return replace(usage, begins=unix, counted=0, reading=None, reading_at=None, bought=left_over + added)


def available(usage: Usage, quota: Quota) -> int:
    """Return how many bytes there are in this period or bucket, used ones included."""
    if usage.kind is QuotaKind.MONTHLY:
        return (quota.monthly or 0) + (usage.bought or 0)
    return (quota.prepaid or 0) if usage.bought is None else usage.bought


def _counting(quota: Quota, went: Moved) -> int:
    match quota.counts:
        case "both":
            return went.rx + went.tx
        case "down":
            return went.rx
        case "up":
            return went.tx


def _period(quota: Quota, unix: float, zone: tzinfo) -> Period | None:
    return None if quota.monthly is None else period_at(unix, quota.billing_day or FIRST_OF_MONTH, zone)


def _in_period(usage: Usage, period: Period | None) -> Usage:
    if period is None:
        return usage
    return replace(usage, begins=period.begins, ends=period.ends, next_day=period.next_day)


def _with(days: tuple[tuple[int, int], ...], unix: float, went: int) -> tuple[tuple[int, int], ...]:
    """Add bytes to today's; a clock that was set back adds them to the last day there is."""
    today = int(unix // QUOTA_DAY)
    if days and days[-1][0] >= today:
        return (*days[:-1], (days[-1][0], days[-1][1] + went)) if went else days
    return (*(day for day in days if day[0] > today - QUOTA_DAYS), (today, went))
