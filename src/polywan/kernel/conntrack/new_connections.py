"""Signs of new connections from ctnetlink's events: which began, by a sample, and which of these were answered.

The kernel tells of each new connection (2.4 µs each, while somebody listens) and is asked later about the few that
were taken down: a dump would walk the whole table, 13 ms even when it is empty. When there are many, the group is
left for most of the time, so that the cost has a limit; when there are none, nothing wakes up.
"""

from __future__ import annotations

import asyncio
import errno
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final, TypeAlias

from polywan.core.errors import KernelError
from polywan.core.health.passive import SAMPLE, Opening, telling
from polywan.core.net import Family
from polywan.core.state.events import NewConnections
from polywan.core.world.conntrack import Flow
from polywan.kernel.conntrack.decode import Decoder
from polywan.kernel.conntrack.forgotten import ForgottenConnections
from polywan.kernel.conntrack.table import MARK, deletion
from polywan.kernel.netlink.bpf_filter import attach, marked
from polywan.kernel.netlink.socket import NETFILTER, NetlinkSocket, Refusal, messages

TICK: Final = 0.1
"""Seconds between looks, while something is going on."""

GLANCE: Final = 0.01
"""Seconds of each `TICK` for which the kernel tells of new connections while there are many."""

MANY: Final = 32
"""New connections in one look from which on there are many."""

ASKING_TIMEOUT: Final = 2.0
"""Seconds after which a connection is not asked about any more; until then each time its age has doubled."""

_BUFFER: Final = 1 << 15
"""Receive buffer, which the kernel doubles: some 80 events. What does not fit is lost, which a sample can bear."""

_GROUP_NEW: Final = 1  # NFNLGRP_CONNTRACK_NEW, linux/netfilter/nfnetlink_compat.h
_GET: Final = 1 << 8 | 1

_IN_VAIN: Final = frozenset({"SYN_SENT", "UNREPLIED"})


_Decode: TypeAlias = Callable[[bytes], Flow | None]


@dataclass(slots=True)
class _Asked:
    """A connection that was taken down: the body that names it in a question, when it began, when to ask again."""

    body: bytes
    began: float
    next: float


