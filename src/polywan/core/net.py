"""The field's small values: families, marks, tables, priorities."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network
from typing import Final, NewType, TypeAlias

from polywan.core.errors import CapacityError

IPAddress: TypeAlias = IPv4Address | IPv6Address
IPNetwork: TypeAlias = IPv4Network | IPv6Network
IPInterface: TypeAlias = IPv4Interface | IPv6Interface

Mark = NewType("Mark", int)
TableId = NewType("TableId", int)
RulePriority = NewType("RulePriority", int)

PROTOCOL: Final = 200
"""Stamp on every route and policy rule of ours (rtnetlink(7) rtm_protocol; 200 has no name in iproute2)."""

CHALLENGE_PRIORITY: Final = 0x5057_0001
"""Priority (SO_PRIORITY, socket(7)) of what is sent in a server's name to make idle clients speak; nobody else's."""

UNBOUND_SOURCE: Final = IPv4Address("192.0.0.8")
"""Source of the box's own TCP connections that are bound to nothing, until it is translated (RFC 7600, section 4.8)."""

TABLE_LOCAL: Final = TableId(255)
TABLE_MAIN: Final = TableId(254)
WORST_METRIC: Final = 0x7FFF_FFFF
"""Metric of the `blackhole` default: loses against every route that leads somewhere."""


class Family(IntEnum):
    """Address family, by its IP version; every family-dependent decision takes it as an argument."""

    V4 = 4
    V6 = 6

    @property
    def header(self) -> str:
        """Name of its header in nft(8): ``ip saddr``, ``ip6 saddr``."""
        return "ip" if self is Family.V4 else "ip6"

    @property
    def nfproto(self) -> str:
        """Name in ``meta nfproto`` (nft(8))."""
        return "ipv4" if self is Family.V4 else "ipv6"

    @property
    def default(self) -> IPNetwork:
        """The network that holds every address of the family."""
        return IPv4Network("0.0.0.0/0") if self is Family.V4 else IPv6Network("::/0")

    @property
    def host_length(self) -> int:
        """Prefix length of a single address."""
        return 32 if self is Family.V4 else 128


FAMILIES: Final = (Family.V4, Family.V6)


def family_of(value: IPAddress | IPNetwork | IPInterface) -> Family:
    """Return the family of an address, network or interface address."""
    return Family(value.version)


@dataclass(frozen=True, slots=True)
class MarkLayout:
    """The bits of the packet and connection mark that are ours; all other bits belong to others.

    Ids 1..capacity are spread over the set bits of the mask, lowest bit first; 0 means "no choice made".
    The highest value is never given to an uplink: see `reserved`.
    """

    mask: int

    @property
    def capacity(self) -> int:
        """Number of uplinks that can be told apart."""
        return int((1 << self.mask.bit_count()) - 2)

    @property
    def reserved(self) -> Mark:
        """The mark that is never given out, all bits of the mask.

        Chain `classify` asks its question with it (`core/ruleset/neighbours/decided.py`). It is dead while any mark is:
        connections that the kernel forgot are put back with it, so that their ends meet a reset
        (`kernel/conntrack/forgotten.py`).
        """
        return Mark(self.mask)

    @property
    def keep(self) -> int:
        """The complement: bits of others that every write of ours must keep."""
        return ~self.mask & 0xFFFF_FFFF

    def mark(self, number: int) -> Mark:
        """Spread `number` over the mask's bits.

        Raises:
            CapacityError: the number does not fit.
        """
        if not 1 <= number <= self.capacity:
            raise CapacityError(f"mark mask {self.mask:#x} has room for {self.capacity} uplinks, not {number}")
        return Mark(self.spread(number))

    def spread(self, number: int) -> int:
        """Spread the lowest bits of a number over the mask's bits; what does not fit is left out."""
        value, rest = 0, number
        for bit in range(32):
            if self.mask >> bit & 1:
                value |= (rest & 1) << bit
                rest >>= 1
        return value


PROTOCOLS: Final[Mapping[str, int]] = {
    "icmp": 1,
    "igmp": 2,
    "ipip": 4,
    "tcp": 6,
    "udp": 17,
    "dccp": 33,
    "ipv6": 41,
    "gre": 47,
    "esp": 50,
    "ah": 51,
    "icmpv6": 58,
    "sctp": 132,
    "udplite": 136,
}
"""Numbers of protocols by name (IANA)."""

PROTOCOL_NAMES: Final[Mapping[int, str]] = {number: name for name, number in PROTOCOLS.items()}
