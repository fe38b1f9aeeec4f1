"""Find out how each uplink can be used in each family: device, next hop, source, or why it cannot."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv6Network
from shlex import quote
from typing import Final, NamedTuple, TypeAlias

from polywan.config import Uplink
from polywan.core.identity import PerKey
from polywan.core.marks import Numbers
from polywan.core.net import FAMILIES, Family, IPAddress, IPInterface, family_of
from polywan.core.resolved import Resolved
from polywan.core.world.leases import Lease
from polywan.core.world.observed import DefaultRoute, Link, Observed
from polywan.core.world.prefixes6 import prefixes_of
from polywan.core.world.shared_device import gateway_of, own_addresses

UplinkFamily: TypeAlias = tuple[str, Family]

RESOLVING: Final = 1.0
"""Seconds until a router has answered in the name of another host: it waits up to 0.8 s (proxy_delay, arp(7))."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Path:
    """A usable way out.

    Attributes:
        via: the router; None on point-to-point links, and where the default route names the device alone.
        addresses: of the link; where it has none of its own, those of this box within `prefixes`, or the one `lent`.
        prefixes: IPv6 prefixes that the provider routes to this box.
        source: what the box should prefer as its source, when the link itself does not tell.
    """

    link: str
    via: IPAddress | None
    onlink: bool
    addresses: tuple[IPAddress, ...]
    prefixes: tuple[IPv6Network, ...] = ()
    source: IPAddress | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NoPath:
    """Why there is no way out; `path` is how it would go if the carrier came back, when that is known."""

    reason: str
    missing: bool = False
    path: Path | None = None


Reach: TypeAlias = Path | NoPath


def reach(
    config: Resolved, observed: Observed, remembered: Mapping[UplinkFamily, IPAddress]
) -> dict[UplinkFamily, Reach]:
    """Judge every uplink, disabled ones too, in every family that it has, by the link layer and the routes alone.

    A family is an uplink's when the file says so, when a gateway for it is known or was known before, or
    when the link has an address of it, or an IPv6 prefix is routed to this box by it; an uplink whose link is
    missing is judged in every family known so far.
    """
    result: dict[UplinkFamily, Reach] = {}
    for name, uplink in config.uplinks.items():
        result.update(_of_uplink(name, uplink, config.others(name), observed, remembered))
    return result


_Families: TypeAlias = dict[UplinkFamily, Reach]

_JUDGED: Final[PerKey[str, _Families]] = PerKey()


def _of_uplink(
    name: str,
    uplink: Uplink,
    others: tuple[Uplink, ...],
    observed: Observed,
    remembered: Mapping[UplinkFamily, IPAddress],
) -> _Families:
    """Judge an uplink, unless all that matters to it is the same as the last time: most links did not change."""
    device = uplink.interface
    link, lease = observed.links.get(device), observed.leases.get(device)
    addresses = [observed.addresses_of(device, family) for family in FAMILIES]
    defaults = [observed.defaults_of(device, family) for family in FAMILIES]
    if link is None or link.master or not _on_its_own(uplink, addresses, defaults):
        return _judged(name, uplink, others, observed, remembered)
    routers = (remembered.get((name, family)) for family in FAMILIES)
    inputs = (uplink, others, link, lease, *addresses, *defaults, *routers)
    known = _JUDGED.get(name, *inputs)
    return _JUDGED.put(name, _judged(name, uplink, others, observed, remembered), *inputs) if known is None else known


def _on_its_own(
    uplink: Uplink, addresses: list[tuple[IPInterface, ...]], defaults: list[tuple[DefaultRoute, ...]]
) -> bool:
    """True when no other link of this box has a say: nobody lends an address in a family that has none of its own."""
    if all(addresses):
        return True
    borrows = uplink.source is not None or bool(uplink.prefix6) or not isinstance(uplink.nat, str)
    return not borrows and not any(d for a, d in zip(addresses, defaults, strict=True) if not a)


def _judged(
    name: str,
    uplink: Uplink,
    others: tuple[Uplink, ...],
    observed: Observed,
    remembered: Mapping[UplinkFamily, IPAddress],
) -> _Families:
    return {
        (name, family): _judge(name, uplink, others, family, observed, remembered)
        for family in FAMILIES
        if _has_family(name, uplink, family, observed, remembered, alone=not others)
    }


def unbound_links(
    observed: Observed, reachable: Mapping[UplinkFamily, Reach], numbers: Mapping[str, Numbers], family: Family
) -> frozenset[str]:
    """Links by which the first route of a socket leaves that is bound to nothing.

    They are those of main's best default. Where main has none that serves every source, our fallback table leads,
    by the uplink with the lowest number whose link is up.
    """
    if main := observed.main_default_links(family):
        return main
    usable = [
        (numbers[name].id, path.link) for (name, f), path in reachable.items() if f is family and isinstance(path, Path)
    ]
    return frozenset(link for _, link in sorted(usable)[:1])


