"""Nexthop objects and groups: core values to rtnetlink messages and back (linux/nexthop.h, ip-nexthop(8)). Pure.

Decoders never raise: a message that makes no sense, or that core has no value for, decodes to nothing.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Mapping
from typing import Final

from polywan.core.net import PROTOCOL
from polywan.core.routing.nexthops import NEXTHOP_IDS, Nexthop, NexthopGroup, NexthopId, NexthopObject
from polywan.kernel.netlink.rtnetlink import ONLINK, decode_ip
from polywan.kernel.netlink.socket import (
    AF,
    CREATE,
    FAMILY_OF,
    NESTED,
    REPLACE,
    Request,
    attribute,
    attributes,
    number,
    u32,
)

NEWNEXTHOP: Final = 104
DELNEXTHOP: Final = 105
GETNEXTHOP: Final = 106
GETNEXTHOPBUCKET: Final = 118

_HEADER: Final = struct.Struct("=BBBBI")
_MEMBER: Final = struct.Struct("=IBBH")

_NHA_ID, _NHA_GROUP, _NHA_GROUP_TYPE, _NHA_OIF, _NHA_GATEWAY, _NHA_RES_GROUP = 1, 2, 3, 5, 6, 12
_RES_BUCKETS, _RES_IDLE = 1, 2
_RESILIENT: Final = 1


def get_nexthops() -> bytes:
    """Body of a request for every nexthop, or every bucket, of everybody."""
    return _HEADER.pack(0, 0, 0, 0, 0)


def put_nexthop(nexthop: NexthopObject, index: int) -> Request:
    """Request that adds the object or replaces the one with its id; `index` is the link's, unused for groups."""
    body = _group(nexthop) if isinstance(nexthop, NexthopGroup) else _nexthop(nexthop, index)
    return Request(NEWNEXTHOP, CREATE | REPLACE, body)


def del_nexthop(ident: NexthopId) -> Request:
    """Request that removes the object of that id; the kernel takes no other condition."""
    return Request(DELNEXTHOP, 0, _HEADER.pack(0, 0, 0, 0, 0) + number(_NHA_ID, ident))


def _nexthop(nexthop: Nexthop, index: int) -> bytes:
    body = _HEADER.pack(AF[nexthop.family], 0, PROTOCOL, 0, ONLINK if nexthop.onlink else 0)
    body += number(_NHA_ID, nexthop.id) + number(_NHA_OIF, index)
    return body if nexthop.via is None else body + attribute(_NHA_GATEWAY, nexthop.via.packed)


def _group(group: NexthopGroup) -> bytes:
    # The kernel's weights count from 0.
    members = b"".join(_MEMBER.pack(ident, weight - 1, 0, 0) for ident, weight in group.members)
    resilience = attribute(_RES_BUCKETS, struct.pack("=H", group.buckets)) + number(_RES_IDLE, group.idle)
    return (
        _HEADER.pack(0, 0, PROTOCOL, 0, 0)
        + number(_NHA_ID, group.id)
        + attribute(_NHA_GROUP, members)
        + attribute(_NHA_GROUP_TYPE, struct.pack("=H", _RESILIENT))
        + attribute(_NHA_RES_GROUP | NESTED, resilience)
    )


def decode_nexthop(body: bytes, names: Mapping[int, str]) -> NexthopObject | None:
    """Decode RTM_NEWNEXTHOP if it is about an object of ours; of another kind than ours are, it has no members."""
    if len(body) < _HEADER.size:
        return None
    af, _, protocol, _, flags = _HEADER.unpack_from(body)
    found = attributes(body, _HEADER.size)
    if protocol != PROTOCOL or _NHA_ID not in found:
        return None
    ident = NexthopId(u32(found[_NHA_ID]))
    if _NHA_OIF not in found or af not in FAMILY_OF:
        return _decode_group(ident, found)
    index = u32(found[_NHA_OIF])
    return Nexthop(
        id=ident,
        family=FAMILY_OF[af],
        # Its device may have appeared after the links were read; no link has this name.
        link=names.get(index, f"#{index}"),
        via=decode_ip(found.get(_NHA_GATEWAY, b"")),
        onlink=bool(flags & ONLINK),
    )


def _decode_group(ident: NexthopId, found: Mapping[int, bytes]) -> NexthopGroup:
    members = found.get(_NHA_GROUP, b"")
    whole = len(members) - len(members) % _MEMBER.size
    # Linux 6.12 made the second byte the weight's upper half.
    shares = ((i, 1 + low + (high << 8)) for i, low, high, _ in _MEMBER.iter_unpack(members[:whole]))
    resilience = attributes(found.get(_NHA_RES_GROUP, b""))
    return NexthopGroup(
        id=ident,
        members=tuple((NexthopId(i), weight) for i, weight in shares),
        buckets=int.from_bytes(resilience.get(_RES_BUCKETS, b""), sys.byteorder),
        idle=u32(resilience.get(_RES_IDLE, b"")),
    )


def touched_nexthop(body: bytes) -> bool | None:
    """Classify a notification: True when it is about ours, or takes an id of ours; None when it makes no sense."""
    if len(body) < _HEADER.size:
        return None
    protocol = body[2]
    return protocol == PROTOCOL or u32(attributes(body, _HEADER.size).get(_NHA_ID, b"")) in NEXTHOP_IDS
