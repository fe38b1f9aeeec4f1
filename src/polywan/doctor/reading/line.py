"""Ask the lines: next hops, targets, the page of the file, and the resolvers of this box, all at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path
from typing import Final

from polywan.config import HealthSettings
from polywan.core.errors import PolywanError
from polywan.core.health.layers import CheckOrder, Layer
from polywan.core.net import IPAddress
from polywan.core.trace.route_query import RouteQuery
from polywan.doctor.box import Box
from polywan.doctor.facts.egress import Egress
from polywan.doctor.facts.line import GatewayAnswer, LineFacts, PageAnswer, PathSize, ResolverAnswer
from polywan.doctor.facts.port import PortCounters
from polywan.doctor.reading import network, port, resolvers
from polywan.doctor.reading.path_size import measure
from polywan.kernel.programs import listing
from polywan.probe.check import CheckOutcome, carry_out
from polywan.probe.dns import check_dns
from polywan.probe.http import OTHER_STATUS, check_http
from polywan.probe.neighbour import check_gateway

MOST_EGRESSES: Final = 24
"""Lines that are asked: with more, questions would wait for each other. The others are of the same kind as a rule."""

ASKED_TARGETS: Final = 3

_GATEWAY_TIMEOUT: Final = 1.5
_PAGE_TIMEOUT: Final = 3.0
_DNS_TIMEOUT: Final = 2.0
_BETWEEN: Final = 2.0
"""Seconds between two readings of counters that look bad."""

_ETHERNET: Final = 1500

Denied = dict[str, str]


async def ask(box: Box, root: Path = Path("/")) -> LineFacts:
    """Return what the lines answer, within 4 s; files of DHCP clients and others are looked for below `root`."""
    asked = [egress for egress in box.egresses if _may_be_asked(box, egress)][:MOST_EGRESSES]
    denied: Denied = {}
    devices = {egress.device for egress in box.egresses}
    gateways, pages, sizes, lookups, (counted, later), modes = await asyncio.gather(
        _gateways(box, asked, denied),
        _pages(box, asked, denied),
        _sizes(box, asked, denied),
        _lookups(box, asked, devices, root, denied),
        _counters(denied),
        asyncio.to_thread(port.modes, sorted(devices)),
    )
    return LineFacts(
        gateways=gateways,
        pages=pages,
        sizes=sizes,
        lookups=lookups,
        counters=counted,
        later=later,
        modes=modes,
        denied=denied,
    )


def _may_be_asked(box: Box, egress: Egress) -> bool:
    """Tell whether it may be asked: its device has a carrier, and nobody has switched it off."""
    link = box.observed.links.get(egress.device)
    if link is None or not link.usable:
        return False
    for uplink in box.status.uplinks if box.status is not None else ():
        if uplink.name == egress.name:
            return uplink.state != "disabled"
    written = box.config.uplinks.get(egress.name) if box.config is not None else None
    return written is None or written.enabled


def _settings(box: Box, egress: Egress) -> HealthSettings:
    if box.config is None:
        return HealthSettings()
    return box.config.health_of(egress.name) if egress.name in box.config.uplinks else box.config.health


def _order(egress: Egress, layer: Layer, timeout: float) -> CheckOrder:
    return CheckOrder(
        uplink=egress.name,
        family=egress.family,
        layer=layer,
        interface=egress.device,
        mark=egress.mark,
        number=0,
        timeout=timeout,
    )


def _of_family(addresses: Iterable[IPAddress], egress: Egress) -> tuple[IPAddress, ...]:
    return tuple(address for address in addresses if address.version == egress.family)


def _noted(denied: Denied, name: str, outcomes: Iterable[CheckOutcome]) -> None:
    for outcome in outcomes:
        if outcome.denied:
            denied[name] = outcome.denied


async def _gateways(box: Box, asked: Sequence[Egress], denied: Denied) -> tuple[GatewayAnswer, ...]:
    known = [(egress, via) for egress in asked if (via := _via(box, egress)) is not None]
    orders = [replace(_order(egress, Layer.GATEWAY, _GATEWAY_TIMEOUT), gateway=via) for egress, via in known]
    outcomes = await asyncio.gather(*(carry_out(order, check_gateway) for order in orders))
    _noted(denied, "gateways", outcomes)
    # Behind the questions, so that the kernel's entries are not older than the answers.
    entries = await asyncio.to_thread(_neighbours)
    found: list[GatewayAnswer] = []
    for (egress, via), outcome in zip(known, outcomes, strict=True):
        state, mac = entries.get((egress.device, via), ("", ""))
        found.append(GatewayAnswer(egress, via, outcome.result.ok, outcome.result.detail, state, mac))
    return tuple(found)


def _via(box: Box, egress: Egress) -> IPAddress | None:
    if egress.via is not None:
        return egress.via
    for uplink in box.status.uplinks if box.status is not None and egress.ours else ():
        family = uplink.families.get(egress.family.nfproto)
        if uplink.name == egress.name and family is not None and family.gateway:
            with suppress(ValueError):
                return ip_address(family.gateway)
    return None


def _neighbours() -> Mapping[tuple[str, IPAddress], tuple[str, str]]:
    """Return state and link-layer address of the kernel's entries by device and address."""
    found: dict[tuple[str, IPAddress], tuple[str, str]] = {}
    with suppress(PolywanError):
        listed = listing(["ip", "-json", "neighbour", "show"], "iproute2")
        for entry in listed if isinstance(listed, list) else ():
            with suppress(ValueError, TypeError, KeyError):
                key = (str(entry["dev"]), ip_address(entry["dst"]))
                found[key] = (" ".join(map(str, entry.get("state", ()))), str(entry.get("lladdr", "")))
    return found


