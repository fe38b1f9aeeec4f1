"""Billing periods: from midnight of one billing day to that of the next, by local time."""

from __future__ import annotations

from calendar import monthrange
from dataclasses import dataclass
from datetime import UTC, date, datetime, tzinfo
from typing import Final

FIRST_MOMENT: Final = datetime(1971, 1, 1, tzinfo=UTC).timestamp()
LAST_MOMENT: Final = datetime(9998, 1, 1, tzinfo=UTC).timestamp()
"""Moments, Unix seconds, beyond which no period is looked for: a clock that says so is wrong."""


@dataclass(frozen=True, slots=True)
class Period:
    """A billing period; times are Unix seconds.

    Attributes:
        begins: its first moment; `ends`: the first one that is no longer part of it.
        next_day: the local date of that, ISO 8601.
    """

    begins: float
    ends: float
    next_day: str


def period_at(unix: float, billing_day: int, zone: tzinfo) -> Period:
    """Return the billing period that a moment belongs to.

    Args:
        unix: Unix seconds.
        billing_day: day of the month, 1..31; in a month without it the last day.
        zone: local time.
    """
    today = local_day(unix, zone)
    year, month = today.year, today.month
    if today < _billing(year, month, billing_day):
        year, month = _month_before(year, month)
    first = _billing(year, month, billing_day)
    after = _billing(*_month_after(year, month), billing_day)
    return Period(_midnight(first, zone), _midnight(after, zone), after.isoformat())


def local_day(unix: float, zone: tzinfo) -> date:
    """Return the local date of a moment."""
    return datetime.fromtimestamp(min(max(unix, FIRST_MOMENT), LAST_MOMENT), zone).date()


def _billing(year: int, month: int, day: int) -> date:
    return date(year, month, min(day, monthrange(year, month)[1]))


def _month_before(year: int, month: int) -> tuple[int, int]:
    return (year - 1, 12) if month == 1 else (year, month - 1)


def _month_after(year: int, month: int) -> tuple[int, int]:
    return (year + 1, 1) if month == 12 else (year, month + 1)


def _midnight(day: date, zone: tzinfo) -> float:
    """Return when a day begins; where clocks are set at midnight, that is its first moment."""
    return datetime(day.year, day.month, day.day, tzinfo=zone).timestamp()
