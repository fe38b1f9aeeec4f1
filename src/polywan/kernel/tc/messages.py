"""Messages about queueing disciplines, classes, filters (struct tcmsg, linux/rtnetlink.h) and ifb devices. Pure."""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from polywan.config.model.shaping import IFB_PREFIX
from polywan.core.shaping.trees import HTB_OPTIONS
from polywan.core.world.queues import IFB_GROUP, ROOT, STAMP, Part, QueueCounters
from polywan.kernel.netlink import rtnetlink as rt
from polywan.kernel.netlink.socket import (
    CREATE,
    EXCL,
    NESTED,
    REPLACE,
    Request,
    attribute,
    attributes,
    number,
    text,
    u32,
)
from polywan.kernel.tc import options

NEWQDISC: Final = 36
DELQDISC: Final = 37
GETQDISC: Final = 38
NEWCLASS: Final = 40
DELCLASS: Final = 41
GETCLASS: Final = 42
NEWFILTER: Final = 44
DELFILTER: Final = 45
GETFILTER: Final = 46
NEWACTION: Final = 48
NOTIFICATIONS: Final = frozenset({NEWQDISC, DELQDISC, NEWCLASS, DELCLASS, NEWFILTER, DELFILTER})

INGRESS: Final = 0xFFFF_FFF1
"""Parent of the discipline for what comes in."""

_TC: Final = struct.Struct("=BxHiIII")  # struct tcmsg
_LINK: Final = struct.Struct("=BxHiII")  # struct ifinfomsg
_TCA_KIND, _TCA_OPTIONS, _TCA_STATS2, _TCA_BLOCK = 1, 2, 7, 13
_STATS_BASIC, _STATS_QUEUE = 1, 3
_BYTES: Final = struct.Struct("=Q")
_QUEUE: Final = struct.Struct("=IIIII")  # struct gnet_stats_queue
_LOOPBACK: Final = 1
"""Number of the device lo, in every network namespace."""
_INGRESS_HANDLE: Final = 0xFFFF_0000
_ANY_BLOCK: Final = -1  # TCM_IFINDEX_MAGIC_BLOCK: the parent is the number of a block

_BLOCKS: Final = STAMP << 16
"""Blocks of filters from this number on are ours, each at the ingress of one device: an ingress discipline always has
the same handle, and its block is the only part of it that can carry a stamp (tc(8), Linux 4.16)."""
_MOST_INDEX: Final = 1 << 24

_NODE: Final = 0xFFF
"""Bits of a u32 filter's handle that tell it from others of its hash table."""

_ALL: Final = 0x0300  # ETH_P_ALL in network byte order
_MATCHALL_ACTIONS: Final = 2
_ACTION_KIND, _ACTION_OPTIONS = 1, 2
_MIRRED_PARAMETERS: Final = 2
_MIRRED: Final = struct.Struct("=IIiiiiI")  # struct tc_mirred
_STOLEN, _EGRESS_REDIRECT = 4, 1

_SENSELESS: Final = {
    # A number, or a structure, that is too short.
    **dict.fromkeys(("htb", "fq_codel"), attribute(1, b"\0")),
    "cake": attribute(2, b"\0"),
    "prio": b"\0",
}

_IFF_UP: Final = 1
_IFLA_IFNAME, _IFLA_LINKINFO, _IFLA_GROUP, _IFLA_TX_QUEUES = 3, 18, 27, 31
_INFO_KIND: Final = 1
_MOST_QUEUES: Final = 4096


class Shown(NamedTuple):
    """What the kernel shows of a queueing discipline, a class or a filter.

    Attributes:
        ifindex: number of its device; -1 for one of a block.
        info: of a filter, priority and protocol.
        block: of the filters of an ingress discipline; 0 for none.
    """

    ifindex: int
    handle: int
    parent: int
    info: int
    kind: str
    payload: bytes
    block: int
    counters: QueueCounters

    @property
    def root(self) -> bool:
        """True for what is at the root of a device, and not put there by the kernel itself."""
        return self.parent == ROOT and self.handle != 0

    @property
    def ours(self) -> bool:
        """True for what carries our stamp."""
        if self.root and not self.handle & 0xFFFF:
            return self.our_root
        block = self.block or (self.parent if self.ifindex == _ANY_BLOCK else 0)
        return block_of_index(0) <= block < block_of_index(_MOST_INDEX) or any(
            STAMP <= major < STAMP + 16 for major in (self.handle >> 16, self.parent >> 16)
        )

    @property
    def our_root(self) -> bool:
        """True for a root that we put there: others may have numbered theirs alike, but not one of these kinds."""
        if self.handle != STAMP << 16:
            return False
        return self.kind == "cake" or (self.kind == "htb" and part_of(self).options == HTB_OPTIONS)