def _has_family(
    name: str,
    uplink: Uplink,
    family: Family,
    observed: Observed,
    remembered: Mapping[UplinkFamily, IPAddress],
    *,
    alone: bool,
) -> bool:
    if uplink.families is not None:
        return family.nfproto in uplink.families
    if (configured := gateway_of(uplink, family) is not None) or not alone:
        return configured
    if (name, family) in remembered:
        return True
    if observed.addresses_of(uplink.interface, family) or lent(uplink, family, observed):
        return True
    if family is Family.V4:
        # A link without any address yet is expected to get an IPv4 one; IPv6 shows itself by its address.
        return not observed.addresses_of(uplink.interface, Family.V6)
    return bool(prefixes_of(uplink, observed))


def _judge(
    name: str,
    uplink: Uplink,
    others: tuple[Uplink, ...],
    family: Family,
    observed: Observed,
    remembered: Mapping[UplinkFamily, IPAddress],
) -> Reach:
    link = observed.links.get(uplink.interface)
    if link is None:
        return NoPath(reason=f"interface {uplink.interface} does not exist", missing=True)
    if belongs := membership(link, observed):
        return NoPath(reason=belongs)
    if others and link.point_to_point:
        return NoPath(reason=f"{link.name} leads to one peer: only one uplink can use it")
    if (named := gateway_of(uplink, family)) is not None and observed.owns(named):
        return NoPath(reason=f"gateway {named} is an address of this box")
    addresses = own_addresses(uplink, others, observed, family)
    if others and not addresses and (present := observed.addresses_of(link.name, family)):
        return NoPath(reason=_nobodys(link, present))
    prefixes = prefixes_of(uplink, observed, alone=not others) if family is Family.V6 else ()
    sourced = bool(addresses or prefixes or lent(uplink, family, observed) or _anybodys(uplink, family, observed))
    hop = _next_hop(name, uplink, link, family, observed, remembered) if sourced else None
    path = None if hop is None else _path(uplink, hop.via, family, addresses, prefixes, observed, alone=not others)
    if not link.up:
        return NoPath(reason="interface is down", path=None)
    if not link.carrier:
        return NoPath(reason="no carrier", path=path)
    if not sourced:
        return NoPath(reason=_sourceless(uplink, family))
    return path or NoPath(reason=_routerless(link, family))


def _routerless(link: Link, family: Family) -> str:
    offers = ", and no router advertises itself" if family is Family.V6 else ""
    return f"{_word(family)} gateway not known yet: no default route through {link.name} in any table{offers}"


def _nobodys(link: Link, present: tuple[IPInterface, ...]) -> str:
    known = ", ".join(str(a.ip) for a in present)
    return f"no address of {link.name} ({known}) is in the gateway's network, nor its source: set source"


def _sourceless(uplink: Uplink, family: Family) -> str:
    if (source := _of(family, uplink.source)) is not None:
        return f"no {_word(family)} address yet, and source {source} is on no link of this box"
    return f"no {_word(family)} address yet"


def _path(
    uplink: Uplink,
    via: IPAddress | None,
    family: Family,
    addresses: tuple[IPInterface, ...],
    prefixes: tuple[IPv6Network, ...],
    observed: Observed,
    *,
    alone: bool,
) -> Path:
    covered = via is None or via.is_link_local or any(via in a.network for a in addresses)
    # A provider that delegates a prefix may leave the link itself without an address (RFC 7084, WAA-7).
    elsewhere = () if addresses else observed.within(prefixes) or lent(uplink, family, observed)
    # The kernel takes the device's first address for its own packets, whichever router they go to.
    preferred = elsewhere if alone or not addresses else (addresses[0].ip,)
    return Path(
        link=uplink.interface,
        via=via,
        onlink=not covered,
        addresses=tuple(a.ip for a in addresses) or elsewhere,
        prefixes=prefixes,
        source=next(iter(preferred), None),
    )


def membership(link: Link, observed: Observed) -> str:
    """Return why a link cannot be an uplink although it exists: another one speaks for it; empty when none does."""
    if link.kind == "vrf":
        return f"{link.name} is a VRF, not a link; VRFs are not supported"
    if not link.master:
        return ""
    masters = observed.masters_of(link)
    for member in (link, *masters):
        if member.member_of == "vrf":
            vrf = next((m.name for m in masters if m.index == member.master), "a VRF")
            cure = f"ip link set {quote(member.name)} nomaster"
            return f"{member.name} belongs to VRF {vrf}: links in a VRF are not supported; {cure}"
    # A virtual switch has one master for all of its bridges, which says nothing about which one.
    if link.member_of == "openvswitch":
        return f"{link.name} is a port of Open vSwitch: name the bridge that has the address as the interface"
    if not masters:
        return f"{link.name} belongs to another link: name that one as the interface"
    role = _ROLES.get(link.member_of, "belongs to")
    return f"{link.name} {role} {masters[0].name}: name {masters[-1].name} as the interface"


