"""Routes, rules and a table as the product makes them, for the world of `kernels`."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from contract.kernels import RP_FILTER
from polywan.core.net import FAMILIES, WORST_METRIC, Family, IPAddress, RulePriority, TableId
from polywan.core.plan.plan import DesiredState
from polywan.core.routing.routes import IpRule, Route
from polywan.core.routing.sysctls import Sysctl
from polywan.core.ruleset.model import Chain, Hook, NftMap, NftRule, NftSet, NftTable
from polywan.core.world.foreign_routing import ForeignRule
from polywan.core.world.observed import DefaultRoute

TABLE = TableId(6001)
MASK = 0x3F00


def gateway(family: Family, uplink: int = 1, host: int = 1) -> IPAddress:
    return ip_address(f"100.64.{uplink}.{host}" if family is Family.V4 else f"2001:db8:{uplink}::{host:x}")


def default(family: Family, uplink: int = 1, host: int = 1) -> Route:
    via = gateway(family, uplink, host)
    return Route(family=family, table=TableId(6000 + uplink), metric=10, link=f"up{uplink}", via=via)


def rule(family: Family, priority: int = 6110, table: TableId | None = TABLE) -> IpRule:
    return IpRule(family=family, priority=RulePriority(priority), table=table)


def sample(slots: tuple[str, ...] = ("fibre", "lte", "fibre"), extra: str = "accept") -> NftTable:
    """The kinds of maps, sets and rules that the product's own table is made of."""
    choose = " ".join(f"{m} mark set {m} mark & 0xffffc0ff | 0x00000100" for m in ("ct", "meta")) + " accept"
    uplinks = frozenset[int | str]({"up1", "up2"})
    return NftTable(
        chains={
            "prerouting": Chain(
                (
                    NftRule("ct mark & 0x00003f00 != 0 goto marked", "already chosen"),
                    NftRule("iifname vmap @arrival", "from outside"),
                    NftRule("fib daddr oifname @uplink_routes goto steering_rules", "leaves by an uplink"),
                ),
                Hook("filter", "prerouting", -150),
            ),
            "postrouting": Chain(
                (NftRule("oifname @uplinks masquerade", "the link's own address"),),
                Hook("nat", "postrouting", 100),
            ),
            "marked": Chain((NftRule("ct mark & 0x00003f00 @dead reject with tcp reset", "dead"),)),
            "steering_rules": Chain(
                (
                    NftRule("numgen inc mod 3 vmap @slots_default_4", "weighted round robin"),
                    NftRule("reject with icmpx type no-route", "last resort"),
                    NftRule(extra, "changes"),
                )
            ),
            "to_fibre": Chain((NftRule(choose, "choose fibre"),)),
            "to_lte": Chain((NftRule(choose.replace("100", "200"), "choose lte"),)),
        },
        sets={
            "uplinks": NftSet("type ifname", uplinks),
            "uplink_routes": NftSet("typeof fib daddr oifname", uplinks),
            "dead": NftSet("type mark", frozenset({0x100})),
            "empty": NftSet("type mark"),
        },
        maps={
            "arrival": NftMap("type ifname : verdict", {"up1": "goto to_fibre", "up2": "accept"}),
            "restore": NftMap("type mark : verdict", {0x100: "goto to_fibre", 0x200: "jump to_lte", 0x300: "drop"}),
            "slots_default_4": NftMap(
                "typeof numgen inc mod 1024 : verdict", {i: f"goto to_{name}" for i, name in enumerate(slots)}
            ),
        },
    )


ROUTES = [
    *(default(family) for family in FAMILIES),
    *(replace(default(family), via=None) for family in FAMILIES),
    *(Route(family=family, table=TABLE, metric=WORST_METRIC, link=None) for family in FAMILIES),
    *(replace(default(family), source=gateway(family, 1, 2)) for family in FAMILIES),
    *(replace(default(family), table=TableId(200)) for family in FAMILIES),
    Route(
        family=Family.V4, table=TABLE, metric=1, link="up1", via=IPv4Address("198.51.100.1"), onlink=True,
        source=IPv4Address("100.64.1.2"),
    ),
    replace(default(Family.V6), via=IPv6Address("2001:db8:99::1"), onlink=True),
    Route(family=Family.V6, table=TABLE, metric=1, link="up1", via=IPv6Address("fe80::1")),
    Route(family=Family.V4, table=TABLE, metric=0, link="up1", via=IPv4Address("100.64.1.1")),
]  # fmt: skip


RULES = [
    variant
    for family, network in zip(FAMILIES, ("100.64.1.2/32", "2001:db8:1::/64"), strict=True)
    for plain in [rule(family)]
    for variant in (
        plain,
        replace(plain, mark=(0x100, MASK)),
        replace(plain, mark=(0, MASK), invert=True),
        replace(plain, from_=ip_network(network)),
        replace(plain, oif="up1"),
        replace(plain, iif="lo"),
        replace(plain, oif="absent0"),
        replace(plain, table=TableId(254), suppress_prefixlength=0),
        replace(plain, table=None, goto=RulePriority(32766)),
        replace(plain, table=None, goto=RulePriority(7000), mark=(0x200, 0x200), invert=True),
        replace(plain, mark=(0x100, MASK), from_=ip_network(network), oif="up1", iif="lo", invert=True),
        replace(plain, table=TableId(254), suppress_prefixlength=16, iif="up2"),
    )
]


FOREIGN_DEFAULTS = [
    DefaultRoute(family=f, link=f"up{n}", via=gateway(f, n), metric=100 + n) for f in FAMILIES for n in (1, 2)
]
FOREIGN_RULES = [
    ForeignRule(family=f, priority=RulePriority(5000), table=TableId(77), from_=ip_network(network))
    for f, network in zip(FAMILIES, ("192.0.2.0/24", "2001:db8:77::/48"), strict=True)
]


def desired(table: NftTable) -> DesiredState:
    blocked = [Route(family=f, table=TABLE, metric=WORST_METRIC, link=None) for f in FAMILIES]
    return DesiredState(
        routes=frozenset([*(default(f, n) for f in FAMILIES for n in (1, 2)), *blocked]),
        rules=frozenset(replace(r, priority=RulePriority(6100 + i)) for i, r in enumerate(RULES)),
        nft=table,
        sysctls=(Sysctl(RP_FILTER, "2"), Sysctl("net/ipv4/conf/absent0/rp_filter", "2")),
    )
