"""Reading a file of prefixes as text: bounded, whole or not at all, and never stuck on what is no file."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Final

from polywan import files
from polywan.config.errors import PolywanError

LARGEST_LIST: Final = 16 * 1024 * 1024
"""Bytes; half a million prefixes need less."""

_TRIES: Final = 3


class ListError(PolywanError):
    """A file of prefixes cannot be read; the text goes on behind its name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stamp:
    """What tells one state of a file from another without reading it.

    Attributes:
        modified: time of the last change as programs may set it, Unix time in nanoseconds.
        touched: time of the last change of any kind, which only the kernel sets.
    """

    device: int
    inode: int
    size: int
    modified: int
    touched: int


def stamp(path: FilePath) -> Stamp:
    """Return a file's stamp.

    Raises:
        ListError: there is no such file, or it cannot be asked.
    """
    try:
        return _stamp(os.stat(path))
    except (OSError, ValueError) as error:
        raise _refused(error) from error


def read(path: FilePath) -> tuple[Stamp, str]:
    """Return a file's text and its stamp; what changes meanwhile is read again.

    Raises:
        ListError: it is no file, too large, not text, or does not stop changing.
    """
    for _ in range(_TRIES):
        content, before, after = _content(path)
        if before == after:
            try:
                return before, content.decode("utf-8-sig")
            except UnicodeDecodeError as error:
                line = content.count(b"\n", 0, error.start) + 1
                raise ListError(f"line {line}: is not UTF-8 text") from error
    raise ListError("changed while it was being read")


def _content(path: FilePath) -> tuple[bytes, Stamp, Stamp]:
    """Read once, with the stamps of before and after; the name may lead to another file by then."""
    try:
        with files.open_regular(path) as stream:
            status = os.fstat(stream.fileno())
            if status.st_size > LARGEST_LIST:
                raise _too_large(status.st_size)
            content = stream.read(LARGEST_LIST + 1)
        if len(content) > LARGEST_LIST:
            raise _too_large(len(content))
        return content, _stamp(status), _stamp(os.stat(path))
    except files.IrregularError as error:
        raise ListError(error.strerror) from error
    except (OSError, ValueError) as error:
        raise _refused(error) from error


def _stamp(status: os.stat_result) -> Stamp:
    return Stamp(
        device=status.st_dev,
        inode=status.st_ino,
        size=status.st_size,
        modified=status.st_mtime_ns,
        touched=status.st_ctime_ns,
    )


def _too_large(size: int) -> ListError:
    return ListError(f"is {size / 1e6:.0f} MB; a list may have {LARGEST_LIST >> 20} MiB")


def _refused(error: Exception) -> ListError:
    reason = (error.strerror or "input/output error") if isinstance(error, OSError) else "the name is not valid"
    hint = " (give the user that runs polywan read access)" if isinstance(error, PermissionError) else ""
    return ListError(f"cannot be read: {reason.lower()}{hint}")