class IfbLink(NamedTuple):
    """A device by its number and name; `up` is None for one that is no ifb of ours."""

    ifindex: int
    name: str
    up: bool | None


def block_of_index(index: int) -> int:
    """Return the block of filters of a device."""
    return _BLOCKS + index


def everything(index: int = 0, parent: int = 0) -> bytes:
    """Body of a request for all disciplines, for all classes of a device, or for all filters of a parent."""
    return _TC.pack(0, 0, index, 0, parent, 0)


def filters_of_block(block: int) -> bytes:
    """Body of a request for the filters of a block."""
    return everything(_ANY_BLOCK, block)


def decode(body: bytes) -> Shown | None:
    """Decode RTM_NEWQDISC, RTM_NEWTCLASS or RTM_NEWTFILTER and their opposites; None for what makes no sense."""
    if len(body) < _TC.size:
        return None
    _, _, index, handle, parent, info = _TC.unpack_from(body)
    found = attributes(body, _TC.size)
    statistics = attributes(found.get(_TCA_STATS2, b""))
    basic, queue = statistics.get(_STATS_BASIC, b""), statistics.get(_STATS_QUEUE, b"")
    sent = _BYTES.unpack_from(basic)[0] if len(basic) >= _BYTES.size else 0
    _, backlog, drops, _, _ = _QUEUE.unpack_from(queue) if len(queue) >= _QUEUE.size else (0, 0, 0, 0, 0)
    return Shown(
        ifindex=index,
        handle=handle,
        parent=parent,
        info=info,
        kind=text(found.get(_TCA_KIND, b"")),
        payload=found.get(_TCA_OPTIONS, b""),
        block=u32(found.get(_TCA_BLOCK, b"")),
        counters=QueueCounters(sent=sent, drops=drops, backlog=backlog),
    )


def decode_link(body: bytes) -> IfbLink | None:
    """Decode RTM_NEWLINK as far as queues need it."""
    if len(body) < _LINK.size:
        return None
    family, _, index, flags, _ = _LINK.unpack_from(body)
    found = attributes(body, _LINK.size)
    if family != 0 or _IFLA_IFNAME not in found:
        return None
    return IfbLink(index, text(found[_IFLA_IFNAME]), bool(flags & _IFF_UP) if rt.is_own_ifb(found) else None)


def broken_ifb(body: bytes, *, removed: bool) -> bool:
    """Tell whether a message is about an ifb device of ours that takes no packets any more."""
    link = decode_link(body)
    return link is not None and link.up is not None and (removed or not link.up)


def part_of(shown: Shown) -> Part:
    """Return what the kernel shows as a part of a tree."""
    handle, parent, found = shown.handle, shown.parent, options.decode(shown.kind, shown.payload)
    if shown.kind == "u32":
        # Without the hash table that the kernel has chosen.
        return Part("u32", handle & _NODE, parent, (("protocol", _swapped(shown.info)), *found))
    if shown.kind == "htb" and handle & 0xFFFF:
        # The kernel says of a class at the top that it is at the root of the device.
        above = handle & 0xFFFF_0000 if parent == ROOT else parent
        return Part("class", handle, above, options.decode("class", shown.payload))
    return Part(shown.kind, handle, parent, found)


def hash_table(shown: Shown) -> bool:
    """True for a filter that is no rule but what the kernel keeps rules in."""
    return not shown.handle & _NODE


def put_part(part: Part, index: int) -> Request:
    """Request that adds a part to a tree, or changes its options; refused where something else is."""
    chosen = dict(part.options)
    handle, parent, info = part.handle, part.parent, 0
    kind, flags, name = NEWQDISC, CREATE, part.kind
    if part.kind == "class":
        kind, flags, name = NEWCLASS, CREATE | REPLACE, "htb"
    elif part.kind == "u32":
        protocol = chosen["protocol"]
        # Filters of one priority have one protocol.
        kind, info = NEWFILTER, (1 + (protocol == 0x86DD)) << 16 | _swapped(protocol)
    body = _TC.pack(0, 0, index, handle, parent, info) + attribute(_TCA_KIND, name.encode() + b"\0")
    return Request(kind, flags, body + attribute(_TCA_OPTIONS, options.encode(part.kind, chosen)))


def del_root(index: int, handle: int) -> Request:
    """Request that removes a device's root with that handle, any with 0; the kernel's default takes its place."""
    return Request(DELQDISC, 0, _TC.pack(0, 0, index, handle, ROOT, 0))


def put_ingress(index: int) -> Request:
    """Request that adds an ingress discipline; refused where there is one."""
    body = _TC.pack(0, 0, index, _INGRESS_HANDLE, INGRESS, 0) + attribute(_TCA_KIND, b"ingress\0")
    return Request(NEWQDISC, CREATE | EXCL, body + number(_TCA_BLOCK, block_of_index(index)))


