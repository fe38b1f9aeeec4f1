"""Policy rules and routes: what polywan asks of the kernel's routing, as values, and how they are built.

The lookup of a packet, by priority within the band (default 6000)::

    +0     not from this box: straight to +265
    +1     the question of chain fresh, "what would happen without us?": straight past our rules
    +2     main without its defaults, as +265, before sockets that are bound to a device
    +10…   bound to a device: its uplink's table
    +265   main without its defaults: specific routes win, no table is ever copied
    +270…  packet mark: its uplink's table, or the table of a multipath policy (`nexthops.py`)
    +601   any mark that found no way there: `blackhole`, so that marked traffic never leaks to main
    +610…  from an uplink's address, or by this box from its prefix: its table; behind the marks, because a
           packet of this box has its source before its mark
    …      the rules of others, then main
    32800  behind main and default: any uplink, so that the box always has a first route
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import ip_network
from typing import Final

from polywan.core.allocate import (
    END,
    FALLBACK,
    FORWARDED,
    FROM,
    FWMARK,
    MOST,
    OIF,
    PAST,
    QUESTION,
    SPECIFIC,
    STOP,
    Numbers,
)
from polywan.core.net import (
    TABLE_MAIN,
    WORST_METRIC,
    Family,
    IPAddress,
    IPNetwork,
    MarkLayout,
    RulePriority,
    TableId,
)
from polywan.core.nexthops import NexthopId, PolicyRouting
from polywan.core.observed import Observed
from polywan.core.reach import NoPath, Path, Reach, UplinkFamily

LEAF_BITS: Final = 3
"""Uplinks are told apart one by one in blocks of 2^LEAF_BITS; a rule that does not match costs 2.6 ns."""

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
    """

    family: Family
    table: TableId
    metric: int
    link: str | None
    via: IPAddress | None = None
    onlink: bool = False
    source: IPAddress | None = None
    nexthop: NexthopId | None = None

    @property
    def key(self) -> tuple[Family, TableId, int, str | None]:
        """What tells two routes apart; a route with the same key replaces the old one."""
        return (self.family, self.table, self.metric, self.link)

    @property
    def blackhole(self) -> bool:
        """True when what comes here is dropped."""
        return self.link is None and self.nexthop is None


@dataclass(frozen=True, slots=True, kw_only=True)
class IpRule:
    """A policy rule of ours (ip-rule(8), protocol 200). Exactly one of `table` and `goto` is set.

    Attributes:
        mark: (value, mask) of the packet mark, or None.
        from_: source prefix, or None.
        oif: output interface of the lookup (sockets bound to a device), or None.
        iif: input interface of the lookup; "lo" means traffic of the box itself.
        invert: match when the selectors do not (``ip rule add not …``).
        suppress_prefixlength: refuse routes of this prefix length or shorter (0: "no default routes").
    """

    family: Family
    priority: RulePriority
    table: TableId | None = None
    goto: RulePriority | None = None
    mark: tuple[int, int] | None = None
    from_: IPNetwork | None = None
    oif: str | None = None
    iif: str | None = None
    invert: bool = False
    suppress_prefixlength: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class UplinkRouting:
    """What the routing of one uplink depends on; a family without a path has rules, and no route."""

    numbers: Numbers
    device: str
    source: IPAddress | None
    paths: tuple[tuple[Family, Path | None], ...]

    def path(self, family: Family) -> Path | None:
        """The way out in that family, carrier or not."""
        return next((path for f, path in self.paths if f is family), None)


def routings(
    reach: Mapping[UplinkFamily, Reach],
    numbers: Mapping[str, Numbers],
    devices: Mapping[str, str],
    sources: Mapping[str, IPAddress | None],
) -> tuple[UplinkRouting, ...]:
    """Gather what routing depends on; an uplink that lost its carrier routes as before."""
    ways: dict[str, list[tuple[Family, Path | None]]] = {name: [] for name in numbers}
    for (name, family), way in reach.items():
        ways[name].append((family, way.path if isinstance(way, NoPath) else way))
    return tuple(
        UplinkRouting(numbers=number, device=devices[name], source=sources[name], paths=tuple(ways[name]))
        for name, number in numbers.items()
    )


# Most decisions change who is chosen, not how it is routed: the last few results are kept, as the same objects,
# so that comparing them with what the kernel holds costs nothing.
@lru_cache(maxsize=4)
def build_rules(
    uplinks: tuple[UplinkRouting, ...],
    policies: tuple[PolicyRouting, ...],
    families: tuple[Family, ...],
    layout: MarkLayout,
    base: int,
    fallback: TableId,
) -> frozenset[IpRule]:
    """Return the policy rules of every active family."""
    numbers = [*(uplink.numbers for uplink in uplinks), *(policy.numbers for policy in policies)]
    tables = {number.id: number.table for number in numbers}
    return frozenset(_rules(uplinks, tables, families, layout, base, fallback))


