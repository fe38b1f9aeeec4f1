"""Quantities as people read them."""

from __future__ import annotations

from datetime import UTC, datetime

from polywan.core.words import size

__all__ = ["age", "duration", "milliseconds", "rate", "seconds_since", "size"]


def duration(seconds: float) -> str:
    """Return a time in its largest whole unit: ``3 h``."""
    whole = int(seconds)
    for seconds_each, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if whole >= seconds_each:
            return f"{whole // seconds_each} {unit}"
    return f"{whole} s"


def rate(bits: float) -> str:
    """Return bits per second with three digits: ``12.3 Mb/s``."""
    for least, unit in ((1e9, "Gb/s"), (1e6, "Mb/s"), (1e3, "kb/s")):
        if bits >= least * 0.9995:
            value = bits / least
            return f"{value:.{0 if value >= 99.95 else 1}f} {unit}"
    return f"{bits:.0f} b/s"


def milliseconds(value: float | None) -> str:
    """Return a time in milliseconds with about three digits; a dash for None."""
    if value is None:
        return "-"
    return f"{value:.0f} ms" if value >= 99.95 else f"{value:.1f} ms"


def seconds_since(moment: str, now: datetime | None = None) -> float:
    """Return the seconds since a moment in ISO 8601, by the clock or until `now`; negative when it is to come."""
    return ((now or datetime.now(UTC)) - datetime.fromisoformat(moment)).total_seconds()


def age(since: str | None, now: datetime | None = None) -> str:
    """Return how long ago that was, by the clock or before `now`, in its largest unit; a dash for None."""
    return "-" if since is None else duration(max(0.0, seconds_since(since, now)))
