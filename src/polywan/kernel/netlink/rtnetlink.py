"""Links, addresses, routes and policy rules: core values to rtnetlink(7) messages and back. Pure.

Decoders never raise: a message that makes no sense, or that core has no value for, decodes to nothing.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network
from typing import Final, NamedTuple

from polywan.core.net import PROTOCOL, Family, IPAddress, IPNetwork, TableId
from polywan.core.routing.nexthops import NexthopId
from polywan.core.routing.routes import Route
from polywan.core.world.observed import WIDE, Address, DefaultRoute, Link, WideRoute, is_wide
from polywan.core.world.queues import IFB_GROUP
from polywan.kernel.netlink.socket import (
    AF,
    CREATE,
    FAMILY_OF,
    REPLACE,
    Request,
    attribute,
    attributes,
    number,
    text,
    u32,
)

NEWLINK: Final = 16
DELLINK: Final = 17
GETLINK: Final = 18
NEWADDR: Final = 20
DELADDR: Final = 21
GETADDR: Final = 22
NEWROUTE: Final = 24
DELROUTE: Final = 25
GETROUTE: Final = 26
NEWRULE: Final = 32
DELRULE: Final = 33
GETRULE: Final = 34

TABLE_LOCAL: Final = 255
_TABLE_COMPAT: Final = 252  # what the 8-bit field holds when the number needs RTA_TABLE

_LINK: Final = struct.Struct("=BxHiII")
_ADDRESS: Final = struct.Struct("=BBBBi")
RTMSG: Final = struct.Struct("=BBBBBBBBI")
"""struct rtmsg; a policy rule's fib_rule_hdr has its fields in the same places (linux/fib_rules.h)."""
_HOP: Final = struct.Struct("=HBBi")  # struct rtnexthop
_BYTES: Final = struct.Struct("=16xQQ")

_IFF_UP, _IFF_LOOPBACK, _IFF_POINTOPOINT, _IFF_NOARP, _IFF_LOWER_UP = 0x1, 0x8, 0x10, 0x80, 0x10000
_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU, _IFLA_LINK = 1, 3, 4, 5
_IFLA_MASTER, _IFLA_LINKINFO, _IFLA_STATS64 = 10, 18, 23
_IFLA_EXT_MASK, _SKIP_STATISTICS, _IFLA_GROUP = 29, 1 << 3, 27
_INFO_KIND, _INFO_SLAVE_KIND = 1, 4
_IFA_ADDRESS, _IFA_LOCAL, _IFA_FLAGS = 1, 2, 8
_IFA_UNUSABLE: Final = 0x40 | 0x08  # tentative: not yet ours; dadfailed: somebody else's
_RTA_DST, _RTA_SRC, _RTA_OIF, _RTA_GATEWAY, _RTA_PRIORITY, _RTA_PREFSRC = 1, 2, 4, 5, 6, 7
_RTA_MULTIPATH, _RTA_TABLE, _RTA_VIA, _RTA_NH_ID = 9, 15, 18, 30
_RTN_UNICAST, _RTN_LOCAL, _RTN_BLACKHOLE, _BY_ADVERTISEMENT = 1, 2, 6, 9
_SCOPE_UNIVERSE, _SCOPE_LINK, _SCOPE_HOST, _SCOPE_ANY = 0, 253, 254, 255
ONLINK: Final = 4
"""RTNH_F_ONLINK, of routes, their next hops and nexthop objects."""
_CLONED: Final = 0x200
_FAMILY_BY_LENGTH: Final = {4: Family.V4, 16: Family.V6}


def get_links() -> bytes:
    """Body of a request for every link, without its counters: they are most of an answer."""
    return _LINK.pack(0, 0, 0, 0, 0) + number(_IFLA_EXT_MASK, _SKIP_STATISTICS)


def get_addresses() -> bytes:
    """Body of a request for every address."""
    return _ADDRESS.pack(0, 0, 0, 0, 0)


def get_routes(family: Family, *, ours: bool) -> bytes:
    """Body of a request for everybody's unicast routes, or for ours only; old kernels send more than that."""
    protocol, kind = (PROTOCOL, 0) if ours else (0, _RTN_UNICAST)
    return RTMSG.pack(AF[family], 0, 0, 0, 0, protocol, 0, kind, 0)


def put_route(route: Route, index: int) -> Request:
    """Request that adds the route or replaces the one of its table and metric; `index` is its link's."""
    return Request(NEWROUTE, CREATE | REPLACE, _route(route, index, deleting=False))


