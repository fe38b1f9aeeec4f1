"""Orders for probers, and their results."""

from __future__ import annotations

import asyncio
from ipaddress import ip_address
from typing import Any, Literal, TypeVar

from polywan.core.events import CheckResult, ProbeResult
from polywan.core.health import ProbeOrder, ProbeTarget
from polywan.core.layers import CheckOrder, Layer
from polywan.core.net import Family, family_of
from polywan.probe.api import Prober

Method = Literal["icmp", "tcp"]
Result = TypeVar("Result", ProbeResult, CheckResult)


def order(
    *addresses: str,
    methods: tuple[Method, ...] = ("icmp",),
    port: int = 53,
    interface: str = "lo",
    mark: int = 0,
    number: int = 1,
    timeout: float = 0.2,
) -> ProbeOrder:
    targets = tuple(ProbeTarget(ip_address(address), methods, port) for address in addresses)
    return ProbeOrder(
        uplink=f"by-{interface}",
        family=family_of(targets[0].address),
        interface=interface,
        mark=mark,
        round=number,
        timeout=timeout,
        targets=targets,
    )


async def take(prober: Prober, count: int) -> list[ProbeResult]:
    """Wait for so many results; fails rather than hangs."""
    return await _take(prober, ProbeResult, count)


async def ask(prober: Prober, *orders: ProbeOrder) -> list[ProbeResult]:
    """Start all, return all results, and close; one that is reported twice is returned twice."""
    for one in orders:
        prober.start(one)
    return await _to_the_end(prober, ProbeResult, sum(len(one.targets) for one in orders))


def check_order(
    layer: Layer,
    family: Family = Family.V4,
    *,
    interface: str = "lo",
    mark: int = 0,
    number: int = 1,
    timeout: float = 1.0,
    servers: tuple[str, ...] = (),
    gateway: str = "",
    **what: Any,
) -> CheckOrder:
    return CheckOrder(
        uplink=f"by-{interface}",
        family=family,
        layer=layer,
        interface=interface,
        mark=mark,
        number=number,
        timeout=timeout,
        servers=tuple(map(ip_address, servers)),
        gateway=ip_address(gateway) if gateway else None,
        **what,
    )


async def take_checks(prober: Prober, count: int) -> list[CheckResult]:
    """Wait for so many results of checks; fails rather than hangs."""
    return await _take(prober, CheckResult, count)


async def inspect(prober: Prober, *orders: CheckOrder) -> list[CheckResult]:
    """Start all, return all results, and close; one that is reported twice is returned twice."""
    for one in orders:
        prober.check(one)
    return await _to_the_end(prober, CheckResult, len(orders))


async def _take(prober: Prober, kind: type[Result], count: int) -> list[Result]:
    found: list[Result] = []
    async with asyncio.timeout(10):
        async for result in prober.results():
            assert isinstance(result, kind)
            found.append(result)
            if len(found) == count:
                break
    return found


async def _to_the_end(prober: Prober, kind: type[Result], count: int) -> list[Result]:
    try:
        found = await _take(prober, kind, count)
    finally:
        prober.close()
    async with asyncio.timeout(10):
        return found + [late async for late in prober.results() if isinstance(late, kind)]
