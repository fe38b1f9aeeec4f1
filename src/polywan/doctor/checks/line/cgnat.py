"""A port is forwarded from a line whose address the Internet does not reach."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Network
from typing import Final

from polywan.api.doctor import Finding, Fix
from polywan.core.firewall.model import Device, Prefix, Rule, Translate
from polywan.core.net import Family, IPInterface
from polywan.doctor.box import Box

_CARRIER: Final = IPv4Network("100.64.0.0/10")
_PRIVATE: Final = tuple(map(IPv4Network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")))


def check(box: Box) -> Iterator[Finding]:
    """Find forwarded ports on lines that have shared or private addresses only."""
    for device in dict.fromkeys(egress.device for egress in box.sending(Family.V4)):
        addresses = box.observed.addresses_of(device, Family.V4)
        if not addresses or not all(_hidden(address) for address in addresses):
            continue
        if forwards := list(_forwards(box, device, addresses)):
            yield _finding(device, addresses[0], forwards)


def _hidden(address: IPInterface) -> bool:
    return any(address.ip in network for network in (_CARRIER, *_PRIVATE))


def _forwards(box: Box, device: str, addresses: tuple[IPInterface, ...]) -> Iterator[str]:
    """Yield rules that name the device, or its address, and send what arrives to a host behind."""
    for table in box.firewall.tables:
        if table.meets(Family.V4):
            for chain in table.chains:
                for rule in chain.rules:
                    if _is_forward(rule) and _names(rule, device, addresses):
                        yield f"{table} chain {chain.name}: {rule.text}"


def _is_forward(rule: Rule) -> bool:
    return any(isinstance(action, Translate) and action.kind == "dnat" for action in rule.actions)


def _names(rule: Rule, device: str, addresses: tuple[IPInterface, ...]) -> bool:
    for match in rule.matches:
        if isinstance(match, Device) and match.end == "in" and not match.invert and _is_among(device, match.names):
            return True
        if isinstance(match, Prefix) and match.end == "destination" and not match.invert:
            return any(
                address.ip in network for address in addresses for network in match.networks if network.prefixlen
            )
    return False


def _is_among(device: str, names: tuple[str, ...]) -> bool:
    return any(device.startswith(name[:-1]) if name.endswith("*") else device == name for name in names)


def _finding(device: str, address: IPInterface, forwards: list[str]) -> Finding:
    carrier = address.ip in _CARRIER
    kind = "shared (100.64.0.0/10, carrier NAT)" if carrier else "private (RFC 1918)"
    how = (
        "ask the provider for a public address, or use IPv6 or a tunnel"
        if carrier
        else (
            f"forward the same ports in the router at {device}, or have it pass everything to {address.ip}; if its own "
            "address is private too, only the provider can help"
        )
    )
    return Finding(
        check="cgnat",
        severity="note",
        what=f"ports are forwarded from {device}, whose address {address.ip} is {kind}",
        evidence=tuple(forwards[:3]),
        consequence=f"connections from the Internet reach {address.ip} only if the router before it forwards them",
        fix=Fix(how=how),
    )
