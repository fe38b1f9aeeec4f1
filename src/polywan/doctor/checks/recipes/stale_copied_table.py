"""A table has a copy of a network that main leads elsewhere by now, or not at all."""

from __future__ import annotations

from collections.abc import Iterator

from polywan.api.doctor import Finding, Fix, Step
from polywan.doctor.box import Box
from polywan.doctor.facts.routes import TableRoute

_OURS = "200"
_OWN_TABLES = frozenset({"main", "local", "default", "254", "255", "253"})


def check(box: Box) -> Iterator[Finding]:
    """Find connected routes in other tables that main does not have."""
    main = {(route.to, hop.device) for route in box.routes if route.table in ("main", "254") for hop in route.hops}
    led_to = {str(rule.table) for rule in box.observed.rules}
    stale: dict[str, list[TableRoute]] = {}
    for route in box.routes:
        link = box.observed.links.get(route.hops[0].device) if len(route.hops) == 1 else None
        copied = route.scope == "link" and route.protocol != _OURS and not route.default and not route.hops[0].via
        if not copied or route.table in _OWN_TABLES or link is None or link.master or _unused(route, led_to):
            continue
        # Where main leads the network by another device, or the device has another network of the family by now.
        others = {device for to, device in main if to == route.to}
        moved = bool(others) and link.name not in others
        renumbered = not others and any(device == link.name and to.version == route.family for to, device in main)
        if moved or renumbered:
            stale.setdefault(route.table, []).append(route)
    for table, routes in stale.items():
        yield _finding(table, routes)


def _unused(route: TableRoute, led_to: set[str]) -> bool:
    """True for a table that no rule leads to, where that can be told: names of rt_tables cannot."""
    return route.table.isdecimal() and route.table not in led_to


def _finding(table: str, routes: list[TableRoute]) -> Finding:
    option = f"-{routes[0].family}"
    return Finding(
        check="stale-copied-table",
        severity="warning",
        what=f"table {table} has copies of routes that main does not have any more",
        evidence=tuple(f"ip {option} route show table {table}: {r.to} dev {r.hops[0].device}" for r in routes),
        consequence="packets for these networks leave by the wrong device when this table is used",
        fix=Fix(
            how="delete them; a rule `lookup main suppress_prefixlength 0` before the others makes copies needless",
            steps=tuple(
                Step(command=("ip", option, "route", "del", str(r.to), "dev", r.hops[0].device, "table", table))
                for r in routes
            ),
        ),
    )
