"""The first files of a guest by QEMU, as an archive that the kernel unpacks (cpio, "newc")."""

from __future__ import annotations

import lzma
import stat
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path


def entry(name: str, mode: int, contents: bytes = b"") -> bytes:
    """Return a file of the archive: header, name, contents, each filled up to four bytes."""
    path = name.encode() + b"\0"
    fields = [0, mode, 0, 0, 1, 0, len(contents), 0, 0, 0, 0, len(path), 0]
    head = b"070701" + b"".join(b"%08x" % field for field in fields) + path
    return _filled(head) + _filled(contents)


def _filled(part: bytes) -> bytes:
    return part + b"\0" * (-len(part) % 4)


def archive(directories: Iterable[str], programs: Mapping[str, bytes]) -> bytes:
    """Return an archive with directories and executable files, by path without a slash in front."""
    folders = [entry(name, stat.S_IFDIR | 0o755) for name in directories]
    files = [entry(name, stat.S_IFREG | 0o755, contents) for name, contents in programs.items()]
    return b"".join([*folders, *files, entry("TRAILER!!!", 0)])


def load_order(wanted: Iterable[str], needs: Mapping[str, tuple[str, ...]]) -> list[str]:
    """Return the files of modules, each after those that it needs.

    Args:
        wanted: names of modules; one that is built in has no file.
        needs: the files that each module's file needs, whole, the nearest first; as `depmod` writes it.
    """
    files = {module_of(path): path for path in needs}
    order: dict[str, None] = {}
    for name in wanted:
        if path := files.get(name):
            order.update(dict.fromkeys((*reversed(needs[path]), path)))
    return list(order)


def module_of(path: str) -> str:
    """Return the name of the module in a file."""
    return Path(path).name.partition(".ko")[0].replace("-", "_")


def read_needs(lines: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Read what `depmod` wrote: which files each module needs."""
    pairs = (line.partition(":") for line in lines)
    return {path: tuple(needed.split()) for path, _, needed in pairs}


def contents(paths: Iterable[Path]) -> Iterator[bytes]:
    """Read modules; those that are packed are unpacked."""
    for path in paths:
        yield lzma.decompress(path.read_bytes()) if path.suffix == ".xz" else path.read_bytes()
