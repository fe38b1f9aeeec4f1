"""Connection tracking over ctnetlink: count connections by mark, list them, and forget those of a dead uplink."""

from __future__ import annotations

import struct
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Final

from polywan.core.errors import KernelError
from polywan.core.flows import Flow
from polywan.core.net import Family
from polywan.kernel.flows import Decoder, Layouts, walk
from polywan.kernel.netlink import NETFILTER, NetlinkSocket, Request, attribute, attributes

# linux/netfilter/nfnetlink.h and nfnetlink_conntrack.h.
_GET: Final = 1 << 8 | 1
_DELETE: Final = 1 << 8 | 2
_GET_STATISTICS: Final = 1 << 8 | 5

_ORIGINAL, _PROTOCOL_STATE, _MARK, _ID, _ZONE, _MARK_MASK = 1, 4, 8, 12, 18, 21
_TUPLE_PROTOCOL, _PROTOCOL_NUMBER = 2, 1
_STATE_TCP, _TCP_STATE = 1, 1
_NESTED: Final = 0x8000

_TCP: Final = 6
_UNANSWERED: Final = frozenset({1, 9})  # SYN_SENT, SYN_SENT2 (nf_conntrack_tcp.h)

_ANY: Final = bytes(4)  # struct nfgenmsg; its first byte is the address family
_GENERIC: Final = {Family.V4: b"\x02\0\0\0", Family.V6: b"\x0a\0\0\0"}
_BIG: Final = struct.Struct(">I")


def reachable() -> None:
    """Ask for the number of connections.

    Raises:
        KernelError: the kernel has no ctnetlink, or does not let us.
    """
    with NetlinkSocket(NETFILTER) as netlink:
        (refused,) = netlink.batch([Request(_GET_STATISTICS, 0, _ANY)])
    if refused is not None:
        raise KernelError("read connections", refused.errno, refused.text)


def counts(mask: int) -> Mapping[int, int]:
    """Count connections by the bits of their mark under `mask`.

    Raises:
        KernelError: the kernel refused.
    """
    found: Counter[int] = Counter()
    mark = Layouts().mark
    with NetlinkSocket(NETFILTER) as netlink:
        for message in netlink.dump(_GET, _ANY):
            found[mark(message.body) & mask] += 1
    return dict(found)


def flows(mask: int, mark: int | None = None) -> Iterator[Flow]:
    """Yield connections while they are read: all, or those whose mark is `mark` under `mask`.

    Raises:
        KernelError: the kernel refused.
    """
    decode = Decoder(mask, time.time_ns()).flow
    wanted = b"" if mark is None else _with_mark(mark, mask)
    with NetlinkSocket(NETFILTER) as netlink:
        for message in netlink.dump(_GET, _ANY + wanted):
            flow = decode(message.body)
            if flow is not None and (mark is None or flow.mark == mark):
                yield flow


def cut(mark: int, mask: int, family: Family) -> int:
    """Delete what is not TCP, and unanswered TCP, of the mark in a family; return how many.

    Raises:
        KernelError: the kernel refused.
    """
    with NetlinkSocket(NETFILTER) as netlink:
        doomed = [
            deletion(message.body)
            for message in netlink.dump(_GET, _GENERIC[family] + _with_mark(mark, mask))
            # Kernels that do not filter by mask would hand out everybody's.
            if mark_of(message.body) & mask == mark & mask and cuttable(message.body)
        ]
        # Entries that went away by themselves meanwhile are refused with ENOENT.
        return len(doomed) - netlink.batch_quietly(doomed)


def mark_of(body: bytes) -> int:
    """Return an entry's mark; 0 when it has none."""
    for kind, start, end in walk(body, 4, len(body)):
        if kind == _MARK and end - start == 4:
            return int(_BIG.unpack_from(body, start)[0])
    return 0


def cuttable(body: bytes) -> bool:
    """True for what has no reset to meet: every protocol but TCP, and TCP before the first answer."""
    entry = attributes(body, 4)
    protocol = attributes(attributes(entry.get(_ORIGINAL, b"")).get(_TUPLE_PROTOCOL, b""))
    if protocol.get(_PROTOCOL_NUMBER, b"") != bytes((_TCP,)):
        return _PROTOCOL_NUMBER in protocol
    state = attributes(attributes(entry.get(_PROTOCOL_STATE, b"")).get(_STATE_TCP, b"")).get(_TCP_STATE, b"")
    return len(state) == 1 and state[0] in _UNANSWERED


def deletion(body: bytes) -> Request:
    """Request that deletes exactly this entry: its original tuple, zone and id."""
    entry = attributes(body, 4)
    parts = attribute(_ORIGINAL | _NESTED, entry.get(_ORIGINAL, b""))
    parts += b"".join(attribute(kind, entry[kind]) for kind in (_ZONE, _ID) if kind in entry)
    return Request(_DELETE, 0, body[:4] + parts)


def _with_mark(mark: int, mask: int) -> bytes:
    return attribute(_MARK, _BIG.pack(mark & mask)) + attribute(_MARK_MASK, _BIG.pack(mask))
