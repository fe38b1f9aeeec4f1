"""Uplinks that share a device, as with two modems on one switch: an uplink is then device, router and address.

The router is in the file. Which of the device's addresses is whose follows from the file and from their networks, and
a packet that comes in shows whose it is by the hardware address of the router that has sent it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from polywan.config import Uplink
from polywan.core.net import FAMILIES, Family, IPAddress, IPInterface
from polywan.core.resolved import Resolved
from polywan.core.world.observed import Observed


class NextHop(NamedTuple):
    """A router, and the device that leads to it."""

    link: str
    via: IPAddress


def gateway_of(uplink: Uplink, family: Family) -> IPAddress | None:
    """Return the router that the file names; None where it is to be found."""
    gateway = uplink.gateway if family is Family.V4 else uplink.gateway6
    return None if gateway == "auto" else gateway


def next_hops(config: Resolved) -> frozenset[NextHop]:
    """Return the routers whose hardware addresses are asked for: those of uplinks that share their device."""
    return frozenset(hop for name in config.sharing for family in FAMILIES for hop in _hop(config, name, family))


def _hop(config: Resolved, name: str, family: Family) -> Iterator[NextHop]:
    uplink = config.uplinks[name]
    if (via := gateway_of(uplink, family)) is not None:
        yield NextHop(uplink.interface, via)


def router_mac(observed: Observed, link: str, via: IPAddress) -> str:
    """Return the hardware address of a router; empty when it is not known."""
    return next((router.mac for router in observed.routers if (router.link, router.via) == (link, via)), "")


def own_addresses(
    uplink: Uplink, others: tuple[Uplink, ...], observed: Observed, family: Family
) -> tuple[IPInterface, ...]:
    """Return the addresses of its device that are an uplink's: all of them, unless others share the device.

    Then they are its `source`, or those within its `prefix6`, or those in the network of its gateway, or else what no
    other one claims by any of these. Where they all claim the same, they all have it: their routers tell them apart.
    """
    present = observed.addresses_of(uplink.interface, family)
    if not others or not present:
        return present
    if named := _of_source(uplink, present):
        return named
    theirs = {a for other in others for a in _of_source(other, present)}
    if claimed := _of_networks(uplink, present, family):
        return tuple(a for a in claimed if a not in theirs) or claimed
    theirs |= {a for other in others for a in _of_networks(other, present, family)}
    return tuple(a for a in present if a not in theirs) or present


def _of_source(uplink: Uplink, present: tuple[IPInterface, ...]) -> tuple[IPInterface, ...]:
    return tuple(a for a in present if a.ip == uplink.source)


def _of_networks(uplink: Uplink, present: tuple[IPInterface, ...], family: Family) -> tuple[IPInterface, ...]:
    if family is Family.V6 and uplink.prefix6:
        return tuple(a for a in present if any(a.ip in prefix for prefix in uplink.prefix6))
    via = gateway_of(uplink, family)
    return tuple(a for a in present if via is not None and via in a.network)
