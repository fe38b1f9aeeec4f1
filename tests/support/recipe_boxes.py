"""Machines that were set up by hand, as values: what `ip` and iptables-save print of them."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_address, ip_interface, ip_network
from typing import Any

from polywan.core.firewall import iptables
from polywan.core.firewall.model import Firewall
from polywan.core.net import FAMILIES, TABLE_MAIN, Family, RulePriority, TableId
from polywan.core.plan.lans import lans
from polywan.core.world.foreign_routing import WHOLE, Destination, ForeignRule
from polywan.core.world.observed import Address, DefaultRoute, Link, Observed
from polywan.doctor.box import Box
from polywan.doctor.facts.egress import egresses
from polywan.doctor.facts.routes import Hop, TableRoute


def link(index: int, name: str, *, up: bool = True, carrier: bool = True) -> Link:
    return Link(index=index, name=name, up=up, carrier=up and carrier, point_to_point=name.startswith(("ppp", "tun")))


def address(device: str, text: str) -> Address:
    return Address(device, ip_interface(text))


def default(device: str, table: int = TABLE_MAIN, via: str = "", metric: int = 0) -> DefaultRoute:
    gateway = ip_address(via) if via else None
    return DefaultRoute(family=Family.V4, link=device, via=gateway, table=TableId(table), metric=metric)


def fwmark(mark: int, table: int, mask: int = WHOLE, **more: Any) -> ForeignRule:
    place = RulePriority(32765 - mark)
    return ForeignRule(family=Family.V4, priority=place, table=TableId(table), mark=(mark, mask), **more)


def route(to: str, *devices: str, table: str = "main", **more: Any) -> TableRoute:
    """Return a route; a device with ``!`` before it is down, and ``DEVICE via GATEWAY`` has a router."""
    hops = tuple(
        Hop(d.lstrip("!").split()[0], d.partition(" via ")[2], 1, alive=not d.startswith("!")) for d in devices
    )
    network = Family.V4.default if to == "default" else ip_network(to)
    family = Family(network.version)
    own = {"kind": "unicast", "protocol": "boot", "scope": "link", "metric": 0, "source": "", "nexthop_id": 0, **more}
    return TableRoute(family=family, table=table, to=network, hops=hops, **own)


def saved(mangle: str = "", nat: str = "") -> Firewall:
    """Return what iptables-save prints for these rules."""
    chains = ":PREROUTING ACCEPT [0:0]\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n"
    chains += ":POSTROUTING ACCEPT [0:0]\n"
    text = "".join(f"*{name}\n{chains}{rules}\nCOMMIT\n" for name, rules in (("mangle", mangle), ("nat", nat)) if rules)
    return Firewall(iptables.parse(text, Family.V4, "iptables"))


def box_of(
    *links: Link,
    addresses: tuple[Address, ...] = (),
    defaults: tuple[DefaultRoute, ...] = (),
    rules: tuple[ForeignRule, ...] = (),
    tables: Mapping[int, tuple[Destination, ...]] | None = None,
    **more: Any,
) -> Box:
    """Return a machine; ways out and networks behind it are found as on a real one."""
    observed = Observed(
        links={each.name: each for each in links},
        addresses=addresses,
        defaults=defaults,
        rules=rules,
        tables={TableId(number): known for number, known in (tables or {}).items()},
    )
    known = egresses(observed, None, None)
    devices = {egress.device for egress in known}
    behind = tuple(lan for family in FAMILIES for lan in lans(observed, devices, family, tunnels=True))
    return Box(observed=observed, egresses=known, lans=behind, **more)
