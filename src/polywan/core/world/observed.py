"""The world as the kernel shows it: links, addresses, and the default routes and policy rules of others."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from copy import copy
from dataclasses import dataclass, field, replace
from functools import lru_cache
from ipaddress import IPv4Address
from typing import Final

from polywan.core.identity import Same, remembered
from polywan.core.net import TABLE_MAIN, Family, IPAddress, IPInterface, IPNetwork, TableId, family_of
from polywan.core.world.foreign_routing import Destination, ForeignRule
from polywan.core.world.leases import Lease


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """A network interface (rtnetlink(7) RTM_NEWLINK).

    Attributes:
        up: administratively up (IFF_UP).
        carrier: the lower layer is up (IFF_LOWER_UP).
        point_to_point: has a peer instead of neighbours (IFF_POINTOPOINT or IFF_NOARP): no `via` in its routes.
        mtu: bytes.
        kind: the driver's name, as "veth", "macvlan", "ppp"; empty for hardware.
        master: index of the link that this one belongs to, as a port does to its bridge; 0 for none (IFLA_MASTER).
        parent: index of the link that carries this VLAN; 0 for all other kinds (IFLA_LINK).
        member_of: kind of that link, as "bridge", "bond", "team", "vrf" (IFLA_INFO_SLAVE_KIND).
        mac: link-layer address of a bridge; empty for all others.
        rx_bytes, tx_bytes: counters since the link was made; no difference between two links.
    """

    index: int
    name: str
    up: bool
    carrier: bool
    point_to_point: bool = False
    mtu: int = 1500
    kind: str = ""
    master: int = 0
    member_of: str = ""
    mac: str = ""
    parent: int = 0
    rx_bytes: int = field(default=0, compare=False)
    tx_bytes: int = field(default=0, compare=False)

    @property
    def usable(self) -> bool:
        """True when packets can leave by it, as far as the link layer knows."""
        return self.up and self.carrier


@dataclass(frozen=True, slots=True)
class Address:
    """An address on a link, with its prefix length; link-local addresses included."""

    link: str
    ip: IPInterface


@dataclass(frozen=True, slots=True, kw_only=True)
class DefaultRoute:
    """A default route that somebody else installed (a DHCP client, pppd, router advertisements, an admin).

    Attributes:
        via: next hop; None where the route names the device alone.
        source: it serves packets from this prefix only (``default from PREFIX``, IPv6); None serves all.
        preferred: the source address that it asks for (``src ADDRESS``).
        advertised: a router put it there by itself (router advertisement, RFC 4861).
    """

    family: Family
    link: str
    via: IPAddress | None
    metric: int = 0
    table: TableId = TABLE_MAIN
    source: IPNetwork | None = None
    preferred: IPAddress | None = None
    advertised: bool = False


WIDE: Final = {Family.V4: 7, Family.V6: 6}
"""Longest prefix of a route that counts as a piece of a default route."""


def is_wide(network: IPNetwork) -> bool:
    """Tell whether a destination is a large part of the Internet.

    VPN clients take a default route apart so that nobody's own is touched: 0.0.0.0/1 and 128.0.0.0/1, or 2000::/3
    (OpenVPN's ``redirect-gateway def1``). A route for multicast (224.0.0.0/4) leads to nobody.
    """
    return 0 < network.prefixlen <= WIDE[family_of(network)] and not network.is_multicast


@dataclass(frozen=True, slots=True)
class WideRoute:
    """A route of others to a large part of the Internet (`is_wide`)."""

    to: IPNetwork
    link: str
    table: TableId = TABLE_MAIN


@dataclass(frozen=True, slots=True)
class Router:
    """A router on a link, and its hardware address, as the kernel's table of neighbours has it (ip-neighbour(8))."""

    link: str
    via: IPAddress
    mac: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """Everything about the world that a decision may depend on; plain values, so that it can be recorded.

    Attributes:
        wide: links with a route of others to a large part of the Internet (`is_wide`), in any table.
        compared: other programs have chains behind routing, which may compare marks; True when nobody can tell.
        ipsec: IPsec has a policy for packets that leave (ip-xfrm(8)).
        xfrm: the kernel can do IPsec (CONFIG_XFRM).
        rules: policy rules of others (without the kernel's own three), in the order in which they are tried.
        tables: what the tables that `rules` name know, but main and local; one without routes is left out.
        parts: these routes.
        sessions: links that carry PPPoE sessions.
        flowtable: the kernel has flowtables.
        swapped_keys: libnftables stores the numbers of slots in the other byte order (`policies.keys_swapped`).
        watching: why another program has to see every packet that is forwarded, for people; empty when none has to.
        leases: by link, what a DHCP client knows of a router that no default route leads to.
        routers: those of uplinks that share their device, as far as their hardware addresses are known.
    """

    links: Mapping[str, Link]
    addresses: tuple[Address, ...] = ()
    defaults: tuple[DefaultRoute, ...] = ()
    wide: frozenset[str] = frozenset()
    xfrm: bool = True
    ipsec: bool = False
    compared: bool = True
    rules: tuple[ForeignRule, ...] = ()
    tables: Mapping[TableId, tuple[Destination, ...]] = field(default_factory=dict)
    parts: tuple[WideRoute, ...] = ()
    sessions: frozenset[str] = frozenset()
    flowtable: bool = False
    swapped_keys: bool = False
    watching: str = ""
    leases: Mapping[str, Lease] = field(default_factory=dict)
    routers: tuple[Router, ...] = ()
    _global: Mapping[tuple[str, Family], tuple[IPInterface, ...]] = field(init=False, repr=False, compare=False)
    _routes: Mapping[tuple[str, Family], tuple[DefaultRoute, ...]] = field(init=False, repr=False, compare=False)
    sourced: frozenset[str] = field(init=False, repr=False, compare=False)
    """Links with a default route that serves some sources only."""
    leading: frozenset[str] = field(init=False, repr=False, compare=False)
    """Links by which others' routes lead somewhere, but for main's specific ones."""

    def __post_init__(self) -> None:
        """Index by link once: with hundreds of uplinks every decision asks for each."""
        object.__setattr__(self, "_global", _by_link(self.addresses))
        object.__setattr__(self, "_routes", _ranked(self.defaults))
        object.__setattr__(self, "sourced", frozenset(d.link for d in self.defaults if d.source is not None))
        theirs = (d.link for table, known in self.tables.items() if table != TABLE_MAIN for d in known)
        lead = (*(d.link for d in self.defaults), *(part.link for part in self.parts), *theirs, *self.wide)
        object.__setattr__(self, "leading", frozenset(link for link in lead if link is not None))

    def addresses_of(self, link: str, family: Family) -> tuple[IPInterface, ...]:
        """The link's addresses that can be reached from elsewhere (no link-local, no loopback)."""
        return self._global.get((link, family), ())

    @property
    def by_link(self) -> Mapping[tuple[str, Family], tuple[IPInterface, ...]]:
        """What `addresses_of` knows of all links; the same object as long as no address changes."""
        return self._global

    def defaults_of(self, link: str, family: Family) -> tuple[DefaultRoute, ...]:
        """Others' default routes by this link: table main first, those for every source, then best metric."""
        return self._routes.get((link, family), ())

    def within(self, networks: Collection[IPNetwork]) -> tuple[IPAddress, ...]:
        """This box's addresses, by whichever link, that lie within one of the networks."""
        found = (a.ip for (link, _), ips in self._global.items() if link != "lo" for a in ips)
        return tuple(dict.fromkeys(ip for ip in found if any(ip in network for network in networks)))

    def owns(self, address: IPAddress) -> bool:
        """True when it is an address of this box, by whichever link."""
        return any(a.ip.ip == address for a in self.addresses)

    def masters_of(self, link: Link) -> tuple[Link, ...]:
        """The links that the link belongs to, from its own master upwards; one that is not known is left out."""
        if not link.master:
            return ()
        by_index = {other.index: other for other in self.links.values()}
        found: list[Link] = []
        while (master := by_index.get(link.master)) is not None and master not in found:
            found.append(master)
            link = master
        return tuple(found)

    def own_ipv4(self) -> frozenset[IPv4Address]:
        """Every IPv4 address of this box that others can reach."""
        return _ipv4_of(Same(self._global))

    def main_default_links(self, family: Family) -> frozenset[str]:
        """Links of the best default in main that serves every source: where unmarked traffic leaves.

        The kernel passes over routes by an uplink without carrier (ignore_routes_with_linkdown).
        """
        return frozenset(d.link for d in _best_defaults(Same(self), family))

    def best_defaults(self, family: Family) -> tuple[DefaultRoute, ...]:
        """Main's default routes by which unmarked traffic leaves: those of `main_default_links`."""
        return _best_defaults(Same(self), family)

    def with_link(self, link: Link) -> Observed:
        """Return a copy in which the link is as given.

        A link that is administratively down has lost its routes and its IPv6 addresses, as the kernel removes
        them. Otherwise nothing else is looked at: this stands before a failover.
        """
        if not link.up:
            kept = tuple(a for a in self.addresses if a.link != link.name or family_of(a.ip) is Family.V4)
            return self._cut_off(link.name, {**self.links, link.name: link}, kept)
        changed = copy(self)
        object.__setattr__(changed, "links", {**self.links, link.name: link})
        return changed

    def without_link(self, name: str) -> Observed:
        """Return a copy in which the link, its addresses and its routes are gone."""
        links = {n: link for n, link in self.links.items() if n != name}
        return self._cut_off(name, links, tuple(a for a in self.addresses if a.link != name))

    def _cut_off(self, name: str, links: Mapping[str, Link], addresses: tuple[Address, ...]) -> Observed:
        return replace(
            self,
            links=links,
            addresses=addresses,
            defaults=tuple(d for d in self.defaults if d.link != name),
            wide=self.wide - {name},
            tables=_without(self.tables, name),
            parts=tuple(p for p in self.parts if p.link != name),
        )


def _without(tables: Mapping[TableId, tuple[Destination, ...]], link: str) -> Mapping[TableId, tuple[Destination, ...]]:
    """Leave out what leads by a link; tables that know nothing of it stay the same objects."""
    return {
        table: tuple(d for d in known if d.link != link) if any(d.link == link for d in known) else known
        for table, known in tables.items()
    }


@remembered
def _by_link(addresses: tuple[Address, ...]) -> Mapping[tuple[str, Family], tuple[IPInterface, ...]]:
    found: dict[tuple[str, Family], tuple[IPInterface, ...]] = {}
    for a in addresses:
        if not a.ip.ip.is_link_local and not a.ip.ip.is_loopback:
            key = (a.link, family_of(a.ip))
            found[key] = (*found.get(key, ()), a.ip)
    return found


@remembered
def _ranked(defaults: tuple[DefaultRoute, ...]) -> Mapping[tuple[str, Family], tuple[DefaultRoute, ...]]:
    found: dict[tuple[str, Family], tuple[DefaultRoute, ...]] = {}
    for d in sorted(defaults, key=lambda d: (d.table != TABLE_MAIN, d.source is not None, d.metric)):
        found[d.link, d.family] = (*found.get((d.link, d.family), ()), d)
    return found


def links_by_name(links: Iterable[Link]) -> dict[str, Link]:
    """Index links by name."""
    return {link.name: link for link in links}


@lru_cache(maxsize=4)
def _ipv4_of(addresses: Same[Mapping[tuple[str, Family], tuple[IPInterface, ...]]]) -> frozenset[IPv4Address]:
    found = (ip.ip for (_, family), ips in addresses.value.items() if family is Family.V4 for ip in ips)
    return frozenset(ip for ip in found if isinstance(ip, IPv4Address))


@lru_cache(maxsize=4)  # a decision asks a dozen times
def _best_defaults(same: Same[Observed], family: Family) -> tuple[DefaultRoute, ...]:
    observed = same.value
    usable = {name for name, link in observed.links.items() if link.usable}
    main = [
        d
        for d in observed.defaults
        if d.family is family and d.table == TABLE_MAIN and d.source is None and d.link in usable
    ]
    best = min((d.metric for d in main), default=None)
    return tuple(d for d in main if d.metric == best)
