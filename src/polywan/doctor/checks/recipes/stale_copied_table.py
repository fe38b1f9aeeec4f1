"""Connected routes of a table that was copied from main by hand differ from what main has now."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final, NamedTuple

from polywan.api.doctor import Finding, Fix, Step
from polywan.core.net import PROTOCOL, TABLE_LOCAL, TABLE_MAIN, Family, TableId
from polywan.core.plan.lans import Lan
from polywan.core.words import listed
from polywan.core.world.foreign_routing import TABLE_DEFAULT
from polywan.doctor.box import Box
from polywan.doctor.facts.routes import TableRoute
from polywan.doctor.facts.scripts import Line, lines, table_names

_LISTS: Final = re.compile(r"\bip\s+(?:-\S+\s+)*(?:ro|route)\s+(?:ls|list|show)\b.*\bdefault\b")
_ADDS: Final = re.compile(r"\bip\s+(?:-\S+\s+)*(?:ro|route)\s+(?:add|replace|append)\s+.*\btable\b.*\$\{?\w")
_NOT_THEIRS: Final = (TABLE_MAIN, TABLE_LOCAL, TABLE_DEFAULT)


class _Difference(NamedTuple):
    stale: tuple[TableRoute, ...]
    missing: tuple[Lan, ...]


def check(box: Box) -> Iterator[Finding]:
    """Find tables that policy rules lead to and whose connected routes have grown old."""
    copying = _copying(box)
    for family, table in dict.fromkeys((r.family, r.table) for r in box.observed.rules if r.protocol != PROTOCOL):
        if table is None or table in _NOT_THEIRS:
            continue
        own = [route for route in _connected(box, family) if _is(box, route, table)]
        stale = tuple(route for route in own if _renumbered(box, route))
        missing = tuple(_missing(box, own, family)) if copying else ()
        if stale or missing:
            yield _finding(box, table, _Difference(stale, missing), copying)


def _connected(box: Box, family: Family) -> Iterator[TableRoute]:
    """Yield connected routes that a person or a script has made: the kernel keeps its own up to date."""
    for route in box.routes:
        by_hand = route.protocol in ("boot", "static") and route.scope == "link" and route.kind == "unicast"
        if route.family is family and by_hand and not route.default and len(route.hops) == 1:
            yield route


def _is(box: Box, route: TableRoute, table: TableId) -> bool:
    return route.table == str(table) or table_names(box.scripts).get(route.table) == table


def _renumbered(box: Box, route: TableRoute) -> bool:
    """Tell whether the device has an address of another network now, and none of this one."""
    (hop,) = route.hops
    own = [address.network for address in box.observed.addresses_of(hop.device, route.family)]
    host = route.to.prefixlen > route.to.max_prefixlen - 2
    elsewhere = any(r.table == "main" and r.to == route.to for r in box.routes)
    return bool(own) and not host and not elsewhere and not any(network.overlaps(route.to) for network in own)


def _missing(box: Box, own: list[TableRoute], family: Family) -> Iterator[Lan]:
    """Yield networks behind this box that the table does not know, though it has copies of others."""
    known = [route.to for route in own]
    if own:
        for lan in box.inside(family):
            if not any(lan.network.overlaps(network) for network in known):
                yield lan


def _copying(box: Box) -> Line | None:
    """Return where a script copies main's routes but the default, such as recipe pages do."""
    found = {line.path: line for line in lines(box.scripts) if _LISTS.search(line.text)}
    adding = {line.path for line in lines(box.scripts) if _ADDS.search(line.text)}
    return next((line for path, line in found.items() if path in adding), None)


def _finding(box: Box, table: TableId, found: _Difference, copying: Line | None) -> Finding:
    evidence = [f"table {table}: {_shown(r)}, and {r.hops[0].device} is in {_networks(box, r)}" for r in found.stale]
    evidence += [f"main has {lan.network} on {lan.device}, table {table} does not" for lan in found.missing]
    if copying is not None:
        evidence.append(str(copying))
    what = [f"{_shown(r)} is no longer true" for r in found.stale]
    what += [f"the route to {lan} is missing" for lan in found.missing]
    steps = [("del", str(r.to), r.hops[0].device) for r in found.stale]
    steps += [("replace", str(network), r.hops[0].device) for r in found.stale for network in _now(box, r)]
    steps += [("replace", str(lan.network), lan.device) for lan in found.missing]
    return Finding(
        check="stale-copied-table",
        severity="warning",
        what=f"table {table} is an old copy of main: {listed(what)}",
        evidence=tuple(evidence),
        consequence="packets with its mark for these networks leave by the uplink: answers to hosts there are lost",
        fix=Fix(
            how="copy the routes again, and whenever an address changes; better: a policy rule "
            "`ip rule add priority 100 lookup main suppress_prefixlength 0` lets main's own connected routes win, "
            "so that no table needs a copy",
            steps=tuple(Step(command=_command(table, step)) for step in steps),
        ),
    )


def _command(table: TableId, step: tuple[str, str, str]) -> tuple[str, ...]:
    verb, to, device = step
    option = ("-6",) if ":" in to else ()
    return ("ip", *option, "route", verb, to, "dev", device, "table", str(table))


def _now(box: Box, route: TableRoute) -> tuple[object, ...]:
    own = box.observed.addresses_of(route.hops[0].device, route.family)
    return tuple(
        dict.fromkeys(address.network for address in own if address.network.prefixlen < route.to.max_prefixlen)
    )


def _networks(box: Box, route: TableRoute) -> str:
    own = box.observed.addresses_of(route.hops[0].device, route.family)
    return listed([str(address.network) for address in own])


def _shown(route: TableRoute) -> str:
    return f"{route.to} dev {route.hops[0].device}"
