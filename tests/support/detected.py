"""Machines to be looked at, as values: links with addresses, default routes and what drives them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, ip_address, ip_interface, ip_network
from typing import Any

from polywan.core.detection.candidates import Seen, Survey, survey
from polywan.core.detection.kinds import Device, Hardware
from polywan.core.net import TABLE_MAIN, TableId, family_of
from polywan.core.world.leases import Lease
from polywan.core.world.observed import Address, DefaultRoute, Link, Observed, WideRoute


@dataclass
class Machine:
    """A machine that grows link by link."""

    observed: Observed = field(default_factory=lambda: Observed(links={}))
    hardware: Hardware = field(default_factory=Hardware)
    leases: dict[str, Lease] = field(default_factory=dict)

    def link(self, name: str, *addresses: str, driver: str = "", devtype: str = "", speed: int = 0, **more: Any) -> int:
        """Add a link, up unless `more` says otherwise; return its index."""
        index = len(self.observed.links) + 1
        link = Link(index=index, name=name, **{"up": True, "carrier": True, **more})
        own = (Address(name, ip_interface(address)) for address in addresses)
        self.observed = replace(
            self.observed,
            links={**self.observed.links, name: link},
            addresses=(*self.observed.addresses, *own),
        )
        device = Device(driver=driver, devtype=devtype, speed=speed)
        self.hardware = replace(self.hardware, devices={**self.hardware.devices, name: device})
        return index

    def ppp(self, name: str, *addresses: str) -> None:
        """Add the end of a PPP session."""
        self.link(name, *addresses, kind="ppp", point_to_point=True)

    def default(self, link: str, via: str | None, table: int = TABLE_MAIN, **more: Any) -> None:
        """Add a default route; without a router it is one of IPv4."""
        hop = None if via is None else ip_address(via)
        family = family_of(hop or IPv4Address(0))
        route = DefaultRoute(family=family, link=link, via=hop, table=TableId(table), **more)
        self.observed = replace(self.observed, defaults=(*self.observed.defaults, route))

    def part(self, link: str, network: str) -> None:
        """Add a route to a large part of the Internet."""
        part = WideRoute(ip_network(network), link)
        self.observed = replace(self.observed, parts=(*self.observed.parts, part))

    def lease(self, link: str, address: str, router: str) -> None:
        """Add what a DHCP client wrote down."""
        found = Lease(
            link=link, address=IPv4Address(address), router=IPv4Address(router), expires=None, program="dhclient"
        )
        self.leases[link] = found

    def survey(self) -> Survey:
        """Look at it."""
        return survey(self.observed, self.hardware, self.leases)

    def seen(self, link: str) -> Seen:
        """Return what is thought of one link."""
        return next(seen for seen in self.survey().seen if seen.link == link)

    @property
    def verdicts(self) -> dict[str, str]:
        """What each link that is worth a line is."""
        return {seen.link: seen.verdict for seen in self.survey().seen}


def gateway() -> Machine:
    """Return a machine with two Ethernet uplinks and a LAN."""
    machine = Machine()
    machine.link("lo", "127.0.0.1/8")
    machine.link("eth1", "100.64.1.2/24")
    machine.link("eth2", "100.64.2.2/24")
    machine.link("lan0", "192.168.15.1/24")
    machine.default("eth1", "100.64.1.1", metric=101)
    machine.default("eth2", "100.64.2.1", metric=102)
    return machine
