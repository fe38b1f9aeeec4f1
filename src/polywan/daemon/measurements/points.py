"""Points of uplinks in the measurements' file: one table for each tier, in which places are used again."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterator, Mapping
from itertools import pairwise
from typing import Final

from polywan.core.measurements.points import Point, merged, packed, unpacked
from polywan.core.measurements.tiers import SECONDS, TIERS, Tier

POINT_TABLES: Final = tuple(
    f"CREATE TABLE points_{tier.step} (slot INTEGER PRIMARY KEY, time INTEGER, points BLOB)" for tier in TIERS
)


def put(database: sqlite3.Connection, seconds: Mapping[int, Mapping[str, Point]], ids: Mapping[str, int]) -> None:
    """Write the points of seconds (Unix) by uplink, and make the intervals anew in which they lie.

    Each interval is made of those of the finer tier, as they are on disk: so it is the same in whatever order and
    however often they are written. What is in a place that is needed now goes.
    """
    for second, measured in seconds.items():
        _put_one(database, SECONDS, second, {ids[name]: point for name, point in measured.items()})
    starts = {*seconds}
    for finer, tier in pairwise(TIERS):
        starts = {tier.start(start) for start in starts}
        for start in sorted(starts):
            parts: dict[int, list[Point]] = {}
            for _, points in _rows(database, finer, start, start + tier.step - 1):
                for number, point in points.items():
                    parts.setdefault(number, []).append(point)
            _put_one(database, tier, start, {number: merged(found) for number, found in parts.items()})


def _put_one(database: sqlite3.Connection, tier: Tier, start: int, points: Mapping[int, Point]) -> None:
    statement = f"INSERT OR REPLACE INTO points_{tier.step} VALUES (?, ?, ?)"  # noqa: S608 - names of our own
    database.execute(statement, (tier.slot(start), start, packed(points)))


def read(
    database: sqlite3.Connection, tier: Tier, since: float, until: float, names: Collection[str]
) -> Iterator[tuple[int, str, Point]]:
    """Yield begin, uplink and point of the intervals that touch a span; of one that had another name, too."""
    known = {number: name for number, name in database.execute("SELECT id, name FROM uplinks") if name in names}
    for start, points in _rows(database, tier, since, until, known):
        for number, point in points.items():
            yield start, known[number], point


def _rows(
    database: sqlite3.Connection, tier: Tier, since: float, until: float, wanted: Collection[int] | None = None
) -> Iterator[tuple[int, dict[int, Point]]]:
    statement = f"SELECT time, points FROM points_{tier.step} WHERE slot BETWEEN ? AND ? AND time BETWEEN ? AND ?"  # noqa: S608 - names of our own
    for first, last in tier.slots(since, until):
        for start, data in database.execute(statement, (first, last, tier.start(since), until)):
            yield start, unpacked(data, wanted)
