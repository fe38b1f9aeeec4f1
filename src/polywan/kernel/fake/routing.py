"""What the kernel in memory answers when it is asked for a route."""

from __future__ import annotations

import errno
import os
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from polywan.core.errors import KernelError
from polywan.core.net import TABLE_MAIN, Family, IPAddress, IPNetwork, RulePriority, TableId, family_of
from polywan.core.packet import Packet
from polywan.core.routing.nexthops import Nexthop, NexthopGroup, NexthopId, NexthopObject
from polywan.core.routing.routes import IpRule, Route
from polywan.core.ruleset.neighbours.foreign_rules import matches
from polywan.core.state.events import AddressLost
from polywan.core.trace.route_query import AnswerKind, RouteAnswer, RouteQuery
from polywan.core.world.foreign_routing import Destination, ForeignRule, RouteKind
from polywan.core.world.observed import Address, DefaultRoute, Link

_TABLE_LOCAL: Final = TableId(255)
_MAIN_RULE: Final = RulePriority(32766)
_REFUSALS: Final[Mapping[str, AnswerKind]] = {
    "blackhole": "blackhole",
    "unreachable": "unreachable",
    "prohibit": "prohibit",
}


def lost(address: Address) -> AddressLost:
    """Tell that an address is gone, as the kernel does."""
    return AddressLost(address.link, family_of(address.ip))


@dataclass(frozen=True, slots=True, kw_only=True)
class Tables:
    """Everything that routing looks at."""

    links: Mapping[str, Link]
    addresses: Collection[Address]
    defaults: Collection[DefaultRoute]
    routes: Collection[Route]
    rules: Collection[IpRule]
    foreign_rules: Collection[ForeignRule]
    tables: Mapping[TableId, Collection[Destination]]
    nexthops: Mapping[NexthopId, NexthopObject]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    to: IPNetwork
    metric: int
    link: str | None
    via: IPAddress | None = None
    source: IPAddress | None = None
    kind: RouteKind = "unicast"


def named(
    tables: Mapping[TableId, tuple[Destination, ...]], rules: Collection[ForeignRule]
) -> Mapping[TableId, tuple[Destination, ...]]:
    """Return what those tables know that rules of others lead to, in the families of the rules."""
    wanted = {(rule.family, rule.table) for rule in rules}
    found = {t: tuple(d for d in known if (family_of(d.prefix), t) in wanted) for t, known in tables.items()}
    return {table: known for table, known in found.items() if known}


def answer(query: RouteQuery, tables: Tables) -> RouteAnswer:
    """Look a packet up, rule by rule and longest prefix first.

    Raises:
        KernelError: there is no such device.
    """
    if query.in_interface is not None and query.in_interface not in tables.links:
        raise KernelError("query a route", errno.ENODEV, os.strerror(errno.ENODEV))
    if any(a.ip.ip == query.destination for a in tables.addresses) or query.destination.is_loopback:
        source = _source(query, query.destination)
        return RouteAnswer(kind="local", link="lo", source=source, table=_TABLE_LOCAL, prefix=query.family.host_length)
    main = IpRule(family=query.family, priority=_MAIN_RULE, table=TABLE_MAIN)
    jump = 0
    rules: list[IpRule | ForeignRule] = [*tables.rules, *tables.foreign_rules, main]
    for rule in sorted(rules, key=lambda r: r.priority):
        if rule.family is not query.family or rule.priority < jump or not _matches(rule, query):
            continue
        if isinstance(rule, ForeignRule) and rule.action in _REFUSALS:
            return RouteAnswer(kind=_REFUSALS[rule.action])
        if rule.goto is not None:
            jump = rule.goto
            continue
        found = _look_up(query, rule.table or TABLE_MAIN, tables)
        if found is None or found.kind == "throw":
            continue
        if found.link is None:
            return RouteAnswer(kind=_REFUSALS.get(found.kind, "blackhole"))
        if found.to.prefixlen <= (-1 if (s := rule.suppress_prefixlength) is None else s):
            continue
        source = _source(query, found.source or _address_on(found.link, query.family, tables))
        return RouteAnswer(
            kind="unicast",
            link=found.link,
            via=found.via,
            source=source,
            table=rule.table or TABLE_MAIN,
            prefix=found.to.prefixlen,
        )
    return RouteAnswer(kind="none")


def _matches(rule: IpRule | ForeignRule, query: RouteQuery) -> bool:
    if isinstance(rule, ForeignRule):
        return rule.action not in ("nop", "other") and matches(rule, _packet(query))
    # To the kernel, no source is the unspecified address.
    source = query.family.default.network_address if query.source is None else query.source
    same = (
        (rule.mark is None or query.mark & rule.mark[1] == rule.mark[0])
        and (rule.from_ is None or source in rule.from_)
        and (rule.iif is None or rule.iif == (query.in_interface or "lo"))
        and (rule.to is None or query.destination in rule.to)
        and (rule.ipproto is None or rule.ipproto == query.protocol)
        and rule.oif is None
    )
    return same is not rule.invert


def _packet(query: RouteQuery) -> Packet:
    anywhere = query.family.default.network_address
    return Packet(
        family=query.family,
        source=anywhere if query.source is None else query.source,
        destination=query.destination,
        protocol=query.protocol or 0,
        source_port=query.source_port,
        port=query.port,
        in_interface=query.in_interface,
        dscp=query.dscp,
        mark=query.mark,
        user=query.uid or 0,
    )


def _look_up(query: RouteQuery, table: TableId, tables: Tables) -> _Found | None:
    found = [
        f
        for f in _routes(query.family, table, tables)
        if query.destination in f.to and (f.link is None or tables.links[f.link].up)
    ]
    return min(found, key=lambda f: (-f.to.prefixlen, f.metric), default=None)


def _routes(family: Family, table: TableId, tables: Tables) -> Iterable[_Found]:
    everything = family.default
    if table == TABLE_MAIN:
        for a in tables.addresses:
            if family_of(a.ip) is family:
                yield _Found(to=a.ip.network, metric=0, link=a.link, source=a.ip.ip)
    for d in tables.defaults:
        if d.family is family and d.table == table:
            yield _Found(to=everything, metric=d.metric, link=d.link, via=d.via)
    for known in tables.tables.get(table, ()):
        if known.prefix.version == family and known.from_ is None:
            yield _Found(to=known.prefix, metric=0, link=known.link, kind=known.kind)
    for r in tables.routes:
        if r.family is family and r.table == table and r.local is None:
            hop = _first(r.nexthop, tables.nexthops) if r.nexthop is not None else None
            link, via = (hop.link, hop.via) if hop is not None else (r.link, r.via)
            yield _Found(to=everything, metric=r.metric, link=link, via=via, source=r.source)


def _first(ident: NexthopId, nexthops: Mapping[NexthopId, NexthopObject]) -> Nexthop | None:
    there = nexthops.get(ident)
    if isinstance(there, NexthopGroup):
        return next((hop for m in there.members if isinstance(hop := nexthops.get(m[0]), Nexthop)), None)
    return there


def _source(query: RouteQuery, preferred: IPAddress | None) -> IPAddress | None:
    return None if query.in_interface is not None else query.source or preferred


def _address_on(link: str, family: Family, tables: Tables) -> IPAddress | None:
    return next((a.ip.ip for a in tables.addresses if a.link == link and family_of(a.ip) is family), None)
