"""Send everybody who follows what has changed, what is measured, and what the journal enters.

Each event is made and written as JSON once, however many follow, and only while somebody does. That takes place in
pieces in the loop, between which decisions are made; a thread would keep the interpreter for longer at a time.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import suppress
from typing import Final, Protocol

from polywan.api.calls import LIVE
from polywan.api.codec import encode
from polywan.api.document import Document
from polywan.api.events import LinkEvent
from polywan.api.requests import Nothing
from polywan.api.status import Status, UplinkStatus
from polywan.core.errors import KernelError
from polywan.core.policy.uplink_state import UplinkView
from polywan.core.state.state import State
from polywan.core.status.document import Traffic
from polywan.core.status.rates import Sample
from polywan.core.status.times import iso
from polywan.core.views.changes import change, differs, emptied
from polywan.core.views.samples import measured, sample
from polywan.daemon.api.pieces import around
from polywan.daemon.views.composing import AT_ONCE, Composer
from polywan.daemon.views.recent import READING_SHARE

log = logging.getLogger("polywan")

MOST_CHANGES: Final = 4
"""Events `change` in a second: the first ones at once, those that follow are in the next."""

MOST_BEHIND: Final = 64
"""Events that wait for a client to read, beside what the kernel holds for it (some 200 kB): a dozen seconds."""

KEEP_ALIVE: Final = 15.0
"""Seconds of silence after which a comment is sent, so that proxies keep the connection."""

WHOLE_EVERY: Final = 30.0
"""Seconds after which numbers that no sample carries, such as those of each target, are sent again."""

SHORTEST_COUNT: Final = 0.9
"""Seconds between two counts, at least: the looks at the counters that begin them are a second apart, or almost."""

_GROUP: Final = 8
"""Clients that are woken before others get their turn."""


class Counter(Protocol):
    """Counts tracked connections."""

    def connections(self, mask: int) -> Mapping[int, int]:
        """Return their number by mark; see `Kernel.connections`."""


class PacedCounter:
    """Counts connections in a thread, every second or less often.

    Attributes:
        counts: by mark, as of the last time; None before.
    """

    def __init__(self, counter: Counter) -> None:
        self._counter = counter
        self.counts: Mapping[int, int] | None = None
        self._due_at = float("-inf")
        self._task: asyncio.Task[None] | None = None

    def begin(self, mask: int) -> None:
        """Count anew, if it is time to, and the last time is over."""
        if (self._task is None or self._task.done()) and asyncio.get_running_loop().time() >= self._due_at:
            self._task = asyncio.create_task(self.count(mask))

    async def count(self, mask: int) -> None:
        """Count anew; what cannot be counted stays as it was."""
        began = asyncio.get_running_loop().time()
        spent = 0.0
        with suppress(KernelError):
            self.counts, spent = await asyncio.to_thread(self._counted, mask)
        self._due_at = began + max(SHORTEST_COUNT, spent / READING_SHARE)

    def _counted(self, mask: int) -> tuple[Mapping[int, int], float]:
        began = time.thread_time()
        return self._counter.connections(mask), time.thread_time() - began


class Follower:
    """One who follows: what waits for it to be sent."""

    def __init__(self) -> None:
        self._waiting: deque[bytes] = deque()
        self._news = asyncio.Event()
        self._ended = False

    def put(self, events: bytes) -> bool:
        """Add events; False when too many wait already: then nothing more comes."""
        if len(self._waiting) >= MOST_BEHIND:
            self._waiting.clear()
            self.end()
            return False
        self._waiting.append(events)
        self._news.set()
        return True

    def end(self) -> None:
        """Let what waits be the last."""
        self._ended = True
        self._news.set()

    async def events(self) -> AsyncIterator[bytes]:
        """Yield what comes, up to the end."""
        while self._waiting or not self._ended:
            await self._news.wait()
            self._news.clear()
            while self._waiting:
                yield self._waiting.popleft()


class Streamer:
    """Makes events, and hands them to all who follow.

    Args:
        state: returns what the daemon knows now.
        composer: makes documents.
        counter: counts connections.
        stop: set when the daemon ends.
    """

    def __init__(self, state: Callable[[], State], composer: Composer, counter: Counter, stop: asyncio.Event) -> None:
        self._state = state
        self._composer = composer
        self._counter = PacedCounter(counter)
        self._stop = stop
        self._followers: set[Follower] = set()
        self._arrived: list[Follower] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._wanted = asyncio.Event()
        self._entries: deque[LinkEvent] = deque()
        self._looks: deque[Sample] = deque(maxlen=2)
        self._unsent = False
        self._views: Mapping[str, UplinkView] = {}
        self._moved = False
        self._last: Status | None = None
        self._snapshot = b""
        self._changes_at = deque([float("-inf")] * MOST_CHANGES, maxlen=MOST_CHANGES)
        self._whole_at = self._spoke_at = float("-inf")

    def stepped(self) -> None:
        """Take in that something may have been decided; return at once."""
        # A view that has not changed is the same object: comparing all of them takes a microsecond.
        if self._tasks and (views := self._state().decision.views) != self._views:
            self._views, self._moved = views, True
            self._wanted.set()

    def looked(self, found: Sample) -> None:
        """Take in a look at the counters, one every second."""
        self._looks.append(found)
        if self._tasks:
            self._unsent = True
            self._wanted.set()

    def entered(self, entry: LinkEvent) -> None:
        """Take in an entry of the journal."""
        if self._tasks:
            self._entries.append(entry)
            self._wanted.set()

    async def follow(self, _: Nothing) -> AsyncIterator[bytes]:
        """Yield events, a snapshot first, until the client goes or does not read, or the daemon ends."""
        if self._stop.is_set():
            return
        follower = Follower()
        self._arrived.append(follower)
        self._wanted.set()
        if not self._tasks:
            self._tasks = [asyncio.create_task(self._run()), asyncio.create_task(self._until_stopped())]
        try:
            async for events in follower.events():
                yield events
        finally:
            self._followers.discard(follower)
            self._arrived = [each for each in self._arrived if each is not follower]
            if not self._followers and not self._arrived:
                self._end()

    def _end(self) -> None:
        """Send everybody away; who comes next gets everything anew."""
        for follower in (*self._followers, *self._arrived):
            follower.end()
        for task in self._tasks:
            task.cancel()
        self._followers, self._arrived, self._tasks = set(), [], []
        self._last, self._unsent, self._moved = None, False, False
        self._entries.clear()

    async def _until_stopped(self) -> None:
        await self._stop.wait()
        self._end()

    async def _run(self) -> None:
        try:
            while True:
                await self._turn()
        except Exception as error:
            log.error("control.failed: %s: %s: %s", LIVE.path, type(error).__name__, error)
            log.debug("control.failed: where it failed", exc_info=error)
            self._end()

    async def _turn(self) -> None:
        """Wait for something to send, and send it."""
        now = asyncio.get_running_loop().time
        due_at = self._changes_at[0] + 1.0 if self._moved else self._spoke_at + KEEP_ALIVE
        with suppress(TimeoutError):
            async with asyncio.timeout_at(due_at):
                await self._wanted.wait()
        self._wanted.clear()
        if self._last is None:
            await self._counter.count(self._mask())
            self._last, self._whole_at = await self._compose(), now()
        events = [_event("entry", self._entries.popleft()) for _ in range(len(self._entries))]
        if self._unsent:
            self._unsent, self._moved = False, True
            self._counter.begin(self._mask())
            events.append(self._sample())
        if self._moved and now() >= self._changes_at[0] + 1.0:
            self._moved = False
            events += await self._change(self._last)
        if events or now() >= self._spoke_at + KEEP_ALIVE:
            self._spoke_at = now()
            await self._send(b"".join(events) or b":\n\n")
        await self._welcome()

    def _mask(self) -> int:
        config = self._state().known.config
        return 0 if config is None else config.layout.mask

    def _traffic(self) -> dict[str, Traffic]:
        looks = [*self._looks]
        return measured(self._state(), looks[:-1], looks[-1] if looks else None, self._counter.counts or {})

    async def _compose(self) -> Status:
        self._snapshot = b""
        return await self._composer.compose(self._traffic())

    def _time(self) -> str:
        now = asyncio.get_running_loop().time()
        return iso(now + self._composer.offset(now))

    def _sample(self) -> bytes:
        counted = self._counter.counts is not None
        return _event("sample", sample(self._state(), self._traffic(), self._time(), counted=counted))

    async def _change(self, before: Status) -> list[bytes]:
        now = asyncio.get_running_loop().time()
        whole = now >= self._whole_at + WHOLE_EVERY
        self._last = after = await self._compose()
        seen = {uplink.name: uplink for uplink in before.uplinks}
        new = [u async for u in _slowly(after.uplinks) if differs(seen.get(u.name), u, whole=whole)]
        found = change(before, after, self._time(), new)
        if whole:
            self._whole_at = now
        if found is None:
            return []
        self._changes_at.append(now)
        return [await self._whole() if isinstance(found, Status) else await _in_pieces("change", found, found.uplinks)]

    async def _whole(self) -> bytes:
        """Return the event of the last document, whole."""
        if not self._snapshot and self._last is not None:
            self._snapshot = await _in_pieces("snapshot", self._last, self._last.uplinks)
        return self._snapshot

    async def _send(self, events: bytes) -> None:
        for number, follower in enumerate((*self._followers,), start=1):
            if not follower.put(events):
                self._followers.discard(follower)
            if number % _GROUP == 0:
                await asyncio.sleep(0)

    async def _welcome(self) -> None:
        """Give a snapshot to those who have come: what the others know."""
        if not self._arrived:
            return
        snapshot = await self._whole()
        for follower in self._arrived:
            follower.put(snapshot)
            self._followers.add(follower)
        self._arrived = []


async def _slowly(uplinks: Sequence[UplinkStatus]) -> AsyncIterator[UplinkStatus]:
    """Yield uplinks, some at once before others get their turn."""
    for number, uplink in enumerate(uplinks, start=1):
        yield uplink
        if number % AT_ONCE == 0:
            await asyncio.sleep(0)


async def _in_pieces(name: str, document: Document, uplinks: Sequence[UplinkStatus]) -> bytes:
    """Return the event of a document with many uplinks."""
    head, tail = around(emptied(document), "uplinks")
    texts = [_json(uplink) async for uplink in _slowly(uplinks)]
    return _framed(name, head + b",".join(texts) + tail)


def _json(document: Document) -> bytes:
    return json.dumps(encode(document), separators=(",", ":")).encode()


def _event(name: str, document: Document) -> bytes:
    return _framed(name, _json(document))


def _framed(name: str, data: bytes) -> bytes:
    return b"event: %s\ndata: %s\n\n" % (name.encode(), data)
