"""The layer of large packets: does one of full size come back, or does the path swallow it?

A path with a smaller size that does not say so (RFC 2923) lets handshakes pass and stalls every download.
"""

from __future__ import annotations

import errno
import secrets
import socket
import struct
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import Final

from polywan.core.net import Family
from polywan.probe.bound import RECVERR, bound_socket, endpoint
from polywan.probe.check import IP_HEADER, CheckAttempt, CheckFailedError, explained, readable
from polywan.probe.icmp import ICMP_PROTOCOLS, REPLIES, EchoReply, decode_reply, encode_request
from polywan.probe.tap import hear_only

_ICMP_HEADER: Final = 8
_TOKEN: Final = 8

# IP_MTU_DISCOVER (ip(7)) and IPV6_MTU_DISCOVER (ipv6(7)) with "probe": the socket module names neither. Packets are
# never cut up, and what the kernel has learned of the path does not keep them back.
_WHOLE: Final = {Family.V4: (socket.IPPROTO_IP, 10, 3), Family.V6: (socket.IPPROTO_IPV6, 23, 3)}

_EXTENDED: Final = struct.Struct("=IBBBBII")
"""struct sock_extended_err (ip(7)): errno, origin, type, code, pad, info, data."""

_FROM_PATH: Final = {Family.V4: 2, Family.V6: 3}
"""Origin of an error that arrived as ICMP or ICMPv6; 1 would be our own interface's."""


PATH_ALLOWS: Final = "bytes: the path allows "
"""In the detail of a packet that a router has called too large: whoever sends learns of it."""


@dataclass(frozen=True, slots=True)
class _Echo:
    """A request, and how its answer and complaints about it are known."""

    family: Family
    expected: EchoReply

    @property
    def request(self) -> bytes:
        return encode_request(self.family, self.expected.identifier, self.expected.sequence, self.expected.payload)

    def blamed_in(self, quoted: bytes) -> bool:
        """Tell whether a complaint quotes this request; routers quote eight bytes or more (RFC 792)."""
        ours = struct.pack("!HH", self.expected.identifier, self.expected.sequence)
        token = quoted[_ICMP_HEADER : _ICMP_HEADER + _TOKEN]
        return quoted[4:_ICMP_HEADER] == ours and self.expected.payload.startswith(token)


async def check_large(attempt: CheckAttempt) -> str:
    """Send the first server an echo request in one packet of the order's size and wait for its reply."""
    order = attempt.order
    servers = attempt.servers()
    if not servers:
        return f"no IPv{order.family} target to query"
    attempt.pending = f"{order.size} bytes: no answer"
    echo = _echo(order.family, order.size)
    protocol = ICMP_PROTOCOLS[order.family]
    with closing(bound_socket(order.family, socket.SOCK_RAW, protocol, order.interface, order.mark)) as sock:
        sock.setsockopt(*REPLIES[order.family])
        hear_only(sock, order.family, echo.expected.identifier)
        sock.setsockopt(*RECVERR[order.family], 1)
        sock.setsockopt(*_WHOLE[order.family])
        if order.family is Family.V6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_DONTFRAG, 1)
        sock.connect(endpoint(servers[0]))
        for until in attempt.tries():
            _send(attempt, sock, echo)
            while await readable([sock], until):
                _complaints(attempt, sock, echo)
                if _answered(sock, echo):
                    attempt.received += order.size
                    return f"{order.size} bytes to {servers[0]} and back"
    raise CheckFailedError(attempt.pending)


def _echo(family: Family, size: int) -> _Echo:
    """Return a request of `size` bytes with its IP header; random throughout, as some links compress."""
    room = size - IP_HEADER[family] - _ICMP_HEADER
    if not _TOKEN <= room < 1 << 16:
        raise CheckFailedError(f"{size} bytes: not a possible packet size")
    return _Echo(family, EchoReply(secrets.randbelow(1 << 16), secrets.randbelow(1 << 16), secrets.token_bytes(room)))


def _send(attempt: CheckAttempt, sock: socket.socket, echo: _Echo) -> None:
    size = attempt.order.size
    # An error of the path that is still pending would be taken for one of this packet.
    sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    try:
        sock.send(echo.request)
    except OSError as error:
        if error.errno == errno.EMSGSIZE:
            raise CheckFailedError(f"{size} bytes: too large for the interface") from error
        raise CheckFailedError(f"{size} bytes: {explained(error)}") from error
    attempt.sent += size


def _complaints(attempt: CheckAttempt, sock: socket.socket, echo: _Echo) -> None:
    """Read what routers said, and believe "too big" about our own packet.

    Anything else they said proves nothing about the size.
    """
    while True:
        try:
            quoted, control, _, _ = sock.recvmsg(1024, 512, socket.MSG_ERRQUEUE)
        except OSError:
            return
        for level, kind, data in control:
            if (level, kind) != RECVERR[echo.family] or len(data) < _EXTENDED.size:
                continue
            number, origin, _, _, _, info, _ = _EXTENDED.unpack_from(data)
            if number == errno.EMSGSIZE and origin == _FROM_PATH[echo.family] and echo.blamed_in(quoted):
                raise CheckFailedError(f"{attempt.order.size} bytes: the path allows {info or 'less'}")


def _answered(sock: socket.socket, echo: _Echo) -> bool:
    with suppress(OSError):
        return decode_reply(echo.family, sock.recv(1 << 16)) == echo.expected
    return False
