"""A multipath default chooses by the pair of addresses alone, so that two hosts always use the same line."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from polywan.api.doctor import Finding, Fix
from polywan.core.net import FAMILIES, Family
from polywan.core.words import listed
from polywan.doctor.box import Box
from polywan.doctor.checks.keep import name_of, set_and_keep
from polywan.doctor.facts.routes import TableRoute

SETTING: Final = {
    Family.V4: "net/ipv4/fib_multipath_hash_policy",
    Family.V6: "net/ipv6/fib_multipath_hash_policy",
}
_BY_HAND: Final = frozenset({"", "boot", "static"})
"""Protocols of routes that ip(8), scripts and network managers add; a routing daemon has reasons of its own."""


def check(box: Box) -> Iterator[Finding]:
    """Find multipath defaults of each family while the kernel looks at addresses only."""
    for family in FAMILIES:
        routes = [route for route in box.routes if route.family is family and _several(route)]
        if routes and box.setting(SETTING[family]) == 0:
            yield _finding(routes, family)


def _several(route: TableRoute) -> bool:
    devices = {hop.device for hop in route.hops if hop.alive}
    return route.default and route.kind == "unicast" and route.protocol in _BY_HAND and len(devices) > 1


def _finding(routes: list[TableRoute], family: Family) -> Finding:
    name = name_of(SETTING[family])
    devices = listed([hop.device for hop in routes[0].hops])
    return Finding(
        check="hash-policy",
        severity="warning",
        what=f"the multipath default by {devices} chooses by addresses alone (IPv{family})",
        evidence=(f"{name} = 0", *(f"table {route.table}: default by {_shown(route)}" for route in routes)),
        consequence="all connections between one host here and one server use the same line: a download in several "
        "parts is no faster, and a test with one server sees one line only",
        fix=Fix(
            how=f"let ports count, too: set {name} to 1",
            steps=set_and_keep({SETTING[family]: "1"}),
        ),
    )


def _shown(route: TableRoute) -> str:
    return " and ".join(f"{hop.device} weight {hop.weight}" for hop in route.hops)
