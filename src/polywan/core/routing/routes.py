"""Routes of ours as values, and how they are built: each uplink's table, and the tables around it."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Final

from polywan.core.identity import PerKey, remembered
from polywan.core.marks import MOST_NUMBERS, Numbers
from polywan.core.net import WORST_METRIC, Family, IPAddress, IPNetwork, RulePriority, TableId
from polywan.core.routing.nexthops import NexthopId, PolicyRouting
from polywan.core.world.observed import Observed
from polywan.core.world.paths import NoPath, Path, Reach, UplinkFamily

DEFAULT_METRIC: Final = 1
"""Metric of the default in an uplink's or a policy's own table; anything better than the `blackhole` one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """A default route of ours (protocol 200) in a table of ours.

    Attributes:
        link: the device; with neither it nor `nexthop` it is a `blackhole` route, which stops marked traffic from
            leaking to main. That is silent on purpose: in the milliseconds between the loss of a link and the
            switch, a refusal would fail connections whose repeated SYN takes another uplink (ip-route(8)).
        via: next hop; None on point-to-point links (ip-route(8)).
        metric: lower wins; together with family and table it is the kernel's key of a default route.
        onlink: the next hop is not covered by a connected route; reach it anyway (RTNH_F_ONLINK).
        source: preferred source address for the box's own traffic.
        nexthop: group that says device and next hop, in place of `link` and `via`.
        local: not a default: the address is this box's own, in table local, on no device.
    """

    family: Family
    table: TableId
    metric: int
    link: str | None
    via: IPAddress | None = None
    onlink: bool = False
    source: IPAddress | None = None
    nexthop: NexthopId | None = None
    local: IPv4Address | None = None

    @property
    def key(self) -> tuple[Family, TableId, int, str | None]:
        """What tells two routes apart; a route with the same key replaces the old one."""
        return (self.family, self.table, self.metric, self.link)

    @property
    def blackhole(self) -> bool:
        """True when what comes here is dropped."""
        return self.link is None and self.nexthop is None and self.local is None


@dataclass(frozen=True, slots=True, kw_only=True)
class IpRule:
    """A policy rule of ours (ip-rule(8), protocol 200). Exactly one of `table` and `goto` is set.

    Attributes:
        mark: (value, mask) of the packet mark, or None.
        from_: source prefix, or None.
        to: destination prefix, or None.
        oif: output interface of the lookup (sockets bound to a device), or None.
        iif: input interface of the lookup; "lo" means traffic of the box itself.
        ipproto: protocol number (IANA), or None.
        invert: match when the selectors do not (``ip rule add not …``).
        suppress_prefixlength: refuse routes of this prefix length or shorter (0: "no default routes").
    """

    family: Family
    priority: RulePriority
    table: TableId | None = None
    goto: RulePriority | None = None
    mark: tuple[int, int] | None = None
    from_: IPNetwork | None = None
    to: IPNetwork | None = None
    oif: str | None = None
    iif: str | None = None
    ipproto: int | None = None
    invert: bool = False
    suppress_prefixlength: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class UplinkRouting:
    """What the routing of one uplink depends on; a family without a path has rules, and no route.

    Attributes:
        alone: no other uplink has its device.
    """

    name: str
    numbers: Numbers
    device: str
    source: IPAddress | None
    paths: tuple[tuple[Family, Path | None], ...]
    alone: bool = True

    def path(self, family: Family) -> Path | None:
        """The way out in that family, carrier or not."""
        return next((path for f, path in self.paths if f is family), None)


_ROUTINGS: Final[PerKey[str, UplinkRouting]] = PerKey()
_SETTLED: Final[PerKey[str, UplinkRouting]] = PerKey()


def routings(
    reach: Mapping[UplinkFamily, Reach],
    numbers: Mapping[str, Numbers],
    devices: Mapping[str, str],
    sources: Mapping[str, IPAddress | None],
    sharing: Container[str] = (),
) -> tuple[UplinkRouting, ...]:
    """Gather what routing depends on; an uplink that lost its carrier routes as before.

    Args:
        reach: how each uplink can be used.
        numbers: of each uplink.
        devices: likewise.
        sources: the address that the file names, of each uplink.
        sharing: the uplinks whose device others have, too.
    """
    return tuple(
        _routing(
            name,
            number,
            devices[name],
            sources[name],
            *(reach.get((name, family)) for family in Family),
            alone=name not in sharing,
        )
        for name, number in numbers.items()
    )


