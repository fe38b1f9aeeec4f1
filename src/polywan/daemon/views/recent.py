"""Connections as they were read a moment ago: those who look at them page by page share one read.

Reading 60 000 connections takes a third of a second of a CPU, most of it in the kernel, and choosing a page of them a
tenth of that.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from typing import Final, Protocol

from polywan.core.world.conntrack import Flow

READING_SHARE: Final = 0.05
"""Share of a CPU that reading connections again and again may take: a large table is read less often."""

LEAST_AGE: Final = 1.0
"""Seconds for which connections are shown again, however few there are."""

UNUSED_FOR: Final = 10.0
"""Seconds after which connections are forgotten that nobody looks at: 60 000 take 25 MB."""


class Reader(Protocol):
    """Reads tracked connections."""

    def flows(self, mask: int, mark: int | None = None) -> Iterator[Flow]:
        """Yield connections; see `Tracker.flows`."""


class RecentFlows:
    """The last read of all connections.

    Args:
        reader: reads them.
    """

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._flows: Sequence[Flow] = ()
        self._mask: int | None = None
        self._good_until = 0.0
        self._end: asyncio.TimerHandle | None = None

    def read(self, mask: int) -> Sequence[Flow]:
        """Return connections, read now or a moment ago; one thread at a time.

        Raises:
            KernelError: the kernel refused.
        """
        now, flows = time.monotonic(), self._flows
        if self._mask != mask or now >= self._good_until:
            began = time.thread_time()
            flows = tuple(self._reader.flows(mask))
            spent = time.thread_time() - began
            self._flows, self._mask = flows, mask
            self._good_until = now + max(LEAST_AGE, spent / READING_SHARE)
        return flows

    def used(self) -> None:
        """Forget them in a while, unless somebody uses them again; in the loop."""
        if self._end is not None:
            self._end.cancel()
        self._end = asyncio.get_running_loop().call_later(UNUSED_FOR, self._forget)

    def _forget(self) -> None:
        self._flows, self._mask = (), None
