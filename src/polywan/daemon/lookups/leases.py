"""Find the leases of links in the files of DHCP clients: routers that nobody else may tell of."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from os import SEEK_END
from pathlib import Path
from typing import Final

from polywan.config import Config
from polywan.core.net import Family
from polywan.core.resolved import Resolved
from polywan.core.world import leases
from polywan.core.world.leases import Lease
from polywan.core.world.observed import Link, Observed
from polywan.core.world.shared_device import next_hops
from polywan.files import open_regular
from polywan.kernel.api import Kernel

LEASE_ROOT: Final = Path("/")

_DHCLIENT: Final = ("var/lib/dhcp", "var/lib/dhclient", "var/lib/NetworkManager")
_DHCPCD: Final = ("var/lib/dhcpcd", "var/db/dhcpcd")
_NETWORKD: Final = "run/systemd/netif/leases"
_NETWORK_MANAGER: Final = "var/lib/NetworkManager"


def observe(kernel: Kernel, config: Resolved) -> Observed:
    """Return the world as a configuration needs it: what the kernel shows, and leases.

    Raises:
        KernelError: the kernel refused to show it.
    """
    return added(kernel.observe(next_hops(config)), config.file)


def added(observed: Observed, config: Config, root: Path = LEASE_ROOT) -> Observed:
    """Return the world with the leases of uplinks that have an IPv4 address and no other sign of a router."""
    wanted = []
    for uplink in config.uplinks.values():
        link = observed.links.get(uplink.interface)
        if link is None or link.point_to_point or uplink.gateway != "auto":
            continue
        if not observed.defaults_of(link.name, Family.V4):
            wanted.append(link)
    found = of_links(wanted, observed, root)
    return replace(observed, leases=found) if found else observed


def of_links(links: Iterable[Link], observed: Observed, root: Path = LEASE_ROOT) -> dict[str, Lease]:
    """Return the leases of these links that hold for an address that they have, by name."""
    found = {}
    for link in links:
        own = [ip.ip for ip in observed.addresses_of(link.name, Family.V4)]
        lease = leases.valid(_of(link, root), link.name, own, time.time()) if own else None
        if lease is not None:
            found[link.name] = lease
    return found


def _of(link: Link, root: Path) -> Iterator[Lease]:
    """Yield what files say of a link, the oldest file first."""
    # The shell's patterns must not see what a device may be called.
    name = re.escape(link.name)
    files = [
        *_named(root, _DHCLIENT, rf"dhclient.*\.leases?|{name}\.leases?"),
        *_named(root, _DHCPCD, rf"{name}(-.*)?\.lease"),
        *_named(root, (_NETWORK_MANAGER,), rf"internal-.*-{name}\.lease"),
        *_named(root, (_NETWORKD,), str(link.index)),
    ]
    for file in sorted(files, key=_written):
        yield from _read(file, link)


def _named(root: Path, folders: tuple[str, ...], pattern: str) -> Iterator[Path]:
    for folder in folders:
        try:
            yield from (file for file in (root / folder).iterdir() if re.fullmatch(pattern, file.name))
        except OSError:
            continue


def _written(file: Path) -> float:
    try:
        return file.stat().st_mtime
    except OSError:
        return 0.0


def _read(file: Path, link: Link) -> list[Lease]:
    folder = file.parent.as_posix()
    try:
        with open_regular(file) as opened:
            opened.seek(max(0, opened.seek(0, SEEK_END) - leases.LARGEST_LEASES))
            data = opened.read(leases.LARGEST_LEASES)
    except OSError:
        return []
    if folder.endswith("dhcpcd"):
        return leases.dhcpcd(data, link.name, _written(file))
    text = data.decode("utf-8", "replace")
    if folder.endswith(_NETWORKD):
        return leases.key_values(text, link.name, "systemd-networkd")
    if file.name.startswith("internal-"):
        return leases.key_values(text, link.name, "NetworkManager")
    return leases.dhclient(text)
