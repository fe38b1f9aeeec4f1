"""Find in the world around us why nothing may work, and say it: one sentence each, with the device and what to change.

What is in the way of single uplinks is their reason (`core/world/paths.py`); rules of others that are in our way are
conflicts (`conflicts.py`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from ipaddress import IPv6Network, collapse_addresses
from typing import Final

from polywan.config import Uplink
from polywan.core.detection.kinds import TUNNELS
from polywan.core.net import FAMILIES, TABLE_MAIN, Family, IPAddress, IPNetwork, family_of
from polywan.core.plan.lans import lans
from polywan.core.plan.plan import ActualState
from polywan.core.resolved import Resolved
from polywan.core.routing.sysctls import wants_forwarding
from polywan.core.shaping.shapers import obstacles, shared_rates
from polywan.core.words import listed
from polywan.core.world.foreign_chains import may_drop
from polywan.core.world.leases import warning_of
from polywan.core.world.observed import Observed
from polywan.core.world.paths import NoPath, Path, Reach, UplinkFamily, lease_of

FORWARDING: Final = {Family.V4: "net/ipv4/ip_forward", Family.V6: "net/ipv6/conf/all/forwarding"}

TRACKING_COUNT: Final = "net/netfilter/nf_conntrack_count"
TRACKING_LIMIT: Final = "net/netfilter/nf_conntrack_max"

READ_SETTINGS: Final = (*FORWARDING.values(), TRACKING_COUNT, TRACKING_LIMIT)
"""Settings that are read for this, never written."""

FULL_TABLE: Final = (0.9, 0.8)
"""Parts of the connection tracking table from which a warning begins, and below which it ends."""

_UNICAST6: Final = IPv6Network("2000::/3")
"""All of the IPv6 Internet."""


def cautions(
    config: Resolved,
    observed: Observed,
    actual: ActualState,
    reachable: Mapping[UplinkFamily, Reach],
    before: Collection[str] = (),
) -> Iterator[str]:
    """Yield one sentence for each thing in the world that keeps a configuration from doing what it is for.

    Args:
        config: the file.
        observed: the world.
        actual: present settings (`READ_SETTINGS`) and chains of others.
        reachable: how each uplink can be used.
        before: the sentences of the last time, for those that begin and end at different values.
    """
    for family in FAMILIES:
        if any(f is family and isinstance(path, Path) for (_, f), path in reachable.items()):
            yield from _elsewhere(config, observed, family)
    yield from of_the_box(config, observed, actual, reachable, before)
    yield from _leased(config, observed)
    yield from _gateways(config, observed)
    # While a link is being set up it has no router for a moment: a box that does not forward is not told.
    if wants_forwarding(config) or actual.sysctls.get(FORWARDING[Family.V4]) == "1":
        yield from _no_router(config, observed, reachable)
    yield from _carriers(config, observed)
    yield from obstacles(config, actual.queues)
    yield from shared_rates(config, observed)


def of_the_box(
    config: Resolved,
    observed: Observed,
    actual: ActualState,
    reachable: Mapping[UplinkFamily, Reach],
    before: Collection[str] = (),
) -> Iterator[str]:
    """Yield those about the box whoever set it up: what `polywan doctor` has checks of its own for, with evidence.

    The arguments are those of `cautions`, which has these sentences too.
    """
    yield from _not_forwarded(config, observed, actual, reachable)
    yield from _full(actual.sysctls, before)


def _elsewhere(config: Resolved, observed: Observed, family: Family) -> Iterator[str]:
    """Main's default leaves by no uplink, so that chain `newly_raised` takes all traffic for somebody else's."""
    devices = {uplink.interface for uplink in config.uplinks.values()}
    parts = [
        part
        for part in observed.parts
        if part.table == TABLE_MAIN and family_of(part.to) is family and part.link not in devices
        if (link := observed.links.get(part.link)) is not None and link.usable
    ]
    if parts:
        whole = _is_whole({part.to for part in parts}, family)
        routes = listed(sorted({str(part.to) for part in parts}))
        many = "s" if len({part.to for part in parts}) > 1 else ""
        leave = f"main's route{many} {routes} leave{'' if many else 's'} by"
        what = "nothing" if whole else "not everything"
        yield _sentence(what, family, leave, {part.link for part in parts}, f"remove the route{many}")
        if whole:
            return
    best = observed.main_default_links(family)
    if others := best - devices:
        known = (d for device in devices for d in observed.defaults_of(device, family) if d.table == TABLE_MAIN)
        metric = min((d.metric for d in known), default=None)
        cure = "remove the route" if metric is None else f"give the route a metric above {metric}"
        what = "nothing" if others == best else "not everything"
        yield _sentence(what, family, "main's default route leaves by", others, cure)


def _sentence(what: str, family: Family, leave: str, links: Collection[str], cure: str) -> str:
    which = (
        "which is not an uplink; configure it as one"
        if len(links) == 1
        else "which are not uplinks; configure them as such"
    )
    return f"{what} is balanced in IPv{family}: {leave} {listed(sorted(links))}, {which}, or {cure}"


def _is_whole(parts: Collection[IPNetwork], family: Family) -> bool:
    together: list[IPNetwork] = list(collapse_addresses(parts))  # type: ignore[type-var]  # they are of one family
    wanted = family.default if family is Family.V4 else _UNICAST6
    return any(_within(wanted, part) for part in together)


def _within(inner: IPNetwork, outer: IPNetwork) -> bool:
    return inner.version == outer.version and inner.network_address in outer and inner.prefixlen >= outer.prefixlen


def _not_forwarded(
    config: Resolved, observed: Observed, actual: ActualState, reachable: Mapping[UplinkFamily, Reach]
) -> Iterator[str]:
    """A LAN is behind this box, and its packets end here."""
    wanted, asked = wants_forwarding(config), config.global_.forwarding
    devices = {uplink.interface for uplink in config.uplinks.values()}
    chains: dict[object, str] = {}
    silent = False
    for family in FAMILIES:
        behind = [str(lan) for lan in lans(observed, devices, family)]
        if not behind or not any(f is family and isinstance(path, Path) for (_, f), path in reachable.items()):
            continue
        off = actual.sysctls.get(FORWARDING[family]) == "0"
        if not wanted and off:
            if asked == "auto" and not silent:
                silent = True
                word = "forwarding is off" if family is Family.V4 else "IPv6 forwarding is off"
                yield (
                    f"{word}: packets from {listed(behind)} cannot leave by the uplinks; "
                    "set global.forwarding = true if this box routes for them, otherwise false"
                )
            continue
        for chain in may_drop(actual.chains, family):
            chains[chain] = listed(behind)
    for dropping, arriving in chains.items():
        yield (
            f"{dropping} has policy drop and may drop packets that arrive on {arriving}: "
            "make sure that it accepts them on every uplink"
        )


def _full(sysctls: Mapping[str, str], before: Collection[str]) -> Iterator[str]:
    try:
        count, most = int(sysctls[TRACKING_COUNT]), int(sysctls[TRACKING_LIMIT])
    except (KeyError, ValueError):
        return
    text = (
        f"the connection tracking table is nearly full (net.netfilter.nf_conntrack_max = {most}): new connections "
        "fail once it is full; raise it, or find the clients that open so many (polywan flows)"
    )
    begin, end = FULL_TABLE
    if most > 0 and count >= most * (end if text in before else begin):
        yield text


def _leased(config: Resolved, observed: Observed) -> Iterator[str]:
    for number, (name, uplink) in enumerate(config.uplinks.items(), 1):
        if name not in config.sharing and (lease := lease_of(uplink, Family.V4, observed)) is not None:
            yield warning_of(name, lease, uplink.interface, number)


def _gateways(config: Resolved, observed: Observed) -> Iterator[str]:
    """A router that the file names outside of the link's networks: a slip, unless others say so too."""
    for name, uplink in config.uplinks.items():
        link = observed.links.get(uplink.interface)
        if link is None or link.point_to_point:
            continue
        for family, key, via in _named(uplink):
            networks = [a.network for a in observed.addresses_of(link.name, family)]
            known = {route.via for route in observed.defaults_of(link.name, family)}
            if via.is_link_local or not networks or via in known or any(via in network for network in networks):
                continue
            yield (
                f"uplink {name}: {key} {via} is outside {link.name}'s network{'s' if len(networks) > 1 else ''} "
                f"{listed([str(n) for n in networks])}: correct only if the provider says so"
            )


