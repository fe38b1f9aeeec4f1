"""Policy rules of others and the tables that they name: rtnetlink(7) messages to core values.

Decoders never raise: a message that makes no sense, or that core has no value for, decodes to nothing.
"""

from __future__ import annotations

import errno
import struct
import sys
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from typing import Final, NamedTuple, TypeAlias

from polywan.core.errors import KernelError
from polywan.core.net import FAMILIES, PROTOCOL, TABLE_MAIN, Family, IPNetwork, RulePriority, TableId
from polywan.core.world.foreign_routing import MOST_ROUTES, TABLE_LOCAL, Destination, ForeignRule, RouteKind, RuleAction
from polywan.core.world.observed import DefaultRoute
from polywan.kernel.netlink.rtnetlink import GETROUTE, RTMSG, decode_network, hops_in, supports_of, table_byte
from polywan.kernel.netlink.socket import (
    AF,
    FAMILY_OF,
    INTERRUPTED,
    ROUTE,
    NetlinkSocket,
    attributes,
    first,
    number,
    text,
    u32,
)

TableKey: TypeAlias = tuple[Family, TableId]

APART: Final = frozenset((family, table) for family in FAMILIES for table in (TABLE_MAIN, TABLE_LOCAL))
"""Tables that are never read for the sake of a rule."""

_PORTS: Final = struct.Struct("=HH")
_UIDS: Final = struct.Struct("=II")

# linux/fib_rules.h
_DST, _SRC, _IIFNAME, _GOTO, _PRIORITY, _FWMARK, _TUN_ID = 1, 2, 3, 4, 6, 10, 12
_SUPPRESS_IFGROUP, _SUPPRESS_PREFIXLEN, _TABLE, _FWMASK, _OIFNAME = 13, 14, 15, 16, 17
_L3MDEV, _UID_RANGE, _PROTOCOL, _IP_PROTO, _SPORT_RANGE, _DPORT_RANGE, _DSCP = 19, 20, 21, 22, 23, 24, 25
_FLOWLABEL, _SPORT_MASK, _DPORT_MASK, _DSCP_MASK = 26, 28, 29, 30
_NEWEST: Final = 30
_ALL_PORTS, _ALL_DSCP = 0xFFFF, 0x3F
_ACTIONS: Final[Mapping[int, RuleAction]] = {
    1: "table",
    2: "goto",
    3: "nop",
    6: "blackhole",
    7: "unreachable",
    8: "prohibit",
}
_INVERT, _UNRESOLVED = 2, 4
_NOT_SET: Final = 0xFFFF_FFFF
_BUILT_IN: Final = frozenset({(0, 255), (32766, 254), (32767, 253)})

# linux/rtnetlink.h
_RTA_DST, _RTA_SRC, _RTA_OIF, _RTA_PRIORITY, _RTA_MULTIPATH, _RTA_TABLE = 1, 2, 4, 6, 9, 15
_KINDS: Final[Mapping[int, RouteKind]] = {
    1: "unicast",
    2: "local",
    3: "local",  # broadcast
    4: "local",  # anycast
    6: "blackhole",
    7: "unreachable",
    8: "prohibit",
    9: "throw",
}
_CLONED: Final = 0x200
_DEAD: Final = 1
"""RTNH_F_DEAD: the kernel passes over it, for its device is down, or has no carrier where that counts."""
_TRIES: Final = 10


def decode_rule(body: bytes) -> ForeignRule | None:
    """Decode RTM_NEWRULE; None for our own, for the kernel's own three and for other families."""
    if len(body) < RTMSG.size:
        return None
    af, to, from_, tos, table, _, _, action, flags = RTMSG.unpack_from(body)
    if af not in FAMILY_OF:
        return None
    found = attributes(body, RTMSG.size)
    maker = found.get(_PROTOCOL, b"")
    if maker == bytes((PROTOCOL,)):
        return None
    table = u32(found[_TABLE]) if _TABLE in found else table
    does = _ACTIONS.get(action, "other")
    rule = ForeignRule(
        family=FAMILY_OF[af],
        priority=RulePriority(u32(found.get(_PRIORITY, b""))),
        action=does,
        table=TableId(table) if does == "table" and table else None,
        goto=RulePriority(u32(found.get(_GOTO, b""))) if does == "goto" else None,
        unresolved=does == "goto" and bool(flags & _UNRESOLVED),
        invert=bool(flags & _INVERT),
        from_=_network(found.get(_SRC, b""), from_),
        to=_network(found.get(_DST, b""), to),
        iif=text(found[_IIFNAME]) if _IIFNAME in found else None,
        oif=text(found[_OIFNAME]) if _OIFNAME in found else None,
        mark=_mark(found),
        tos=tos or None,
        protocol=maker[0] if len(maker) == 1 else 0,
        unknown=_unknown(found),
    )
    rule = _with_rare(rule, found)
    if not rule.selective and not rule.invert and (rule.priority, rule.table) in _BUILT_IN:
        return None if rule.suppress_prefixlength is None and rule.suppress_ifgroup is None else rule
    return rule


