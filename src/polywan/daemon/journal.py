"""The journal's file: entries in SQLite, bounded, and what the next daemon has to know of each uplink.

All methods may wait for a disk, so they belong beside the loop, one at a time. What is in the way of the file, or is
damaged, is set aside; a file of a newer polywan stays as it is; a disk that takes nothing is an error that passes.

Root works here with the rights of the directory's owner: SQLite believes what is beside its file, such as a journal
that names another file to be removed (super-journal, "Atomic commit in SQLite").
"""

from __future__ import annotations

import errno
import json
import os
import secrets
import sqlite3
import struct
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from datetime import datetime
from itertools import chain
from math import isfinite
from pathlib import Path
from stat import S_ISREG
from typing import Final, NamedTuple, TypeVar

from polywan import files
from polywan.api.codec import DocumentError, decode, encode
from polywan.api.events import LinkEvent
from polywan.core.status.stored_standing import StoredStanding
from polywan.core.versions import newer
from polywan.kernel.privilege import files_of

T = TypeVar("T")

JOURNAL_FILE: Final = "events.db"
ASIDE: Final = ".aside"
FILE_ASIDE: Final = JOURNAL_FILE + ASIDE

MOST_ENTRIES: Final = 20_000
"""Entries that are kept: 6 MB as a rule, 15 MB with the longest reasons. Fifty a day fill that in a year; an uplink
that flaps all day has some 400, since each of its losses doubles its hold-down."""

_COLUMNS: Final = tuple(LinkEvent.__fields__)
_TEXT: Final = "TEXT"
_TYPES: Final = {"id": "INTEGER PRIMARY KEY", "lasted_s": "REAL", "rx_bytes": "INTEGER", "tx_bytes": "INTEGER"}
_LISTED: Final = ", ".join(_COLUMNS)
_INSERT: Final = f"INSERT OR IGNORE INTO entries (unix, {_LISTED}) VALUES ({', '.join('?' * (1 + len(_COLUMNS)))})"  # noqa: S608 - names of our own

_MIGRATIONS: Final[tuple[tuple[str, ...], ...]] = (
    (
        f"CREATE TABLE entries (unix REAL, {', '.join(f'{name} {_TYPES.get(name, _TEXT)}' for name in _COLUMNS)})",
        "CREATE TABLE standings (uplink TEXT PRIMARY KEY, document TEXT)",
    ),
)
"""Statements that make each version of the tables of the one before; the first make them. A new version is a further
one, with a file in tests/data/state; the columns of a version that was released are written out then."""

VERSION: Final = len(_MIGRATIONS)
"""Of the tables; SQLite's user_version."""

_HEADER: Final = struct.Struct(">16s44xi")
"""Of an SQLite file: its first words, and user_version (sqlite.org/fileformat2.html)."""

_MAGIC: Final = b"SQLite format 3\0"

