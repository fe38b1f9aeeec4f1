"""A multipath default that is gone, or sends connections into a line that is down.

The kernel deletes the whole multipath route with any one of its devices, and a redial does not bring it back. Nexthop
objects (ip-nexthop(8)) keep it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from polywan.api.doctor import Finding, Fix, Step
from polywan.core.net import FAMILIES, PROTOCOL, Family
from polywan.core.words import listed
from polywan.doctor.box import Box, ignoring
from polywan.doctor.checks.keep import set_and_keep
from polywan.doctor.facts.routes import TableRoute
from polywan.doctor.facts.scripts import ScriptRoute, default_routes

_IDS: Final = 9000
"""Nexthop objects of the fix begin behind this number, where those of others hardly are."""


def check(box: Box) -> Iterator[Finding]:
    """Find lost and half-dead multipath defaults; while polywan runs, defaults of main are few on purpose."""
    if box.status is not None:
        return
    for family in FAMILIES:
        own = [route for route in box.routes if route.family is family and route.default and route.table == "main"]
        for route in own:
            if route.protocol != str(PROTOCOL) and len(route.hops) > 1 and not all(hop.alive for hop in route.hops):
                yield _half(box, route)
        scripted = [r for r in default_routes(box.scripts) if r.family is family and _is_lost(box, r, own)]
        if scripted:
            yield _lost(box, scripted[0], own)


def _is_lost(box: Box, scripted: ScriptRoute, own: list[TableRoute]) -> bool:
    devices = {hop.device for hop in scripted.hops if hop.device}
    up = [device for device in devices if _up(box, device)]
    there = any(len(route.hops) > 1 and devices & {hop.device for hop in route.hops} for route in own)
    by_object = any(route.nexthop_id and devices & {hop.device for hop in route.hops} for route in own)
    return not scripted.table and len(devices) > 1 and bool(up) and not there and not by_object


def _up(box: Box, device: str) -> bool:
    link = box.observed.links.get(device)
    return link is not None and link.usable


def _half(box: Box, route: TableRoute) -> Finding:
    dead = [hop.device for hop in route.hops if not hop.alive]
    links = box.observed.links
    used = [d for d in dead if d in links and links[d].up and not box.passes_over(route.family, d)]
    option = "" if route.family is Family.V4 else "-6 "
    shown = ", ".join(f"{hop.device} {'up' if hop.alive else 'down'}" for hop in route.hops)
    consequence = (
        f"connections that are given {listed(used)} fail"
        if used
        else f"connections use the other line{'s' if len(route.hops) - len(dead) > 1 else ''} alone"
    )
    how = f"bring {listed(dead)} up again" + ("; let the kernel pass over lines without carrier" if used else "")
    return Finding(
        check="lost-multipath",
        severity="fault" if used else "warning",
        what=f"the IPv{route.family} multipath default has {listed(dead)} among its lines, and it is down",
        evidence=(f"`ip {option}route show default`: {shown}",),
        consequence=consequence,
        fix=Fix(how=how, steps=set_and_keep({ignoring(route.family, "all"): "1"}) if used else ()),
    )


def _lost(box: Box, scripted: ScriptRoute, own: list[TableRoute]) -> Finding:
    devices = [hop.device for hop in scripted.hops]
    option = "" if scripted.family is Family.V4 else "-6 "
    now = " and ".join(f"{hop.device}" for route in own for hop in route.hops)
    evidence = [str(scripted.line), f"`ip {option}route show default`: " + (f"by {now}" if now else "nothing")]
    carried = f"all connections use {now}" if now else "nothing reaches the Internet by main, though a line is up"
    return Finding(
        check="lost-multipath",
        severity="warning" if now else "fault",
        what=f"the multipath default by {listed(devices)} that {scripted.line.path} adds is gone",
        evidence=tuple(evidence),
        consequence=f"{carried}: the kernel deletes the whole route with any one of its devices, "
        "and a redial does not bring it back",
        fix=_fix(box, scripted, option, has_default=bool(now)),
    )


def _fix(box: Box, scripted: ScriptRoute, option: str, *, has_default: bool) -> Fix:
    up = [hop for hop in scripted.hops if _up(box, hop.device)]
    ids = [str(_IDS + number) for number in range(1, len(up) + 1)]
    family = tuple(option.split())
    start = ("ip", *family, "nexthop", "add", "id")
    lines = [
        (*start, number, *(("via", hop.via) if hop.via else ()), "dev", hop.device)
        for number, hop in zip(ids, up, strict=True)
    ]
    lines += [
        ("ip", "nexthop", "add", "id", str(_IDS), "group", "/".join(ids)),
        ("ip", *family, "route", "replace" if has_default else "add", "default", "nhid", str(_IDS)),
    ]
    direct = all(hop.via or box.observed.links[hop.device].point_to_point for hop in up)
    how = (
        "make the route of nexthop objects, which outlive a device, and have the hook of each line (/etc/ppp/ip-up.d/ "
        "for pppd) replace its object and the group; polywan does all of that"
    )
    if has_default or not direct:
        return Fix(how=f"{how}: {'; '.join(' '.join(line) for line in lines)}")
    return Fix(how=how, steps=tuple(Step(command=line) for line in lines))
