"""Netlink as a transport (netlink(7)): framing, attributes, acknowledged batches and dumps; knows no message's body.

Own framing rather than a library's: pyroute2 needs 61 µs to encode one request where this needs a few, and costs
24 MB and 0.18 s at start. The contract tests hold what is written here against what ip(8) shows.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple, Self

from polywan.core.errors import KernelError
from polywan.core.net import Family

ROUTE, NETFILTER = 0, 12

REQUEST: Final = 0x001
ACK: Final = 0x004
DUMP: Final = 0x300
REPLACE: Final = 0x100
EXCL: Final = 0x200
CREATE: Final = 0x400
NESTED: Final = 0x8000
"""Bit of an attribute's type where its contents are attributes: nfnetlink and newer messages insist on it."""
INTERRUPTED: Final = 0x010
"""Flag on a dump's messages: the data changed while it was read, so the dump may contradict itself."""

AF: Final = {Family.V4: 2, Family.V6: 10}
FAMILY_OF: Final = {af: family for family, af in AF.items()}

_ERROR, _DONE = 2, 3
_CAPPED, _ACK_TLVS = 0x100, 0x200
_ERROR_TEXT: Final = 1
_BATCH_BEGIN, _BATCH_END = 0x10, 0x11  # linux/netfilter/nfnetlink.h

_SOL_NETLINK: Final = 270
_ADD_MEMBERSHIP, _DROP_MEMBERSHIP, _NO_ENOBUFS = 1, 2, 5
_CAP_ACK, _EXT_ACK, _GET_STRICT_CHK = 10, 11, 12
_SO_RCVBUFFORCE: Final = 33

_HEADER: Final = struct.Struct("=IHHII")
_ATTRIBUTE: Final = struct.Struct("=HH")
_NUMBER: Final = struct.Struct("=HHI")
_TYPE_MASK: Final = 0x3FFF  # the two upper bits say "nested" and "network byte order"
_PADDING: Final = (b"", b"\0\0\0", b"\0\0", b"\0")

CHUNK: Final = 128
"""Requests in one send: their acknowledgements fit even the default receive buffer."""

_RECEIVE, _BUFFER = 1 << 16, 1 << 20
_TIMEOUT: Final = struct.pack("@ll", 10, 0)
_DUMP_TRIES: Final = 10
_SEQUENCE_END: Final = 0x7FFF_0000


class Request(NamedTuple):
    """A message to the kernel: its type, flags beyond REQUEST and ACK, and body."""

    kind: int
    flags: int
    body: bytes


class Message(NamedTuple):
    """A message from the kernel; `port` is the netlink port of whoever caused it, 0 for the kernel itself."""

    kind: int
    flags: int
    sequence: int
    port: int
    body: bytes


class Refusal(NamedTuple):
    """The kernel's negative answer: errno(3) and its text."""

    errno: int
    text: str


def attribute(kind: int, payload: bytes) -> bytes:
    """Encode one attribute (struct rtattr)."""
    return _ATTRIBUTE.pack(4 + len(payload), kind) + payload + _PADDING[len(payload) & 3]


def number(kind: int, value: int) -> bytes:
    """Encode one attribute that holds a 32-bit number in host byte order."""
    return _NUMBER.pack(8, kind, value)


def attributes(data: bytes, offset: int = 0) -> dict[int, bytes]:
    """Decode the attributes from `offset` on by type; whatever follows a malformed one is left out."""
    # Every message passes here, so that this is `walk` without its generator.
    found: dict[int, bytes] = {}
    unpack, end = _ATTRIBUTE.unpack_from, len(data)
    while offset + 4 <= end:
        length, kind = unpack(data, offset)
        stop = offset + length
        if length < 4 or stop > end:
            break
        found[kind & _TYPE_MASK] = data[offset + 4 : stop]
        offset = (stop + 3) & ~3
    return found


def first(data: bytes, offset: int, wanted: int) -> bytes:
    """Return the contents of the first attribute of a type; empty without one."""
    return next((data[start:end] for kind, start, end in walk(data, offset, len(data)) if kind == wanted), b"")


def walk(data: bytes, offset: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Yield type, start and end of the contents of each attribute in turn; stops at a malformed one."""
    unpack = _ATTRIBUTE.unpack_from
    while offset + 4 <= end:
        length, kind = unpack(data, offset)
        if length < 4 or offset + length > end:
            return
        yield kind & _TYPE_MASK, offset + 4, offset + length
        offset += (length + 3) & ~3


def u32(payload: bytes) -> int:
    """Decode a 32-bit number in host byte order; 0 when the payload has another size."""
    return int.from_bytes(payload, sys.byteorder) if len(payload) == 4 else 0


def text(payload: bytes) -> str:
    """Decode a name or sentence of the kernel's; control characters and foreign bytes become escapes."""
    raw = payload.split(b"\0", 1)[0].decode("utf-8", "backslashreplace")
    if raw.isprintable():
        return raw
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in raw)