def _with_rare(rule: ForeignRule, found: Mapping[int, bytes]) -> ForeignRule:
    """Fill in the selectors that hardly any rule has."""
    uids = found.get(_UID_RANGE, b"")
    return replace(
        rule,
        dscp=_byte(found.get(_DSCP, b"")),
        ipproto=_byte(found.get(_IP_PROTO, b"")) or None,
        sport=_ports(found.get(_SPORT_RANGE, b"")),
        dport=_ports(found.get(_DPORT_RANGE, b"")),
        uidrange=_UIDS.unpack(uids) if len(uids) == _UIDS.size else None,
        suppress_prefixlength=_set_number(found.get(_SUPPRESS_PREFIXLEN, b"")),
        suppress_ifgroup=_set_number(found.get(_SUPPRESS_IFGROUP, b"")),
        l3mdev=bool(_byte(found.get(_L3MDEV, b""))),
        tun_id=int.from_bytes(found[_TUN_ID], "big") or None if _TUN_ID in found else None,
    )


def _unknown(found: Mapping[int, bytes]) -> bool:
    """Tell of selectors that are newer than this, and of masks that leave a part of a value out."""
    partial = (
        int.from_bytes(found.get(_SPORT_MASK, b""), sys.byteorder) not in (0, _ALL_PORTS)
        or int.from_bytes(found.get(_DPORT_MASK, b""), sys.byteorder) not in (0, _ALL_PORTS)
        or int.from_bytes(found.get(_DSCP_MASK, b""), sys.byteorder) not in (0, _ALL_DSCP)
    )
    return partial or _FLOWLABEL in found or any(kind > _NEWEST for kind in found)


def _byte(payload: bytes) -> int | None:
    return payload[0] if len(payload) == 1 else None


def _ports(payload: bytes) -> tuple[int, int] | None:
    if len(payload) != _PORTS.size:
        return None
    low, high = _PORTS.unpack(payload)
    return low, high


def _set_number(payload: bytes) -> int | None:
    value = u32(payload) if len(payload) == 4 else _NOT_SET
    return None if value == _NOT_SET else value


def _mark(found: Mapping[int, bytes]) -> tuple[int, int] | None:
    if _FWMARK not in found and _FWMASK not in found:
        return None
    return u32(found.get(_FWMARK, b"")), u32(found.get(_FWMASK, b"\xff\xff\xff\xff"))


def _network(packed: bytes, length: int) -> IPNetwork | None:
    return decode_network(packed, length) if length > 0 else None


class Known(NamedTuple):
    """A route of a table; of several to one prefix the lowest metric wins."""

    table: TableId
    metric: int
    to: Destination


def get_table(key: TableKey) -> bytes:
    """Body of a request for the routes of one table; old kernels send those of every table."""
    family, table = key
    return RTMSG.pack(AF[family], 0, 0, 0, table_byte(table), 0, 0, 0, 0) + number(_RTA_TABLE, table)


def table_of(body: bytes) -> TableKey | None:
    """Return the family and the table that a route message is about."""
    if len(body) < RTMSG.size:
        return None
    af, _, _, _, table, _, _, _, _ = RTMSG.unpack_from(body)
    number_of = first(body, RTMSG.size, _RTA_TABLE)
    return (FAMILY_OF[af], TableId(u32(number_of) if number_of else table)) if af in FAMILY_OF else None


def decode_route(body: bytes, names: Mapping[int, str]) -> Known | None:
    """Decode RTM_NEWROUTE; None for what the kernel passes over at present, and for routes of one TOS."""
    if len(body) < RTMSG.size:
        return None
    af, to, from_, tos, table, _, _, kind, flags = RTMSG.unpack_from(body)
    if af not in FAMILY_OF or kind not in _KINDS or flags & _CLONED or tos:
        return None
    family, found = FAMILY_OF[af], attributes(body, RTMSG.size)
    prefix = _network(found.get(_RTA_DST, b""), to) if to else family.default
    sender = _network(found.get(_RTA_SRC, b""), from_)
    if prefix is None or prefix.version != family or (from_ and (sender is None or sender.version != family)):
        return None
    devices = [index for index, state in _hops(found, flags) if not state & _DEAD]
    if not devices:
        return None
    table = u32(found[_RTA_TABLE]) if _RTA_TABLE in found else table
    does = _KINDS[kind]
    link = names.get(devices[0]) if does in ("unicast", "local") else None
    metric = u32(found.get(_RTA_PRIORITY, b""))
    return Known(TableId(table), metric, Destination(prefix=prefix, kind=does, link=link, from_=sender))


