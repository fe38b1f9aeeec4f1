"""The journal's file: entries in SQLite, bounded, and what the next daemon has to know of each uplink.

All methods may wait for a disk, so they belong beside the loop, one at a time. What is in the way of the file, is
damaged, or is of another version, is set aside; a disk that takes nothing is an error that passes.
"""

from __future__ import annotations

import errno
import json
import os
import sqlite3
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, NamedTuple, TypeVar

from polywan import files
from polywan.api.codec import DocumentError, decode, encode
from polywan.api.events import LinkEvent
from polywan.core.status.stored_standing import StoredStanding

T = TypeVar("T")

JOURNAL_FILE: Final = "events.db"
FILE_ASIDE: Final = "events.db.aside"

VERSION: Final = 1
"""Of the tables; SQLite's user_version."""

MOST_ENTRIES: Final = 20_000
"""Entries that are kept: 6 MB as a rule, 15 MB with the longest reasons. Fifty a day fill that in a year; an uplink
that flaps all day has some 400, since each of its losses doubles its hold-down."""

_COLUMNS: Final = tuple(LinkEvent.__fields__)
_TEXT: Final = "TEXT"
_TYPES: Final = {"id": "INTEGER PRIMARY KEY", "lasted_s": "REAL", "rx_bytes": "INTEGER", "tx_bytes": "INTEGER"}
_LISTED: Final = ", ".join(_COLUMNS)
_INSERT: Final = f"INSERT OR IGNORE INTO entries (unix, {_LISTED}) VALUES ({', '.join('?' * (1 + len(_COLUMNS)))})"  # noqa: S608 - names of our own

_SCHEMA: Final = (
    f"CREATE TABLE entries (unix REAL, {', '.join(f'{name} {_TYPES.get(name, _TEXT)}' for name in _COLUMNS)})",
    "CREATE TABLE standings (uplink TEXT PRIMARY KEY, document TEXT)",
    f"PRAGMA user_version = {VERSION}",
)

_NOT_OURS: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR})
"""Error codes of a file that does not hold what it should; all others are the disk's, and may pass."""

_BUSY: Final = 1.0
"""Seconds to wait for another program that has the file open, such as sqlite3(1)."""


class JournalError(Exception):
    """The file cannot be used now; the text says why."""


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


class Journal:
    """The file of one state directory.

    Attributes:
        notices: what was set aside, for people; whoever tells it takes it from here.
    """

    def __init__(self, state_dir: Path) -> None:
        self._path = state_dir / JOURNAL_FILE
        self._database: sqlite3.Connection | None = None
        self._shift: int | None = None
        self.notices: list[str] = []

    def load(self) -> Loaded:
        """Return what the daemon before has left; errors as `append`."""
        return self._tried(_load)

    def append(self, entries: Sequence[tuple[float, LinkEvent]], standings: Collection[StoredStanding]) -> None:
        """Add entries with their times (Unix seconds), remember all standings, and drop the oldest entries.

        Returns once all of it is on disk; a crash leaves all or nothing. What is there already is not added again.

        Raises:
            JournalError: the disk is full, or cannot be written.
        """

        def work(database: sqlite3.Connection) -> None:
            if self._shift is None:
                # What could not be read at the start, or not in time, may have entries of the same numbers.
                self._shift = max(0, _last(database) - min((entry.id for _, entry in entries), default=0) + 1)
            _append(database, entries, standings, self._shift)

        self._tried(work)

    def read(self, wanted: EventQuery) -> list[LinkEvent]:
        """Return entries, oldest first; errors as `append`."""
        return self._tried(lambda database: _read(database, wanted, self._shift or 0))

    def close(self) -> None:
        """Let go of the file."""
        if self._database is not None:
            with suppress(sqlite3.Error):
                self._database.close()
        self._database = None

    def _tried(self, work: Callable[[sqlite3.Connection], T]) -> T:
        try:
            return work(self._opened())
        except (sqlite3.Error, files.IrregularError, files.ForeignError, IsADirectoryError) as error:
            self.close()
            if isinstance(error, sqlite3.Error) and _code(error) not in _NOT_OURS:
                raise JournalError(f"{self._path} cannot be used: {error}") from error
            self._set_aside(error.strerror if isinstance(error, OSError) and error.strerror else str(error))
        except OSError as error:
            raise self._failed(error) from error
        try:
            return work(self._opened())
        except (sqlite3.Error, OSError) as error:
            self.close()
            raise self._failed(error) from error

    def _failed(self, error: Exception) -> JournalError:
        text = error.strerror.lower() if isinstance(error, OSError) and error.strerror else str(error)
        return JournalError(f"{self._path} cannot be used: {text}")

    def _opened(self) -> sqlite3.Connection:
        if self._database is None:
            self._check(JOURNAL_FILE)
            if os.path.lexists(f"{self._path}-journal"):
                self._check(f"{JOURNAL_FILE}-journal")
            self._database = sqlite3.connect(self._path, timeout=_BUSY, isolation_level=None, check_same_thread=False)
            (version,) = self._database.execute("PRAGMA user_version").fetchone()
            (tables,) = self._database.execute("SELECT count(*) FROM sqlite_master").fetchone()
            if version not in (0, VERSION) or (tables and not version):
                raise files.ForeignError(errno.EPROTO, f"is of another version ({version})", str(self._path))
            if not version:
                with _transaction(self._database):
                    for statement in _SCHEMA:
                        self._database.execute(statement)
        return self._database

    def _check(self, name: str) -> None:
        """Make sure that a name leads to a file of ours, and to no other: SQLite would follow any link."""
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            descriptor = files.open_own(self._path.parent, name, os.O_RDWR | os.O_CREAT)
        except PermissionError as error:
            if isinstance(error, files.ForeignError):
                raise
            descriptor = files.open_own(self._path.parent, name)
        except OSError as error:
            if error.errno != errno.EROFS:
                raise
            descriptor = files.open_own(self._path.parent, name)
        os.close(descriptor)

    def _set_aside(self, why: str) -> None:
        aside = self._path.with_name(FILE_ASIDE)
        try:
            self._path.replace(aside)
            # It belongs to what was set aside, and SQLite would play it back into the new file.
            Path(f"{self._path}-journal").unlink(missing_ok=True)
        except OSError as error:
            raise self._failed(error) from error
        self.notices.append(f"{self._path} {_as_said(why)}: it is now {aside}, and a new journal begins")


