"""Moments as documents have them."""

from __future__ import annotations

from datetime import UTC, datetime


def iso(unix: float) -> str:
    """Return Unix seconds as ISO 8601 in UTC, with milliseconds."""
    return datetime.fromtimestamp(unix, UTC).isoformat(timespec="milliseconds")