def del_route(route: Route, index: int) -> Request:
    """Request that removes the route."""
    return Request(DELROUTE, 0, _route(route, index, deleting=True))


def _route(route: Route, index: int, *, deleting: bool) -> bytes:
    if route.local is not None:
        return _local(route.local, index)
    kind = _RTN_BLACKHOLE if route.blackhole else _RTN_UNICAST
    local = route.family is Family.V4 and route.link is not None and route.via is None
    scope = _SCOPE_ANY if deleting else _SCOPE_LINK if local else _SCOPE_UNIVERSE
    flags = ONLINK if route.onlink else 0
    body = RTMSG.pack(AF[route.family], 0, 0, 0, table_byte(route.table), PROTOCOL, scope, kind, flags)
    body += number(_RTA_TABLE, route.table) + number(_RTA_PRIORITY, route.metric)
    if route.link:
        body += number(_RTA_OIF, index)
    # The kernel refuses to look for a route by a nexthop that is gone; table and metric tell it as well.
    if route.nexthop is not None and not deleting:
        body += number(_RTA_NH_ID, route.nexthop)
    if route.via is not None:
        body += _gateway(route.family, route.via)
    if route.source is not None and not deleting:
        body += attribute(_RTA_PREFSRC, route.source.packed)
    return body


def _local(address: IPv4Address, index: int) -> bytes:
    head = RTMSG.pack(AF[Family.V4], 32, 0, 0, TABLE_LOCAL, PROTOCOL, _SCOPE_HOST, _RTN_LOCAL, 0)
    return head + attribute(_RTA_DST, address.packed) + number(_RTA_OIF, index)


def _gateway(family: Family, via: IPAddress) -> bytes:
    if via.version == family:
        return attribute(_RTA_GATEWAY, via.packed)
    # An IPv4 route by an IPv6 neighbour (RFC 8950) names the neighbour's family.
    return attribute(_RTA_VIA, struct.pack("=H", AF[Family(via.version)]) + via.packed)


def table_byte(table: int) -> int:
    """Return what the 8-bit field of a message says of a table; greater numbers need an attribute."""
    return table if table < 256 else _TABLE_COMPAT


def decode_link(body: bytes) -> Link | None:
    """Decode RTM_NEWLINK or RTM_DELLINK."""
    if len(body) < _LINK.size:
        return None
    family, _, index, flags, _ = _LINK.unpack_from(body)
    found = attributes(body, _LINK.size)
    # Bridges report ports with a family of their own, and wireless scans links without their properties.
    if family != 0 or _IFLA_IFNAME not in found or _IFLA_MTU not in found or is_own_ifb(found):
        return None
    statistics = found.get(_IFLA_STATS64, b"")
    received, sent = _BYTES.unpack_from(statistics) if len(statistics) >= _BYTES.size else (0, 0)
    peer = bool(flags & (_IFF_POINTOPOINT | _IFF_NOARP)) and not flags & _IFF_LOOPBACK
    about = attributes(found.get(_IFLA_LINKINFO, b""))
    kind = text(about.get(_INFO_KIND, b""))
    return Link(
        index=index,
        name=text(found[_IFLA_IFNAME]),
        up=bool(flags & _IFF_UP),
        carrier=bool(flags & _IFF_LOWER_UP),
        point_to_point=peer,
        mtu=u32(found[_IFLA_MTU]),
        kind=kind,
        mac=found.get(_IFLA_ADDRESS, b"").hex(":") if kind == "bridge" else "",
        master=u32(found.get(_IFLA_MASTER, b"")),
        member_of=text(about.get(_INFO_SLAVE_KIND, b"")),
        # Of other kinds it may be the number of a device in another network namespace.
        parent=u32(found.get(_IFLA_LINK, b"")) if kind == "vlan" else 0,
        rx_bytes=received,
        tx_bytes=sent,
    )


def is_own_ifb(found: Mapping[int, bytes]) -> bool:
    """Tell by a link's attributes whether it is one that we made for shaping; no decision is about such a link."""
    if u32(found.get(_IFLA_GROUP, b"")) != IFB_GROUP:
        return False
    return text(attributes(found.get(_IFLA_LINKINFO, b"")).get(_INFO_KIND, b"")) == "ifb"