def _as_said(why: str) -> str:
    return why if why.startswith(("is ", "has ", "belongs ")) else f"is damaged ({why.lower()})"


def _code(error: sqlite3.Error) -> int:
    """Return the error code of SQLite without what further bits tell; 0 when it was never asked."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


@contextmanager
def _transaction(database: sqlite3.Connection) -> Iterator[None]:
    database.execute("BEGIN IMMEDIATE")
    try:
        yield
        database.execute("COMMIT")
    except BaseException:
        with suppress(sqlite3.Error):
            database.execute("ROLLBACK")
        raise


def _load(database: sqlite3.Connection) -> Loaded:
    found = []
    for (text,) in database.execute("SELECT document FROM standings"):
        # What somebody else has written there is not worth a word: the uplink is then found without a past.
        with suppress(ValueError, TypeError, RecursionError):
            found.append(decode(StoredStanding, json.loads(text)))
    return Loaded(found, _last(database))


def _last(database: sqlite3.Connection) -> int:
    (last,) = database.execute("SELECT max(id) FROM entries").fetchone()
    return int(last or 0)


def _append(
    database: sqlite3.Connection,
    entries: Sequence[tuple[float, LinkEvent]],
    standings: Collection[StoredStanding],
    shift: int,
) -> None:
    with _transaction(database):
        for unix, entry in entries:
            row = {**encode(entry), "id": entry.id + shift}
            database.execute(_INSERT, (unix, *(row.get(name) for name in _COLUMNS)))
        database.execute("DELETE FROM entries WHERE id <= ?", (_last(database) - MOST_ENTRIES,))
        database.execute("DELETE FROM standings")
        documents = [(standing.uplink, json.dumps(encode(standing))) for standing in standings]
        database.executemany("INSERT OR REPLACE INTO standings VALUES (?, ?)", documents)


def _read(database: sqlite3.Connection, wanted: EventQuery, shift: int) -> list[LinkEvent]:
    order = "DESC" if wanted.newest else "ASC"
    statement = (
        f"SELECT {_LISTED} FROM entries WHERE (:uplink IS NULL OR uplink = :uplink) "  # noqa: S608 - names of our own
        f"AND unix >= :since AND id > :after ORDER BY id {order} LIMIT :most"
    )
    values = {
        "uplink": wanted.uplink,
        "since": -1.0 if wanted.since is None else wanted.since,
        "after": -1 if wanted.after is None else wanted.after + shift,
        "most": wanted.most,
    }
    found = []
    for row in database.execute(statement, values):
        with suppress(DocumentError):
            entry = dict(zip(_COLUMNS, row, strict=True))
            found.append(decode(LinkEvent, {**entry, "id": entry["id"] - shift}))
    return found[::-1] if wanted.newest else found