@lru_cache(maxsize=4)
def build_routes(
    uplinks: tuple[UplinkRouting, ...],
    policies: tuple[PolicyRouting, ...],
    families: tuple[Family, ...],
    fallback: TableId,
) -> frozenset[Route]:
    """Return each uplink's table, the fallback table and each multipath policy's table, for every active family.

    An uplink without carrier keeps its route (the kernel ignores it meanwhile): its return is one event shorter.
    """
    return frozenset((*_routes(uplinks, families, fallback), *_group_routes(policies, families)))


def _rules(
    uplinks: tuple[UplinkRouting, ...],
    tables: Mapping[int, TableId],
    families: tuple[Family, ...],
    layout: MarkLayout,
    base: int,
    fallback: TableId,
) -> Iterator[IpRule]:
    for family in families:
        marks = mark_tree(family, tables, layout, base)
        specific = RulePriority(base + SPECIFIC)
        yield IpRule(family=family, priority=RulePriority(base + FORWARDED), goto=specific, iif="lo", invert=True)
        yield IpRule(
            family=family,
            priority=RulePriority(base + QUESTION),
            goto=RulePriority(base + PAST),
            mark=(layout.mask, layout.mask),
        )
        for before in (RulePriority(base + QUESTION + 1), specific):
            yield IpRule(family=family, priority=before, table=TABLE_MAIN, suppress_prefixlength=0)
        # It decides nothing: a `goto` needs a rule to arrive at. It finds specific routes for an unused mark.
        yield IpRule(
            family=family,
            priority=RulePriority(base + PAST),
            table=TABLE_MAIN,
            mark=(layout.mask, layout.mask),
            suppress_prefixlength=0,
        )
        yield from marks
        # Behind the tree and not in each table: a packet of this box has its first route before its mark, and with
        # the source of an uplink that is cut off it goes on to main from that uplink's table.
        yield IpRule(
            family=family,
            priority=RulePriority(base + STOP),
            table=stop_table(fallback),
            mark=(0, layout.mask),
            invert=True,
        )
        yield IpRule(family=family, priority=FALLBACK, table=fallback)
        for uplink in uplinks:
            table, priority = uplink.numbers.table, uplink.numbers.priority
            yield IpRule(family=family, priority=priority(OIF), table=table, oif=uplink.device)
            path = uplink.path(family)
            for address in dict.fromkeys(path.addresses) if path else ():
                yield IpRule(family=family, priority=priority(FROM), table=table, from_=ip_network(address))
            # What others route for the inside (a VPN's rules) must not be caught by its source: the box's own only.
            for prefix in path.prefixes if path else ():
                yield IpRule(family=family, priority=priority(FROM), table=table, from_=prefix, iif="lo")


def stop_table(fallback: TableId) -> TableId:
    """Return the table in which marks end whose own table knows no way: its one route is `blackhole`."""
    return TableId(fallback + MOST + 1)


def mark_tree(family: Family, tables: Mapping[int, TableId], layout: MarkLayout, base: int) -> list[IpRule]:
    """Return the rules, by priority, that lead a mark to its uplink's or policy's table in steps that grow with log N.

    Ids are kept in blocks of 2^LEAF_BITS. Above the blocks, each rule tests one bit of the id and goes to the
    upper half when it is set; what falls through is the lower half. A block ends in a `goto` past the tree, so
    that no packet falls into its neighbour. A rule keeps its priority as long as the tree keeps its height.
    """
    end = RulePriority(base + END)

    def leaf(low: int, at: int) -> list[IpRule]:
        rules = [
            IpRule(
                family=family,
                priority=RulePriority(at + ident - low),
                table=tables[ident],
                mark=(layout.mark(ident), layout.mask),
            )
            for ident in range(low, low + (1 << LEAF_BITS))
            if ident in tables
        ]
        return [*rules, IpRule(family=family, priority=RulePriority(at + (1 << LEAF_BITS)), goto=end)] if rules else []

    def subtree(low: int, bits: int, at: int) -> list[IpRule]:
        if bits <= LEAF_BITS:
            return leaf(low, at)
        half = 1 << (bits - 1)
        lower = subtree(low, bits - 1, at + 1)
        upper = subtree(low + half, bits - 1, at + 1 + _size(bits - 1))
        if not upper:
            return lower
        bit = layout.mark(half)
        return [
            IpRule(family=family, priority=RulePriority(at), goto=upper[0].priority, mark=(bit, bit)),
            *lower,
            *upper,
        ]

    # The question of a forwarded packet comes by here, and must not meet the silent end.
    past = IpRule(family=family, priority=end, goto=RulePriority(base + PAST), mark=(layout.mask, layout.mask))
    return [*subtree(0, max(LEAF_BITS, max(tables).bit_length()), base + FWMARK), past]


def _size(bits: int) -> int:
    """Priorities that a subtree over 2^bits ids takes."""
    return (1 << bits) + 1 if bits <= LEAF_BITS else 1 + 2 * _size(bits - 1)


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
