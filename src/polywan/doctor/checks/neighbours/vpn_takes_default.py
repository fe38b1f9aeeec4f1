"""A VPN takes everything: nothing is balanced, and on purpose."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_network
from typing import Final

from polywan.api.doctor import Finding, Fix
from polywan.core.net import FAMILIES, TABLE_MAIN, Family, IPNetwork
from polywan.core.words import listed
from polywan.core.world.destinations import everything
from polywan.core.world.foreign_routing import ForeignRule
from polywan.doctor.box import Box
from polywan.doctor.checks.neighbours.lines import is_multi_wan, is_tunnel, lines
from polywan.doctor.facts.programs import maker_of_rule

_HALVES: Final = {
    Family.V4: frozenset(map(ip_network, ("0.0.0.0/1", "128.0.0.0/1"))),
    Family.V6: frozenset(map(ip_network, ("::/1", "8000::/1"))),
}


def is_full_tunnel(rule: ForeignRule) -> bool:
    """Tell whether a rule sends everything to a table but what has the program's own mark, as VPN clients do."""
    return rule.invert and rule.mark is not None and rule.action == "table" and rule.table not in (None, TABLE_MAIN)


def check(box: Box) -> Iterator[Finding]:
    """Find tunnels that take all of a family, on a box with several lines."""
    for family in FAMILIES:
        if not is_multi_wan(box, family):
            continue
        rule, device = _by_rule(box, family)
        if rule is not None:
            yield _of_rule(box, rule, device)
        elif halves := _halves(box, family):
            yield _of_halves(family, halves)
        elif tunnel := _main(box, family):
            shown = "ip route show default" if family is Family.V4 else "ip -6 route show default"
            yield _finding(family, tunnel, f"`{shown}`: main's default leads by {tunnel}", "")


def _by_rule(box: Box, family: Family) -> tuple[ForeignRule | None, str]:
    for rule in box.observed.rules:
        if rule.family is family and is_full_tunnel(rule):
            links = everything(rule, box.observed.tables)
            if links and not set(links) & lines(box):
                return rule, listed(links)
    return None, ""


def _of_rule(box: Box, rule: ForeignRule, device: str) -> Finding:
    network = next((str(lan.network) for lan in box.inside(rule.family)), "NETWORK")
    exempt = f"ip -{rule.family} rule add from {network} lookup main priority {max(1, rule.priority - 1)}"
    return _finding(
        rule.family,
        device,
        f"ip rule: {rule.text()}",
        f"; to let a network go by the lines instead: `{exempt}`",
        maker_of_rule(rule),
    )


def _halves(box: Box, family: Family) -> str:
    by_link: dict[str, set[IPNetwork]] = {}
    for part in box.observed.parts:
        if part.table == TABLE_MAIN and part.to in _HALVES[family]:
            by_link.setdefault(part.link, set()).add(part.to)
    whole = (link for link, parts in by_link.items() if parts == _HALVES[family] and link not in lines(box))
    return next(whole, "")


def _of_halves(family: Family, device: str) -> Finding:
    routes = " and ".join(f"{half} dev {device}" for half in sorted(map(str, _HALVES[family])))
    more = f"; in OpenVPN `pull-filter ignore redirect-gateway`, and routes for what {device} is meant for"
    return _finding(family, device, f"ip route: {routes}", more)


def _main(box: Box, family: Family) -> str:
    links = box.observed.main_default_links(family)
    others = links and not links & lines(box) and all(is_tunnel(box, link) for link in links)
    return listed(sorted(links)) if others else ""


def _finding(family: Family, device: str, evidence: str, more: str, program: str = "") -> Finding:
    whose = f"{program} " if program else "a tunnel "
    return Finding(
        check="vpn-takes-default",
        severity="note",
        what=f"{whose}takes all IPv{family} to the Internet: it leaves by {device}",
        evidence=(evidence,),
        consequence="nothing of it is balanced over the lines: all of it is one connection, that of the tunnel itself",
        fix=Fix(
            how=f"nothing, if the tunnel is meant to carry all; otherwise limit what it routes (WireGuard: "
            f"AllowedIPs){more}"
        ),
    )
