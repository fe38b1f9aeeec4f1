"""Read which other programs run in this network namespace, and the files that say what they do to others' rules."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain, islice
from pathlib import Path
from typing import Final

from polywan.doctor.facts.programs import ProgramFacts
from polywan.doctor.reading.texts import text

MOST_FILES: Final = 400
_MOST_PROCESSES: Final = 20_000

_FOLDERS: Final = ("etc/systemd", "run/systemd", "usr/local/lib/systemd", "usr/lib/systemd", "lib/systemd")
"""Where systemd's files are: an earlier one wins (networkd.conf(5))."""

_FILES: Final = (
    "etc/nftables.conf",
    "etc/sysconfig/nftables.conf",
    "etc/nftables/*.nft",
    "etc/nftables.d/*.nft",
)
"""Rule files of nft(8)."""


def programs(root: Path, proc: Path = Path("/proc")) -> ProgramFacts:
    """Return what was found; what cannot be read is left out."""
    running = frozenset(_running(proc))
    return ProgramFacts(
        running=running,
        boots=_same_network(proc, "1"),
        enabled=frozenset(link.name for link in islice(root.glob("etc/systemd/system/*.wants/*"), MOST_FILES)),
        managed=frozenset(_managed(root)),
        networkd=_texts(root, _networkd(root)),
        files=_texts(root, chain.from_iterable(sorted(root.glob(pattern)) for pattern in _FILES)),
    )


def _running(proc: Path) -> Iterator[str]:
    for folder in islice(proc.glob("[0-9]*"), _MOST_PROCESSES):
        try:
            if _same_network(proc, folder.name):
                yield (folder / "comm").read_text("utf-8", "replace").rstrip("\n")
        except OSError:
            continue


def _same_network(proc: Path, process: str) -> bool:
    """Tell whether a process is in this network namespace; those of others may be hidden from this user."""
    try:
        return os.readlink(proc / process / "ns/net") == os.readlink(proc / "self/ns/net")
    except PermissionError:
        return True
    except OSError:
        return False


def _managed(root: Path) -> Iterator[int]:
    """Yield the links that systemd-networkd has set up, as networkctl(1) knows them."""
    for file in islice(root.glob("run/systemd/netif/links/*"), MOST_FILES):
        if file.name.isdecimal() and "ADMIN_STATE=configur" in text(file):
            yield int(file.name)


def _networkd(root: Path) -> Iterator[Path]:
    """Yield its main file and the parts, in the order in which they count: by name, from whichever folder."""
    mains = [root / folder / "networkd.conf" for folder in _FOLDERS]
    yield from [file for file in mains if file.is_file()][:1]
    parts: dict[str, Path] = {}
    for folder in _FOLDERS:
        for file in islice((root / folder / "networkd.conf.d").glob("*.conf"), MOST_FILES):
            parts.setdefault(file.name, file)
    yield from (parts[name] for name in sorted(parts))


def _texts(root: Path, files: Iterable[Path]) -> Mapping[str, str]:
    """Return the texts by the paths that they have below the root."""
    found = {str(Path("/") / file.relative_to(root)): text(file) for file in islice(files, MOST_FILES)}
    return {path: words for path, words in found.items() if words}
