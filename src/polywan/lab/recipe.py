"""How a lab network is made: lines of ip(8) and nft(8) for each namespace, as pure text."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from polywan.core.net import Family
from polywan.lab.topology import LAN_CLIENT, LAN_ROUTER, SERVERS, LabUplink, Topology

PROVIDER_TABLE: Final = "inet lab"
"""The nft table of each provider."""

CLIENT, ROUTER, SERVER = "client", "router", "server"

# Two ends of a cable with the same index look like one device to the kernel's link watcher, which then
# reports a lost carrier up to a second late (linkwatch_urgent_event); hence an index for each end.
_NEAR, _FAR = 100, 300

NO_DAD: Final = {"ipv6/conf/all/accept_dad": 0, "ipv6/conf/default/accept_dad": 0}
"""Addresses are usable at once: no duplicate address detection (ip-sysctl)."""

_AT_ONCE: Final = {Family.V4: "", Family.V6: " nodad"}
"""The same for one address; without it a route may come before its source is valid."""

PROVIDER_SETTINGS: Final = {
    **NO_DAD,
    "ipv4/ip_forward": 1,
    "ipv4/conf/all/rp_filter": 0,
    "ipv4/conf/default/rp_filter": 0,
    "ipv6/conf/all/forwarding": 1,
    "ipv6/conf/all/keep_addr_on_down": 1,
}
"""Settings of a provider; its IPv6 addresses outlast a cut of the cable."""


def namespaces(topology: Topology) -> tuple[str, ...]:
    """Return the names of all namespaces, the router's first."""
    return (ROUTER, CLIENT, SERVER, *topology.providers)


def links(topology: Topology) -> Iterator[str]:
    """Make the cables between namespaces (ip-link(8)); devices on a trunk come with `router`."""
    yield f"link add lan0 netns {ROUTER} index 50 type veth peer name eth0 netns {CLIENT} index 60"
    if topology.trunk:
        yield f"link add trunk netns {ROUTER} index 70 type veth peer name wan netns access index 80"
    else:
        for uplink in topology.uplinks:
            ends = (f"index {_NEAR + uplink.number}", f"index {_FAR + uplink.number}")
            here = f"{uplink.interface} address {uplink.mac} netns {ROUTER} {ends[0]}"
            # Without ARP a frame is sent to the sender's own address: both ends must have the same.
            same = f"address {uplink.mac} " if uplink.point_to_point else ""
            far = f"wan {same}netns {uplink.provider} {ends[1]}"
            yield f"link add {here} type veth peer name {far}"
    for number, provider in enumerate(topology.providers, 1):
        far = f"x{number} netns {SERVER} index {_FAR + number}"
        yield f"link add core netns {provider} index 90 type veth peer name {far}"


def router(topology: Topology) -> Iterator[str]:
    """Set up the router as an administrator's DHCP clients would: addresses, and defaults in main."""
    yield "link set lo up"
    yield from _start("lan0", topology, "fe80::1")
    yield from (f"address add {LAN_ROUTER[family]} dev lan0{_AT_ONCE[family]}" for family in topology.families)
    if topology.trunk:
        yield "link set trunk addrgenmode none up"
        for u in topology.uplinks:
            device = f"{u.interface} link trunk index {_NEAR + u.number} address {u.mac}"
            yield f"link add {device} type macvlan mode bridge"
    for uplink in topology.uplinks:
        yield from bring_up(uplink)


def remake(uplink: LabUplink) -> Iterator[str]:
    """Delete a device of a trunk and make one of the same name, which has another index."""
    yield f"link del {uplink.interface}"
    yield f"link add {uplink.interface} link trunk address {uplink.mac} type macvlan mode bridge"
    yield from bring_up(uplink)


def bring_up(uplink: LabUplink) -> Iterator[str]:
    """Set up one uplink in the router; safe to repeat after the kernel took addresses and routes away."""
    device = uplink.interface
    yield f"link set dev {device} addrgenmode none {'arp off ' if uplink.point_to_point else ''}up"
    if Family.V6 in uplink.addresses:
        yield f"address replace fe80::2:{uplink.number}/64 dev {device} nodad"
    for family, address in uplink.addresses.items():
        peer = f" peer {address.gateway}" if uplink.point_to_point else ""
        own = f"{address.own.ip}{peer}" if uplink.point_to_point else f"{address.own}"
        yield f"address replace {own} dev {device}{_AT_ONCE[family]}"
        if uplink.default_in_main:
            via = "" if uplink.point_to_point else f"via {address.gateway} "
            metric = (100 if family is Family.V4 else 1024) + uplink.number
            yield f"route replace {family.default} {via}dev {device} metric {metric}"


def client(topology: Topology) -> Iterator[str]:
    """Set up the host behind the router."""
    yield "link set lo up"
    yield from _start("eth0", topology, "fe80::10")
    for family in topology.families:
        yield f"address add {LAN_CLIENT[family]} dev eth0{_AT_ONCE[family]}"
        yield f"route add default via {LAN_ROUTER[family].ip}"


