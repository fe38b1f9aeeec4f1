"""Open files that others name, or put where we look: nothing is waited for, and nobody is led elsewhere.

Who may write a directory decides what its names lead to: a pipe or a device that is never read to its end, or a link to
a file of somebody else. That matters most to root in a directory of the daemon's user.
"""

from __future__ import annotations

import errno
import os
import select
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from stat import S_ISDIR, S_ISFIFO, S_ISREG, S_ISSOCK
from typing import BinaryIO, Final

_CAREFUL: Final = os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY

SOCKET: Final = "control.sock"
"""Name of the daemon's socket in its runtime directory."""

PIPE_TIMEOUT: Final = 5
"""Seconds that the writer of a pipe may say nothing."""


class IrregularError(OSError):
    """What has that name is a pipe, a device or a socket."""


class ForeignError(OSError):
    """What has that name was not put there by whoever owns the directory."""


def open_regular(path: Path | str) -> BinaryIO:
    """Open a file for reading, also behind a link, without ever waiting for somebody to write into it.

    Raises:
        IrregularError: it is no regular file.
        OSError: it cannot be opened, or is a directory.
    """
    descriptor = os.open(path, os.O_RDONLY | _CAREFUL)
    try:
        _demand_regular(os.fstat(descriptor), path)
    except OSError:
        os.close(descriptor)
        raise
    return os.fdopen(descriptor, "rb")


def content(path: Path | str, most: int, *, pipes: bool = False) -> bytes:
    """Return what is in a file, `most` bytes at most.

    Args:
        path: also of a link.
        most: further bytes are left.
        pipes: take a pipe too, as a shell passes one; a writer that says nothing for `PIPE_TIMEOUT` seconds ends it.

    Raises:
        IrregularError: it is no regular file, or a pipe whose writer says nothing.
        OSError: it cannot be read, or is a directory.
    """
    descriptor = os.open(path, os.O_RDONLY | _CAREFUL)
    try:
        status = os.fstat(descriptor)
        if pipes and S_ISFIFO(status.st_mode):
            return _drained(descriptor, most, path)
        _demand_regular(status, path)
        with os.fdopen(descriptor, "rb", closefd=False) as stream:
            return stream.read(most)
    finally:
        os.close(descriptor)


def _drained(descriptor: int, most: int, path: Path | str) -> bytes:
    found = b""
    while len(found) < most:
        try:
            # A pipe that nobody has open for writing is at its end, which poll does not tell.
            piece = os.read(descriptor, most - len(found))
        except BlockingIOError:
            waiting = select.poll()
            waiting.register(descriptor, select.POLLIN)
            if waiting.poll(1000 * PIPE_TIMEOUT):
                continue
            text = f"is a pipe into which nothing was written for {PIPE_TIMEOUT} s"
            raise IrregularError(errno.EAGAIN, text, str(path)) from None
        if not piece:
            break
        found += piece
    return found


def open_own(folder: Path, name: str, flags: int = os.O_RDONLY, mode: int = 0o600) -> int:
    """Open a file that polywan itself keeps in a directory, and return its descriptor; links are not followed.

    The caller may then read, write and empty it: it is a regular file with this one name, of the directory's owner, of
    ourselves or of root.

    Raises:
        IrregularError: it is no regular file.
        ForeignError: it is a link, has further names, or belongs to somebody else.
        OSError: it cannot be opened.
    """
    within = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            descriptor = os.open(name, flags | os.O_NOFOLLOW | _CAREFUL, mode, dir_fd=within)
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise ForeignError(error.errno, "is a symbolic link", str(folder / name)) from error
            raise
        try:
            status = os.fstat(descriptor)
            _demand_regular(status, folder / name)
            if text := foreign(status, os.fstat(within)):
                raise ForeignError(errno.EPERM, text, str(folder / name))
        except OSError:
            os.close(descriptor)
            raise
        return descriptor
    finally:
        os.close(within)


def create(path: Path, text: str) -> None:
    """Write a file that is not there yet, and its directories, readable by everybody; whole or not at all.

    Raises:
        FileExistsError: something has that name already; it stays as it is.
        OSError: the directory cannot be made or written.
    """
    folder = path.parent
    for missing in reversed([above for above in (folder, *folder.parents) if not above.exists()]):
        missing.mkdir()
        missing.chmod(0o755)
    put(path, text.encode(), 0o644)


def put(path: Path, content: bytes, mode: int = 0o600) -> None:
    """Write a file that is not there yet, for its owner alone unless `mode` says more; whole or not at all.

    Raises:
        FileExistsError: something has that name already; it stays as it is.
        OSError: the directory cannot be written.
    """
    with _written_beside(path, content, mode) as made:
        # Unlike a renaming, this fails where there is a file.
        path.hardlink_to(made)


def exchange(
    path: Path, content: bytes, mode: int = 0o600, owner: tuple[int, int] | None = None, *, durable: bool = True
) -> None:
    """Put a file in the place of another one, or where there is none; a crash leaves the old one or the new one, whole.

    Args:
        path: a link of that name is replaced, not followed.
        content: what is in it.
        mode: who may read and write it.
        owner: user and group, unless it is to be ours.
        durable: force it to disk; without that a power cut may leave an empty one.

    Raises:
        OSError: the directory cannot be written; the old file stays.
    """
    with _written_beside(path, content, mode, owner, durable=durable) as made:
        made.replace(path)
    if durable:
        sync(path.parent)


@contextmanager
def _written_beside(
    path: Path, content: bytes, mode: int, owner: tuple[int, int] | None = None, *, durable: bool = True
) -> Iterator[Path]:
    """Have a file of a new name in the same directory for as long as the context lasts, on disk if it is `durable`."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, mode)
            if owner is not None and owner != (os.geteuid(), os.getegid()):
                os.fchown(descriptor, *owner)
            file.write(content)
            file.flush()
            if durable:
                os.fsync(descriptor)
        yield Path(name)
    finally:
        Path(name).unlink(missing_ok=True)


def sync(folder: Path) -> None:
    """Force a directory to disk, so that a rename or a removal in it outlives a power cut.

    Raises:
        OSError: it cannot be opened, or the disk fails.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def own_socket(path: Path) -> int:
    """Return a descriptor of a socket that polywan itself keeps in a directory, to connect to by /proc/self/fd.

    Raises:
        ForeignError: it is no socket (a link, for one), has further names, or belongs to somebody else.
        OSError: there is none.
    """
    descriptor = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        status = os.fstat(descriptor)
        text = "is not a socket" if not S_ISSOCK(status.st_mode) else foreign(status, path.parent.stat())
        if text:
            raise ForeignError(errno.ENOTSOCK, text, str(path))
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def foreign(status: os.stat_result, folder: os.stat_result) -> str:
    """Return why something in a directory of polywan's is not polywan's; nothing when it is."""
    if status.st_nlink != 1:
        return "has more than one hard link"
    if status.st_uid not in {folder.st_uid, os.geteuid(), 0}:
        return "belongs to another user than its directory"
    return ""


def _demand_regular(status: os.stat_result, path: Path | str) -> None:
    if S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not S_ISREG(status.st_mode):
        raise IrregularError(errno.EINVAL, "is not a regular file", str(path))
