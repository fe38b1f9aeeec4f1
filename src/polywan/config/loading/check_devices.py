"""Uplinks that share a device: what tells them apart, and which address is whose, has to be in the file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from polywan.config.faults import ConfigFault, Path, shown
from polywan.config.model.policy import Policy
from polywan.config.model.uplink import Uplink

_KEYS: Final = {"ipv4": "gateway", "ipv6": "gateway6"}
_VERSIONS: Final = {"ipv4": 4, "ipv6": 6}


def check_devices(uplinks: Mapping[str, Uplink | None]) -> Iterator[ConfigFault]:
    """Yield what is missing where several uplinks have one device; None is an uplink that has faults of its own."""
    for name, uplink in uplinks.items():
        if uplink is not None and uplink.source is not None and str(uplink.source) in _gateways(uplink).values():
            message = f"{shown(str(uplink.source))} is the gateway of this uplink, too"
            yield ConfigFault(("uplinks", name, "source"), message, "the source is an address of this box")
    devices: dict[str, dict[str, Uplink]] = {}
    for name, uplink in uplinks.items():
        if uplink is not None:
            devices.setdefault(uplink.interface, {})[name] = uplink
    for together in devices.values():
        if len(together) > 1:
            yield from _shared(together)


def check_multipath(path: Path, policy: Policy, uplinks: Mapping[str, Uplink | None]) -> Iterator[ConfigFault]:
    """Yield members that the kernel cannot tell apart when it chooses: they have one device and one gateway."""
    seen: dict[tuple[str, str], str] = {}
    for name in dict.fromkeys(member.uplink for tier in policy.tiers for member in tier):
        if (uplink := uplinks.get(name)) is None:
            continue
        for gateway in _gateways(uplink).values():
            other = seen.setdefault((uplink.interface, gateway), name)
            if other != name:
                both = f"both leave by {gateway} on {uplink.interface}"
                message = f"cannot tell {shown(name)} from {shown(other)}: {both}"
                yield ConfigFault(path, message, 'use algorithm = "weighted", which goes by the uplink')
                return


def _shared(together: Mapping[str, Uplink]) -> Iterator[ConfigFault]:
    before: dict[str, Uplink] = {}
    for name, uplink in together.items():
        others = {other: link for other, link in together.items() if other != name}
        yield from _nameless(name, uplink, next(iter(others)))
        for family in _KEYS:
            yield from _same(name, uplink, before, family)
        yield from _whose(name, uplink, others)
        before[name] = uplink


def _nameless(name: str, uplink: Uplink, other: str) -> Iterator[ConfigFault]:
    """A family that is asked for without a gateway; IPv4 is, unless the file says otherwise."""
    asked = uplink.families or ("ipv4",)
    for family in asked:
        if family not in _gateways(uplink):
            key = _KEYS[family]
            message = f"is missing: {shown(uplink.interface)} is the device of uplink {shown(other)}, too"
            hint = f'add {key} = "ADDRESS" of the router of this line, or name another interface'
            yield ConfigFault(("uplinks", name, key), message, hint)


def _same(name: str, uplink: Uplink, before: Mapping[str, Uplink], family: str) -> Iterator[ConfigFault]:
    gateway = _gateways(uplink).get(family)
    for other, link in before.items():
        if gateway is None or _gateways(link).get(family) != gateway:
            continue
        sources = {_source(uplink, family), _source(link, family)}
        if len(sources) == 2 and None not in sources:
            continue
        yield ConfigFault(
            ("uplinks", name, _KEYS[family]),
            f"{shown(gateway)} by {shown(uplink.interface)} is already the gateway of uplink {shown(other)}",
            "give each uplink a gateway, or each a source, of its own; macvlan devices can share a cable, too",
        )
        return


def _whose(name: str, uplink: Uplink, others: Mapping[str, Uplink]) -> Iterator[ConfigFault]:
    """A router's IPv6 address says nothing about the addresses that its provider accepts."""
    if "ipv6" not in _gateways(uplink) or uplink.prefix6 or _source(uplink, "ipv6"):
        return
    for other, link in others.items():
        if "ipv6" in _gateways(link):
            yield ConfigFault(
                ("uplinks", name, "gateway6"),
                f"uplink {shown(other)} uses IPv6 by {shown(uplink.interface)}, too: nothing says whose an address is",
                'add prefix6 = "PREFIX" or source = "ADDRESS" as the provider of this line gives it',
            )
            return


def _gateways(uplink: Uplink) -> dict[str, str]:
    """The routers of the families that the uplink has."""
    known = {"ipv4": uplink.gateway, "ipv6": uplink.gateway6}
    has = {*known} if uplink.families is None else {*uplink.families}
    return {family: str(gateway) for family, gateway in known.items() if gateway != "auto" and family in has}


def _source(uplink: Uplink, family: str) -> str | None:
    source = uplink.source
    return str(source) if source is not None and source.version == _VERSIONS[family] else None
