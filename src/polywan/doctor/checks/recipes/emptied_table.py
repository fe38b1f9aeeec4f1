"""A mark leads to a table without a default route, so that what carries it uses main as if it had no mark.

The kernel deletes routes with their device: after a redial the table is empty, until a script adds the route again.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Final

from polywan.api.doctor import Finding, Fix, Step
from polywan.core.firewall.model import Choose, Rule, SetMark
from polywan.core.net import PROTOCOL, TABLE_LOCAL, TABLE_MAIN, Family, IPNetwork, TableId, family_of
from polywan.core.words import counted
from polywan.core.world.foreign_routing import TABLE_DEFAULT, ForeignRule
from polywan.core.world.observed import is_wide
from polywan.doctor.box import Box
from polywan.doctor.facts.marking import theirs
from polywan.doctor.facts.scripts import ScriptRoute, default_routes, table_names

_NOT_THEIRS: Final = (TABLE_MAIN, TABLE_LOCAL, TABLE_DEFAULT)
_HOOK: Final = re.compile(r"/ip(?:v6)?-up|/if-up|/dispatcher|/networkd-dispatcher/|-hooks\.d/")
_LAST: Final = "4278198272"
"""Metric of a route that loses against every other one."""


def check(box: Box) -> Iterator[Finding]:
    """Find policy rules whose mark is set by some rule and whose table leads nowhere."""
    seen: set[tuple[Family, TableId]] = set()
    for rule in box.observed.rules:
        if rule.table is None or rule.table in _NOT_THEIRS or not _by_mark_alone(rule):
            continue
        marking = list(_marking(box, rule))
        if marking and not _leads(box, rule.family, rule.table) and (rule.family, rule.table) not in seen:
            seen.add((rule.family, rule.table))
            yield _finding(box, rule, rule.table, marking)


def _by_mark_alone(rule: ForeignRule) -> bool:
    """Tell whether the table is meant for the Internet: one for some destinations needs routes to these only."""
    narrow = (rule.to, rule.dport, rule.sport, rule.ipproto, rule.suppress_prefixlength, rule.suppress_ifgroup)
    plain = rule.action == "table" and not rule.invert and not rule.unknown and rule.protocol != PROTOCOL
    return plain and rule.mark is not None and all(part is None for part in narrow)


def _leads(box: Box, family: Family, table: TableId) -> bool:
    """Tell whether the table has a route that is not just a connected network."""
    connected = {route.to for route in box.routes if route.scope == "link" and not route.default}
    connected |= {address.ip.network for address in box.observed.addresses}
    known = [entry for entry in box.observed.tables.get(table, ()) if family_of(entry.prefix) is family]
    return any(_everywhere(entry.prefix) or entry.prefix not in connected for entry in known)


def _everywhere(network: IPNetwork) -> bool:
    return network.prefixlen == 0 or is_wide(network)


def _marking(box: Box, rule: ForeignRule) -> Iterator[Rule]:
    """Yield the rules of firewalls that write the mark."""
    value, mask = rule.mark or (0, 0)
    for table in theirs(box.firewall, rule.family):
        for found in (each for chain in table.chains for each in chain.rules):
            if any(value & mask and value & mask in _written(action, mask) for action in found.actions):
                yield found


def _written(action: object, mask: int) -> set[int]:
    if isinstance(action, SetMark):
        return {action.value & mask}
    return {value & mask for value, _ in action.shares} if isinstance(action, Choose) else set()


def _finding(box: Box, rule: ForeignRule, table: TableId, marking: list[Rule]) -> Finding:
    option = () if rule.family is Family.V4 else ("-6",)
    main = " and ".join(sorted(box.observed.main_default_links(rule.family)))
    evidence = [f"ip rule: {rule.text()}", f"`{' '.join(('ip', *option, 'route show table', str(table)))}`: no default"]
    evidence += [f"{each.text}" + _counted(each) for each in marking[:2]]
    elsewhere = f"leave by {main}" if main else "fail with `Network is unreachable`"
    hop = next(_known_hops(box, rule.family, table), None)
    severity = "fault" if hop is not None else "note" if _has_hook(box, rule.family, table) else "warning"
    return Finding(
        check="emptied-table",
        severity=severity,
        what=f"table {table}, which a mark leads to, has no IPv{rule.family} default route",
        evidence=tuple(evidence),
        consequence=f"its connections {elsewhere} as if they had no mark: "
        "this line carries nothing until the route is back",
        fix=_fix(hop, table, option),
    )


def _counted(rule: Rule) -> str:
    return f" ({counted(rule.packets, 'packet')} so far)" if rule.packets is not None else ""


def _has_hook(box: Box, family: Family, table: TableId) -> bool:
    """Tell whether a script that runs when a line comes up adds the route: then the line is down now."""
    names = table_names(box.scripts)
    return any(
        route.family is family and _HOOK.search(route.line.path) and (route.table == "?" or _is(route, table, names))
        for route in default_routes(box.scripts)
    )


def _fix(hop: tuple[str, ...] | None, table: TableId, option: tuple[str, ...]) -> Fix:
    start = ("ip", *option, "route", "replace")
    last = (*start, "unreachable", "default", "metric", _LAST, "table", str(table))
    how = (
        "add the default route again, and have the hook that runs when the line comes up do so (/etc/ppp/ip-up.d/ for "
        f"pppd): the kernel deletes routes with their device; `{' '.join(last)}` in a boot script then lets "
        "connections fail at once while the line is down, instead of another line taking them"
    )
    if hop is None:
        return Fix(how=f"{how}: {' '.join(start)} default dev DEVICE table {table}")
    return Fix(how=how, steps=(Step(command=(*start, "default", *hop, "table", str(table))), Step(command=last)))


def _known_hops(box: Box, family: Family, table: TableId) -> Iterator[tuple[str, ...]]:
    """Yield how a script or the table's name says that it leaves, and the one dialled line that no route leads by.

    Only devices that are up: the route of one that is down belongs to the hook that brings it up.
    """
    names = table_names(box.scripts)
    for route in default_routes(box.scripts):
        if route.family is family and _is(route, table, names) and len(route.hops) == 1:
            ((device, via),) = route.hops
            if _up(box, device) and (via or box.observed.links[device].point_to_point):
                yield (*(("via", via) if via else ()), "dev", device)
    for name, number in names.items():
        if number == table and _up(box, name) and box.observed.links[name].point_to_point:
            yield ("dev", name)
    used = {default.link for default in box.observed.defaults if default.family is family}
    inside = {lan.device for lan in box.lans}
    idle = [
        link.name
        for link in box.observed.links.values()
        if link.usable and link.name.startswith("ppp") and link.name not in used | inside
        if box.observed.addresses_of(link.name, family)
    ]
    if len(idle) == 1 and not any(_is(route, table, names) for route in default_routes(box.scripts)):
        yield ("dev", idle[0])


def _is(route: ScriptRoute, table: TableId, names: Mapping[str, int]) -> bool:
    return route.table == str(table) or names.get(route.table) == table


def _up(box: Box, device: str) -> bool:
    link = box.observed.links.get(device)
    return link is not None and link.usable