def messages(data: bytes) -> Iterator[Message]:
    """Split what one recv(2) returned into messages; stops at a malformed header."""
    offset, size = 0, len(data)
    while offset + 16 <= size:
        length, kind, flags, sequence, port = _HEADER.unpack_from(data, offset)
        if length < 16 or offset + length > size:
            return
        yield Message(kind, flags, sequence, port, data[offset + 16 : offset + length])
        offset += (length + 3) & ~3


def refusal(message: Message) -> Refusal | None:
    """Decode an NLMSG_ERROR: None when it acknowledges success."""
    if len(message.body) < 4:
        return Refusal(errno.EPROTO, os.strerror(errno.EPROTO))
    (code,) = struct.unpack_from("=i", message.body)
    if code == 0:
        return None
    reason = os.strerror(-code)
    if message.flags & _ACK_TLVS and message.flags & _CAPPED:
        detail = text(attributes(message.body, 20).get(_ERROR_TEXT, b""))
        reason = f"{reason} ({detail})" if detail else reason
    return Refusal(-code, reason)


class NetlinkSocket:
    """One netlink socket. Not for use by two threads at once.

    Attributes:
        quiet: nothing was asked whose answer is not read to its end.

    Raises:
        KernelError: this kernel does not speak the protocol, or a group is refused.
    """

    def __init__(self, protocol: int, groups: Sequence[int] = ()) -> None:
        try:
            self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
            self._set_up(groups)
        except OSError as e:
            raise KernelError("open a netlink socket", e.errno or 0, e.strerror or str(e)) from e
        self._sequence = 0
        self.quiet = True

    def _set_up(self, groups: Sequence[int]) -> None:
        self._make_room(_BUFFER)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _TIMEOUT)
        for option in (_CAP_ACK, _EXT_ACK, _GET_STRICT_CHK):
            try:
                self._socket.setsockopt(_SOL_NETLINK, option, 1)
            except OSError:
                continue
        self._socket.bind((0, 0))
        self.subscribe(groups)

    def _make_room(self, size: int) -> None:
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, size)
        except PermissionError:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)

    def bear_loss(self, size: int) -> None:
        """Receive into a buffer of that many bytes, which the kernel doubles; what does not fit is lost in silence.

        Raises:
            KernelError: the kernel refused.
        """
        self._make_room(size)
        self.set_option(_SOL_NETLINK, _NO_ENOBUFS, 1)

    def subscribe(self, groups: Sequence[int]) -> None:
        """Receive what is sent to these multicast groups.

        Raises:
            OSError: the kernel refused, or the socket is closed.
        """
        for group in groups:
            self._socket.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, group)

    def unsubscribe(self, groups: Sequence[int]) -> None:
        """Receive nothing of these groups any more; what nobody listens to, the kernel does not even write.

        Raises:
            OSError: the socket is closed.
        """
        for group in groups:
            self._socket.setsockopt(_SOL_NETLINK, _DROP_MEMBERSHIP, group)

    @property
    def port(self) -> int:
        """The port id that marks our own requests in everybody's notifications."""
        return int(self._socket.getsockname()[0])

    def set_option(self, level: int, name: int, value: int | bytes) -> None:
        """Set an option of the socket (socket(7), netlink(7)).

        Raises:
            KernelError: the kernel refused.
        """
        try:
            self._socket.setsockopt(level, name, value)
        except OSError as e:
            raise KernelError("set up a netlink socket", e.errno or 0, e.strerror or str(e)) from e

    def fileno(self) -> int:
        """File descriptor, for an event loop."""
        return self._socket.fileno()

    def close(self) -> None:
        """Release the descriptor."""
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def batch(self, requests: Sequence[Request]) -> list[Refusal | None]:
        """Send requests in order, few system calls for many; return each one's refusal, or None for success.

        Raises:
            KernelError: the socket itself failed.
        """
        results: list[Refusal | None] = []
        for start in range(0, len(requests), CHUNK):
            results += self._acknowledged(requests[start : start + CHUNK])
        return results

    def _acknowledged(self, requests: Sequence[Request]) -> list[Refusal | None]:
        first = self._send(requests, ACK)
        answers: dict[int, Refusal | None] = {}
        while len(answers) < len(requests):
            for message in messages(self._receive()):
                if message.kind == _ERROR and first <= message.sequence < first + len(requests):
                    answers[message.sequence] = refusal(message)
        return [answers[first + i] for i in range(len(requests))]

    def batch_quietly(self, requests: Sequence[Request]) -> list[tuple[Request, Refusal]]:
        """Send requests of which only refusals and the last one are answered; return those that were refused.

        Raises:
            KernelError: the socket itself failed.
        """
        refused: list[tuple[Request, Refusal]] = []
        for start in range(0, len(requests), CHUNK):
            chunk = requests[start : start + CHUNK]
            first = self._send(chunk[:-1], 0, chunk[-1])
            done = False
            while not done:
                for message in messages(self._receive()):
                    if message.kind == _ERROR and 0 <= (place := message.sequence - first) < len(chunk):
                        why = refusal(message)
                        refused += [(chunk[place], why)] if why is not None else []
                        done = done or place == len(chunk) - 1
        return refused

    def query(self, kind: int, body: bytes) -> Message | Refusal:
        """Ask one question and return the one message that answers it, or the refusal.

        Raises:
            KernelError: the socket itself failed.
        """
        sequence = self._send([Request(kind, 0, body)], 0)
        while True:
            for message in messages(self._receive()):
                if message.sequence == sequence:
                    refused = refusal(message) if message.kind == _ERROR else None
                    return refused or message

    def transaction(self, subsystem: int, request: Request) -> Refusal | None:
        """Send one request as a transaction of an nfnetlink subsystem; return its refusal, or None for success.

        Raises:
            KernelError: the socket itself failed.
        """
        about = struct.pack(">BBH", 0, 0, subsystem)
        begin, end = Request(_BATCH_BEGIN, 0, about), Request(_BATCH_END, 0, about)
        first = self._send([begin, request._replace(flags=request.flags | ACK), end], 0)
        while True:
            for message in messages(self._receive()):
                # A transaction that cannot even begin is refused by the number of its first message.
                if message.kind == _ERROR and first <= message.sequence <= first + 1:
                    return refusal(message)

    def _send(self, requests: Sequence[Request], flags: int, last: Request | None = None) -> int:
        """Send and return the first's sequence number; `last` goes behind the others, to be acknowledged."""
        if self._sequence > _SEQUENCE_END:
            self._sequence = 0
        first = self._sequence + 1
        parts = [self._frame(request, flags) for request in requests]
        if last is not None:
            parts.append(self._frame(last, ACK))
        try:
            self._socket.send(b"".join(parts))
        except OSError as e:
            raise KernelError("send to the kernel", e.errno or 0, e.strerror or str(e)) from e
        return first

    def _frame(self, request: Request, flags: int) -> bytes:
        self._sequence += 1
        body = request.body
        flags |= request.flags | REQUEST
        header = _HEADER.pack(16 + len(body), request.kind, flags, self._sequence, 0)
        return header + body + _PADDING[len(body) & 3]

    def _receive(self) -> bytes:
        try:
            return self._socket.recv(_RECEIVE)
        except OSError as e:
            self.quiet = False
            raise KernelError("receive from the kernel", e.errno or 0, e.strerror or str(e)) from e

    def receive_now(self) -> bytes:
        """Return one datagram without waiting.

        Raises:
            BlockingIOError: there is none.
            OSError: ENOBUFS when the kernel had to drop some (netlink(7)).
        """
        return self._socket.recv(_RECEIVE, socket.MSG_DONTWAIT)

    def dump(self, kind: int, body: bytes) -> Iterator[Message]:
        """Ask for everything of a kind and yield it as it arrives. Read to the end, or close the socket.

        Raises:
            KernelError: the kernel refused.
        """
        self.quiet = False
        sequence = self._send([Request(kind, DUMP, body)], 0)
        while True:
            for message in messages(self._receive()):
                if message.sequence != sequence:
                    continue
                if message.kind in {_ERROR, _DONE}:
                    self.quiet = True
                    if refused := refusal(message):
                        raise KernelError("dump", refused.errno, refused.text)
                    return
                yield message

    def snapshot(self, kind: int, body: bytes, keep: Callable[[bytes], bool] | None = None) -> list[Message]:
        """Dump everything of a kind, again when it changed meanwhile.

        Args:
            kind: of the request.
            body: of the request.
            keep: tells by a message's body whether it is wanted; the others are never held in memory.

        Raises:
            KernelError: the kernel refused, or the data would not hold still.
        """
        for _ in range(_DUMP_TRIES):
            found, torn = [], False
            for message in self.dump(kind, body):
                torn = torn or bool(message.flags & INTERRUPTED)
                if keep is None or keep(message.body):
                    found.append(message)
            if not torn:
                return found
        raise KernelError("dump", errno.EAGAIN, "the data kept changing while it was read")
