"""Quotas as people see them: a sentence for the log, and the part of the status document."""

from __future__ import annotations

from datetime import UTC, datetime
from math import inf, isfinite
from typing import Final

from polywan.api.views.quota import QuotaStatus
from polywan.config.model.quota import Quota, QuotaAction
from polywan.core.quota.forecast import NOT_KNOWN, Forecast, forecast
from polywan.core.quota.limits import Level, action, level, limits
from polywan.core.quota.period import FIRST_MOMENT, LAST_MOMENT
from polywan.core.quota.usage import Usage, available
from polywan.core.words import size

_EFFECTS: Final[dict[QuotaAction, str]] = {
    "keep": "nothing changes",
    "less": "it gets a tenth of its weight",
    "standby": "new connections use it only while no other uplink is healthy",
    "block": "it gets no new connections",
}

_PASSED: Final = {Level.SOFT: "the soft limit of {} is passed", Level.HARD: "it is used up"}


def brief(usage: Usage, quota: Quota) -> str:
    """Return what is used, until when, and what happens for it."""
    hard = available(usage, quota)
    percent = f" ({100 * usage.used / hard:.0f} %)" if hard else ""
    until = f" until {usage.next_day}" if usage.next_day else ""
    text = f"{size(usage.used)} of {size(hard)} used{percent}{until}"
    passed, act = level(usage, quota), action(usage, quota)
    if act is None:
        return text
    return f"{text}; {_PASSED[passed].format(size(limits(usage, quota).soft))}: {_EFFECTS[act]}"


def quota_status(usage: Usage, quota: Quota, unix: float, zone: float) -> QuotaStatus:
    """Return the part of the status document.

    Args:
        usage: what is known.
        quota: what the file says.
        unix: now, Unix seconds; endless where nothing is to be foreseen.
        zone: local time minus UTC, seconds.
    """
    found = limits(usage, quota)
    expected = forecast(usage, found.hard, unix) if isfinite(unix) else NOT_KNOWN
    return QuotaStatus(
        kind=usage.kind,
        state=level(usage, quota),
        action=action(usage, quota) or "none",
        used_bytes=usage.used,
        soft_bytes=found.soft,
        hard_bytes=found.hard,
        since=_iso(usage.begins),
        resets=None if usage.ends == inf else _iso(usage.ends),
        forecast_bytes=expected.used,
        runs_out=None if expected.runs_out is None else _iso(expected.runs_out),
        reading_bytes=usage.reading,
        reading_at=None if usage.reading_at is None else _iso(usage.reading_at),
        text=brief(usage, quota) + _outlook(expected, usage, zone),
    )


def _outlook(expected: Forecast, usage: Usage, zone: float) -> str:
    if expected.runs_out is not None:
        day = datetime.fromtimestamp(_shown(expected.runs_out + zone), UTC).date().isoformat()
        return f"; as it goes on, all of it by {day}"
    if expected.used is not None and expected.used > usage.used:
        return f"; as it goes on, {size(expected.used)} by then"
    return ""


def _iso(unix: float) -> str:
    return datetime.fromtimestamp(_shown(unix), UTC).isoformat(timespec="milliseconds")


def _shown(unix: float) -> float:
    """Return a moment that a calendar has."""
    return min(max(unix, FIRST_MOMENT), LAST_MOMENT)
