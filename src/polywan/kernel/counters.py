"""Byte counters of every device in one small read: /proc/net/dev (proc(5)); a dump of links costs ten times as much."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from polywan.core.errors import KernelError

PATH: Final = Path("/proc/thread-self/net/dev")
BOOT: Final = Path("/proc/sys/kernel/random/boot_id")
_RECEIVED: Final = 0
_SENT: Final = 8


def read(path: Path = PATH) -> dict[str, tuple[int, int]]:
    """Return bytes received and sent of every device by name, in the calling thread's network namespace.

    Raises:
        KernelError: the kernel does not show them.
    """
    try:
        text = path.read_text("utf-8", "surrogateescape")
    except OSError as error:
        raise KernelError("read the counters of devices", error.errno or 0, error.strerror or str(error)) from error
    return dict(_decoded(text))


def _decoded(text: str) -> Iterator[tuple[str, tuple[int, int]]]:
    for line in text.splitlines()[2:]:
        # A name may hold a colon, as that of an alias.
        name, _, rest = line.rpartition(":")
        fields = rest.split()
        yield name.strip(), (int(fields[_RECEIVED]), int(fields[_SENT]))


def boot(path: Path = BOOT) -> str:
    """Return what names this boot of the machine, since which devices count (random(4)); empty where it is hidden."""
    try:
        return path.read_text("ascii").strip()
    except (OSError, ValueError):
        return ""
