"""Who listens to the kernel in memory, told in the thread of the loop that it began in."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

from polywan.core.state.events import KernelEvent


class Listener:
    """Tells somebody of events; the kernel of this class may be changed from any thread."""

    def __init__(self, tell: Callable[[KernelEvent], None]) -> None:
        self._tell = tell
        self._loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[None] = self._loop.create_future()

    def put(self, event: KernelEvent) -> None:
        """Tell of an event; it is lost once the loop is closed."""
        self._soon(lambda: self._tell(event))

    def close(self) -> None:
        """Tell of nothing more."""
        self._soon(lambda: self.ended.set_result(None))

    def _soon(self, call: Callable[[], None]) -> None:
        def unless_ended() -> None:
            if self.ended.done():
                return
            try:
                call()
            except Exception as error:  # noqa: BLE001 - handed to whoever waits for the end, who raises it
                self.ended.set_exception(error)

        with suppress(RuntimeError):  # the loop is closed already
            self._loop.call_soon_threadsafe(unless_ended)
