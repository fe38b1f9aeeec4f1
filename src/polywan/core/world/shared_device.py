"""Uplinks that share a device, as with two modems on one switch: an uplink is then device, router and address.

The router is in the file. Which of the device's addresses is whose follows from the file and from their networks, and
a packet that comes in shows whose it is by the hardware address of the router that has sent it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from polywan.config import Config, Uplink
from polywan.core.net import FAMILIES, Family, IPAddress, IPInterface
from polywan.core.resolved import Resolved
from polywan.core.world.observed import Observed


class NextHop(NamedTuple):
    """A router, and the device that leads to it."""

    link: str
    via: IPAddress


def places(config: Config) -> dict[str, str]:
    """Return what each uplink is: its device, and where others have that, too, its routers and its source."""
    count = Counter(uplink.interface for uplink in config.uplinks.values())
    return {
        name: " ".join((uplink.interface, *(_words_of(uplink) if count[uplink.interface] > 1 else ())))
        for name, uplink in config.uplinks.items()
    }


def _words_of(uplink: Uplink) -> Iterator[str]:
    yield from (f"via {via}" for family in FAMILIES if (via := gateway_of(uplink, family)) is not None)
    if uplink.source is not None:
        yield f"from {uplink.source}"


def inherited(before: Mapping[str, str], after: Config, routers: Mapping[str, frozenset[str]]) -> dict[str, str]:
    """Return which uplink is now what an earlier one was, by the earlier name; those without one are left out.

    That is the one that says the same, else one that says nothing else: of the same device, with a router that both
    name or that is remembered, and with no other one in its place. Among equals it is the one with the same name.

    Args:
        before: the earlier uplinks, as `places` has them.
        after: those there are now.
        routers: of the earlier ones, as far as they are remembered.
    """
    now = places(after)
    ranked = sorted(
        (-rank, holder != name, order, holder, name)
        for order, (holder, place) in enumerate(before.items())
        for name, uplink in after.uplinks.items()
        if (rank := 3 if place == now[name] else _likeness(place, uplink, routers.get(holder, frozenset())))
    )
    heirs: dict[str, str] = {}
    for _, _, _, holder, name in ranked:
        if holder not in heirs and name not in heirs.values():
            heirs[holder] = name
    return heirs


def _likeness(before: str, now: Uplink, routers: frozenset[str]) -> int:
    """Return how much speaks for two being one uplink: 2 a router of both, 1 nothing against it, 0 another one."""
    device, known = _facts(before)
    if device != now.interface:
        return 0
    known = known or {_kind("via", router): router for router in routers}
    words = " ".join(_words_of(now)).split()
    said = dict(_kinds(words))
    both = known.keys() & said.keys()
    if any(known[key] != said[key] for key in both):
        return 0
    return 2 if any(key.startswith("via") for key in both) else int(not (known and said))


def _facts(place: str) -> tuple[str, dict[str, str]]:
    """Take apart what `places` has made: the device, and what tells its uplinks apart, by kind and family."""
    device, *words = place.split(" ")
    return device, dict(_kinds(words))


def _kinds(words: Sequence[str]) -> Iterator[tuple[str, str]]:
    for word, address in zip(words[::2], words[1::2], strict=False):
        yield _kind(word, address), address


def _kind(word: str, address: str) -> str:
    return f"{word}{6 if ':' in address else 4}"


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


def sole_router(config: Resolved, name: str, family: Family) -> bool:
    """True when no other uplink with this one's device has the same router in a family."""
    via = gateway_of(config.uplinks[name], family)
    return all(gateway_of(other, family) != via for other in config.others(name))


def own_addresses(
    uplink: Uplink, others: tuple[Uplink, ...], observed: Observed, family: Family
) -> tuple[IPInterface, ...]:
    """Return the addresses of its device that are an uplink's: all of them, unless others share the device.

    Then they are its `source`, or those within its `prefix6`, or those in the network of its gateway: several uplinks
    have these where their gateways are in one network. A single one of which the file says nothing that fits has what
    no other one claims. What another one names as its source is never its own.
    """
    present = observed.addresses_of(uplink.interface, family)
    if not others or not present:
        return present
    if _has_source(uplink, family):
        return tuple(a for a in present if a.ip == uplink.source)
    rest = tuple(a for a in present if all(a.ip != other.source for other in others))
    if claimed := _of_networks(uplink, rest, family):
        return claimed
    if not _takes_rest(uplink, present, family) or any(_takes_rest(other, present, family) for other in others):
        return ()
    theirs = {a for other in others for a in _of_networks(other, present, family)}
    return tuple(a for a in rest if a not in theirs)


def _has_source(uplink: Uplink, family: Family) -> bool:
    return uplink.source is not None and uplink.source.version == family


def _takes_rest(uplink: Uplink, present: tuple[IPInterface, ...], family: Family) -> bool:
    """True when the file says nothing of an uplink's addresses that fits one, and it has the family."""
    named = _has_source(uplink, family) or (family is Family.V6 and bool(uplink.prefix6))
    return gateway_of(uplink, family) is not None and not named and not _of_networks(uplink, present, family)


def _of_networks(uplink: Uplink, present: tuple[IPInterface, ...], family: Family) -> tuple[IPInterface, ...]:
    if family is Family.V6 and uplink.prefix6:
        return tuple(a for a in present if any(a.ip in prefix for prefix in uplink.prefix6))
    via = gateway_of(uplink, family)
    return tuple(a for a in present if via is not None and via in a.network)
