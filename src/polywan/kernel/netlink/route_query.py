"""A question to the kernel's own routing as a message, and its reply as an answer (rtnetlink(7) RTM_GETROUTE). Pure."""

from __future__ import annotations

import errno
import struct
from collections.abc import Callable
from typing import Final

from polywan.core.errors import KernelError
from polywan.core.net import Family, TableId
from polywan.core.trace.route_query import AnswerKind, RouteAnswer, RouteQuery
from polywan.kernel.netlink.rtnetlink import RTMSG, decode_ip
from polywan.kernel.netlink.socket import AF, Message, Refusal, attribute, attributes, number, u32

_LOOKUP_TABLE: Final = 0x1000  # name the table that the route was found in, instead of main
_FIB_MATCH: Final = 0x2000  # show the route as it stands in its table, instead of the one resolved from it
_DST, _SRC, _IIF, _OIF, _GATEWAY, _PREFSRC, _TABLE, _MARK = 1, 2, 3, 4, 5, 7, 15, 16
_VIA, _UID, _IP_PROTO, _SPORT, _DPORT = 18, 25, 27, 28, 29
_PORT: Final = struct.Struct(">H")

_ACCEPTED: Final = {Family.V4: frozenset({1, 6, 17}), Family.V6: frozenset({6, 17, 58})}
"""Protocols that the kernel lets one ask with; with any other it refuses the question."""
_PORTED: Final = frozenset({6, 17})

_KINDS: Final[dict[int, AnswerKind]] = {
    1: "unicast",
    2: "local",
    3: "broadcast",
    4: "local",  # anycast: this box is one of those meant
    5: "multicast",
    6: "blackhole",
    7: "unreachable",
    8: "prohibit",
}
_REFUSALS: Final[dict[int, AnswerKind]] = {
    errno.ENETUNREACH: "none",
    errno.EHOSTUNREACH: "unreachable",
    errno.EACCES: "prohibit",
    # Besides blackhole routes: a source that cannot have come by this device (martians, rp_filter).
    errno.EINVAL: "blackhole",
    errno.EXDEV: "blackhole",
}


def question(query: RouteQuery, index: int, *, match: bool = False) -> bytes:
    """Body of the request; `index` is the number of the device it arrived by, 0 for the box's own.

    With `match` the reply is the route as it stands in its table: for `prefix_of`.
    """
    length = query.family.host_length
    # IPv6 always names the table, and refuses a question with this flag.
    flags = (_LOOKUP_TABLE if query.family is Family.V4 else 0) | (_FIB_MATCH if match else 0)
    source = b"" if query.source is None else attribute(_SRC, query.source.packed)
    tos = query.dscp << 2
    body = RTMSG.pack(AF[query.family], length, length if source else 0, tos, 0, 0, 0, 0, flags)
    body += attribute(_DST, query.destination.packed) + source
    if index:
        body += number(_IIF, index)
    if query.mark:
        body += number(_MARK, query.mark)
    if index:
        # Forwarded packets are looked up in the name of user 0; a question about one of IPv6 would be in nobody's.
        body += number(_UID, 0)
    elif query.uid is not None:
        body += number(_UID, query.uid)
    if query.protocol in _ACCEPTED[query.family]:
        body += attribute(_IP_PROTO, bytes((query.protocol,)))
        if query.protocol in _PORTED:
            for kind, port in ((_SPORT, query.source_port), (_DPORT, query.port)):
                body += b"" if port is None else attribute(kind, _PORT.pack(port))
    return body


def answer(query: RouteQuery, reply: Message | Refusal, name_of: Callable[[int], str | None]) -> RouteAnswer:
    """Decode the kernel's reply.

    Args:
        query: what was asked.
        reply: what came.
        name_of: returns a device's name by its number.

    Raises:
        KernelError: the question itself was refused, or the reply makes no sense.
    """
    if isinstance(reply, Refusal):
        if reply.errno not in _REFUSALS:
            raise KernelError("query a route", reply.errno, reply.text)
        return RouteAnswer(kind=_REFUSALS[reply.errno])
    if len(reply.body) < RTMSG.size or (kind := _KINDS.get(reply.body[7])) is None:
        raise KernelError("query a route", errno.EPROTO, "the reply is not a route")
    found = attributes(reply.body, RTMSG.size)
    own = query.in_interface is None
    return RouteAnswer(
        kind=kind,
        link=name_of(u32(found.get(_OIF, b""))),
        via=decode_ip(found.get(_GATEWAY, b"")) or decode_ip(found.get(_VIA, b"")[2:]),
        source=(query.source or decode_ip(found.get(_PREFSRC, b""))) if own else None,
        table=TableId(u32(found[_TABLE]) if _TABLE in found else reply.body[4]),
    )


def prefix_of(reply: Message | Refusal) -> int | None:
    """Return the length of the prefix of the route that matches; None when the kernel does not say."""
    if isinstance(reply, Refusal) or len(reply.body) < RTMSG.size:
        return None
    return reply.body[1]
