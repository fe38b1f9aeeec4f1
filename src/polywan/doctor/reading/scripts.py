"""Read the files by which administrators and programs set up networks, and the lock files that they speak of."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from polywan.doctor.facts.locks import Lock
from polywan.files import content

_PLACES: Final = (
    "etc/ppp/ip-up*",
    "etc/ppp/ip-down*",
    "etc/ppp/ip-*.d/*",
    "etc/ppp/ipv6-*.d/*",
    "etc/network/interfaces",
    "etc/network/interfaces.d/*",
    "etc/network/if-*.d/*",
    "etc/NetworkManager/dispatcher.d/*",
    "etc/networkd-dispatcher/*.d/*",
    "etc/dhcp/dhclient-*-hooks.d/*",
    "etc/rc.local",
    "etc/rc.d/rc.local",
    "etc/sysconfig/network-scripts/*",
    "etc/openvpn/*.sh",
    "usr/local/sbin/*",
)
_MOST_FILES: Final = 300
_MOST_BYTES: Final = 1 << 16
_LOCK: Final = re.compile(r"(?:/var)?/(?:lock|run|tmp)/[^\s\"';|&)]*")
_LOCKISH: Final = re.compile(r"lock|lck|if-up|if-down")
_WAITS: Final = re.compile(r"\b(while|until|lockfile)\b")


def read(root: Path) -> Mapping[str, str]:
    """Return their texts by path, as seen from the root; programs are left out."""
    found: dict[str, str] = {}
    for place in _PLACES:
        for path in sorted(root.glob(place)):
            if len(found) >= _MOST_FILES:
                return found
            try:
                data = content(path, _MOST_BYTES)
            except OSError:
                continue
            if b"\0" not in data:
                found[f"/{path.relative_to(root)}"] = data.decode("utf-8", "replace")
    return found


def locks(root: Path, scripts: Mapping[str, str]) -> tuple[Lock, ...]:
    """Return the lock files that scripts speak of and that are there."""
    held = _held()
    found: dict[str, Lock] = {}
    for script, text in scripts.items():
        for number, line in enumerate(text.splitlines(), 1):
            for path in _named(root, line.partition("#")[0]):
                shown = f"/{path.relative_to(root)}"
                try:
                    status = path.stat()
                except OSError:
                    continue
                waited = bool(_WAITS.search(line))
                lock = Lock(shown, f"{script}:{number}", line.strip(), status.st_mtime, status.st_ino in held, waited)
                if shown not in found or waited:
                    found[shown] = lock
    return tuple(found.values())


def _named(root: Path, line: str) -> Iterator[Path]:
    """Yield the files that a line speaks of; a variable in a name stands for anything."""
    for match in _LOCK.findall(line):
        if not _LOCKISH.search(match.rpartition("/")[2]):
            continue
        pattern = re.sub(r"\$\{?\w+\}?", "*", re.sub(r"([*?\[])", "", match)).lstrip("/")
        if pattern.strip("*/") and ".." not in pattern:
            yield from (path for path in root.glob(pattern) if path.is_file())


def _held() -> frozenset[int]:
    """Return the inodes of files on which somebody has a lock (proc(5))."""
    try:
        lines = Path("/proc/locks").read_text("ascii", "replace").splitlines()
    except OSError:
        return frozenset()
    fields = (word for line in lines for word in line.split() if word.count(":") == 2)
    inodes = (field.rpartition(":")[2] for field in fields)
    return frozenset(int(inode) for inode in inodes if inode.isdecimal())
