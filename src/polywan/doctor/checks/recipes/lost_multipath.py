"""A multipath default by devices that come and go: the kernel removes all of it with the first device that goes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from polywan.api.doctor import Finding, Fix, Step
from polywan.doctor.box import Box
from polywan.doctor.facts.routes import Hop, TableRoute

_PASSING: Final = frozenset({"ppp", "tun", "wireguard"})
"""Kinds of devices that are made anew for each session."""

_FIRST: Final = 101
"""Number of the first nexthop object in the fix."""

_LINE: Final = re.compile(r"\broute\b.*\bdefault\b.*\bnexthop\b.*\bdev\s+(\S+).*\bnexthop\b.*\bdev\s+(\S+)")


def check(box: Box) -> Iterator[Finding]:
    """Find defaults over sessions that are in danger, and those that scripts made and that are gone."""
    found = [route for route in box.routes if route.default and len(route.hops) > 1 and not route.nexthop_id]
    for route in found:
        passing = [hop.device for hop in route.hops if _passes(box, hop.device)]
        if passing:
            yield _endangered(route, passing)
    if not any(len(route.hops) > 1 for route in box.routes if route.default):
        yield from _gone(box)


def _passes(box: Box, device: str) -> bool:
    link = box.observed.links.get(device)
    return link is not None and (link.kind in _PASSING or device.startswith("ppp"))


def _endangered(route: TableRoute, passing: list[str]) -> Finding:
    listed = " ".join(f"nexthop dev {hop.device} weight {hop.weight}" for hop in route.hops)
    return Finding(
        check="lost-multipath",
        severity="warning",
        what=f"the default route over {' and '.join(hop.device for hop in route.hops)} will go as a whole when "
        f"{' or '.join(passing)} ends",
        evidence=(f"ip -{route.family} route show table {route.table}: default {listed}",),
        consequence="when one session ends, nothing has a default route any more, although the other sessions are up",
        fix=Fix(how="use nexthop objects: they stay when one of them goes", steps=_objects(route)),
    )


def _objects(route: TableRoute) -> tuple[Step, ...]:
    ip = ("ip", f"-{route.family}")

    def made(number: int, hop: Hop) -> Step:
        via = ("via", hop.via) if hop.via else ()
        return Step(command=(*ip, "nexthop", "replace", "id", str(number), *via, "dev", hop.device))

    numbers = range(_FIRST, _FIRST + len(route.hops))
    group = "/".join(f"{number},{hop.weight}" for number, hop in zip(numbers, route.hops, strict=True))
    whole = ("ip", "nexthop", "replace", "id", str(_FIRST - 1), "group", group)
    metric = ("metric", str(route.metric)) if route.metric else ()
    used = (
        *ip,
        "route",
        "replace",
        "default",
        "nhid",
        str(_FIRST - 1),
        *metric,
        "table",
        route.table,
    )
    return (
        *(made(number, hop) for number, hop in zip(numbers, route.hops, strict=True)),
        Step(command=whole),
        Step(command=used),
    )


def _gone(box: Box) -> Iterator[Finding]:
    for path, text in box.scripts.items():
        for number, line in enumerate(text.splitlines(), 1):
            match = _LINE.search(line.partition("#")[0])
            if match is None:
                continue
            yield Finding(
                check="lost-multipath",
                severity="fault",
                what=f"the multipath default route that {path} makes is gone",
                evidence=(f"{path}:{number}: {line.strip()}", "ip route show default: no route has several next hops"),
                consequence="all connections use one link, or none",
                fix=Fix(
                    how="run the line again, and after each redial; nexthop objects (ip-nexthop(8)) would stay when "
                    "one link goes"
                ),
            )
            return