def decode_address(body: bytes, names: Mapping[int, str]) -> Address | None:
    """Decode RTM_NEWADDR; an IPv6 address that still is being checked for duplicates is not one yet."""
    if len(body) < _ADDRESS.size:
        return None
    af, length, flags, _, index = _ADDRESS.unpack_from(body)
    found = attributes(body, _ADDRESS.size)
    flags |= u32(found.get(_IFA_FLAGS, b""))
    # On point-to-point links IFA_ADDRESS is the peer's.
    packed = found.get(_IFA_LOCAL) or found.get(_IFA_ADDRESS, b"")
    family = family_in(packed)
    if family is None or index not in names or flags & _IFA_UNUSABLE or FAMILY_OF.get(af) is not family:
        return None
    if length > family.host_length:
        return None
    # From bytes: what is no text already, the constructors would write out and read again.
    return Address(names[index], (IPv4Interface if family is Family.V4 else IPv6Interface)((packed, length)))


class _Hop(NamedTuple):
    link: int
    via: IPAddress | None
    onlink: bool


class _Decoded(NamedTuple):
    family: Family
    to: IPNetwork | None
    table: int
    protocol: int
    kind: int
    metric: int
    source: IPAddress | None
    nexthop: NexthopId | None
    from_: IPNetwork | None
    hops: tuple[_Hop, ...]


def _route_in(body: bytes) -> _Decoded | None:
    """Decode RTM_NEWROUTE or RTM_DELROUTE if it is about a default route (`to` is None) or a wide one."""
    if len(body) < RTMSG.size:
        return None
    af, to, from_, _, table, protocol, _, kind, flags = RTMSG.unpack_from(body)
    if af not in FAMILY_OF or to > WIDE[FAMILY_OF[af]] or flags & _CLONED:
        return None
    found = attributes(body, RTMSG.size)
    family, sender = FAMILY_OF[af], decode_network(found.get(_RTA_SRC, b""), from_) if from_ else None
    if from_ and (sender is None or sender.version != family):
        return None
    target = decode_network(found.get(_RTA_DST, b""), to) if to else None
    if to and (target is None or target.version != family or not is_wide(target)):
        return None
    table = u32(found[_RTA_TABLE]) if _RTA_TABLE in found else table
    metric = u32(found.get(_RTA_PRIORITY, b""))
    source = decode_ip(found.get(_RTA_PREFSRC, b""))
    nexthop = NexthopId(u32(found[_RTA_NH_ID])) if _RTA_NH_ID in found else None
    hops = tuple(_hops(found, flags))
    return _Decoded(family, target, table, protocol, kind, metric, source, nexthop, sender, hops)


def _hops(found: Mapping[int, bytes], flags: int) -> Iterator[_Hop]:
    if _RTA_MULTIPATH not in found:
        yield _Hop(u32(found.get(_RTA_OIF, b"")), _via(found), bool(flags & ONLINK))
        return
    for index, hop_flags, about in hops_in(found[_RTA_MULTIPATH]):
        yield _Hop(index, _via(attributes(about)), bool(hop_flags & ONLINK))


