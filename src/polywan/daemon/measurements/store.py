"""The file of measurements: what was written by the daemon before, and what is added every few seconds."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Final, TypeAlias

from polywan.core.measurements.points import Point
from polywan.core.measurements.tiers import Tier
from polywan.core.measurements.volumes import StoredDevice, UplinkBytes, Volumes
from polywan.core.status.rates import Counters
from polywan.core.status.tally import Bytes
from polywan.daemon.database import Database, Kind, transaction
from polywan.daemon.measurements import clients, points, volumes

MEASUREMENTS_FILE: Final = "measurements.db"

MEASUREMENTS_KIND: Final = Kind(
    file=MEASUREMENTS_FILE,
    migrations=(
        (
            "CREATE TABLE uplinks (id INTEGER PRIMARY KEY, name TEXT NOT NULL)",
            *volumes.VOLUME_TABLES,
            *points.POINT_TABLES,
            *clients.CLIENT_TABLES,
        ),
    ),
    begins="a new file of measurements",
    cost="what was measured before is not shown",
)

GREATEST_ID: Final = 1 << 20
"""The greatest number of an uplink: new ones get the smallest that is free."""

Names: TypeAlias = Mapping[str, str]
"""New names of uplinks by the old ones, exchanged at once."""


@dataclass(frozen=True, slots=True)
class Batch:
    """What is written at once.

    Attributes:
        renamings: what uplinks are called since the last batch; the rest has the new names.
        seconds: what was measured in each second (Unix), by uplink.
        volumes: bytes to add.
        clients: bytes of clients to add, by month.
        boot, devices: how far devices were counted for that.
    """

    renamings: Sequence[Names] = ()
    seconds: Mapping[int, Mapping[str, Point]] = field(default_factory=dict)
    volumes: Volumes = field(default_factory=dict)
    clients: clients.ByMonth = field(default_factory=dict)
    boot: str = ""
    devices: Mapping[str, Counters | None] = field(default_factory=dict)


class Store(Database):
    """The file of one state directory. Errors are those of `Database.tried`."""

    def __init__(self, state_dir: Path) -> None:
        super().__init__(state_dir, MEASUREMENTS_KIND)
        self._hour: int | None = None

    def devices(self) -> dict[str, StoredDevice]:
        """Return how far a daemon before has counted devices."""
        return self.tried(_devices)

    def write(self, batch: Batch) -> None:
        """Write a batch; a crash leaves all of it or nothing."""
        self.tried(lambda database: self._write(database, batch))

    def volumes(self, spans: Iterable[tuple[float, float]]) -> list[dict[str, UplinkBytes]]:
        """Return the bytes of all uplinks in the hours that begin in each span (Unix seconds)."""
        return self.tried(lambda database: [volumes.read(database, *span) for span in spans])

    def first_hour(self) -> int | None:
        """Return the first hour of which there are bytes."""
        return self.tried(volumes.first_hour)

    def clients(self, months: Iterable[str]) -> list[tuple[str, str, Bytes]]:
        """Return month, client and bytes of months, those with most first."""
        return self.tried(lambda database: [*clients.read(database, months)])

    def points(self, tier: Tier, since: float, until: float, names: Collection[str]) -> list[tuple[int, str, Point]]:
        """Return begin, uplink and point of the intervals of a tier that touch a span (Unix seconds)."""
        return self.tried(lambda database: [*points.read(database, tier, since, until, names)])

    def _write(self, database: sqlite3.Connection, batch: Batch) -> None:
        with transaction(database):
            for names in batch.renamings:
                _rename(database, names)
            measured = {name for each in batch.seconds.values() for name in each}
            ids = _ids(database, {*measured, *(name for _, name in batch.volumes)})
            points.put(database, batch.seconds, ids)
            volumes.add(database, batch.volumes, ids)
            clients.add(database, batch.clients)
            volumes.set_devices(database, batch.boot, batch.devices)
            hour = max((hour for hour, _ in batch.volumes), default=self._hour)
            if hour != self._hour:
                volumes.prune(database)
            self._hour = hour


def _devices(database: sqlite3.Connection) -> dict[str, StoredDevice]:
    # What somebody else has written there counts as not known.
    return {
        device: StoredDevice(boot, Counters(*numbers))
        for device, boot, *numbers in database.execute("SELECT device, boot, ifindex, rx, tx FROM devices")
        if isinstance(device, str) and isinstance(boot, str) and all(isinstance(n, int) and n >= 0 for n in numbers)
    }


def _ids(database: sqlite3.Connection, names: Iterable[str]) -> dict[str, int]:
    """Return the numbers of uplinks; a name may have several of them, and the last one goes on."""
    # A number that somebody else has written there may be one that no point can have.
    query = "SELECT name, max(id) FROM uplinks WHERE id BETWEEN 1 AND ? GROUP BY name"
    known: dict[str, int] = dict(database.execute(query, (GREATEST_ID,)))
    taken = {number for (number,) in database.execute("SELECT id FROM uplinks")}
    for name in sorted({*names} - {*known}):
        known[name] = next(number for number in count(1) if number not in taken)
        database.execute("INSERT INTO uplinks VALUES (?, ?)", (known[name], name))
        taken.add(known[name])
    return known


def _rename(database: sqlite3.Connection, names: Names) -> None:
    moved = [
        (names[name], number)
        for number, name in database.execute("SELECT id, name FROM uplinks").fetchall()
        if name in names
    ]
    database.executemany("UPDATE uplinks SET name = ? WHERE id = ?", moved)