class NewConnectionListener:
    """Hears of new connections; all but `close` from the thread of one event loop.

    Args:
        vanished: is kept listening along, unless so much begins that hearing of every end would cost too much.
    """

    def __init__(self, vanished: ForgottenConnections) -> None:
        self._vanished = vanished
        self._mask = 0
        self._tuned = 0
        self._events: NetlinkSocket | None = None
        self._questions: NetlinkSocket | None = None
        self._asked: dict[int, _Asked] = {}
        self._serial = 0
        self._heard = 0
        self._glancing = False
        self._closed = False
        self._waiting: tuple[asyncio.AbstractEventLoop, asyncio.Event] | None = None

    def listen(self, mask: int) -> None:
        """Hear of connections whose mark has a bit of the mask from now on; 0 hears of none."""
        self._mask = mask
        self._wake()

    def close(self) -> None:
        """End the stream; may be called from any thread."""
        self._closed = True
        if self._waiting is None:
            self._release()
        else:
            self._wake()

    def _wake(self) -> None:
        if self._waiting is not None:
            loop, wake = self._waiting
            with suppress(RuntimeError):  # the loop is closed already
                loop.call_soon_threadsafe(wake.set)

    async def stream(self) -> AsyncIterator[NewConnections]:
        """Yield signs until `close`, at most once each `TICK`.

        Raises:
            KernelError: the kernel does not let us listen.
        """
        if self._closed:
            return
        loop, wake = asyncio.get_running_loop(), asyncio.Event()
        self._waiting = (loop, wake)
        try:
            while not self._closed:
                wake.clear()
                self._tune()
                if not self._heard and not self._asked:
                    await self._sound(loop, wake)
                await self._rest()
                if (new_connections := self._look(loop.time())) is not None:
                    yield new_connections
        finally:
            self._waiting = None
            self._release()

    async def _sound(self, loop: asyncio.AbstractEventLoop, wake: asyncio.Event) -> None:
        """Wait until there is something to hear, or something to do."""
        sources: Sequence[NetlinkSocket | ForgottenConnections] = (
            () if self._events is None else (self._events, self._vanished)
        )
        for source in sources:
            loop.add_reader(source, wake.set)
        try:
            await wake.wait()
        finally:
            for source in sources:
                loop.remove_reader(source)

    async def _rest(self) -> None:
        many = self._heard >= MANY
        # A glance that hears as many as a whole look stands for ten times more of them.
        self._vanished.pause(paused=many and self._glancing)
        self._glancing = many
        if not many or self._events is None:
            await asyncio.sleep(TICK)
            return
        self._events.unsubscribe([_GROUP_NEW])
        await asyncio.sleep(TICK - GLANCE)
        self._events.subscribe([_GROUP_NEW])
        await asyncio.sleep(GLANCE)

    def _tune(self) -> None:
        """Open and close what the mask asks for."""
        if self._mask == self._tuned:
            return
        self._release()
        self._tuned = self._mask
        if self._mask == 0:
            return
        self._questions = NetlinkSocket(NETFILTER)
        self._events = source = NetlinkSocket(NETFILTER)
        attach(source, marked(MARK, self._mask))
        source.bear_loss(_BUFFER)
        source.subscribe([_GROUP_NEW])
        self._vanished.listen(self._mask)

    def _release(self) -> None:
        self._vanished.listen(0)
        for source in (self._events, self._questions):
            if source is not None:
                source.close()
        self._events = self._questions = None
        self._asked.clear()
        self._heard = self._tuned = 0

    def _look(self, now: float) -> NewConnections | None:
        """Take down what began since the last look, and ask about what was taken down."""
        self._vanished.keep()
        bodies = self._drain()
        self._heard = len(bodies)
        # Messages of one look are alike: what one decoder learns of the first serves for the others.
        decode = Decoder(self._mask, 0).flow
        opened = self._sample(bodies, decode, now)
        known = bool(self._asked)
        answered = frozenset(n for n, a in self._asked.items() if a.next <= now and self._is_answered(a, decode, now))
        self._asked = {n: a for n, a in self._asked.items() if n not in answered and now < a.began + ASKING_TIMEOUT}
        return NewConnections(opened=opened, answered=answered) if known else None

    def _drain(self) -> list[bytes]:
        bodies: list[bytes] = []
        while self._events is not None:
            try:
                bodies += (message.body for message in messages(self._events.receive_now()))
            except BlockingIOError:
                break
            except OSError as e:
                raise KernelError("listen for connections", e.errno or 0, e.strerror or str(e)) from e
        return bodies

    def _sample(self, bodies: list[bytes], decode: _Decode, now: float) -> tuple[Opening, ...]:
        taken: Counter[tuple[int, Family]] = Counter()
        opened = []
        for body in bodies:
            flow = decode(body)
            if flow is None or not flow.mark or taken[flow.mark, flow.family] >= SAMPLE or not telling(flow):
                continue
            taken[flow.mark, flow.family] += 1
            self._serial += 1
            # The body that would delete exactly this entry names it in a question, too.
            self._asked[self._serial] = _Asked(deletion(body).body, now - TICK, now)
            destination = ip_address(flow.destination)
            opened.append(Opening(number=self._serial, mark=flow.mark, family=flow.family, destination=destination))
        return tuple(opened)

    def _is_answered(self, asked: _Asked, decode: _Decode, now: float) -> bool:
        """Ask about a connection; one that is gone was refused, unless somebody deleted it, which says nothing."""
        if self._questions is None:
            return False
        asked.next = now + max(TICK / 2, now - asked.began)
        answer = self._questions.query(_GET, asked.body)
        if isinstance(answer, Refusal):
            return answer.errno == errno.ENOENT
        flow = decode(answer.body)
        return flow is not None and flow.state not in _IN_VAIN
