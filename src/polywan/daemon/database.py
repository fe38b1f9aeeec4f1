"""A file of tables in the state directory: SQLite, opened so that nothing in its place can do harm.

All methods may wait for a disk, so they belong beside the loop, one at a time. What is in the way of the file, or is
damaged, is set aside; a file of a newer polywan stays as it is; a disk that takes nothing is an error that passes.

Root works here with the rights of the directory's owner: SQLite believes what is beside its file, such as a journal
that names another file to be removed (super-journal, "Atomic commit in SQLite").
"""

from __future__ import annotations

import errno
import os
import secrets
import sqlite3
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from itertools import chain
from pathlib import Path
from stat import S_ISREG
from typing import Final, NamedTuple, TypeVar

from polywan import files
from polywan.core.versions import newer
from polywan.kernel.privilege import files_of

T = TypeVar("T")

ASIDE: Final = ".aside"

_HEADER: Final = struct.Struct(">16s44xi")
"""Of an SQLite file: its first words, and user_version (sqlite.org/fileformat2.html)."""

_MAGIC: Final = b"SQLite format 3\0"

_NOT_OURS: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR})
"""Error codes of a file that does not hold what it should; all others are the disk's, and may pass."""

LOCK_TIMEOUT: Final = 1.0
"""Seconds to wait for another program that has the file open, such as sqlite3(1)."""


class DatabaseError(Exception):
    """The file cannot be used now; the text says why."""


class Kind(NamedTuple):
    """What is kept in a file.

    Attributes:
        file: its name.
        migrations: statements that make each version of the tables of the one before; the first make them. A new
            version is a further one, with a file in tests/data/state; the columns of a version that was released are
            written out then.
        begins: what a new file is the begin of, for people.
        cost: what it means to do without a file of a newer version, for people.
    """

    file: str
    migrations: tuple[tuple[str, ...], ...]
    begins: str
    cost: str

    @property
    def version(self) -> int:
        """Of the tables; SQLite's user_version."""
        return len(self.migrations)


class Database:
    """The file of one kind in one state directory.

    Attributes:
        notices: what was set aside, for people; whoever tells it takes it from here.
        name: tells this file from others (SQLite's application_id).
    """

    def __init__(self, state_dir: Path, kind: Kind) -> None:
        self._path = state_dir / kind.file
        self._kind = kind
        self._database: sqlite3.Connection | None = None
        self.name = 1 + secrets.randbelow((1 << 31) - 1)
        self.notices: list[str] = []

    def close(self) -> None:
        """Let go of the file."""
        if self._database is not None:
            with suppress(sqlite3.Error, OSError), as_owner_of(self._path.parent):
                self._database.close()
        self._database = None

    def tried(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Have something done with the file, and return what came of it.

        Raises:
            DatabaseError: the disk is full, or cannot be used.
        """
        if self._database is None:
            self._give_away()
        try:
            with as_owner_of(self._path.parent):
                return self._carried_out(work)
        except PermissionError as error:
            raise self._failed(error) from error

    def _give_away(self) -> None:
        """Give the directory's owner what root made there once, so that either of them can go on with it."""
        for name in (self._path.name, f"{self._path.name}-journal"):
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
                raise DatabaseError(f"{self._path} cannot be used: {error}") from error
            self._set_aside(self._path, error)
        except UNFIT as error:
            self.close()
            raise self._failed(error) from error
        try:
            return work(self._opened())
        except (sqlite3.Error, *UNFIT) as error:
            self.close()
            raise self._failed(error) from error

    def _failed(self, error: Exception) -> DatabaseError:
        text = error.strerror.lower() if isinstance(error, OSError) and error.strerror else str(error)
        return DatabaseError(f"{self._path} cannot be used: {text}")

    def _opened(self) -> sqlite3.Connection:
        if self._database is None:
            self._check(self._path.name)
            refuse_newer(self._path, self._kind)
            self._check_other(f"{self._path.name}-journal")
            self._database = sqlite3.connect(
                self._path, timeout=LOCK_TIMEOUT, isolation_level=None, check_same_thread=False
            )
            # Only whoever has changed the file has written other texts into it.
            self._database.text_factory = lambda data: data.decode(errors="replace")
            (version,) = self._database.execute("PRAGMA user_version").fetchone()
            (tables,) = self._database.execute("SELECT count(*) FROM sqlite_master").fetchone()
            if version < 0 or (tables and not version):
                raise files.ForeignError(errno.EPROTO, f"is of another version ({version})", str(self._path))
            first, *later = self._kind.migrations
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
        begins = f", and {self._kind.begins} begins" if path == self._path else ""
        now = "it was empty, and is gone" if empty else f"it is now {aside}"
        self.notices.append(f"{path} {why}: {now}{begins}")


def read_only(state_dir: Path, kind: Kind, work: Callable[[sqlite3.Connection], T]) -> T | None:
    """Read a file without writing anything; None where there is no such file, or one of another version.

    Raises:
        DatabaseError: it cannot be read.
    """
    path = state_dir / kind.file
    try:
        os.close(files.open_own(state_dir, kind.file))
        refuse_newer(path, kind)
        uri = f"{path.absolute().as_uri()}?mode=ro"
        with as_owner_of(state_dir), closing(sqlite3.connect(uri, uri=True, timeout=LOCK_TIMEOUT)) as database:
            database.text_factory = lambda data: data.decode(errors="replace")
            (version,) = database.execute("PRAGMA user_version").fetchone()
            return work(database) if version == kind.version else None
    except FileNotFoundError:
        return None
    except (sqlite3.Error, *UNFIT) as error:
        raise DatabaseError(f"{path} cannot be read: {error}") from error


@contextmanager
def as_owner_of(directory: Path) -> Iterator[None]:
    """Open files with the rights of a directory's owner, as long as this lasts."""
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
        with transaction(database):
            for statement in chain.from_iterable(migrations[version:]):
                database.execute(statement)
            database.execute(f"PRAGMA user_version = {len(migrations)}")


def refuse_newer(path: Path, kind: Kind) -> None:
    """Look at the version without SQLite, which might change a file of a newer polywan as soon as it opens it.

    Raises:
        DatabaseError: a newer polywan has written it.
    """
    with files.open_regular(path) as file:
        header = file.read(_HEADER.size)
    magic, version = _HEADER.unpack(header) if len(header) == _HEADER.size else (b"", 0)
    if magic == _MAGIC and version > kind.version:
        raise DatabaseError(newer(str(path), version, kind.version, kind.cost))


UNFIT: Final = (OSError, OverflowError, UnicodeError)
"""Errors of a place that cannot be used, and of values that SQLite does not take."""


def _as_said(why: str) -> str:
    return why if why.startswith(("is ", "has ", "belongs ")) else f"is damaged ({why.lower()})"


def _code(error: sqlite3.Error) -> int:
    """Return the error code of SQLite without what further bits tell; 0 when it was never asked."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


@contextmanager
def transaction(database: sqlite3.Connection) -> Iterator[None]:
    """Carry out statements whole or not at all."""
    database.execute("BEGIN IMMEDIATE")
    try:
        yield
        database.execute("COMMIT")
    except BaseException:
        with suppress(sqlite3.Error):
            database.execute("ROLLBACK")
        raise
