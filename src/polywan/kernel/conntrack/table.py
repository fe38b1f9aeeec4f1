"""Connection tracking over ctnetlink: count connections by mark, list them, and forget those of a dead uplink."""

from __future__ import annotations

import errno
import struct
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from polywan.core.errors import KernelError
from polywan.core.net import Family
from polywan.core.world.conntrack import Flow
from polywan.kernel.conntrack.challenge_ack import End
from polywan.kernel.conntrack.decode import OFFLOADED, Decoder, Layouts
from polywan.kernel.netlink.lending import netfilter
from polywan.kernel.netlink.socket import (
    CREATE,
    EXCL,
    NESTED,
    Message,
    Refusal,
    Request,
    attribute,
    attributes,
)

# linux/netfilter/nfnetlink.h and nfnetlink_conntrack.h.
_NEW: Final = 1 << 8
_GET: Final = 1 << 8 | 1
_DELETE: Final = 1 << 8 | 2
_GET_STATISTICS: Final = 1 << 8 | 5

MARK: Final = 8
TCP_STATE: Final = (4, 1, 1)
"""Path of a TCP connection's state: types of attributes from outside in."""

OPEN_STATES: Final = (3, 5)
"""Least and most of the states between the handshake and the last word: ESTABLISHED, FIN_WAIT, CLOSE_WAIT."""

_ORIGINAL, _REPLY, _STATUS, _TIMEOUT, _ID, _ZONE, _MARK_MASK = 1, 2, 3, 7, 12, 18, 21
_IP, _PROTO = 1, 2  # CTA_TUPLE_IP, CTA_TUPLE_PROTO
_SWAPPED: Final = {1: 2, 2: 1, 3: 4, 4: 3}
_SEEN_REPLY, _ASSURED, _CONFIRMED = 2, 4, 8  # nf_conntrack_common.h

_TCP: Final = 6
_UNANSWERED: Final = frozenset({1, 9})  # SYN_SENT, SYN_SENT2 (nf_conntrack_tcp.h)
_OPEN: Final = frozenset({2, 3, 4, 5, 6})  # SYN_RECV, ESTABLISHED, FIN_WAIT, CLOSE_WAIT, LAST_ACK
_PROTOCOL, _CALLED, _STATUS_BITS, _STATE, _MARKED = 0, 3, 9, 10, 12  # places among the values of `flows.Layout.read`

_ANY: Final = bytes(4)  # struct nfgenmsg; its first byte is the address family
_GENERIC: Final = {Family.V4: b"\x02\0\0\0", Family.V6: b"\x0a\0\0\0"}
_BIG: Final = struct.Struct(">I")


def reachable() -> None:
    """Ask for the number of connections.

    Raises:
        KernelError: the kernel has no ctnetlink, or does not let us.
    """
    with netfilter() as netlink:
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
    with netfilter() as netlink:
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
    with netfilter() as netlink:
        for message in netlink.dump(_GET, _ANY + wanted):
            flow = decode(message.body)
            if flow is not None and (mark is None or flow.mark == mark):
                yield flow


_CHUNK: Final = 256

_RETRY: Final = 0.005
_PATIENCE: Final = 20
"""Seconds between attempts, and how many there are at most: before Linux 6.4 no entry can be deleted that is in a
flowtable (EBUSY), and it takes some milliseconds to leave one."""

Deletion: TypeAlias = Request
"""What forgets exactly one connection; for `delete`."""


@dataclass(frozen=True, slots=True)
class Found:
    """Some connections of a mark, sorted by what can be done for them.

    Attributes:
        doomed: what forgets those that choose anew: all but TCP, and TCP that was never answered.
        inside: open TCP that this box forwards: for each connection, the ends that may lie inside.
        own: ends of open TCP that are this box itself, and what forgets each connection.
    """

    doomed: list[Deletion] = field(default_factory=list)
    inside: list[tuple[End, ...]] = field(default_factory=list)
    own: list[tuple[End, Deletion]] = field(default_factory=list)


