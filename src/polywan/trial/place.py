"""The configuration's directory: its texts, the record of a trial beside them, and who may change both at a time."""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from polywan import files
from polywan.config import file_texts, names_below
from polywan.core.errors import NotPermitted, PolywanError
from polywan.core.trial.deciding import Place as Holds
from polywan.core.trial.record import RECORD_SUFFIX, Record, restored, stored
from polywan.core.trial.texts import digest_of

REJECTED: Final = ".rejected"
LOCK_SUFFIX: Final = ".lock"

HELD_WITHIN: Final = 180.0
"""Seconds: a trial that begins or ends has to wait for a daemon that starts, and for its uplinks."""

_POLL: Final = 0.05
_LARGEST: Final = 64 << 20
"""Bytes of a record: a configuration has 16 MiB at most, and JSON may escape each of its characters."""


class Place:
    """The directory of a configuration.

    Attributes:
        file: the configuration.
        record: where the record of a trial is.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self.record = file.with_name(file.name + RECORD_SUFFIX)

    def texts(self) -> dict[str, str]:
        """Return what is there, by names below the directory.

        Raises:
            ConfigError: a file cannot be read.
        """
        return names_below(self.file, file_texts(self.file))

    def read(self, name: str) -> str | None:
        """Return the text of one file; None when there is none.

        Raises:
            ConfigError: it cannot be read.
        """
        return self.texts().get(name) if os.path.lexists(self.path(name)) else None

    def path(self, name: str) -> Path:
        """Return where a file is."""
        return self.file.parent / name

    def holds(self, record: Record) -> Holds:
        """Return what the place of a trial's file holds.

        Raises:
            ConfigError: it cannot be read.
        """
        text = self.read(record.name)
        found = "" if text is None else digest_of(text)
        if found == record.old:
            return Holds.OLD
        return Holds.NEW if found == digest_of(record.text) else Holds.OTHER

    def write(self, name: str, text: str) -> None:
        """Put a text into a file, whole or not at all; its owner and rights stay, a new one has those of the main file.

        Raises:
            PolywanError: it cannot be written.
        """
        self._written(self.path(name), text)

    def remove(self, name: str) -> None:
        """Remove a file; none there is as good.

        Raises:
            PolywanError: it cannot be removed.
        """
        try:
            self.path(name).unlink(missing_ok=True)
            files.sync(self.path(name).parent)
        except OSError as error:
            raise _failed(self.path(name), error) from error

    def pending(self) -> Record | None:
        """Return the record of a trial; None when there is none.

        Raises:
            PolywanError: there is something else in its place.
        """
        try:
            with os.fdopen(files.open_own(self.file.parent, self.record.name), "rb") as file:
                return restored(json.loads(file.read(_LARGEST)))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _failed(self.record, error) from error
        except (ValueError, RecursionError) as error:
            raise PolywanError(f"{self.record} {_said(error)}: no trial can be read from it; remove it") from error

    def keep(self, record: Record) -> None:
        """Write the record of a trial, and force it to disk.

        Raises:
            PolywanError: it cannot be written.
        """
        self._written(self.record, json.dumps(stored(record), indent=1), 0o600)

    def drop(self) -> None:
        """Remove the record: the trial is over."""
        with suppress(FileNotFoundError):
            self.record.unlink()
        files.sync(self.file.parent)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Be the only one that begins, confirms or ends a trial here for as long as the context lasts.

        The lock is a file that only its owner can open: a directory anybody could lock who may read it.

        Raises:
            PolywanError: the lock cannot be opened, or another command has it for longer than any needs.
        """
        name = f".{self.file.name}{LOCK_SUFFIX}"
        try:
            descriptor = files.open_own(self.file.parent, name, os.O_RDWR | os.O_CREAT)
        except OSError as error:
            raise _failed(self.file.with_name(name), error) from error
        try:
            until = time.monotonic() + HELD_WITHIN
            while not _locked(descriptor):
                if time.monotonic() > until:
                    raise PolywanError(
                        f"another polywan command has worked on {self.file} for {HELD_WITHIN:g} s: wait for its end, "
                        f"or look for it with `fuser {self.file.with_name(name)}`"
                    )
                time.sleep(_POLL)
            yield
        finally:
            os.close(descriptor)

    def _written(self, path: Path, text: str, mode: int | None = None) -> None:
        try:
            self._write(path, text, mode)
        except OSError as error:
            raise _failed(path, error) from error

    def _write(self, path: Path, text: str, mode: int | None = None) -> None:
        path = path.resolve()  # a link stays one
        like = path if path.exists() else self.file
        with suppress(FileNotFoundError):
            path.parent.mkdir(exist_ok=True)
        if mode is not None:
            files.exchange(path, text.encode(), mode)
        elif like.exists():
            status = like.stat()
            files.exchange(path, text.encode(), status.st_mode & 0o777, (status.st_uid, status.st_gid))
        else:
            files.exchange(path, text.encode(), 0o644)


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _failed(path: Path, error: OSError) -> PolywanError:
    text = f"{path}: {(error.strerror or str(error)).lower()}"
    return NotPermitted(f"{text}: use sudo") if isinstance(error, PermissionError) else PolywanError(text)


def _said(error: Exception) -> str:
    return str(error) if str(error).startswith("is ") else f"is damaged ({error})"
