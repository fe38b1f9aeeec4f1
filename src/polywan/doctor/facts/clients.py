"""Connections that a box may have, as the first packets that rules see of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from polywan.core.firewall.model import Hook
from polywan.core.firewall.passing import Passing
from polywan.core.net import FAMILIES, Family, IPAddress
from polywan.core.plan.lans import Lan
from polywan.doctor.box import REMOTE, Box
from polywan.doctor.facts.marking import FORWARD_HOOKS, OWN_HOOKS

_PROTOCOLS: Final = ("tcp", "udp")


class Client(NamedTuple):
    """Connections from a network behind the box (`lan`), or from the box itself."""

    family: Family
    address: IPAddress
    lan: Lan | None

    def __str__(self) -> str:
        return str(self.lan) if self.lan is not None else "this box"

    @property
    def hooks(self) -> tuple[Hook, ...]:
        """Where its packets pass."""
        return OWN_HOOKS if self.lan is None else FORWARD_HOOKS

    def first(self, protocol: str = "tcp", out: str | None = None) -> Passing:
        """Return the first packet of a connection to the Internet."""
        return Passing(
            family=self.family,
            in_device=self.lan.device if self.lan is not None else None,
            out_device=out,
            source=self.address,
            destination=REMOTE[self.family],
            protocol=protocol,
            source_port=50000,
            port=443,
        )


def host_of(lan: Lan) -> IPAddress | None:
    """Return an address of a network that is not the box's own."""
    return next((host for host in lan.network.hosts() if host != lan.own.ip), None)


def clients(box: Box) -> Iterator[Client]:
    """Yield those of both families: each network behind the box, then the box."""
    for family in FAMILIES:
        for lan in box.inside(family):
            if (host := host_of(lan)) is not None:
                yield Client(family, host, lan)
        own = (a for e in box.sending(family) for a in box.observed.addresses_of(e.device, family))
        if (address := next(own, None)) is not None:
            yield Client(family, address.ip, None)


def connections(box: Box) -> Iterator[tuple[Client, Passing]]:
    """Yield the first packets of TCP and UDP connections of every client; by which device they leave is not known."""
    for client in clients(box):
        main = box.observed.main_default_links(client.family)
        out = next(iter(sorted(main)), None) if client.lan is None else None
        for protocol in _PROTOCOLS:
            yield client, client.first(protocol, out)
