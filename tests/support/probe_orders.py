"""Orders for probers, and their results."""

from __future__ import annotations

import asyncio
from ipaddress import ip_address
from typing import Any, Literal, TypeVar
from weakref import WeakKeyDictionary

from polywan.core.health.layers import CheckOrder, CheckResult, Layer
from polywan.core.health.probes import ProbeOrder, ProbeResult, ProbeTarget
from polywan.core.net import Family, family_of
from polywan.probe.api import Prober
from polywan.probe.api import Result as AnyResult

Method = Literal["icmp", "tcp"]
Result = TypeVar("Result", ProbeResult, CheckResult)

_reported: WeakKeyDictionary[Prober, asyncio.Queue[AnyResult]] = WeakKeyDictionary()


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


def reported(prober: Prober) -> asyncio.Queue[AnyResult]:
    """Return what it reports, the same queue at each call."""
    if prober not in _reported:
        _reported[prober] = asyncio.Queue()
        prober.report_to(_reported[prober].put_nowait)
    return _reported[prober]


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
        while len(found) < count:
            result = await reported(prober).get()
            assert isinstance(result, kind)
            found.append(result)
    return found


async def _to_the_end(prober: Prober, kind: type[Result], count: int) -> list[Result]:
    try:
        found = await _take(prober, kind, count)
    finally:
        prober.close()
    rest = reported(prober)
    return found + [late for late in (rest.get_nowait() for _ in range(rest.qsize())) if isinstance(late, kind)]