def _hops(found: Mapping[int, bytes], flags: int) -> Iterator[tuple[int, int]]:
    """Yield device and flags of each next hop."""
    if _RTA_MULTIPATH not in found:
        yield u32(found.get(_RTA_OIF, b"")), flags
        return
    for index, hop_flags, _ in hops_in(found[_RTA_MULTIPATH]):
        yield index, hop_flags


def large(known: Collection[Destination], family: Family) -> bool:
    """Tell whether a table has more routes of a family than were read."""
    return any(d.kind == "large" and d.prefix.version == family for d in known)


class Tables:
    """Reads tables of others, and hands out the same values as long as the kernel shows the same bytes."""

    def __init__(self) -> None:
        self._last: dict[TableKey, tuple[tuple[bytes, ...], Mapping[int, str], tuple[Destination, ...]]] = {}

    def read(
        self, wanted: Collection[TableKey], names: Mapping[int, str], defaults: Collection[DefaultRoute]
    ) -> dict[TableId, tuple[Destination, ...]]:
        """Return what the tables know; a table without routes is left out.

        Args:
            wanted: the tables.
            names: links by number.
            defaults: default routes of others, as they were read: IPv6 shows a table's own default last.

        Raises:
            KernelError: the kernel refused, or the data would not hold still.
        """
        self._last = {key: last for key, last in self._last.items() if key in wanted}
        found: dict[TableId, tuple[Destination, ...]] = {}
        for key in sorted(wanted):
            if known := _with_default(key, self._read(key, names), defaults):
                found[key[1]] = (*found[key[1]], *known) if key[1] in found else known
        return found

    def supports(self) -> frozenset[int | bytes]:
        """Return the devices and sources of the routes that were read last, dead next hops included."""
        return frozenset(supports_of(body for bodies, _, _ in self._last.values() for body in bodies))

    def _read(self, key: TableKey, names: Mapping[int, str]) -> tuple[Destination, ...]:
        bodies = _bodies(key)
        last = self._last.get(key)
        if last is None or last[0] != bodies or last[1] != names:
            last = self._last[key] = (bodies, names, _destinations(key, bodies, names))
        return last[2]


def _with_default(
    key: TableKey, known: tuple[Destination, ...], defaults: Collection[DefaultRoute]
) -> tuple[Destination, ...]:
    """Add the default of a table that was too long to be read to its end."""
    family, table = key
    if not large(known, family) or any(d.kind != "large" and d.from_ is None for d in known):
        return known
    mine = [d for d in defaults if (d.family, d.table, d.source) == (family, table, None)]
    best = min(mine, key=lambda d: d.metric, default=None)
    return known if best is None else (Destination(prefix=family.default, link=best.link), *known)


def _bodies(key: TableKey) -> tuple[bytes, ...]:
    """Dump a table up to the route that makes it a large one."""
    for _ in range(_TRIES):
        bodies: list[bytes] = []
        torn = False
        # A socket of its own: one that is closed need not hear a million routes to their end.
        with NetlinkSocket(ROUTE) as netlink:
            try:
                for message in netlink.dump(GETROUTE, get_table(key)):
                    torn = torn or bool(message.flags & INTERRUPTED)
                    bodies += [message.body] if table_of(message.body) == key else []
                    if len(bodies) > MOST_ROUTES:
                        break
            except KernelError as e:
                if e.errno != errno.ENOENT:  # there is no such table
                    raise
        if not torn:
            return tuple(bodies)
    raise KernelError("dump", errno.EAGAIN, "the data kept changing while it was read")


def _destinations(key: TableKey, bodies: tuple[bytes, ...], names: Mapping[int, str]) -> tuple[Destination, ...]:
    # By number: a network takes longer to hash than to be made.
    best: dict[tuple[int, int, IPNetwork | None], Known] = {}
    for body in bodies:
        known = decode_route(body, names)
        if known is not None:
            at = (int(known.to.prefix.network_address), known.to.prefix.prefixlen, known.to.from_)
            if at not in best or known.metric < best[at].metric:
                best[at] = known
    if len(bodies) <= MOST_ROUTES:
        return tuple(known.to for known in best.values())
    everything = key[0].default
    defaults = [known.to for known in best.values() if known.to.prefix == everything]
    return (*defaults, Destination(prefix=everything, kind="large"))