def _named(uplink: Uplink) -> Iterator[tuple[Family, str, IPAddress]]:
    for family, key, via in (
        (Family.V4, "gateway", uplink.gateway),
        (Family.V6, "gateway6", uplink.gateway6),
    ):
        if via != "auto":
            yield family, key, via


def _no_router(config: Resolved, observed: Observed, reachable: Mapping[UplinkFamily, Reach]) -> Iterator[str]:
    """An uplink with an address and nobody behind it: it may be the LAN."""
    for name, uplink in config.uplinks.items():
        link = observed.links.get(uplink.interface)
        if link is None or not link.usable or link.point_to_point or link.master:
            continue
        families = [f for f in FAMILIES if (name, f) in reachable]
        if any(not isinstance(reachable[name, f], NoPath) for f in families):
            continue
        address = next((a for f in families for a in observed.addresses_of(link.name, f)), None)
        if address is not None:
            yield (
                f"uplink {name}: {link.name} has the address {address} and no known router: "
                "if it is the LAN, it is not an uplink; otherwise set the uplink's gateway"
            )


def _carriers(config: Resolved, observed: Observed) -> Iterator[str]:
    """A tunnel beside the links that carry it: its own packets are as good as any for its turn."""
    for policy, resolved in config.named.items():
        if policy != "default":
            continue
        for number, tier in enumerate(resolved.tiers, 1):
            tunnels = [m.uplink for m in tier if _is_tunnel(config.uplinks[m.uplink], observed)]
            others = [m.uplink for m in tier if m.uplink not in tunnels]
            for name in tunnels if others else ():
                device = config.uplinks[name].interface
                yield (
                    f"uplink {name}: {device} is a tunnel, and shares tier {number} of policy {policy} with "
                    f"{listed(others)}: its own packets may be sent into it; give it a tier or a policy of its own"
                )


def _is_tunnel(uplink: Uplink, observed: Observed) -> bool:
    link = observed.links.get(uplink.interface)
    return link is not None and link.point_to_point and link.kind in TUNNELS


def unusable(config: Resolved, observed: Observed, reachable: Mapping[UplinkFamily, Reach]) -> Iterator[str]:
    """Yield what a running daemon shows as an uplink's state.

    Devices that do not exist, or that others speak for, and those with an address and no router.
    """
    for name, uplink in config.uplinks.items():
        link = observed.links.get(uplink.interface)
        reasons = dict.fromkeys(w.reason for (n, _), w in reachable.items() if n == name and isinstance(w, NoPath))
        if link is None or link.master or link.kind == "vrf":
            yield from (f"uplink {name}: {reason}" for reason in reasons)
    yield from _no_router(config, observed, reachable)


def newly_raised(now: Iterable[str], before: Collection[str]) -> tuple[str, ...]:
    """Return the sentences that were not there before."""
    return tuple(text for text in now if text not in before)
