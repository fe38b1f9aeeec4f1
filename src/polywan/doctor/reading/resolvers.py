"""Read which resolvers this box uses, and which link's provider named each of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from polywan.core.net import IPAddress
from polywan.core.world.observed import Link, Observed
from polywan.daemon.lookups import leases
from polywan.doctor.facts.line import Resolver
from polywan.doctor.facts.resolvers import nameservers, owned, value_of
from polywan.doctor.reading.texts import text

_LARGEST: Final = 65536
_RESOLV: Final = "etc/resolv.conf"
_DNSMASQ: Final = "run/dnsmasq/resolv.conf"
_PPP: Final = "etc/ppp/resolv.conf"
_BY_INDEX: Final = (("run/systemd/netif/links", "DNS"), ("run/systemd/resolve/netif", "SERVERS"))
_BY_NAME: Final = ("run/resolvconf/interface", "run/resolvconf/interfaces")
"""Where resolvconf(8) of Debian and openresolv keep what each program said: ``eth1.dhclient``."""

_RESOLVED: Final = ("127.0.0.53", "127.0.0.54")
"""systemd-resolved, which asks the server of a link by that link."""


def read(observed: Observed, devices: set[str], root: Path) -> tuple[Resolver, ...]:
    """Return the resolvers in use that the provider of one of the devices has named."""
    links = [link for link in observed.links.values() if link.name in devices]
    named = [resolver for link in links for resolver in _of(link, observed, root)]
    dialled = [link.name for link in links if link.kind == "ppp"]
    if len(dialled) == 1:
        # pppd has one file for all of its links (usepeerdns).
        named += [Resolver(address, dialled[0], f"/{_PPP}") for address in nameservers(text(root / _PPP, _LARGEST))]
    return owned(_used(root), named)


def _used(root: Path) -> tuple[IPAddress, ...]:
    found = nameservers(text(root / _RESOLV, _LARGEST))
    if any(str(address) in _RESOLVED for address in found):
        return ()
    if found and all(address.is_loopback for address in found):
        return nameservers(text(root / _DNSMASQ, _LARGEST))
    return found


def _of(link: Link, observed: Observed, root: Path) -> Iterator[Resolver]:
    if (lease := leases.of_links([link], observed, root).get(link.name)) is not None:
        yield from (Resolver(address, link.name, f"the lease of {lease.program}") for address in lease.resolvers)
    for folder, key in _BY_INDEX:
        path = f"{folder}/{link.index}"
        yield from (Resolver(address, link.name, f"/{path}") for address in value_of(text(root / path, _LARGEST), key))
    for folder in _BY_NAME:
        for path in _beginning(root, folder, f"{link.name}."):
            yield from (
                Resolver(address, link.name, f"/{path}") for address in nameservers(text(root / path, _LARGEST))
            )


def _beginning(root: Path, folder: str, start: str) -> list[str]:
    try:
        return sorted(f"{folder}/{file.name}" for file in (root / folder).iterdir() if file.name.startswith(start))
    except OSError:
        return []
