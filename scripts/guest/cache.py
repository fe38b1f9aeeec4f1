"""Kernels that are kept from one guest to the next, in $XDG_CACHE_HOME/polywan; they may be removed at any time."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from guest.errors import GuestError

ROOT = Path(__file__).resolve().parents[2]
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "polywan"
CONFIG = Path(__file__).with_name("kernel.config")
LINUX = CACHE / "linux.uml"
"""User-mode Linux that was unpacked from shared/vm, or put there by hand."""
STOCK = CACHE / "debian"
"""Debian's kernel, unpacked."""


def settings(config: str) -> list[str]:
    """Return the lines of a kernel configuration that set something."""
    return [line for line in config.splitlines() if line.startswith("CONFIG_")]


def digest(config: str) -> str:
    """Return what tells one configuration from another: its comments and empty lines do not count."""
    return hashlib.sha256("\n".join(settings(config)).encode()).hexdigest()[:12]


def built() -> Path:
    """Return where the kernel is that `--build` makes from the present configuration."""
    return CACHE / f"linux-{digest(CONFIG.read_text())}.uml"


def is_outdated() -> bool:
    """Tell whether a kernel was built, but from another configuration than the present one."""
    return not built().exists() and any(CACHE.glob("linux-*.uml"))


@contextmanager
def workshop(megabytes: int) -> Iterator[Path]:
    """Give a directory in the cache to work in, to one process at a time; it is removed, however the work ends.

    Args:
        megabytes: that the work takes there.

    Raises:
        GuestError: the cache cannot be written, has too little room, or another process builds.
    """
    try:
        CACHE.mkdir(parents=True, exist_ok=True)
        lock = os.open(CACHE, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise GuestError(f"the cache {CACHE} cannot be used: {error.strerror}") from None
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise GuestError(f"another process is building in {CACHE}; wait for it") from None
        # A build that was killed could not remove its own.
        for old in CACHE.glob("build-*"):
            shutil.rmtree(old, ignore_errors=True)
        if (free := shutil.disk_usage(CACHE).free // 1_000_000) < megabytes:
            raise GuestError(f"{CACHE} has room for {free} MB, and this takes {megabytes} MB")
        with tempfile.TemporaryDirectory(prefix="build-", dir=CACHE, ignore_cleanup_errors=True) as directory:
            yield Path(directory)
    except OSError as error:
        raise GuestError(f"{error.filename or CACHE}: {error.strerror}") from None
    finally:
        os.close(lock)
