"""Makes conntrack entries by ctnetlink, so that tests need no traffic and no conntrack(8)."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_address

from polywan.core.net import Family
from polywan.kernel.netlink.socket import CREATE, EXCL, NETFILTER, NetlinkSocket, Request, attribute

PROTOCOLS = {"tcp": 6, "udp": 17, "icmp": 1, "sctp": 132}
TCP_STATES = {1: "SYN_SENT", 2: "SYN_RECV", 3: "ESTABLISHED", 5: "CLOSE_WAIT", 8: "CLOSE", 9: "SYN_SENT2"}
NESTED = 0x8000
SEEN_REPLY, CONFIRMED = 2, 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A tracked connection; `state` is TCP's number; with a timeout of 0 seconds it is gone as soon as it is met."""

    family: Family = Family.V4
    protocol: str = "udp"
    mark: int = 0
    port: int = 1024
    state: int = 3
    zone: int = 0
    timeout: int = 600
    answered: bool = False


def create(entries: Sequence[Entry]) -> None:
    with NetlinkSocket(NETFILTER) as netlink:
        refused = [r for r in netlink.batch([_request(e) for e in entries]) if r is not None]
    assert not refused, refused[0]


def _nested(kind: int, *parts: bytes) -> bytes:
    return attribute(kind | NESTED, b"".join(parts))


def _tuple(entry: Entry, kind: int, *, reply: bool) -> bytes:
    v4 = entry.family is Family.V4
    ends = [ip_address(a).packed for a in (("192.0.2.1", "203.0.113.9") if v4 else ("2001:db8::1", "2001:db8:9::9"))]
    ports = [entry.port, 53]
    if reply:
        ends.reverse()
        ports.reverse()
    first = 1 if v4 else 3
    if entry.protocol == "icmp":
        number, identity, icmp_type, code = (1, 4, 5, 6) if v4 else (58, 7, 8, 9)
        request, answer = (8, 0) if v4 else (128, 129)
        protocol = [
            attribute(1, bytes((number,))),
            attribute(identity, struct.pack(">H", entry.port)),
            attribute(icmp_type, bytes((answer if reply else request,))),
            attribute(code, b"\0"),
        ]
    else:
        protocol = [
            attribute(1, bytes((PROTOCOLS[entry.protocol],))),
            attribute(2, struct.pack(">H", ports[0])),
            attribute(3, struct.pack(">H", ports[1])),
        ]
    addresses = _nested(1, attribute(first, ends[0]), attribute(first + 1, ends[1]))
    return _nested(kind, addresses, _nested(2, *protocol))


def _request(entry: Entry) -> Request:
    body = struct.pack("BBH", 2 if entry.family is Family.V4 else 10, 0, 0)
    body += _tuple(entry, 1, reply=False) + _tuple(entry, 2, reply=True)
    body += attribute(7, struct.pack(">I", entry.timeout)) + attribute(8, struct.pack(">I", entry.mark))
    if entry.answered:
        body += attribute(3, struct.pack(">I", CONFIRMED | SEEN_REPLY))
    if entry.zone:
        body += attribute(18, struct.pack(">H", entry.zone))
    if entry.protocol == "tcp":
        body += _nested(4, _nested(1, attribute(1, bytes((entry.state,)))))
    return Request(1 << 8, CREATE | EXCL, body)
