"""Echo requests and their replies (RFC 792, RFC 4443) on raw sockets bound to an uplink (raw(7))."""

from __future__ import annotations

import asyncio
import errno
import secrets
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from polywan.core.net import Family, IPAddress
from polywan.core.ruleset.untracked import PRIORITY
from polywan.probe.bound import REFUSED, bound_socket, endpoint, prefer, set_mark
from polywan.probe.tap import Tap, hear_only

_HEADER: Final = struct.Struct("!BBHHH")
_TOKEN: Final = 8
_TYPES: Final = {Family.V4: (8, 0), Family.V6: (128, 129)}
"""Type numbers of request and reply."""

ICMP_PROTOCOLS: Final = {Family.V4: socket.IPPROTO_ICMP, Family.V6: socket.IPPROTO_ICMPV6}


def only(kind: int, words: int) -> bytes:
    """Return a bit map of the types that are dropped: all but `kind` (linux/icmp.h, linux/icmpv6.h)."""
    bits = [0xFFFF_FFFF] * words
    bits[kind // 32] &= ~(1 << kind % 32)
    return struct.pack(f"={words}I", *bits)


# Level and option are ICMP_FILTER of SOL_RAW and ICMPV6_FILTER: the socket module does not name them.
REPLIES: Final = {Family.V4: (255, 1, only(0, 1)), Family.V6: (socket.IPPROTO_ICMPV6, 1, only(129, 8))}
"""Socket option that lets echo replies pass, and nothing else."""

_GONE: Final = {errno.ENODEV, errno.ENXIO, errno.ENETDOWN, errno.EBADF}
_BURST: Final = 64
"""Datagrams read before others get their turn: a flood of foreign replies must not hold up the loop."""

CROWDED: Final = 30.0
"""Seconds for which probes pass by connection tracking once its table was full (`core/ruleset/untracked.py`)."""

_NAME_SIZE: Final = 16
"""Bytes of a device's name with its end (IFNAMSIZ, netdevice(7))."""

_LARGEST: Final = 128
"""Bytes read of a datagram: the longest IPv4 header, ours, and more than our payload."""


@dataclass(frozen=True, slots=True)
class EchoReply:
    """What a reply carries."""

    identifier: int
    sequence: int
    payload: bytes


def encode_request(family: Family, identifier: int, sequence: int, payload: bytes) -> bytes:
    """Return an echo request; IPv6's checksum is the kernel's, which knows the source (RFC 3542, 3.1)."""
    kind = _TYPES[family][0]
    bare = _HEADER.pack(kind, 0, 0, identifier, sequence) + payload
    if family is Family.V6:
        return bare
    return _HEADER.pack(kind, 0, checksum(bare), identifier, sequence) + payload


def decode_reply(family: Family, datagram: bytes) -> EchoReply | None:
    """Return what an echo reply says, None for anything else; IPv4 raw sockets deliver the IP header too."""
    start = 0
    if family is Family.V4:
        start = (datagram[0] & 0x0F) * 4 if datagram else 0
        if start < 20:
            return None
    if len(datagram) < start + _HEADER.size:
        return None
    kind, code, _, identifier, sequence = _HEADER.unpack_from(datagram, start)
    if kind != _TYPES[family][1] or code != 0:
        return None
    return EchoReply(identifier, sequence, datagram[start + _HEADER.size :])


def checksum(data: bytes) -> int:
    """Return the Internet checksum (RFC 1071)."""
    padded = data + b"\0" * (len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(padded) // 2}H", padded))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


@dataclass(frozen=True, slots=True)
class _Waiting:
    payload: bytes
    target: bytes
    on_answer: Callable[[], None]


class EchoSocket:
    """All echo probes of one uplink in one family.

    A raw socket stays with the device it was bound to, by number, even when that is gone or has another name:
    its owner asks `leaves_by` before it sends.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, interface: str, family: Family, mark: int) -> None:
        """Open and bind.

        Raises:
            OSError: as `bound_socket`.
        """
        self._index = socket.if_nametoindex(interface)
        self.last_used = loop.time()
        self._loop = loop
        self._family = family
        self._mark = mark
        self._identifier = secrets.randbelow(1 << 16)
        self._sequence = secrets.randbelow(1 << 16)
        self._waiting: dict[int, _Waiting] = {}
        self._interface = interface
        self._crowded = float("-inf")
        self._tap: Tap | None = None
        self._sock = bound_socket(family, socket.SOCK_RAW, ICMP_PROTOCOLS[family], interface, mark)
        try:
            self._sock.setsockopt(*REPLIES[family])
            hear_only(self._sock, family, self._identifier)
            loop.add_reader(self._sock.fileno(), self._read)
        except BaseException:
            self._sock.close()
            raise

    @property
    def closed(self) -> bool:
        """Whether it has to be replaced."""
        return self._sock.fileno() < 0

    def leaves_by(self, interface: str) -> bool:
        """Tell whether the device that has this name now is the one that packets leave by.

        Raises:
            OSError: no device has the name.
        """
        with suppress(OSError):
            # One system call for the common case; of several names of a device this is the first.
            bound = self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, _NAME_SIZE)
            if bound.rstrip(b"\0") == interface.encode():
                return True
        return socket.if_nametoindex(interface) == self._index

    def send(self, target: IPAddress, number: int, mark: int, on_answer: Callable[[], None]) -> Callable[[], None]:
        """Send a request of round `number`; return what forgets it.

        Raises:
            OSError: it could not leave; the socket closes itself when its device is gone.
        """
        if target.version != self._family:
            raise OSError(errno.EAFNOSUPPORT, "the target is in another address family")
        self.last_used = self._loop.time()
        if mark != self._mark:
            set_mark(self._sock, mark)
            self._mark = mark
        self._sequence = sequence = (self._sequence + 1) & 0xFFFF
        payload = (number & 0xFFFF_FFFF).to_bytes(4) + secrets.token_bytes(_TOKEN)
        request = encode_request(self._family, self._identifier, sequence, payload)
        try:
            self._send(request, target)
        except OSError as error:
            if error.errno in _GONE:
                self.close()
            raise
        waiting = self._waiting[sequence] = _Waiting(payload, target.packed, on_answer)

        def forget() -> None:
            if self._waiting.get(sequence) is waiting:
                del self._waiting[sequence]

        return forget

    def _send(self, request: bytes, target: IPAddress) -> None:
        crowded = self._loop.time() < self._crowded
        if not crowded and self._tap is not None:
            self._tap.close()
            self._tap = None
        try:
            self._transmit(request, target, tracked=not crowded)
        except PermissionError:
            if crowded:
                raise
            # A full table of connections refuses new ones: once more, past it.
            self._tap = self._tap or self._opened()
            self._transmit(request, target, tracked=False)
            self._crowded = self._loop.time() + CROWDED

    def _transmit(self, request: bytes, target: IPAddress, *, tracked: bool) -> None:
        if tracked:
            self._sock.sendto(request, endpoint(target))
            return
        prefer(self._sock, PRIORITY)
        try:
            self._sock.sendto(request, endpoint(target))
        finally:
            prefer(self._sock)

    def _opened(self) -> Tap | None:
        with suppress(*REFUSED):
            return Tap(self._loop, self._interface, self._family, self._identifier, self._take)
        return None

    def close(self) -> None:
        """Release the socket; probes under way stay unanswered."""
        if not self.closed:
            self._loop.remove_reader(self._sock.fileno())
            self._sock.close()
        if self._tap is not None:
            self._tap.close()
            self._tap = None
        self._waiting.clear()

    def _read(self) -> None:
        for _ in range(_BURST):
            try:
                datagram, sender = self._sock.recvfrom(_LARGEST)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                # An error that stays pending would wake the loop for ever; the next round opens anew.
                self.close()
                return
            awaited = bool(self._waiting)
            self._take(datagram, _packed(self._family, sender[0]))
            if self.closed or (awaited and not self._waiting):
                # That was the last answer: to look for more would be one system call for each round.
                return

    def _take(self, datagram: bytes, sender: bytes) -> None:
        reply = decode_reply(self._family, datagram)
        if reply is None or reply.identifier != self._identifier:
            return
        waiting = self._waiting.get(reply.sequence)
        if waiting is None or waiting.payload != reply.payload:
            return
        if waiting.target != sender:
            return
        del self._waiting[reply.sequence]
        waiting.on_answer()


def _packed(family: Family, sender: str) -> bytes:
    if family is Family.V4:
        return socket.inet_pton(socket.AF_INET, sender)
    return socket.inet_pton(socket.AF_INET6, sender.partition("%")[0])