def find(mark: int, mask: int, family: Family, own: Collection[bytes], *, inbound: bool = True) -> Iterator[Found]:
    """Yield the connections of a mark in a family while they are read, a few hundred at a time.

    Args:
        mark: theirs, under `mask`.
        mask: bits of the mark that are ours.
        family: theirs.
        own: addresses of this box, packed.
        inbound: yield what came in from outside, to one of these addresses, too.

    Raises:
        KernelError: the kernel refused; while iterating.
    """
    found, layouts, count = Found(), Layouts(), 0
    with netfilter() as netlink:
        for message in netlink.dump(_GET, _GENERIC[family] + _with_mark(mark, mask)):
            body = message.body
            values = layouts.of(body).read(body)
            # Kernels that do not filter by mask would hand out everybody's.
            if (values[_MARKED] or 0) & mask != mark & mask:
                continue
            if not inbound and values[_CALLED] in own:
                continue
            if cuttable(values):
                found.doomed.append(deletion(body))
            elif values[_PROTOCOL] == _TCP and (values[_STATE] in _OPEN or (values[_STATUS_BITS] or 0) & OFFLOADED):
                _sort(found, body, values, own)
            count += 1
            if count % _CHUNK == 0:
                yield found
                found = Found()
    yield found


def drop(mark: int, mask: int, family: Family, doomed: Callable[[Flow], bool]) -> int:
    """Delete the connections of the mark in a family for which `doomed` is true, TCP too; return how many.

    Raises:
        KernelError: the kernel refused.
    """
    decode = Decoder(mask, time.time_ns()).flow
    with netfilter() as netlink:
        found = [
            deletion(message.body)
            for message in netlink.dump(_GET, _GENERIC[family] + _with_mark(mark, mask))
            # Kernels that do not filter by mask would hand out everybody's.
            if (flow := decode(message.body)) is not None and flow.mark == mark & mask and doomed(flow)
        ]
    return delete(found)


def delete(doomed: Sequence[Deletion]) -> int:
    """Carry out deletions; return how many entries were there still.

    Raises:
        KernelError: the kernel refused.
    """
    if not doomed:
        return 0
    gone, remaining = 0, doomed
    with netfilter() as netlink:
        for _ in range(_PATIENCE):
            # Entries that went away by themselves meanwhile are refused with ENOENT.
            refused = netlink.batch_quietly(remaining)
            gone += len(remaining) - len(refused)
            remaining = [request for request, why in refused if why.errno == errno.EBUSY]
            if not remaining:
                break
            time.sleep(_RETRY)
    return gone


def _sort(found: Found, body: bytes, values: Sequence[Any], own: Collection[bytes]) -> None:
    original, reply = ends_of(values)
    if original is not None and original.address in own:
        found.own.append((original, deletion(body)))
    elif reply is not None and reply.address in own:
        found.own.append((reply, deletion(body)))
    else:
        found.inside.append(inside_of(original, reply))


def ends_of(values: Sequence[Any]) -> tuple[End | None, End | None]:
    """Return who began the connection and who answers, each with the peer that it knows.

    Args:
        values: see `flows.Layout.read`.
    """
    _, client, client_port, to, port, answers, answers_port, answered, answered_port, *_ = values
    original = None if None in (client, client_port, to, port) else End(client, client_port, to, port)
    if None in (answers, answers_port, answered, answered_port):
        return original, None
    return original, End(answers, answers_port, answered, answered_port)


def inside_of(original: End | None, reply: End | None) -> tuple[End, ...]:
    """Return which ends may lie inside: behind a translation is inside; without one, nobody knows."""
    if original is None or reply is None:
        return ()
    masked = (original.address, original.port) != (reply.peer, reply.peer_port)
    forwarded = (reply.address, reply.port) != (original.peer, original.peer_port)
    if masked != forwarded:
        return (original,) if masked else (reply,)
    return original, reply


def cuttable(values: Sequence[Any]) -> bool:
    """True for what has no reset to meet: every protocol but TCP, and TCP before the first answer.

    Args:
        values: see `flows.Layout.read`.
    """
    protocol = values[_PROTOCOL]
    return protocol is not None and (protocol != _TCP or values[_STATE] in _UNANSWERED)


