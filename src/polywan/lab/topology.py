"""What a lab network looks like, as a value: who is linked to whom, with which addresses.

::

    client ── lan0 router wan1 ── isp1 ── server      up to eight uplinks: each provider is a namespace
    client ── lan0 router trunk ══ access ── server   more: wan1..wanN are macvlans on one cable
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv6Address,
    IPv6Interface,
    ip_address,
    ip_interface,
    ip_network,
)
from typing import Final, TypeAlias

from polywan.core.net import FAMILIES, Family, IPAddress, IPInterface, IPNetwork
from polywan.lab.sandbox import LabError

MOST_CABLES: Final = 8
"""Above this number of uplinks, all share one cable."""
MOST_UPLINKS: Final = 62
"""As many as the default mark mask tells apart."""

LAN_ROUTER: Final[dict[Family, IPInterface]] = {
    Family.V4: ip_interface("192.168.15.1/24"),
    Family.V6: ip_interface("2001:db8:15::1/64"),
}
LAN_CLIENT: Final[dict[Family, IPInterface]] = {
    Family.V4: ip_interface("192.168.15.10/24"),
    Family.V6: ip_interface("2001:db8:15::10/64"),
}
SERVERS: Final[dict[Family, tuple[IPAddress, ...]]] = {
    Family.V4: tuple(map(IPv4Address, ("203.0.113.10", "198.51.100.10", "198.51.100.11"))),
    Family.V6: tuple(map(IPv6Address, ("2001:db8:203::10", "2001:db8:198::10", "2001:db8:198::11"))),
}
"""Addresses of the server namespace; all are health targets too."""

Numbers: TypeAlias = Collection[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class LabAddress:
    """An uplink's addressing in one family.

    Attributes:
        own: the router's address on the link, with the prefix the provider gave.
        gateway: the provider's end of the link.
        allowed: sources the provider lets pass; all others are dropped and counted as spoofed.
    """

    own: IPInterface
    gateway: IPAddress
    allowed: IPNetwork


@dataclass(frozen=True, slots=True, kw_only=True)
class LabUplink:
    """One way out of the router.

    Attributes:
        number: 1 for the first; it names the provider's counters.
        provider: name of the provider's namespace; shared by all when there is one cable.
        mac: link-layer address of the router's end.
        point_to_point: the link has no gateway: routes name the device alone.
        default_in_main: the router's main table has a default by it, as a DHCP client would make.
    """

    number: int
    provider: str
    mac: str
    addresses: dict[Family, LabAddress]
    point_to_point: bool = False
    default_in_main: bool = True

    @property
    def interface(self) -> str:
        """The router's device."""
        return f"wan{self.number}"

    @property
    def name(self) -> str:
        """What configurations of the lab call it."""
        return f"isp{self.number}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Topology:
    """A whole network, ready to be built.

    Attributes:
        trunk: all uplinks are macvlans on one cable, and a cut is an administrative "down".
    """

    uplinks: tuple[LabUplink, ...]
    trunk: bool
    families: tuple[Family, ...]

    def uplink(self, number: int) -> LabUplink:
        """Return the uplink of that number, counted from 1.

        Raises:
            LabError: there is none.
        """
        if not 1 <= number <= len(self.uplinks):
            raise LabError(f"the lab has no uplink {number}, only 1 to {len(self.uplinks)}")
        return self.uplinks[number - 1]

    def number_of(self, source: IPAddress) -> int | None:
        """Return the number of the uplink whose provider lets this source pass; None when none does."""
        for uplink in self.uplinks:
            address = uplink.addresses.get(Family(source.version))
            if address is not None and source in address.allowed:
                return uplink.number
        return None

    @property
    def providers(self) -> tuple[str, ...]:
        """Names of the providers' namespaces, each once."""
        return tuple(dict.fromkeys(uplink.provider for uplink in self.uplinks))


def describe(
    uplinks: int = 3,
    *,
    trunk: bool | None = None,
    twins: bool = False,
    families: Collection[Family] = FAMILIES,
    ipv4_only: Numbers = (),
    point_to_point: Numbers = (),
    without_default: Numbers = (),
) -> Topology:
    """Lay out a network of 1 to 62 uplinks.

    Args:
        uplinks: how many.
        trunk: one cable for all; by default above eight uplinks, and for twins.
        twins: uplink 2 has the subnet and the gateway of uplink 1.
        families: of the whole network.
        ipv4_only: numbers of uplinks whose provider has no IPv6.
        point_to_point: numbers of uplinks without a gateway (devices without ARP, addresses /32 and /128).
        without_default: numbers of uplinks for which main has no default route.

    Raises:
        LabError: the options exclude each other.
    """
    one_cable = (uplinks > MOST_CABLES or twins) if trunk is None else trunk
    _check(uplinks, one_cable=one_cable, twins=twins, point_to_point=point_to_point)
    ordered = tuple(family for family in FAMILIES if family in families)

    made = []
    for number in range(1, uplinks + 1):
        alone = number in point_to_point
        has = [family for family in ordered if family is Family.V4 or number not in ipv4_only]
        uplink = LabUplink(
            number=number,
            provider="access" if one_cable else f"isp{number}",
            mac=f"02:00:00:64:00:{number:02x}",
            addresses={family: _addressing(number, family, twins=twins, alone=alone) for family in has},
            point_to_point=alone,
            default_in_main=number not in without_default,
        )
        made.append(uplink)
    return Topology(uplinks=tuple(made), trunk=one_cable, families=ordered)


def _check(uplinks: int, *, one_cable: bool, twins: bool, point_to_point: Numbers) -> None:
    if not 1 <= uplinks <= MOST_UPLINKS:
        raise LabError(f"a lab has 1 to {MOST_UPLINKS} uplinks, not {uplinks}")
    if uplinks > MOST_CABLES and not one_cable:
        raise LabError(f"more than {MOST_CABLES} uplinks need one cable for all")
    if one_cable and point_to_point:
        raise LabError("point-to-point uplinks need a cable each (at most eight uplinks, no twins)")
    if twins and uplinks < 2:
        raise LabError("twins need exactly two uplinks")


def _addressing(number: int, family: Family, *, twins: bool, alone: bool) -> LabAddress:
    """Addresses by number; a twin lives in the first uplink's subnet and may use its own address only."""
    subnet, host = (1, number + 1) if twins and number <= 2 else (number, 2)
    base, length = (f"100.64.{subnet}.", 24) if family is Family.V4 else (f"2001:db8:64:{subnet}::", 64)
    own = ip_address(f"{base}{host}")
    single = ip_network(own)
    network = single if alone else ip_network(f"{own}/{length}", strict=False)
    return LabAddress(
        own=_interface(own, family.host_length if alone else length),
        gateway=ip_address(f"{base}1"),
        allowed=single if twins and number <= 2 else network,
    )


def _interface(address: IPAddress, length: int) -> IPInterface:
    return IPv4Interface((address, length)) if isinstance(address, IPv4Address) else IPv6Interface((address, length))
