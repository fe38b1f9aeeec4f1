"""Which destinations main leads to by an uplink more specifically than by a default.

Of forwarded IPv4 packets the kernel is asked (`decided.py`). It cannot be asked in chain `output`, and of IPv6 not
either: nft's question for a route passes over ``suppress_prefixlength`` in newer kernels (Linux 7).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from hashlib import blake2s
from typing import Final

from polywan.core.identity import remembered
from polywan.core.net import FAMILIES, TABLE_MAIN, Family, IPInterface, IPNetwork
from polywan.core.ruleset.model import Key, NftRule, NftSet
from polywan.core.world.foreign_routing import Destination
from polywan.core.world.observed import WIDE, Observed
from polywan.core.world.prefix_lists import collapse, packed, unpacked

PREFIX: Final = "specific_"
"""Beginning of the sets' names; the family and a digest of what is in it follow."""


def specific_networks(observed: Observed, devices: Collection[str], family: Family) -> tuple[IPNetwork, ...]:
    """Return what main leads to by these devices, but for its defaults and pieces of them; merged and in order."""
    return _networks(observed.tables.get(TABLE_MAIN, ()), observed.by_link, frozenset(devices), family)


@remembered
def _networks(
    main: tuple[Destination, ...],
    addresses: Mapping[tuple[str, Family], tuple[IPInterface, ...]],
    devices: frozenset[str],
    family: Family,
) -> tuple[IPNetwork, ...]:
    known = (d.prefix for d in main if d.link in devices and d.kind == "unicast")
    # A recording without routes has the links' own networks all the same.
    linked = (address.network for device in devices for address in addresses.get((device, family), ()))
    found = (n for n in (*known, *linked) if n.version == family and WIDE[family] < n.prefixlen)
    # By numbers, since a router has hundreds; each once, since many lead the same way.
    return tuple(unpacked(family, prefix) for prefix in collapse(family, {packed(network) for network in found}))


def specific_sets(observed: Observed, devices: Collection[str]) -> dict[str, NftSet]:
    """Return the sets of these networks; none without any."""
    return {name: nft_set for family in FAMILIES for name, nft_set in _sets(observed, devices, family)}


def left_alone(observed: Observed, devices: Collection[str], family: Family) -> Iterator[NftRule]:
    """Yield the rule that leaves alone what main's specific routes decide, of packets without a bit of ours."""
    for name, _ in _sets(observed, devices, family):
        yield NftRule(f"{family.header} daddr @{name} accept", "a specific route of main, by an uplink")


def _sets(observed: Observed, devices: Collection[str], family: Family) -> tuple[tuple[str, NftSet], ...]:
    return _named(specific_networks(observed, devices, family), family)


@remembered
def _named(networks: tuple[IPNetwork, ...], family: Family) -> tuple[tuple[str, NftSet], ...]:
    found: frozenset[Key] = frozenset(map(str, networks))
    if not found:
        return ()
    digest = blake2s("\n".join(sorted(map(str, found))).encode(), digest_size=4).hexdigest()
    kind = "ipv4_addr" if family is Family.V4 else "ipv6_addr"
    return ((f"{PREFIX}{family}_{digest}", NftSet(f"type {kind}; flags interval;", found)),)
