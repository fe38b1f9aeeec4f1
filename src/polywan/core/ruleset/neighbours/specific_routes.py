"""Which destinations main leads to by an uplink more specifically than by a default.

Of forwarded IPv4 packets the kernel is asked (`decided.py`). It cannot be asked in chain `output`, and of IPv6 not
either: nft's question for a route passes over ``suppress_prefixlength`` in newer kernels (Linux 7).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from functools import lru_cache
from hashlib import blake2s
from ipaddress import IPv4Network, IPv6Network, collapse_addresses
from typing import Final

from polywan.core.identity import Same
from polywan.core.net import FAMILIES, TABLE_MAIN, Family, IPNetwork
from polywan.core.ruleset.model import Key, NftRule, NftSet
from polywan.core.world.observed import WIDE, Observed

PREFIX: Final = "specific_"
"""Beginning of the sets' names; the family and a digest of what is in it follow."""


def specific_networks(observed: Observed, devices: Collection[str], family: Family) -> tuple[IPNetwork, ...]:
    """Return what main leads to by these devices, but for its defaults and pieces of them; merged and in order."""
    known = (d.prefix for d in observed.tables.get(TABLE_MAIN, ()) if d.link in devices and d.kind == "unicast")
    # A recording without routes has the links' own networks all the same.
    linked = (address.network for device in devices for address in observed.addresses_of(device, family))
    found = [n for n in (*known, *linked) if n.version == family and WIDE[family] < n.prefixlen]
    return _merged(frozenset(found), family)


@lru_cache(maxsize=4)
def _merged(found: frozenset[IPNetwork], family: Family) -> tuple[IPNetwork, ...]:
    """Merge the networks of one family, in order. Each plan asks several times, and the answer rarely changes."""
    if family is Family.V4:
        return tuple(collapse_addresses(n for n in found if isinstance(n, IPv4Network)))
    return tuple(collapse_addresses(n for n in found if isinstance(n, IPv6Network)))


def specific_sets(observed: Observed, devices: Collection[str]) -> dict[str, NftSet]:
    """Return the sets of these networks; none without any."""
    return {name: nft_set for family in FAMILIES for name, nft_set in _sets(observed, devices, family)}


def left_alone(observed: Observed, devices: Collection[str], family: Family) -> Iterator[NftRule]:
    """Yield the rule that leaves alone what main's specific routes decide, of packets without a bit of ours."""
    word = "ip" if family is Family.V4 else "ip6"
    for name, _ in _sets(observed, devices, family):
        yield NftRule(f"{word} daddr @{name} accept", "a specific route of main, by an uplink")


def _sets(observed: Observed, devices: Collection[str], family: Family) -> tuple[tuple[str, NftSet], ...]:
    return _named(Same(observed), frozenset(devices), family)


@lru_cache(maxsize=4)  # a decision asks five times
def _named(observed: Same[Observed], devices: frozenset[str], family: Family) -> tuple[tuple[str, NftSet], ...]:
    found: frozenset[Key] = frozenset(map(str, specific_networks(observed.value, devices, family)))
    if not found:
        return ()
    digest = blake2s("\n".join(sorted(map(str, found))).encode(), digest_size=4).hexdigest()
    kind = "ipv4_addr" if family is Family.V4 else "ipv6_addr"
    return ((f"{PREFIX}{family}_{digest}", NftSet(f"type {kind}; flags interval;", found)),)