def _routing(
    name: str, number: Numbers, device: str, source: IPAddress | None, *reached: Reach | None, alone: bool
) -> UplinkRouting:
    """Return what the routing of one uplink depends on; the same object as long as it is the same."""
    inputs = (number, device, source, alone, *reached)
    if (known := _ROUTINGS.get(name, *inputs)) is not None:
        return known
    paths = tuple(
        (family, path.path if isinstance(path, NoPath) else path)
        for family, path in zip(Family, reached, strict=True)
        if path is not None
    )
    made = UplinkRouting(name=name, numbers=number, device=device, source=source, paths=paths, alone=alone)
    # An uplink without carrier routes as before: its path is the same value, made anew.
    return _ROUTINGS.put(name, _SETTLED.settled(name, made), *inputs)


# Most decisions change who is chosen, not how it is routed: the last few results are kept, as the same objects,
# so that comparing them with what the kernel holds costs nothing.
@remembered
def build_routes(
    uplinks: tuple[UplinkRouting, ...],
    policies: tuple[PolicyRouting, ...],
    families: tuple[Family, ...],
    fallback: TableId,
    first: frozenset[Route],
) -> frozenset[Route]:
    """Return each uplink's table, the fallback table and each multipath policy's table, for every active family.

    An uplink without carrier keeps its route (the kernel ignores it meanwhile): its return is one event shorter.

    Args:
        uplinks: what the uplinks' routes are made of.
        policies: likewise, of multipath policies.
        families: those in use.
        fallback: number of the table that leads by any uplink.
        first: first routes of the box's own packets.
    """
    routes = _routes(uplinks, families, fallback)
    return frozenset((*routes, *_group_routes(policies, families), *first))


def first_table(fallback: TableId) -> TableId:
    """Return the table that holds the first route of the box's own TCP (`first_route.py`)."""
    return TableId(fallback + MOST_NUMBERS + 2)


def stop_table(fallback: TableId) -> TableId:
    """Return the table in which marks end whose own table knows no way: its one route is `blackhole`."""
    return TableId(fallback + MOST_NUMBERS + 1)


def dormant(routes: Iterable[Route], observed: Observed) -> frozenset[Route]:
    """Return the routes that the kernel refuses to make now: IPv6 by a gateway that a link without carrier leads to.

    It looks for the gateway, and ignore_routes_with_linkdown hides the way there. What it has it keeps.
    """
    dark = {name for name, link in observed.links.items() if not link.carrier}
    return frozenset(
        route
        for route in (routes if dark else ())
        if route.link in dark and route.family is Family.V6 and not route.onlink and route.via is not None
        if not route.via.is_link_local
    )


def _routes(uplinks: tuple[UplinkRouting, ...], families: tuple[Family, ...], fallback: TableId) -> Iterator[Route]:
    for family in families:
        yield Route(family=family, table=stop_table(fallback), metric=WORST_METRIC, link=None)
        for uplink in uplinks:
            number, path = uplink.numbers, uplink.path(family)
            if path is None:
                continue
            wanted = uplink.source if uplink.source is not None and uplink.source.version == family else None
            source = wanted or path.source
            for table, metric in ((number.table, DEFAULT_METRIC), (fallback, number.id)):
                yield Route(
                    family=family,
                    table=table,
                    metric=metric,
                    link=path.link,
                    via=path.via,
                    onlink=path.onlink,
                    source=source,
                )


def _group_routes(policies: tuple[PolicyRouting, ...], families: tuple[Family, ...]) -> Iterator[Route]:
    for family in families:
        for policy in policies:
            table, group = policy.numbers.table, policy.group(family)
            if group is not None:
                yield Route(family=family, table=table, metric=DEFAULT_METRIC, link=None, nexthop=group.id)
            # The kernel deletes the group when every carrier was lost once. These outlive that, and with no daemon
            # to build it again, whoever has a carrier first takes all.
            for number, hop in policy.spares(family):
                yield Route(
                    family=family,
                    table=table,
                    metric=DEFAULT_METRIC + number,
                    link=hop.link,
                    via=hop.via,
                    onlink=hop.onlink,
                )
