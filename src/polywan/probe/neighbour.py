"""The gateway layer: does the next hop answer to ARP (RFC 826) or neighbour discovery (RFC 4861)?

The kernel's own neighbour entry says less: it may be stale for minutes while traffic confirms it or none flows.
"""

from __future__ import annotations

import fcntl
import socket
import struct
from contextlib import closing, suppress
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from polywan.core.health.layers import CheckOrder
from polywan.core.net import Family
from polywan.probe.bound import bound_socket, endpoint, link_socket
from polywan.probe.check import IP_HEADER, CheckAttempt, CheckFailedError, readable
from polywan.probe.icmp import only

_ETH_P_ARP: Final = 0x0806
_ETH_P_IP: Final = 0x0800
_ARP: Final = struct.Struct("!HHBBH6s4s6s4s")
_REQUEST, _REPLY = 1, 2
_ETHERNET: Final = 1
_EVERYBODY: Final = b"\xff" * 6

_SOLICIT, _ADVERTISE = 135, 136
_MESSAGE: Final = struct.Struct("!BBHB3x16s")
_SOLICITED: Final = 0x40
_SOURCE_LINK, _TARGET_LINK = 1, 2
_HOPS: Final = 255
"""What neighbour discovery requires of arriving messages: a router would have taken one (RFC 4861, 7.1)."""

_ADVERTISEMENTS: Final = (socket.IPPROTO_ICMPV6, 1, only(_ADVERTISE, 8))

_SIOCGIFFLAGS, _SIOCGIFHWADDR = 0x8913, 0x8927
_IFF_LOOPBACK, _IFF_POINTOPOINT, _IFF_NOARP = 0x8, 0x10, 0x80

NOBODY: Final = "no neighbour to query"


async def check_gateway(attempt: CheckAttempt) -> str:
    """Ask the gateway for its link-layer address; a link that knows no neighbours is well."""
    gateway = attempt.order.gateway
    if gateway is None:
        return NOBODY
    own = _own_address(attempt.order)
    if own is None:
        return NOBODY
    if isinstance(gateway, IPv4Address):
        return await _ask_by_arp(attempt, gateway, own)
    return await _ask_by_nd(attempt, gateway, own)


def _own_address(order: CheckOrder) -> bytes | None:
    """Return the link-layer address of an interface whose neighbours are resolved; None for other links.

    Raises:
        SocketDeniedError, OSError, ValueError: as `bound_socket`.
    """
    request = struct.pack("16s24x", order.interface.encode())
    with closing(_datagrams(order)) as control:
        (flags,) = struct.unpack_from("H", fcntl.ioctl(control, _SIOCGIFFLAGS, request), 16)
        kind, own = struct.unpack_from("H6s", fcntl.ioctl(control, _SIOCGIFHWADDR, request), 16)
    if kind != _ETHERNET or flags & (_IFF_LOOPBACK | _IFF_POINTOPOINT | _IFF_NOARP):
        return None
    return bytes(own)


async def _ask_by_arp(attempt: CheckAttempt, gateway: IPv4Address, own: bytes) -> str:
    order = attempt.order
    attempt.pending = f"no answer to ARP from {gateway}"
    question = ArpPacket(_REQUEST, own, _source(order, gateway), bytes(6), gateway)
    with closing(link_socket(_ETH_P_ARP, order.interface, order.mark)) as sock:
        for until in attempt.tries():
            sock.sendto(question.encode(), (order.interface, _ETH_P_ARP, 0, 0, _EVERYBODY))
            attempt.sent += _ARP.size
            while await readable([sock], until):
                with suppress(BlockingIOError, InterruptedError):
                    answer = ArpPacket.decode(sock.recv(256))
                    if answer is not None and answer.answers(question):
                        attempt.received += _ARP.size
                        return f"{gateway} is at {answer.sender_link.hex(':')}"
    raise CheckFailedError(attempt.pending)


def _source(order: CheckOrder, gateway: IPv4Address) -> IPv4Address:
    """Return the address from which the kernel would speak to the gateway by this uplink.

    Raises:
        OSError: it has none, or as `bound_socket`.
    """
    with closing(_datagrams(order)) as sock:
        sock.connect(endpoint(gateway, 9))
        return IPv4Address(sock.getsockname()[0])


