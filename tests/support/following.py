"""Follow the stream of a daemon in a test: in a thread, since the client waits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

from polywan.api.calls import LIVE
from polywan.api.document import Document
from polywan.api.requests import Nothing
from polywan.client import Client

Kind = TypeVar("Kind", bound=Document)


class Following:
    """The events of one client, as they come."""

    def __init__(self, events: asyncio.Queue[Document | None]) -> None:
        self._events = events

    async def next(self, kind: type[Kind]) -> Kind:
        """Return the next event of a kind, and pass over others; fails at the end."""
        while (event := await self.any()) is not None:
            if isinstance(event, kind):
                return event
        raise AssertionError("the stream has ended")

    async def any(self) -> Document | None:
        """Return the next event; None at the end."""
        async with asyncio.timeout(5):
            return await self._events.get()


@asynccontextmanager
async def following(directory: Path) -> AsyncIterator[Following]:
    """Follow a daemon; the stream ends with what serves it."""
    loop, events = asyncio.get_running_loop(), asyncio.Queue[Document | None]()
    stream = Client(directory).follow(LIVE, Nothing())

    def read() -> None:
        for event in stream:
            loop.call_soon_threadsafe(events.put_nowait, event)
        loop.call_soon_threadsafe(events.put_nowait, None)

    reading = loop.run_in_executor(None, read)
    try:
        yield Following(events)
    finally:
        reading.add_done_callback(lambda done: done.exception())