async def _pages(box: Box, asked: Sequence[Egress], denied: Denied) -> tuple[PageAnswer, ...]:
    orders: list[tuple[Egress, CheckOrder]] = []
    for egress in asked:
        health = _settings(box, egress)
        if health.http_url:
            servers = health.targets if health.dns_servers is None else health.dns_servers
            order = _order(egress, Layer.HTTP, _PAGE_TIMEOUT)
            order = replace(order, url=health.http_url, status=health.http_status)
            orders.append((egress, replace(order, servers=_of_family(servers, egress))))
    outcomes = await asyncio.gather(*(carry_out(order, check_http) for _, order in orders))
    _noted(denied, "pages", outcomes)
    return tuple(
        PageAnswer(egress, order.url, o.result.ok, not o.result.ok and OTHER_STATUS in o.result.detail, o.result.detail)
        for (egress, order), o in zip(orders, outcomes, strict=True)
    )


async def _sizes(box: Box, asked: Sequence[Egress], denied: Denied) -> tuple[PathSize, ...]:
    measured = []
    for egress in asked:
        targets = _of_family(_settings(box, egress).targets, egress)[:ASKED_TARGETS]
        size = min(_ETHERNET, box.observed.links[egress.device].mtu)
        if targets:
            measured.append(measure(replace(_order(egress, Layer.LARGE, 0.0), size=size), egress, targets))
    found = await asyncio.gather(*measured)
    if why := next((why for _, why in found if why), None):
        denied["sizes"] = why
    return tuple(size for size, _ in found)


async def _lookups(
    box: Box, asked: Sequence[Egress], devices: set[str], root: Path, denied: Denied
) -> tuple[ResolverAnswer, ...]:
    used = await asyncio.to_thread(resolvers.read, box.observed, devices, root)
    pairs = [(egress, one) for one in used for egress in asked if one.address.version == egress.family]
    orders = (
        replace(_order(egress, Layer.DNS, _DNS_TIMEOUT), servers=(one.address,), name=_settings(box, egress).dns_name)
        for egress, one in pairs
    )
    outcomes = await asyncio.gather(*(carry_out(order, check_dns) for order in orders))
    _noted(denied, "lookups", outcomes)
    queries = [RouteQuery(family=egress.family, destination=one.address, mark=egress.mark) for egress, one in pairs]
    routed = await asyncio.to_thread(network.answers, queries) if queries else {}
    found: list[ResolverAnswer] = []
    for (egress, one), query, outcome in zip(pairs, queries, outcomes, strict=True):
        link = routed[query].link if query in routed else None
        found.append(ResolverAnswer(egress, one, outcome.result.ok, outcome.result.detail, link or ""))
    return tuple(found)


async def _counters(denied: Denied) -> tuple[Mapping[str, PortCounters], Mapping[str, PortCounters]]:
    """Return the devices' counters; of those with many errors also what they are a while after."""
    try:
        first = await asyncio.to_thread(port.counters)
        bad = [device for device, counted in first.items() if counted.bad]
        if not bad:
            return first, {}
        await asyncio.sleep(_BETWEEN)
        then = await asyncio.to_thread(port.counters)
    except PolywanError as error:
        denied["counters"] = str(error)
        return {}, {}
    return first, {device: then[device] for device in bad if device in then}


def unread(facts: LineFacts) -> Iterator[tuple[str, str]]:
    """Yield what could not be asked, by the name under which checks need it, and why."""
    return ((f"line.{name}", why) for name, why in facts.denied.items())