def _datagrams(order: CheckOrder) -> socket.socket:
    return bound_socket(Family.V4, socket.SOCK_DGRAM, socket.IPPROTO_UDP, order.interface, order.mark)


@dataclass(frozen=True, slots=True)
class ArpPacket:
    """An ARP packet for IPv4 over Ethernet."""

    operation: int
    sender_link: bytes
    sender: IPv4Address
    target_link: bytes
    target: IPv4Address

    def encode(self) -> bytes:
        """Return the packet as it follows the Ethernet header."""
        return _ARP.pack(
            _ETHERNET,
            _ETH_P_IP,
            6,
            4,
            self.operation,
            self.sender_link,
            self.sender.packed,
            self.target_link,
            self.target.packed,
        )

    @classmethod
    def decode(cls, packet: bytes) -> ArpPacket | None:
        """Return what a packet says, None unless it is about IPv4 over Ethernet."""
        if len(packet) < _ARP.size:
            return None
        link, protocol, link_size, size, operation, *rest = _ARP.unpack_from(packet)
        if (link, protocol, link_size, size) != (_ETHERNET, _ETH_P_IP, 6, 4):
            return None
        return cls(operation, rest[0], IPv4Address(rest[1]), rest[2], IPv4Address(rest[3]))

    def answers(self, question: ArpPacket) -> bool:
        """Tell whether this is the asked host's reply to us."""
        return (
            self.operation == _REPLY
            and self.sender == question.target
            and self.target == question.sender
            and self.target_link == question.sender_link
        )


async def _ask_by_nd(attempt: CheckAttempt, gateway: IPv6Address, own: bytes) -> str:
    attempt.pending = f"no answer to neighbour discovery from {gateway}"
    request = solicitation(gateway, own)
    with closing(_discovery_socket(attempt)) as sock:
        for until in attempt.tries():
            sock.sendto(request, endpoint(solicited_node(gateway)))
            attempt.sent += IP_HEADER[Family.V6] + len(request)
            while await readable([sock], until):
                with suppress(BlockingIOError, InterruptedError):
                    message, control, _, _ = sock.recvmsg(256, 64)
                    if advertises(message, gateway) and _hops(control) == _HOPS:
                        attempt.received += IP_HEADER[Family.V6] + len(message)
                        return f"{gateway} is at {_link_address(message) or 'an unknown address'}"
    raise CheckFailedError(attempt.pending)


def _discovery_socket(attempt: CheckAttempt) -> socket.socket:
    order = attempt.order
    sock = bound_socket(Family.V6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6, order.interface, order.mark)
    try:
        sock.setsockopt(*_ADVERTISEMENTS)
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, _HOPS)
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVHOPLIMIT, 1)
    except BaseException:
        sock.close()
        raise
    return sock


def solicited_node(target: IPv6Address) -> IPv6Address:
    """Return the group that every owner of the address listens to (RFC 4291, 2.7.1)."""
    return IPv6Address(IPv6Address("ff02::1:ff00:0").packed[:13] + target.packed[13:])


def solicitation(target: IPv6Address, own: bytes) -> bytes:
    """Return a neighbour solicitation without its checksum, which is the kernel's (RFC 3542, 3.1)."""
    return _MESSAGE.pack(_SOLICIT, 0, 0, 0, target.packed) + bytes([_SOURCE_LINK, 1]) + own


def advertises(message: bytes, target: IPv6Address) -> bool:
    """Tell whether a message is the advertisement of that address to somebody who asked for it."""
    if len(message) < _MESSAGE.size:
        return False
    kind, code, _, flags, about = _MESSAGE.unpack_from(message)
    return kind == _ADVERTISE and code == 0 and bool(flags & _SOLICITED) and about == target.packed


def _link_address(message: bytes) -> str:
    option = message[_MESSAGE.size : _MESSAGE.size + 8]
    return option[2:].hex(":") if option[:2] == bytes([_TARGET_LINK, 1]) and len(option) == 8 else ""


def _hops(control: list[tuple[int, int, bytes]]) -> int:
    found = [data for level, kind, data in control if (level, kind) == (socket.IPPROTO_IPV6, socket.IPV6_HOPLIMIT)]
    return int(struct.unpack_from("i", found[0])[0]) if found and len(found[0]) >= 4 else -1
