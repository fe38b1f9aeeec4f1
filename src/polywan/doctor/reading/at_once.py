"""Read several things at the same time, each within its time; what cannot be read is said."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from polywan.core.errors import PolywanError
from polywan.threads import Threads

LIMIT: Final = 5.0
"""Seconds after which something counts as not readable."""

_THREADS: Final = 16


@dataclass(slots=True)
class Reading:
    """What was read so far, by name, and why something could not be."""

    threads: Threads = field(default_factory=lambda: Threads(_THREADS, "reading"))
    found: dict[str, Any] = field(default_factory=dict)
    unread: dict[str, str] = field(default_factory=dict)
    on_done: Callable[[], None] = lambda: None

    async def read(
        self, wanted: Mapping[str, Callable[[], Any] | Awaitable[Any]], limits: Mapping[str, float] | None = None
    ) -> None:
        """Read everything that is wanted; `limits` has seconds other than `LIMIT`."""
        known = limits or {}
        await asyncio.gather(*(self._one(name, how, known.get(name, LIMIT)) for name, how in wanted.items()))

    async def _one(self, name: str, how: Callable[[], Any] | Awaitable[Any], limit: float) -> None:
        try:
            async with asyncio.timeout(limit):
                waiting = asyncio.wrap_future(self.threads.submit(how)) if callable(how) else how
                self.found[name] = await waiting
        except TimeoutError:
            self.unread[name] = f"it did not come within {limit:.0f} s"
        except PolywanError as error:
            self.unread[name] = str(error)
        except OSError as error:
            text = (error.strerror or str(error)).lower()
            self.unread[name] = f"{error.filename}: {text}" if error.filename else text
        self.on_done()
