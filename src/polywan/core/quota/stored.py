"""The use of quotas as `quota.json` has it; what makes no sense in it is refused, uplink by uplink."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from math import inf
from typing import Any, Final

from polywan.core.quota.counting import Seen
from polywan.core.quota.period import LAST_MOMENT
from polywan.core.quota.usage import QUOTA_DAYS, QuotaKind, Usage
from polywan.core.versions import VERSION_KEY, Migration


def _first(document: Mapping[str, Any]) -> Mapping[str, Any]:
    """Version 0 was never written: there is nothing to bring up."""
    return document


QUOTA_MIGRATIONS: Final[tuple[Migration, ...]] = (_first,)
"""For `versions.upgraded`: a new version of the document is a further one, with files in tests/data/state."""

_MOST_BYTES: Final = 1 << 63
_MOST_UPLINKS: Final = 512
_LONGEST: Final = 256
"""Characters of a name: of an uplink, of a device that had one, or of a boot."""


def stored(usages: Mapping[str, Usage]) -> dict[str, Any]:
    """Return the use of quotas as JSON has it."""
    return {
        VERSION_KEY: len(QUOTA_MIGRATIONS),
        "uplinks": {
            name: {
                **asdict(usage),
                "ends": None if usage.ends == inf else usage.ends,
                "seen": None if usage.seen is None else usage.seen._asdict(),
            }
            for name, usage in usages.items()
        },
    }


def restored(value: Mapping[str, Any]) -> dict[str, Usage]:
    """Return what `stored` has made, of this version.

    Raises:
        ValueError: it is none, or not all of it.
    """
    uplinks = value.get("uplinks")
    if not isinstance(uplinks, dict) or len(uplinks) > _MOST_UPLINKS:
        raise ValueError("uplinks: expected a table")
    try:
        return {_name(name): _usage(raw) for name, raw in uplinks.items()}
    except (KeyError, TypeError, AttributeError, OverflowError) as error:
        raise ValueError("an uplink lacks a value, or has one of another kind") from error


def _usage(raw: Mapping[str, Any]) -> Usage:
    ends, reading_at = raw["ends"], raw["reading_at"]
    return Usage(
        kind=QuotaKind(raw["kind"]),
        begins=_moment(raw["begins"]),
        ends=inf if ends is None else _moment(ends),
        next_day=_name(raw["next_day"]),
        counted=_bytes(raw["counted"]),
        reading=None if raw["reading"] is None else _bytes(raw["reading"]),
        reading_at=None if reading_at is None else _moment(reading_at),
        bought=None if raw["bought"] is None else _bytes(raw["bought"]),
        first=_moment(raw["first"]),
        days=tuple((_bytes(day), _bytes(count)) for day, count in raw["days"][-QUOTA_DAYS:]),
        seen=None if raw["seen"] is None else _seen(raw["seen"]),
    )


def _seen(raw: Mapping[str, Any]) -> Seen:
    return Seen(
        device=_name(raw["device"]),
        ifindex=_bytes(raw["ifindex"]),
        boot=_name(raw["boot"]),
        rx=_bytes(raw["rx"]),
        tx=_bytes(raw["tx"]),
    )


def _name(raw: object) -> str:
    if not isinstance(raw, str) or len(raw) > _LONGEST or not raw.isprintable():
        raise ValueError("expected a name")
    return raw


def _bytes(raw: object) -> int:
    if not isinstance(raw, int) or isinstance(raw, bool) or not 0 <= raw < _MOST_BYTES:
        raise ValueError("expected a whole number")
    return raw


def _moment(raw: object) -> float:
    if not isinstance(raw, int | float) or isinstance(raw, bool) or not abs(raw) <= LAST_MOMENT:
        raise ValueError("expected a time")
    return float(raw)
