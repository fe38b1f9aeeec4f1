"""Routes as ``ip -json route`` prints them: those of others and ours, of every table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from ipaddress import ip_network
from typing import NamedTuple

from polywan.core.net import Family, IPNetwork


class Hop(NamedTuple):
    """One next hop; `alive` is False when its device is down or gone."""

    device: str
    via: str
    weight: int
    alive: bool


class TableRoute(NamedTuple):
    """A route.

    Attributes:
        table: as ip-route(8) prints it: a number, or a name of /etc/iproute2/rt_tables.
        kind: "unicast", "blackhole" and so on.
        protocol: who made it, as "kernel", "static", "dhcp"; "200" is polywan's.
        nexthop_id: of a nexthop object (ip-nexthop(8)), 0 for none.
        hops: several for a multipath route.
        mtu: what packets by it may have at most; 0 for what the device has.
    """

    family: Family
    table: str
    to: IPNetwork
    kind: str
    protocol: str
    scope: str
    metric: int
    source: str
    nexthop_id: int
    hops: tuple[Hop, ...]
    mtu: int = 0

    @property
    def default(self) -> bool:
        """True when it leads everywhere."""
        return self.to.prefixlen == 0


def parse(listing: object, family: Family, scope: str = "") -> Iterator[TableRoute]:
    """Yield the routes of a listing; what makes no sense is left out.

    Args:
        listing: what ip(8) prints.
        family: of the routes.
        scope: what the listing was asked for; ip(8) then prints none.
    """
    for entry in listing if isinstance(listing, list) else ():
        if isinstance(entry, Mapping):
            try:
                yield _route(entry, family, scope)
            except (ValueError, TypeError, AttributeError):
                continue


def _route(entry: Mapping[str, object], family: Family, scope: str) -> TableRoute:
    to = str(entry.get("dst", ""))
    hops = entry.get("nexthops")
    listed = [hop for hop in hops if isinstance(hop, Mapping)] if isinstance(hops, list) else [entry]
    return TableRoute(
        family=family,
        table=str(entry.get("table", "main")),
        to=family.default if to == "default" else ip_network(to),
        kind=str(entry.get("type", "unicast")),
        protocol=str(entry.get("protocol", "")),
        scope=str(entry.get("scope", scope)),
        metric=_number(entry.get("metric")),
        source=str(entry.get("prefsrc", "")),
        nexthop_id=_number(entry.get("nhid")),
        hops=tuple(_hop(hop) for hop in listed if hop.get("dev")),
        mtu=_mtu(entry.get("metrics")),
    )


def _mtu(metrics: object) -> int:
    known = [each for each in metrics if isinstance(each, Mapping)] if isinstance(metrics, list) else []
    return next((_number(each["mtu"]) for each in known if "mtu" in each), 0)


def _hop(entry: Mapping[str, object]) -> Hop:
    via = entry.get("gateway") or entry.get("via")
    flags = entry.get("flags")
    dead = isinstance(flags, list) and ("dead" in flags or "linkdown" in flags)
    address = via.get("host", "") if isinstance(via, Mapping) else via or ""
    return Hop(str(entry["dev"]), str(address), _number(entry.get("weight"), 1), alive=not dead)


def _number(value: object, without: int = 0) -> int:
    return value if isinstance(value, int) else without
