"""The journal's file: entries in SQLite, bounded, and what the next daemon has to know of each uplink."""

from __future__ import annotations

import errno
import json
import sqlite3
from collections.abc import Collection, Sequence
from contextlib import suppress
from datetime import datetime
from math import isfinite
from pathlib import Path
from typing import Final, NamedTuple, TypeAlias

from polywan import files
from polywan.api.codec import DocumentError, decode, encode
from polywan.api.events import LinkEvent
from polywan.core.status.stored_standing import StoredStanding
from polywan.daemon.database import ASIDE, Database, DatabaseError, Kind, read_only, transaction

JournalError: TypeAlias = DatabaseError

JOURNAL_FILE: Final = "events.db"
FILE_ASIDE: Final = JOURNAL_FILE + ASIDE

MOST_ENTRIES: Final = 20_000
"""Entries that are kept: 6 MB as a rule, 15 MB with the longest reasons. Fifty a day fill that in a year; an uplink
that flaps all day has some 400, since each of its losses doubles its hold-down."""

_COLUMNS: Final = tuple(LinkEvent.__fields__)
_TEXT: Final = "TEXT"
_TYPES: Final = {"id": "INTEGER PRIMARY KEY", "lasted_s": "REAL", "rx_bytes": "INTEGER", "tx_bytes": "INTEGER"}
_LISTED: Final = ", ".join(_COLUMNS)
_INSERT: Final = f"INSERT OR IGNORE INTO entries (unix, {_LISTED}) VALUES ({', '.join('?' * (1 + len(_COLUMNS)))})"  # noqa: S608 - names of our own

JOURNAL_KIND: Final = Kind(
    file=JOURNAL_FILE,
    migrations=(
        (
            f"CREATE TABLE entries (unix REAL, {', '.join(f'{name} {_TYPES.get(name, _TEXT)}' for name in _COLUMNS)})",
            "CREATE TABLE standings (uplink TEXT PRIMARY KEY, document TEXT)",
        ),
    ),
    begins="a new journal",
    cost="the changes in it are not shown",
)
VERSION: Final = JOURNAL_KIND.version

HIGHEST: Final = 1 << 53
"""The highest number of an entry: up to here JSON's numbers are whole, and a thousand changes a second come to less."""


class Loaded(NamedTuple):
    """What a daemon before has left, and the number of its last entry, 0 without one."""

    standings: list[StoredStanding]
    last: int


class EventQuery(NamedTuple):
    """Which entries are wanted, at most `most`: the first ones, or without `since` and `after` the last ones.

    Attributes:
        uplink: of this one only.
        since: Unix seconds from which on they are wanted.
        after: number behind which they are wanted.
    """

    uplink: str | None
    since: float | None
    after: int | None
    most: int

    @property
    def newest(self) -> bool:
        """True when the last ones are wanted."""
        return self.since is None and self.after is None


class Journal(Database):
    """The file of one state directory; its name tells whose numbers a daemon goes on with."""

    def __init__(self, state_dir: Path) -> None:
        super().__init__(state_dir, JOURNAL_KIND)

    def load(self) -> Loaded:
        """Return what the daemon before has left; errors as `append`."""
        return self.tried(_load)

    def append(self, entries: Sequence[tuple[float, LinkEvent]], standings: Collection[StoredStanding]) -> None:
        """Add entries with their times (Unix seconds), remember all standings, and drop the oldest entries.

        Returns once all of it is on disk; a crash leaves all or nothing. What is there already is not added again.

        Raises:
            JournalError: the disk is full, or cannot be written.
        """
        self.tried(lambda database: _append(database, entries, standings))

    def read(self, wanted: EventQuery) -> list[LinkEvent]:
        """Return entries, oldest first; errors as `append`."""
        return self.tried(lambda database: _read(database, wanted))


def recorded(state_dir: Path, wanted: EventQuery) -> list[LinkEvent]:
    """Return entries of a file, oldest first, without writing anything; none where there is no such file.

    Raises:
        JournalError: it cannot be read.
    """
    return read_only(state_dir, JOURNAL_KIND, lambda database: _read(database, wanted)) or []


def _load(database: sqlite3.Connection) -> Loaded:
    found = []
    for (text,) in database.execute("SELECT document FROM standings"):
        # What somebody else has written there is not worth a word: the uplink is then found without a past.
        with suppress(ValueError, TypeError, RecursionError):
            found.append(decode(StoredStanding, json.loads(text)))
    return Loaded(found, _last(database))


def _last(database: sqlite3.Connection) -> int:
    (last,) = database.execute("SELECT max(id) FROM entries").fetchone()
    if last is not None and last > HIGHEST:
        raise files.ForeignError(errno.EPROTO, "has a number that polywan does not reach", JOURNAL_FILE)
    return max(0, last or 0)


def _append(
    database: sqlite3.Connection,
    entries: Sequence[tuple[float, LinkEvent]],
    standings: Collection[StoredStanding],
) -> None:
    with transaction(database):
        for unix, entry in entries:
            row = encode(entry)
            database.execute(_INSERT, (unix, *(row.get(name) for name in _COLUMNS)))
        database.execute("DELETE FROM entries WHERE id <= ?", (_last(database) - MOST_ENTRIES,))
        database.execute("DELETE FROM standings")
        documents = [(standing.uplink, json.dumps(encode(standing))) for standing in standings]
        database.executemany("INSERT OR REPLACE INTO standings VALUES (?, ?)", documents)


def _read(database: sqlite3.Connection, wanted: EventQuery) -> list[LinkEvent]:
    order = "DESC" if wanted.newest else "ASC"
    statement = (
        f"SELECT {_LISTED} FROM entries WHERE (:uplink IS NULL OR uplink = :uplink) "  # noqa: S608 - names of our own
        f"AND unix >= :since AND id > :after ORDER BY id {order} LIMIT :most"
    )
    values = {
        "uplink": wanted.uplink,
        "since": -1.0 if wanted.since is None else wanted.since,
        "after": -1 if wanted.after is None else wanted.after,
        "most": wanted.most,
    }
    found = []
    for row in database.execute(statement, values):
        with suppress(DocumentError, ValueError, OverflowError):
            entry = decode(LinkEvent, dict(zip(_COLUMNS, row, strict=True)))
            datetime.fromisoformat(entry.time).astimezone()
            if entry.lasted_s is None or isfinite(entry.lasted_s):
                found.append(entry)
    return found[::-1] if wanted.newest else found
