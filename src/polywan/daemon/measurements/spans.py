"""Spans of local time: months, days, half hours. A moment without an offset is of local time, as that was by then."""

from __future__ import annotations

import re
import time
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Final

from polywan.config.faults import shown
from polywan.core.errors import ControlError
from polywan.core.measurements.tiers import HOURS, MINUTES, QUARTERS
from polywan.daemon.measurements.clients import MOST_MONTHS

_HALF_HOUR: Final = 1800
_NAME: Final = re.compile(r"20[0-9]{2}-(0[1-9]|1[0-2])")


def beats_of(text: str, now: float) -> tuple[list[tuple[int, int]], int]:
    """Return begin and end of each beat of a span, and the seconds of the intervals that each of them is made of.

    Raises:
        ControlError: there is no such span (400).
    """
    if text == "24h":
        # By local time, which may be a quarter of an hour off.
        last = int(now) - (int(now) + time.localtime(now).tm_gmtoff) % _HALF_HOUR
        return [(last - n * _HALF_HOUR, last - (n - 1) * _HALF_HOUR) for n in range(47, -1, -1)], MINUTES.step
    if text == "30d":
        days = [_midnight(now) - timedelta(days=n) for n in range(29, -2, -1)]
    else:
        first = month_of(text, "span: expected 24h, 30d, or a month")
        days = [first + timedelta(days=n) for n in range(32) if first + timedelta(days=n) <= following(first)]
    moments = [int(day.timestamp()) for day in days]
    tier = QUARTERS if now - moments[0] < QUARTERS.span else HOURS
    return [*pairwise(moments)], tier.step


def month_of(text: str, expected: str = "month: expected a month") -> datetime:
    """Return the begin of a month such as "2026-11".

    Raises:
        ControlError: that is no month (400).
    """
    if not _NAME.fullmatch(text):
        raise ControlError(f'{expected} such as "2026-11", got {shown(text)}', 400)
    return datetime(int(text[:4]), int(text[5:]), 1)  # noqa: DTZ001 - local time


def following(month: datetime) -> datetime:
    """Return the begin of the month behind one."""
    return (month + timedelta(days=32)).replace(day=1)


def months_since(first: float, now: float) -> list[datetime]:
    """Return the months from a moment to another one (Unix seconds), newest first, no more than are kept."""
    found = [_midnight(now).replace(day=1)]
    while found[-1].timestamp() > first and len(found) < MOST_MONTHS:
        found.append((found[-1] - timedelta(days=1)).replace(day=1))
    return found


def name_of(month: datetime) -> str:
    """Return a month as documents have it."""
    return month.strftime("%Y-%m")


def _midnight(unix: float) -> datetime:
    local = datetime.fromtimestamp(unix)  # noqa: DTZ006 - local time
    return local.replace(hour=0, minute=0, second=0, microsecond=0)
