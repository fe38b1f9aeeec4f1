"""What a kernel tells, one event after the other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from polywan.core.state.events import KernelEvent
from polywan.kernel.api import Kernel


def events(kernel: Kernel) -> AsyncIterator[KernelEvent]:
    """Subscribe now and yield what is told, to the end."""
    text: asyncio.Queue[KernelEvent | None] = asyncio.Queue()
    ended = kernel.watch(text.put_nowait)
    ended.add_done_callback(lambda _: text.put_nowait(None))

    async def stream() -> AsyncIterator[KernelEvent]:
        try:
            while (event := await text.get()) is not None:
                yield event
            await ended
        finally:
            ended.cancel()

    return stream()