def hops_in(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Yield device, flags and attributes of each next hop of RTA_MULTIPATH; stops at a malformed one."""
    offset = 0
    while offset + _HOP.size <= len(data):
        length, flags, _, index = _HOP.unpack_from(data, offset)
        if length < _HOP.size or offset + length > len(data):
            return
        yield index, flags, data[offset + _HOP.size : offset + length]
        offset += (length + 3) & ~3


def _via(found: Mapping[int, bytes]) -> IPAddress | None:
    if _RTA_VIA in found:
        return decode_ip(found[_RTA_VIA][2:])
    return decode_ip(found.get(_RTA_GATEWAY, b""))


def decode_ip(packed: bytes) -> IPAddress | None:
    """Decode an address by its length; None when it has that of no family."""
    if len(packed) == 4:
        return IPv4Address(packed)
    return IPv6Address(packed) if len(packed) == 16 else None


def family_in(packed: bytes) -> Family | None:
    """Return the family of a packed address by its length; None when it has that of none."""
    return _FAMILY_BY_LENGTH.get(len(packed))


def decode_defaults(body: bytes, names: Mapping[int, str]) -> list[DefaultRoute]:
    """Decode RTM_NEWROUTE into the default routes of others that it holds: one for each next hop."""
    route = _route_in(body) if not any(body[1:2]) else None
    if route is None or route.to is not None or route.protocol == PROTOCOL or route.kind != _RTN_UNICAST:
        return []
    return [
        DefaultRoute(
            family=route.family,
            link=names[h.link],
            via=h.via,
            metric=route.metric,
            table=TableId(route.table),
            source=route.from_,
            preferred=route.source,
            advertised=route.protocol == _BY_ADVERTISEMENT,
        )
        for h in route.hops
        if h.link in names and route.table != TABLE_LOCAL
    ]


def decode_wide(body: bytes, names: Mapping[int, str]) -> list[WideRoute]:
    """Decode RTM_NEWROUTE into the routes of others to a large part of the Internet: one for each next hop."""
    route = _route_in(body) if any(body[1:2]) else None
    if route is None or route.to is None or route.protocol == PROTOCOL or route.kind != _RTN_UNICAST:
        return []
    table = TableId(route.table)
    return [WideRoute(route.to, names[h.link], table) for h in route.hops if h.link in names and table != TABLE_LOCAL]


def decode_routes(body: bytes, names: Mapping[int, str]) -> list[Route]:
    """Decode RTM_NEWROUTE into routes of ours; several only after somebody else appended next hops."""
    if (own := _own_address(body)) is not None:
        return [own]
    route = _route_in(body)
    if route is None or route.protocol != PROTOCOL or route.kind not in {_RTN_UNICAST, _RTN_BLACKHOLE}:
        return []
    if route.from_ is not None or route.to is not None:
        return []
    if route.nexthop is not None:
        # The hops that come along are the nexthop's own, not the route's.
        table, metric = TableId(route.table), route.metric
        return [Route(family=route.family, table=table, metric=metric, link=None, nexthop=route.nexthop)]
    blackhole = route.kind == _RTN_BLACKHOLE
    return [
        Route(
            family=route.family,
            table=TableId(route.table),
            metric=route.metric,
            # IPv6 attaches blackhole routes to the loopback device.
            link=None if blackhole else names[h.link],
            via=h.via,
            onlink=h.onlink,
            source=route.source,
        )
        for h in route.hops
        if blackhole or h.link in names
    ]


def _own_address(body: bytes) -> Route | None:
    """Decode the one route of ours that is no default: an address of this box on no device."""
    if len(body) < RTMSG.size:
        return None
    af, to, _, _, table, protocol, _, kind, _ = RTMSG.unpack_from(body)
    if (af, to, table, protocol, kind) != (AF[Family.V4], 32, TABLE_LOCAL, PROTOCOL, _RTN_LOCAL):
        return None
    address = decode_ip(attributes(body, RTMSG.size).get(_RTA_DST, b""))
    if not isinstance(address, IPv4Address):
        return None
    return Route(family=Family.V4, table=TableId(TABLE_LOCAL), metric=0, link="lo", local=address)


def maybe_wide(body: bytes) -> bool:
    """Tell by a glance whether a route message can be about a default route or a wide one."""
    return len(body) >= RTMSG.size and body[0] in FAMILY_OF and body[1] <= WIDE[FAMILY_OF[body[0]]]


def devices_of(bodies: Iterable[bytes]) -> Iterator[int]:
    """Yield the indexes of the devices of all next hops of route messages."""
    for body in bodies:
        if len(body) >= RTMSG.size:
            yield from (hop.link for hop in _hops(attributes(body, RTMSG.size), 0))


def supports_of(bodies: Iterable[bytes]) -> Iterator[int | bytes]:
    """Yield the devices of all next hops of route messages, and the preferred sources (packed)."""
    for body in bodies:
        found = attributes(body, RTMSG.size)
        if _RTA_MULTIPATH in found:
            yield from (index for index, _, _ in hops_in(found[_RTA_MULTIPATH]))
        elif len(body) >= RTMSG.size:
            yield u32(found.get(_RTA_OIF, b""))
        if source := found.get(_RTA_PREFSRC):
            yield source


def address_about(body: bytes) -> tuple[int, bytes]:
    """Return the device of an address message, and the address (packed)."""
    if len(body) < _ADDRESS.size:
        return 0, b""
    *_, index = _ADDRESS.unpack_from(body)
    found = attributes(body, _ADDRESS.size)
    return index, found.get(_IFA_LOCAL) or found.get(_IFA_ADDRESS, b"")


def touched_route(body: bytes) -> bool | None:
    """Classify a route notification: True for ours, False for a default or wide one of others, None for the rest."""
    route = _route_in(body)
    if route is None or route.table == TABLE_LOCAL:
        return None
    return route.protocol == PROTOCOL and route.to is None


def decode_network(packed: bytes, length: int) -> IPNetwork | None:
    """Decode a prefix; None when it makes no sense."""
    family = family_in(packed)
    if family is None or length > family.host_length:
        return None
    return (IPv4Network if family is Family.V4 else IPv6Network)((packed, length), strict=False)


def family_of(body: bytes) -> Family | None:
    """Return the address family of a route or rule message."""
    return FAMILY_OF.get(body[0]) if body else None
