"""The runtime directory: held by one daemon, and made again when somebody removes it.

It belongs to the daemon's user, and root opens what is in it for `down`: see SECURITY.md for what is believed.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from polywan import files
from polywan.core.errors import BusyError, NotPermitted, PolywanError
from polywan.core.words import printable

LOCK_FILE: Final = "lock"

_TRIES: Final = 100
"""Times that a lock may be removed while it is taken: whoever may write the directory must not keep root busy."""


class DirectoryLock:
    """A runtime directory that this process holds."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._descriptor = _lock(directory)

    def again(self) -> None:
        """Hold the directory again if it, or the lock in it, was removed or exchanged.

        Raises:
            BusyError: another daemon holds it by now.
            PolywanError: it cannot be made or written.
        """
        if not _is(self._directory / LOCK_FILE, self._descriptor):
            new = _lock(self._directory)
            os.close(self._descriptor)
            self._descriptor = new

    def close(self) -> None:
        """Let go of the directory."""
        os.close(self._descriptor)


@contextmanager
def locked(runtime_dir: Path) -> Iterator[DirectoryLock]:
    """Hold the runtime directory for this process.

    Raises:
        BusyError: another daemon holds it.
        PolywanError: it cannot be made or written.
    """
    held = DirectoryLock(runtime_dir)
    try:
        yield held
    finally:
        held.close()


def _lock(directory: Path) -> int:
    """Lock the file in the directory and write into it who holds it; return its descriptor."""
    for _ in range(_TRIES):
        descriptor = _opened(directory)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Whoever held it may have removed it before we locked it: then it keeps nobody out.
            if _is(directory / LOCK_FILE, descriptor):
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
                return descriptor
        except BlockingIOError:
            holder = printable(os.pread(descriptor, 20, 0).decode("ascii", "replace").strip()) or "unknown"
            os.close(descriptor)
            raise BusyError(
                f"another daemon (pid {holder}) uses the runtime directory {directory}: stop that one first; "
                "a daemon of another network namespace needs a directory of its own"
            ) from None
        except OSError as error:
            os.close(descriptor)
            raise _unusable(directory, error) from error
        os.close(descriptor)
    raise PolywanError(
        f"cannot use the runtime directory {directory}: another program keeps replacing {LOCK_FILE} in it"
    )


def _opened(directory: Path) -> int:
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o755)
        return files.open_own(directory, LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o644)
    except files.ForeignError as error:
        raise PolywanError(f"{directory / LOCK_FILE} {error.strerror}: not created by polywan; remove it") from error
    except OSError as error:
        raise _unusable(directory, error) from error


def _unusable(directory: Path, error: OSError) -> PolywanError:
    text = f"cannot use the runtime directory {directory}: {error.strerror}"
    if isinstance(error, files.IrregularError):
        return PolywanError(f"{directory / LOCK_FILE} {error.strerror}: not created by polywan; remove it")
    return (
        NotPermitted(f"{text}: use sudo, or the service") if isinstance(error, PermissionError) else PolywanError(text)
    )


def _is(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.lstat(path), os.fstat(descriptor))
    except OSError:
        return False