def server(topology: Topology) -> Iterator[str]:
    """Set up the far end: every server address, and the way back to each provider's customers."""
    yield "link set lo up"
    for family in topology.families:
        yield from (f"address add {address} dev lo{_AT_ONCE[family]}" for address in SERVERS[family])
    for number, provider in enumerate(topology.providers, 1):
        yield from _start(f"x{number}", topology, "fe80::2")
        for family in topology.families:
            yield f"address add {_transit(number, family, 2)} dev x{number}{_AT_ONCE[family]}"
            through = f"via {_transit(number, family, 1).partition('/')[0]} dev x{number}"
            for uplink in topology.uplinks:
                if uplink.provider == provider and family in uplink.addresses:
                    allowed = uplink.addresses[family].allowed
                    yield f"route add {allowed} {through} src {SERVERS[family][0]}"


def provider(topology: Topology, name: str) -> Iterator[str]:
    """Set up a provider: a gateway address for each customer, and a default towards the servers."""
    number = topology.providers.index(name) + 1
    yield "link set lo up"
    yield from _start("core", topology, "fe80::1")
    yield from provider_cable(topology, name)
    for family in topology.families:
        yield f"address add {_transit(number, family, 1)} dev core{_AT_ONCE[family]}"
        yield f"route add default via {_transit(number, family, 2).partition('/')[0]}"
    for uplink in topology.uplinks:
        if uplink.provider == name:
            yield from _customer(topology, uplink)


def provider_cable(topology: Topology, name: str) -> Iterator[str]:
    """Set up the provider's side of the cable; safe to repeat.

    The kernel keeps addresses of a device that is down, but not its link-local one; without that it cannot ask for
    customers by neighbour discovery.
    """
    yield from _start("wan", topology, "fe80::1", _arp(topology, name))


def _customer(topology: Topology, uplink: LabUplink) -> Iterator[str]:
    for family, address in uplink.addresses.items():
        if uplink.point_to_point:
            yield f"address add {address.gateway} peer {address.own.ip} dev wan{_AT_ONCE[family]}"
            continue
        yield f"address replace {address.gateway}/{address.own.network.prefixlen} dev wan{_AT_ONCE[family]}"
        if topology.trunk:
            # A router answers ARP for each of its addresses on every device; a real access network
            # (DHCP snooping) would not believe it either.
            yield f"neighbour replace {address.own.ip} lladdr {uplink.mac} dev wan nud permanent"


def provider_table(topology: Topology, name: str) -> str:
    """Return the provider's nft table: drops and counts wrong sources, counts the rest, holds black holes."""
    customers = [uplink for uplink in topology.uplinks if uplink.provider == name]
    lines = [f"table {PROVIDER_TABLE} {{"]
    for kind in ("spoofed", "packets", "opened"):
        lines += [f"counter {kind}{uplink.number} {{ }}" for uplink in customers]
    for uplink in customers:
        lines += [f"chain from{uplink.number} {{"]
        for family, address in uplink.addresses.items():
            word, local = ("ip", "") if family is Family.V4 else ("ip6", ", fe80::/10, ::")
            lines += [f"{word} saddr != {{ {address.allowed}{local} }} counter name spoofed{uplink.number} drop"]
        lines += [
            f"ct state new counter name opened{uplink.number}",
            f"counter name packets{uplink.number}",
            "}",
        ]
    members = ", ".join(f"{uplink.mac} : jump from{uplink.number}" for uplink in customers)
    dispatch = f"ether saddr vmap {{ {members} }}" if topology.trunk else f"jump from{customers[0].number}"
    lines += [
        "chain arriving { type filter hook prerouting priority filter; policy accept;",
        'iifname != "wan" accept;',
        f"{dispatch}; }}",
        "set holes4 { type ipv4_addr; flags interval; }",
        "set holes6 { type ipv6_addr; flags interval; }",
        "chain passing { type filter hook forward priority filter; policy accept;",
        "ip saddr @holes4 drop; ip daddr @holes4 drop; ip6 saddr @holes6 drop; ip6 daddr @holes6 drop; }",
    ]
    return "\n".join([*lines, "}", ""])


def _start(device: str, topology: Topology, local: str, options: str = "") -> Iterator[str]:
    """Bring a device up with a link-local address of our own: the kernel would make one when it finds the time."""
    yield f"link set dev {device} addrgenmode none {options}up"
    if Family.V6 in topology.families:
        yield f"address replace {local}/64 dev {device} nodad"


def _arp(topology: Topology, name: str) -> str:
    lone = any(uplink.provider == name and uplink.point_to_point for uplink in topology.uplinks)
    return "arp off " if lone else ""


def _transit(number: int, family: Family, end: int) -> str:
    """Address of one end of the cable between a provider (1) and the servers (2)."""
    return f"10.255.{number}.{end}/30" if family is Family.V4 else f"2001:db8:ff:{number}::{end}/64"
