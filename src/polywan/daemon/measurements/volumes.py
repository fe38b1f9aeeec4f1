"""Bytes of uplinks by hour, in the tables of the measurements' file."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from typing import Final

from polywan.core.measurements.volumes import UplinkBytes, Volumes
from polywan.core.status.rates import Counters

_HOURS: Final = "hour INTEGER, uplink INTEGER, rx INTEGER, tx INTEGER, probes INTEGER, PRIMARY KEY (hour, uplink)"

VOLUME_TABLES: Final = (
    f"CREATE TABLE hours ({_HOURS}) WITHOUT ROWID",
    "CREATE TABLE devices (device TEXT PRIMARY KEY, boot TEXT, ifindex INTEGER, rx INTEGER, tx INTEGER)",
)

_MOST_OF_HOUR: Final = 1 << 50
"""Of an uplink in an hour: a petabyte."""

MOST_HOURS: Final = 400 * 24
"""Hours that are kept, those without a daemon not counted: a year, and the month before it. 53 uplinks take 12 MB."""


def add(database: sqlite3.Connection, volumes: Volumes, ids: Mapping[str, int]) -> None:
    """Add bytes; `ids`: the numbers of uplinks."""
    rows = [(hour, ids[name], *one) for (hour, name), one in volumes.items()]
    database.executemany(
        "INSERT INTO hours VALUES (?, ?, ?, ?, ?) ON CONFLICT (hour, uplink) DO UPDATE SET "
        "rx = rx + excluded.rx, tx = tx + excluded.tx, probes = probes + excluded.probes",
        rows,
    )


def prune(database: sqlite3.Connection) -> None:
    """Drop the oldest hours; by number, since a clock that was set wrong once must not cost a year."""
    query = "SELECT DISTINCT hour FROM hours ORDER BY hour DESC LIMIT 1 OFFSET ?"
    for (hour,) in database.execute(query, (MOST_HOURS,)).fetchall():
        database.execute("DELETE FROM hours WHERE hour <= ?", (hour,))


def read(database: sqlite3.Connection, since: float, until: float) -> dict[str, UplinkBytes]:
    """Return the bytes of uplinks in the hours that begin in a span."""
    rows = database.execute(
        "SELECT name, sum(rx), sum(tx), sum(probes) FROM hours JOIN uplinks ON id = uplink "
        # What somebody else has written there is left out: NULL is neither, and texts are greater than any number.
        "WHERE hour >= ? AND hour < ? AND min(rx, tx, probes) >= 0 AND max(rx, tx, probes) < ? "
        "GROUP BY name ORDER BY name",
        (since, until, _MOST_OF_HOUR),
    )
    return {str(name): UplinkBytes(int(rx), int(tx), int(probes)) for name, rx, tx, probes in rows}


def first_hour(database: sqlite3.Connection) -> int | None:
    """Return the first hour of all; None without one."""
    (first,) = database.execute("SELECT min(hour) FROM hours").fetchone()
    return first if isinstance(first, int) else None


def set_devices(database: sqlite3.Connection, boot: str, devices: Mapping[str, Counters | None]) -> None:
    """Remember how far each device was counted; all others are forgotten, but those that are not there now."""
    known = [device for device, counters in devices.items() if counters is None]
    kept = ", ".join("?" * len(known))
    database.execute(f"DELETE FROM devices WHERE device NOT IN ({kept})", known)  # noqa: S608 - question marks
    rows = [(device, boot, *counters) for device, counters in devices.items() if counters is not None]
    database.executemany("INSERT OR REPLACE INTO devices VALUES (?, ?, ?, ?, ?)", rows)