def del_ingress(index: int) -> Request:
    """Request that removes a device's ingress discipline, and its filters with it; refused where a clsact is."""
    body = _TC.pack(0, 0, index, _INGRESS_HANDLE, INGRESS, 0) + attribute(_TCA_KIND, b"ingress\0")
    return Request(DELQDISC, 0, body)


def put_redirect(index: int, to: int) -> Request:
    """Request for the filter that sends all that comes in by a device to another one."""
    head = _TC.pack(0, 0, _ANY_BLOCK, 1, block_of_index(index), 1 << 16 | _ALL)
    parameters = _MIRRED.pack(0, 0, _STOLEN, 0, 0, _EGRESS_REDIRECT, to)
    action = attribute(_ACTION_KIND, b"mirred\0")
    action += attribute(_ACTION_OPTIONS | NESTED, attribute(_MIRRED_PARAMETERS, parameters))
    body = attribute(_TCA_KIND, b"matchall\0")
    actions = attribute(_MATCHALL_ACTIONS | NESTED, attribute(1 | NESTED, action))
    return Request(NEWFILTER, CREATE | EXCL, head + body + attribute(_TCA_OPTIONS | NESTED, actions))


def redirected_to(shown: Shown) -> int:
    """Return the number of the device to which a filter sends everything; 0 when it does something else."""
    if shown.kind != "matchall" or _swapped(shown.info) != _swapped(_ALL):
        return 0
    actions = attributes(attributes(shown.payload).get(_MATCHALL_ACTIONS, b""))
    action = attributes(actions.get(1, b""))
    parameters = attributes(action.get(_ACTION_OPTIONS, b"")).get(_MIRRED_PARAMETERS, b"")
    if text(action.get(_ACTION_KIND, b"")) != "mirred" or len(actions) != 1 or len(parameters) < _MIRRED.size:
        return 0
    *_, kind, index = _MIRRED.unpack_from(parameters)
    return int(index) if kind == _EGRESS_REDIRECT else 0


def put_ifb(name: str) -> Request:
    """Request for a new ifb device that is up and ours from the start; refused where the name is taken."""
    body = _LINK.pack(0, 0, 0, _IFF_UP, _IFF_UP) + attribute(_IFLA_IFNAME, name.encode() + b"\0")
    return Request(rt.NEWLINK, CREATE | EXCL, body + number(_IFLA_GROUP, IFB_GROUP) + _ifb_kind())


def get_link(index: int) -> bytes:
    """Body of a request for one device."""
    return _LINK.pack(0, 0, index, 0, 0)


def set_up(index: int) -> Request:
    """Request that sets a device up."""
    return Request(rt.NEWLINK, 0, _LINK.pack(0, 0, index, _IFF_UP, _IFF_UP))


def del_ifb(index: int) -> Request:
    """Request that removes an ifb device."""
    return Request(rt.DELLINK, 0, _LINK.pack(0, 0, index, 0, 0))


def question(kind: str) -> Request:
    """Request that the kernel refuses in any case, for lack of sense or of what is asked for.

    Args:
        kind: of a queueing discipline, of a device ("ifb") or of an action ("mirred").
    """
    if kind == "ifb":
        body = _LINK.pack(0, 0, 0, 0, 0) + attribute(_IFLA_IFNAME, f"{IFB_PREFIX}?".encode() + b"\0")
        return Request(rt.NEWLINK, CREATE | EXCL, body + number(_IFLA_TX_QUEUES, _MOST_QUEUES + 1) + _ifb_kind())
    if kind == "mirred":
        action = attribute(1 | NESTED, attribute(_ACTION_KIND, b"mirred\0"))
        return Request(NEWACTION, CREATE | EXCL, struct.pack("=BxH", 0, 0) + attribute(1 | NESTED, action))
    name = attribute(_TCA_KIND, kind.encode() + b"\0")
    if kind == "ingress":
        head = _TC.pack(0, 0, _LOOPBACK, _INGRESS_HANDLE, INGRESS, 0)
        return Request(NEWQDISC, CREATE | EXCL, head + name + number(_TCA_BLOCK, 0))
    head = _TC.pack(0, 0, _LOOPBACK, STAMP << 16, ROOT, 0)
    return Request(NEWQDISC, CREATE | EXCL, head + name + attribute(_TCA_OPTIONS, _SENSELESS[kind]))


def _ifb_kind() -> bytes:
    return attribute(_IFLA_LINKINFO | NESTED, attribute(_INFO_KIND, b"ifb\0"))


def _swapped(info: int) -> int:
    """Return the protocol of a filter, which is in network byte order."""
    return (info & 0xFF) << 8 | info >> 8 & 0xFF
