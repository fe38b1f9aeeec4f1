"""Which IPv6 destinations main leads to by an uplink more specifically than by a default.

In IPv4 the kernel is asked (`ruleset.py`, `first.py`). In IPv6 it cannot be: nft's question for a route passes over
``suppress_prefixlength`` in newer kernels (Linux 7), and its routes have no realms.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from hashlib import blake2s
from ipaddress import IPv6Network, collapse_addresses
from typing import Final

from polywan.core.net import TABLE_MAIN, Family
from polywan.core.nft import Key, NftRule, NftSet
from polywan.core.observed import WIDE, Observed

PREFIX: Final = "specific_6_"
"""Beginning of the set's name; a digest of what is in it follows."""


def specific_networks(observed: Observed, devices: Collection[str]) -> tuple[IPv6Network, ...]:
    """Return what main leads to by these devices, but for its defaults and pieces of them; merged and in order."""
    known = (d.prefix for d in observed.tables.get(TABLE_MAIN, ()) if d.link in devices and d.kind == "unicast")
    # A recording without routes has the links' own networks all the same.
    linked = (address.network for device in devices for address in observed.addresses_of(device, Family.V6))
    found = (n for n in (*known, *linked) if isinstance(n, IPv6Network) and n.prefixlen > WIDE[Family.V6])
    return tuple(collapse_addresses(found))


def specific_sets(observed: Observed, devices: Collection[str]) -> dict[str, NftSet]:
    """Return the set of these networks; none without any."""
    found: frozenset[Key] = frozenset(map(str, specific_networks(observed, devices)))
    return {_name(found): NftSet("type ipv6_addr; flags interval;", found)} if found else {}


def left_alone(observed: Observed, devices: Collection[str]) -> Iterator[NftRule]:
    """Yield the rule that leaves alone what main's specific routes decide, of packets without a bit of ours."""
    for name in specific_sets(observed, devices):
        yield NftRule(f"ip6 daddr @{name} accept", "a specific route of main, by an uplink")


def _name(elements: Collection[Key]) -> str:
    text = "\n".join(sorted(map(str, elements)))
    return PREFIX + blake2s(text.encode(), digest_size=4).hexdigest()