_ROLES: Final = {
    "bridge": "is a port of bridge",
    "bond": "is a member of bond",
    "team": "is a port of team",
}


def lent(uplink: Uplink, family: Family, observed: Observed) -> tuple[IPAddress, ...]:
    """Return the address of another link by which an uplink without one of its own speaks, if any is meant to be.

    That is the `source` of the file, a fixed address of its translation, or the one that its default route asks for.
    Where it has a default route that asks for none, the kernel takes the one of the loopback device (ip-route(8)).
    """
    if observed.addresses_of(uplink.interface, family):
        return ()
    routes = observed.defaults_of(uplink.interface, family)
    fixed = None if isinstance(uplink.nat, str) else uplink.nat.snat
    named = (_of(family, a) for a in (uplink.source, fixed, *(route.preferred for route in routes)))
    for address in named:
        if address is not None and observed.owns(address):
            return (address,)
    homes = sorted(observed.links.values(), key=lambda link: (link.name != "lo", link.index)) if routes else ()
    found = (a.ip for link in homes if _is_home(link) for a in observed.addresses_of(link.name, family))
    return tuple(found)[:1]


def _is_home(link: Link) -> bool:
    return link.name == "lo" or link.kind == "dummy"


def _anybodys(uplink: Uplink, family: Family, observed: Observed) -> bool:
    """True where the kernel lends the link an address of its own choice: IPv4, by a default route of the link.

    The kernel removes such routes with the last address of a link, so somebody has put this one there on purpose.
    In IPv6 it may come from a router that tells no prefix, and an address of another provider would lead nowhere.
    """
    if family is not Family.V4 or not observed.defaults_of(uplink.interface, family) or not observed.own_ipv4():
        return False
    # A link-local address of its own is what the kernel would take then (RFC 3927), and that leads nowhere.
    return not any(a.link == uplink.interface and family_of(a.ip) is family for a in observed.addresses)


def _of(family: Family, address: IPAddress | None) -> IPAddress | None:
    return address if address is not None and address.version == family else None


def patience(path: Reach | None, observed: Observed | None) -> float:
    """Return the seconds that a probe needs at least: more where each target is looked for on the link itself."""
    link = observed.links.get(path.link) if isinstance(path, Path) and observed is not None else None
    return RESOLVING if isinstance(path, Path) and path.via is None and link and not link.point_to_point else 0.0


class _Hop(NamedTuple):
    via: IPAddress | None


def _next_hop(
    name: str,
    uplink: Uplink,
    link: Link,
    family: Family,
    observed: Observed,
    remembered: Mapping[UplinkFamily, IPAddress],
) -> _Hop | None:
    """Return where packets go by the link: to a router, or straight to whom they are for; None when nobody knows."""
    if link.point_to_point:
        return _Hop(None)
    if (configured := gateway_of(uplink, family)) is not None:
        return _Hop(configured)
    seen = seen_gateway(link, family, observed)
    if seen is not None:
        return _Hop(None if seen.is_unspecified else seen)
    # The kernel forgets static default routes when a link goes down; the gateway is still the same one
    # as long as it lies in a network of the link.
    networks = [a.network for a in observed.addresses_of(link.name, family)]
    if (known := remembered.get((name, family))) is not None:
        if known.is_unspecified and networks:
            return _Hop(None)
        unnumbered = not networks and bool(lent(uplink, family, observed))
        if known.is_link_local or unnumbered or any(known in network for network in networks):
            return _Hop(known)
    return _Hop(lease.router) if (lease := lease_of(uplink, family, observed)) is not None else None


def lease_of(uplink: Uplink, family: Family, observed: Observed) -> Lease | None:
    """Return the lease that tells an uplink's router, when nothing that goes before it does."""
    if family is not Family.V4 or gateway_of(uplink, family) is not None:
        return None
    lease = observed.leases.get(uplink.interface)
    if lease is None or observed.defaults_of(uplink.interface, family):
        return None
    return lease if any(a.ip == lease.address for a in observed.addresses_of(uplink.interface, family)) else None


def seen_gateway(link: Link, family: Family, observed: Observed) -> IPAddress | None:
    """Return the router of the best default route by the link, by any that has one.

    A route that names the device alone has the unspecified address: whoever is at the other end answers for everybody
    (proxy ARP, RFC 1027). A route by a router goes before it, whatever the metrics: zeroconf adds one without.
    """
    routes = observed.defaults_of(link.name, family)
    via = next((route.via for route in routes if route.via is not None), None)
    if via is not None or not routes or link.point_to_point:
        return via
    return family.default.network_address


def routers_of(link: Link, family: Family, observed: Observed) -> tuple[IPAddress, ...]:
    """Return the routers of all default routes by the link, that of the best one first."""
    found = (route.via for route in observed.defaults_of(link.name, family))
    return tuple(dict.fromkeys(via for via in found if via is not None))


def _word(family: Family) -> str:
    return "IPv4" if family is Family.V4 else "IPv6"
