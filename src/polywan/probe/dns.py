"""The DNS layer: does any resolver answer a question by this uplink (RFC 1035)?"""

from __future__ import annotations

import asyncio
import secrets
import socket
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from importlib import import_module
from ipaddress import ip_address
from typing import TYPE_CHECKING, Final

from polywan.core.net import Family, IPAddress
from polywan.probe.bound import ABORT, bound_socket, endpoint
from polywan.probe.check import CheckAttempt, CheckFailedError, explained, readable, weigh

if TYPE_CHECKING:
    from dns.message import Message

_PORT: Final = 53
_LARGEST: Final = 4096
_KINDS: Final = {Family.V4: "A", Family.V6: "AAAA"}
_ANSWERS: Final = frozenset({"NOERROR", "NXDOMAIN"})
"""What a working resolver says; anything else is its own trouble (RFC 1035, 4.1.1)."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What the first resolver that works had to say.

    Attributes:
        addresses: of the name, in the order's family, in the resolver's order.
        exists: false when there is no such name at all.
        truncated: it did not fit (flag TC), so that addresses may be missing; `ask_by_tcp` gets them all.
    """

    server: IPAddress
    exists: bool
    addresses: tuple[IPAddress, ...]
    truncated: bool = False


@dataclass(slots=True)
class _Asked:
    """A resolver that was asked; what it has said instead of an answer, as long as it has not given one."""

    server: IPAddress
    sock: socket.socket
    trouble: str = ""


@dataclass(slots=True)
class _Inquiry:
    """One question to several resolvers at once."""

    attempt: CheckAttempt
    question: Message
    asked: list[_Asked] = field(default_factory=list)

    def send(self) -> None:
        """Ask everybody who has said nothing yet."""
        wire = self.question.to_wire()
        for one in self.asked:
            if one.trouble:
                continue
            try:
                one.sock.send(wire)
                self.attempt.count(sent=len(wire))
            except OSError as error:
                one.trouble = explained(error)
        self.note()

    def read(self) -> Answer | None:
        """Take what has arrived; return the first answer."""
        for one in self.asked:
            try:
                data = one.sock.recv(_LARGEST)
            except (BlockingIOError, InterruptedError):
                continue
            except OSError as error:
                one.trouble = explained(error)
                continue
            self.attempt.count(received=len(data))
            reply = _decode(self.question, data)
            if reply is None:
                continue
            if (code := _code(reply)) in _ANSWERS:
                return _answer(one.server, reply)
            one.trouble = code
        self.note()
        return None

    def note(self) -> None:
        """Say what is known of each; nobody is waited for who has refused."""
        said = "; ".join(f"{one.server}: {one.trouble or 'no answer'}" for one in self.asked)
        self.attempt.pending = said
        if all(one.trouble for one in self.asked):
            raise CheckFailedError(said)


async def check_dns(attempt: CheckAttempt) -> str:
    """Ask for the order's name; that there is no such name is an answer too."""
    if not attempt.servers():
        return f"no IPv{attempt.order.family} resolver to query"
    answer = await ask(attempt, attempt.order.name)
    return f"{answer.server} answered" + ("" if answer.exists else " that there is no such name")


async def ask(attempt: CheckAttempt, name: str) -> Answer:
    """Ask all resolvers of the order's family at once and return the first answer.

    Raises:
        CheckFailedError: none has answered in time, or each has failed in a way that waiting does not mend.
        SocketDeniedError, OSError, ValueError: as `bound_socket`.
    """
    order = attempt.order
    # Six megabytes that only those need who have such a check, and a moment that must not stop the loop.
    await asyncio.to_thread(import_module, "dns.message")
    with ExitStack() as stack:
        inquiry = _Inquiry(attempt, _question(name, order.family))
        for server in attempt.servers():
            sock = bound_socket(order.family, socket.SOCK_DGRAM, socket.IPPROTO_UDP, order.interface, order.mark)
            stack.callback(sock.close)
            inquiry.asked.append(_connected(server, sock))
        for until in attempt.tries():
            inquiry.send()
            while await readable([one.sock for one in inquiry.asked], until):
                if answer := inquiry.read():
                    return answer
    raise CheckFailedError(attempt.pending)


async def ask_by_tcp(attempt: CheckAttempt, server: IPAddress, name: str) -> Answer:
    """Ask one resolver once more, by the same uplink, for an answer that has no room in a datagram (RFC 7766).

    Raises:
        CheckFailedError: what it says is no answer.
        SocketDeniedError, OSError, ValueError: as `bound_socket`; the server takes no TCP.
    """
    order = attempt.order
    question = _question(name, order.family)
    wire = question.to_wire()
    loop = asyncio.get_running_loop()
    with closing(
        bound_socket(order.family, socket.SOCK_STREAM, socket.IPPROTO_TCP, order.interface, order.mark)
    ) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, ABORT)
        try:
            await loop.sock_connect(sock, endpoint(server, _PORT))
            await loop.sock_sendall(sock, len(wire).to_bytes(2) + wire)
            size = int.from_bytes(await _received(sock, 2))
            reply = _decode(question, await _received(sock, size))
        finally:
            weigh(attempt, sock)
    if reply is None or (code := _code(reply)) not in _ANSWERS:
        raise CheckFailedError(f"{server}: " + ("an answer to another query" if reply is None else code))
    return _answer(server, reply)


async def _received(sock: socket.socket, size: int) -> bytes:
    """Return so many bytes.

    Raises:
        CheckFailedError: the server has closed before.
    """
    data = b""
    while len(data) < size:
        piece = await asyncio.get_running_loop().sock_recv(sock, size - len(data))
        if not piece:
            raise CheckFailedError("the resolver closed the connection without an answer")
        data += piece
    return data


def _connected(server: IPAddress, sock: socket.socket) -> _Asked:
    """Let the kernel drop what comes from anybody else, and report what the path says of the server."""
    try:
        sock.connect(endpoint(server, _PORT))
    except OSError as error:
        return _Asked(server, sock, explained(error))
    return _Asked(server, sock)


def _question(name: str, family: Family) -> Message:
    from dns.exception import DNSException
    from dns.message import make_query

    try:
        return make_query(name, _KINDS[family], id=secrets.randbelow(1 << 16))
    except (DNSException, UnicodeError) as error:
        raise CheckFailedError(f"{name!a} is not a valid name") from error


def _decode(question: Message, data: bytes) -> Message | None:
    """Return the response to our question, None for anything else."""
    from dns.message import from_wire

    if data[:2] != question.id.to_bytes(2):
        return None
    try:
        reply = from_wire(data, ignore_trailing=True)
    except Exception:  # noqa: BLE001 - anybody may send anything here; the parser's own errors are not all its own
        return None
    return reply if question.is_response(reply) else None


def _answer(server: IPAddress, reply: Message) -> Answer:
    from dns.flags import TC

    return Answer(server, _code(reply) == "NOERROR", _addresses(reply), bool(reply.flags & TC))


def _code(reply: Message) -> str:
    from dns.rcode import to_text

    return to_text(reply.rcode())


def _addresses(reply: Message) -> tuple[IPAddress, ...]:
    """Return the addresses at the end of the chain of aliases; none when there is no such chain."""
    from dns.exception import DNSException
    from dns.message import QueryMessage

    if not isinstance(reply, QueryMessage):
        return ()
    try:
        found = reply.resolve_chaining().answer
    except DNSException:
        return ()
    return tuple(ip_address(record.address) for record in found) if found is not None else ()
