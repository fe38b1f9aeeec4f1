"""One check of one layer: what the checks of all layers share (`layer_checks.py` has one for each)."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from polywan.core.health.layers import CheckOrder, CheckResult
from polywan.core.net import Family, IPAddress, family_of
from polywan.probe.bound import REFUSED, SocketDeniedError

TRIES: Final = 3
"""Datagrams sent at most: a single lost packet must not look like a broken layer."""

MAX_TEXT: Final = 120
"""Characters of text that a peer or a program may put into a detail."""

IP_HEADER: Final = {Family.V4: 20, Family.V6: 40}
UDP_HEADER: Final = 8

_TCP_HEADER: Final = 32
"""With timestamps, as Linux sends them."""

# Where struct tcp_info (linux/tcp.h) has bytes_received, segs_out, segs_in and bytes_sent; the last since 4.19.
_TCP_INFO: Final = struct.Struct("=128xQII56xQ")


class CheckFailedError(Exception):
    """The layer does not work; the text says how that was seen."""


@dataclass(slots=True, kw_only=True)
class CheckAttempt:
    """A check under way: its order, and what is known so far.

    Attributes:
        deadline: end of the check, by the loop's clock.
        pending: what to report if nothing more comes until then.
        sent, received: bytes of IP packets so far.
    """

    order: CheckOrder
    deadline: float
    pending: str = "no answer"
    sent: int = 0
    received: int = 0

    def servers(self) -> tuple[IPAddress, ...]:
        """Return the order's servers of its family."""
        return tuple(server for server in self.order.servers if family_of(server) is self.order.family)

    def tries(self) -> Iterator[float]:
        """Yield, for each datagram to send, the moment until which its answer is waited for."""
        for remaining in reversed(range(TRIES)):
            yield self.deadline - self.order.timeout * remaining / TRIES

    def count(self, *, sent: int = 0, received: int = 0, overhead: int = UDP_HEADER) -> None:
        """Add payload bytes of a packet each way, with headers of `overhead` bytes above IP's."""
        header = IP_HEADER[self.order.family] + overhead
        self.sent += sent + header if sent else 0
        self.received += received + header if received else 0


Method = Callable[[CheckAttempt], Awaitable[str]]
"""Looks at a layer and returns what it saw.

Raises `CheckFailedError`, or what sockets raise, when the layer is broken; need not mind the time.
"""


@dataclass(frozen=True, slots=True)
class CheckOutcome:
    """A result, and why this process could not look at all, whatever the link does; None when it could."""

    result: CheckResult
    denied: str | None = None


async def carry_out(order: CheckOrder, method: Method) -> CheckOutcome:
    """Run a method to its end or to the timeout; raises nothing but the cancellation of the task."""
    clock = asyncio.get_running_loop().time
    started = clock()
    attempt = CheckAttempt(order=order, deadline=started + order.timeout)
    denied = None
    ok = False
    try:
        async with asyncio.timeout_at(attempt.deadline):
            detail = await method(attempt)
        ok = True
    except CheckFailedError as failure:
        detail = str(failure)
    except TimeoutError:
        detail = attempt.pending
    except SocketDeniedError as error:
        detail = denied = str(error.strerror)
    except REFUSED as error:
        detail = explained(error)
    except Exception as error:  # noqa: BLE001 - peers send anything, and a parser's bug must not end the daemon
        detail = f"invalid answer: {type(error).__name__}"
    result = CheckResult(
        uplink=order.uplink,
        family=order.family,
        layer=order.layer,
        number=order.number,
        ok=ok,
        detail=detail,
        rtt=clock() - started if ok else None,
        sent=attempt.sent,
        received=attempt.received,
    )
    return CheckOutcome(result, denied)


async def readable(socks: Sequence[socket.socket], until: float) -> bool:
    """Wait until a socket has data or an error; False when the moment `until` of the loop's clock came first."""
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[bool] = loop.create_future()

    def settle(*, found: bool) -> None:
        if not ready.done():
            ready.set_result(found)

    timer = loop.call_at(until, lambda: settle(found=False))
    try:
        for sock in socks:
            loop.add_reader(sock.fileno(), lambda: settle(found=True))
        return await ready
    finally:
        timer.cancel()
        for sock in socks:
            loop.remove_reader(sock.fileno())


def weigh(attempt: CheckAttempt, sock: socket.socket) -> None:
    """Count what the connection has cost so far, by what TCP says itself."""
    with suppress(OSError, struct.error):
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO.size)
        received, segments_out, segments_in, sent = _TCP_INFO.unpack_from(info)
        header = IP_HEADER[attempt.order.family] + _TCP_HEADER
        # The end of an established connection, one segment each way, is still to come.
        end = 1 if segments_in else 0
        attempt.sent += sent + header * (segments_out + end)
        attempt.received += received + header * (segments_in + end)


def explained(error: Exception) -> str:
    """Return what a socket call's refusal says, without the numbers and paths around it."""
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno)
    return shown(str(error)) or type(error).__name__


def shown(text: str) -> str:
    """Return a stranger's text fit for a log line: printable ASCII, blanks joined, at most `MAX_TEXT` characters."""
    plain = "".join(c if "!" <= c <= "~" else " " if c.isspace() else "?" for c in text[: 4 * MAX_TEXT])
    words = " ".join(plain.split())
    return words if len(words) <= MAX_TEXT else words[: MAX_TEXT - 3] + "..."
