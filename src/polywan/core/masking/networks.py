"""Which addresses belong to somebody, and which all others know or nobody owns."""

from __future__ import annotations

from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network
from typing import Final

from polywan.core.net import Family

_KEPT_V4: Final = (
    # Of nobody (RFC 6890): this host, private, between provider and customer, loopback, link-local, protocols,
    # documentation, benchmarks, multicast, reserved.
    *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24"),
    *("192.0.2.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/3"),
    # Resolvers that everybody may ask.
    *("1.0.0.0/24", "1.1.1.0/24", "8.8.4.0/24", "8.8.8.0/24", "9.9.9.0/24", "149.112.112.0/24"),
    *("208.67.220.0/24", "208.67.222.0/24"),
)
_KEPT_V6: Final = (
    # Discard, private, link-local, multicast, documentation.
    *("100::/64", "64:ff9b:1::/48", "fc00::/7", "fe80::/10", "ff00::/8", "2001:db8::/32", "3fff::/20"),
    *("2001:4860:4860::/48", "2606:4700:4700::/48", "2620:fe::/48", "2620:119:35::/48", "2620:119:53::/48"),
)

_Block = tuple[int, int]
"""Prefix length, and the bits of the prefix."""


def _block(network: IPv4Network | IPv6Network) -> _Block:
    return network.prefixlen, int(network.network_address) >> network.max_prefixlen - network.prefixlen


_KEPT: Final[dict[Family, tuple[_Block, ...]]] = {
    Family.V4: tuple(_block(IPv4Network(text)) for text in _KEPT_V4),
    Family.V6: tuple(_block(IPv6Network(text)) for text in _KEPT_V6),
}

_EMBEDDED: Final = tuple(_block(IPv6Network(text)) for text in ("::/96", "::ffff:0:0/96", "64:ff9b::/96"))
"""IPv6 prefixes whose addresses end in an IPv4 address: compatible, mapped, NAT64."""

LONGEST_OF_MANY: Final = {Family.V4: 8, Family.V6: 20}
"""A prefix of this length or shorter, such as 128.0.0.0/1 of a VPN, says nothing about anybody."""


@lru_cache(1 << 16)
def kept(family: Family, value: int) -> bool:
    """Tell whether an address stays as it is."""
    return any(value >> family.host_length - length == bits for length, bits in _KEPT[family])


def embedding(value: int) -> bool:
    """Tell whether an IPv6 address ends in an IPv4 address."""
    return any(value >> 128 - length == bits for length, bits in _EMBEDDED)