HIGHEST: Final = 1 << 53
"""The highest number of an entry: up to here JSON's numbers are whole, and a thousand changes a second come to less."""

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
        name: tells this file from others, of which it goes on with the numbers or not (SQLite's application_id).
    """

    def __init__(self, state_dir: Path) -> None:
        self._path = state_dir / JOURNAL_FILE
        self._database: sqlite3.Connection | None = None
        self.name = 1 + secrets.randbelow((1 << 31) - 1)
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
        self._tried(lambda database: _append(database, entries, standings))

    def read(self, wanted: EventQuery) -> list[LinkEvent]:
        """Return entries, oldest first; errors as `append`."""
        return self._tried(lambda database: _read(database, wanted))

    def close(self) -> None:
        """Let go of the file."""
        if self._database is not None:
            with suppress(sqlite3.Error, OSError), _as_owner_of(self._path.parent):
                self._database.close()
        self._database = None

    def _tried(self, work: Callable[[sqlite3.Connection], T]) -> T:
        if self._database is None:
            self._give_away()
        try:
            with _as_owner_of(self._path.parent):
                return self._carried_out(work)
        except PermissionError as error:
            raise self._failed(error) from error

    def _give_away(self) -> None:
        """Give the directory's owner what root made there once, so that either of them can go on with it."""
        for name in (JOURNAL_FILE, f"{JOURNAL_FILE}-journal"):
            with suppress(OSError):
                owner = self._path.parent.stat()
                descriptor = files.open_own(self._path.parent, name)
                try:
                    if os.geteuid() == 0 != owner.st_uid and os.fstat(descriptor).st_uid == 0:
                        os.fchown(descriptor, owner.st_uid, owner.st_gid)
                finally:
                    os.close(descriptor)

    def _carried_out(self, work: Callable[[sqlite3.Connection], T]) -> T:
        try:
            return work(self._opened())
        except (sqlite3.Error, files.IrregularError, files.ForeignError, IsADirectoryError) as error:
            self.close()
            if isinstance(error, sqlite3.Error) and _code(error) not in _NOT_OURS:
                raise JournalError(f"{self._path} cannot be used: {error}") from error
            self._set_aside(self._path, error)
        except _UNFIT as error:
            self.close()
            raise self._failed(error) from error
        try:
            return work(self._opened())
        except (sqlite3.Error, *_UNFIT) as error:
            self.close()
            raise self._failed(error) from error

    def _failed(self, error: Exception) -> JournalError:
        text = error.strerror.lower() if isinstance(error, OSError) and error.strerror else str(error)
        return JournalError(f"{self._path} cannot be used: {text}")

    def _opened(self) -> sqlite3.Connection:
        if self._database is None:
            self._check(JOURNAL_FILE)
            _refuse_newer(self._path)
            self._check_other(f"{JOURNAL_FILE}-journal")
            self._database = sqlite3.connect(self._path, timeout=_BUSY, isolation_level=None, check_same_thread=False)
            # Only whoever has changed the file has written other texts into it.
            self._database.text_factory = lambda data: data.decode(errors="replace")
            (version,) = self._database.execute("PRAGMA user_version").fetchone()
            (tables,) = self._database.execute("SELECT count(*) FROM sqlite_master").fetchone()
            if version < 0 or (tables and not version):
                raise files.ForeignError(errno.EPROTO, f"is of another version ({version})", str(self._path))
            first, *later = _MIGRATIONS
            migrate(self._database, version, ((*first, f"PRAGMA application_id = {self.name}"), *later))
            (self.name,) = self._database.execute("PRAGMA application_id").fetchone()
        return self._database

    def _check_other(self, name: str) -> None:
        """Move away what SQLite would take for its own beside the file, and is not."""
        path = self._path.with_name(name)
        if not os.path.lexists(path):
            return
        try:
            self._check(name)
        except (files.IrregularError, files.ForeignError, IsADirectoryError) as error:
            self._set_aside(path, error)

    def _check(self, name: str) -> None:
        """Make sure that a name leads to a file of ours, and to no other: SQLite would follow any link."""
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            descriptor = files.open_own(self._path.parent, name, os.O_RDWR | os.O_CREAT)
        except OSError as error:
            if isinstance(error, PermissionError) and (why := self._foreign(name)):
                raise files.ForeignError(errno.EPERM, why, str(self._path.with_name(name))) from error
            if isinstance(error, files.ForeignError) or error.errno not in (errno.EROFS, errno.EACCES, errno.EPERM):
                raise
            descriptor = files.open_own(self._path.parent, name)
        os.close(descriptor)

    def _foreign(self, name: str) -> str:
        return files.foreign(self._path.with_name(name).lstat(), self._path.parent.stat())

    def _set_aside(self, path: Path, cause: Exception) -> None:
        why = _as_said(cause.strerror if isinstance(cause, OSError) and cause.strerror else str(cause))
        aside = path.with_name(path.name + ASIDE)
        try:
            status = path.lstat()
            if empty := S_ISREG(status.st_mode) and not status.st_size:
                # Nothing is lost with it, but what was set aside before would be.
                path.unlink()
            else:
                path.replace(aside)
            if path == self._path:
                # It belongs to what was set aside, and SQLite would play it back into the new file.
                Path(f"{path}-journal").unlink(missing_ok=True)
        except OSError as error:
            raise self._failed(error) from error
        begins = ", and a new journal begins" if path == self._path else ""
        now = "it was empty, and is gone" if empty else f"it is now {aside}"
        self.notices.append(f"{path} {why}: {now}{begins}")


def recorded(state_dir: Path, wanted: EventQuery) -> list[LinkEvent]:
    """Return entries of a file, oldest first, without writing anything; none where there is no such file.

    Raises:
        JournalError: it cannot be read.
    """
    path = state_dir / JOURNAL_FILE
    try:
        os.close(files.open_own(state_dir, JOURNAL_FILE))
        _refuse_newer(path)
        uri = f"{path.absolute().as_uri()}?mode=ro"
        with _as_owner_of(state_dir), closing(sqlite3.connect(uri, uri=True, timeout=_BUSY)) as database:
            database.text_factory = lambda data: data.decode(errors="replace")
            (version,) = database.execute("PRAGMA user_version").fetchone()
            return _read(database, wanted) if version == VERSION else []
    except FileNotFoundError:
        return []
    except (sqlite3.Error, *_UNFIT) as error:
        raise JournalError(f"{path} cannot be read: {error}") from error


@contextmanager
def _as_owner_of(directory: Path) -> Iterator[None]:
    try:
        owner = directory.stat()
    except OSError:
        # It will be made, by us.
        yield
        return
    with files_of(owner.st_uid, owner.st_gid):
        yield


def migrate(database: sqlite3.Connection, version: int, migrations: Sequence[Sequence[str]]) -> None:
    """Bring tables of an older version up to the last one, whole or not at all."""
    if version < len(migrations):
        with _transaction(database):
            for statement in chain.from_iterable(migrations[version:]):
                database.execute(statement)
            database.execute(f"PRAGMA user_version = {len(migrations)}")


def _refuse_newer(path: Path) -> None:
    """Look at the version without SQLite, which might change a file of a newer polywan as soon as it opens it.

    Raises:
        JournalError: a newer polywan has written it.
    """
    with files.open_regular(path) as file:
        header = file.read(_HEADER.size)
    magic, version = _HEADER.unpack(header) if len(header) == _HEADER.size else (b"", 0)
    if magic == _MAGIC and version > VERSION:
        raise JournalError(newer(str(path), version, VERSION, "the changes in it are not shown"))


_UNFIT: Final = (OSError, OverflowError, UnicodeError)
"""Errors of a place that cannot be used, and of values that SQLite does not take."""


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
    if last is not None and last > HIGHEST:
        raise files.ForeignError(errno.EPROTO, "has a number that polywan does not reach", JOURNAL_FILE)
    return max(0, last or 0)


def _append(
    database: sqlite3.Connection,
    entries: Sequence[tuple[float, LinkEvent]],
    standings: Collection[StoredStanding],
) -> None:
    with _transaction(database):
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
