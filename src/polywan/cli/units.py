"""Quantities as people read them."""

from __future__ import annotations

from datetime import UTC, datetime


def duration(seconds: float) -> str:
    """Return a time in its largest whole unit: ``3 h``."""
    whole = int(seconds)
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if whole >= size:
            return f"{whole // size} {unit}"
    return f"{whole} s"


def size(count: int) -> str:
    """Return bytes in decimal units, as bit/s are: ``1.5 MB``."""
    if count < 1000:
        return f"{count} B"
    if count < 1_000_000:
        return f"{count / 1e3:.1f} kB"
    return f"{count / 1e6:.1f} MB" if count < 1_000_000_000 else f"{count / 1e9:.1f} GB"


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
