"""Kernel settings below /proc/sys, of the network namespace of the calling thread."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Final

from polywan.core.errors import KernelError

SYSCTL_ROOT = Path("/proc/sys")

_MOST: Final = 4096
"""Bytes of a value; those of /proc/sys have a page at most."""


def read(path: str, root: Path = SYSCTL_ROOT) -> str | None:
    """Return a setting's value, or None when this kernel does not have it or does not show it.

    Raises:
        KernelError: the path leads outside of /proc/sys.
    """
    file = _file(path, root)
    try:
        # Hundreds are read at a time, and opening a text file takes three times as many system calls.
        descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return os.read(descriptor, _MOST).decode("ascii", "replace").strip()
        finally:
            os.close(descriptor)
    except OSError:
        return None


def write(path: str, value: str, root: Path = SYSCTL_ROOT) -> None:
    """Set a value.

    Raises:
        KernelError: the path leads outside of /proc/sys, or the kernel refused.
    """
    file = _file(path, root)
    try:
        # Never creates a file, so that a setting this kernel lacks is ENOENT wherever `root` is.
        descriptor = os.open(file, os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC)
        try:
            os.write(descriptor, f"{value}\n".encode())
        finally:
            os.close(descriptor)
    except OSError as e:
        raise KernelError(f"write {path}", e.errno or 0, e.strerror or str(e)) from e


def _file(path: str, root: Path) -> str:
    # Hundreds are asked for in a row: pathlib would take longer than the kernel.
    parts = {*path.split("/")}
    if path.startswith("/") or "\0" in path or ".." in parts or parts <= {"", "."}:
        raise KernelError(f"open the setting {path!r}", errno.EINVAL, "not a path below /proc/sys")
    return f"{root}/{path}"