def deletion(body: bytes) -> Deletion:
    """Request that deletes exactly this entry: its original tuple, zone and id."""
    entry = attributes(body, 4)
    exactly = attribute(_ID, entry[_ID]) if _ID in entry else b""
    return Request(_DELETE, 0, body[:4] + _tuple_of(entry) + exactly)


def restore(bodies: Iterable[bytes], mask: int, seconds: int) -> int:
    """Put TCP connections back that the kernel has forgotten, untranslated; return how many are there.

    One that has been taken up in the middle meanwhile, without any answer, is replaced: it leads nowhere. What the
    other end has sent meanwhile, to the address that it knows, may be an entry of its own; that one stays.

    Args:
        bodies: as the kernel told of their end.
        mask: bits of the mark that are ours; from now on they are the reserved mark.
        seconds: how long they stay when nothing comes.

    Raises:
        KernelError: the kernel refused.
    """
    known = list(bodies)
    with netfilter() as netlink:
        refusals = netlink.batch([_restoration(body, mask, seconds) for body in known])
        taken = [b for b, r in zip(known, refusals, strict=True) if r is not None and r.errno == errno.EEXIST]
        free = [b for b in taken if _makes_room(netlink.query(_GET, _named(b)))]
        again = netlink.batch(
            [
                request
                for body in free
                for request in (Request(_DELETE, 0, _named(body)), _restoration(body, mask, seconds, turned=True))
            ]
        )
    return refusals.count(None) + again[1::2].count(None)


def _restoration(body: bytes, mask: int, seconds: int, *, turned: bool = False) -> Request:
    """Request that puts a connection back; `turned`: answers go to whoever asked, not to what he was translated to."""
    entry = attributes(body, 4)
    before = _BIG.unpack(entry[MARK])[0] if len(entry.get(MARK, b"")) == 4 else 0
    parts = _tuple_of(entry)
    reply = _inverse(entry.get(_ORIGINAL, b"")) if turned else entry.get(_REPLY, b"")
    parts += attribute(_REPLY | NESTED, reply)
    parts += attribute(MARK, _BIG.pack(before | mask))
    parts += attribute(_TIMEOUT, _BIG.pack(seconds))
    parts += attribute(_STATUS, _BIG.pack(_SEEN_REPLY | _ASSURED | _CONFIRMED))
    outer, inner, state = TCP_STATE
    tcp = attribute(inner | NESTED, attribute(state, bytes([OPEN_STATES[0]])))
    parts += attribute(outer | NESTED, tcp)
    return Request(_NEW, CREATE | EXCL, body[:4] + parts)


def _named(body: bytes) -> bytes:
    return body[:4] + _tuple_of(attributes(body, 4))


def _tuple_of(entry: Mapping[int, bytes]) -> bytes:
    zone = attribute(_ZONE, entry[_ZONE]) if _ZONE in entry else b""
    return attribute(_ORIGINAL | NESTED, entry.get(_ORIGINAL, b"")) + zone


def _inverse(ends: bytes) -> bytes:
    """Exchange source and destination of a tuple (CTA_IP_V4_SRC, CTA_PROTO_SRC_PORT and their neighbours)."""
    parts = attributes(ends, 0)
    addresses, protocol = attributes(parts.get(_IP, b""), 0), attributes(parts.get(_PROTO, b""), 0)
    swapped = b"".join(attribute(_SWAPPED[kind], value) for kind, value in addresses.items() if kind in _SWAPPED)
    ports = b"".join(attribute({2: 3, 3: 2}.get(kind, kind), value) for kind, value in protocol.items())
    return attribute(_IP | NESTED, swapped) + attribute(_PROTO | NESTED, ports)


def _makes_room(answer: Message | Refusal) -> bool:
    """True when a connection's place is free, or held by one that has no answer."""
    if isinstance(answer, Refusal):
        return answer.errno == errno.ENOENT
    return not (Layouts().of(answer.body).read(answer.body)[_STATUS_BITS] or 0) & _SEEN_REPLY


def _with_mark(mark: int, mask: int) -> bytes:
    return attribute(MARK, _BIG.pack(mark & mask)) + attribute(_MARK_MASK, _BIG.pack(mask))
