"""Kernel settings below /proc/sys, of the network namespace of the calling thread."""

from __future__ import annotations

import errno
import os
from pathlib import Path, PurePosixPath

from polywan.core.errors import KernelError

SYSCTL_ROOT = Path("/proc/sys")


def read(path: str, root: Path = SYSCTL_ROOT) -> str | None:
    """Return a setting's value, or None when this kernel does not have it or does not show it.

    Raises:
        KernelError: the path leads outside of /proc/sys.
    """
    try:
        return _file(path, root).read_text(encoding="ascii", errors="replace").strip()
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


def _file(path: str, root: Path) -> Path:
    parts = PurePosixPath(path).parts
    if not parts or path.startswith("/") or ".." in parts or "\0" in path:
        raise KernelError(f"open the setting {path!r}", errno.EINVAL, "not a path below /proc/sys")
    return root.joinpath(*parts)
