"""What a kernel tells, one event after the other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from polywan.core.events import KernelEvent
from polywan.kernel.api import Kernel


def events(kernel: Kernel) -> AsyncIterator[KernelEvent]:
    """Subscribe now and yield what is told, to the end."""
    told: asyncio.Queue[KernelEvent | None] = asyncio.Queue()
    ended = kernel.watch(told.put_nowait)
    ended.add_done_callback(lambda _: told.put_nowait(None))

    async def stream() -> AsyncIterator[KernelEvent]:
        try:
            while (event := await told.get()) is not None:
                yield event
            await ended
        finally:
            ended.cancel()

    return stream()
