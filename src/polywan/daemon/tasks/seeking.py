"""Looks at connections of uplinks in doubt, in a thread, and tells what has come back since the look before."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from math import inf

from polywan.core.errors import KernelError
from polywan.core.health import life
from polywan.core.state.effects import SampleTraffic
from polywan.core.state.events import TrafficSampled
from polywan.kernel.api import Tracker

log = logging.getLogger("polywan")


class TrafficSampler:
    """Remembers what was counted at the last look.

    Args:
        tracker: the kernel's memory.
        clock: returns monotonic seconds.
    """

    def __init__(self, tracker: Tracker, clock: Callable[[], float]) -> None:
        self._tracker = tracker
        self._clock = clock
        self._before: life.Counters = {}
        self._at = -inf
        self._deaf = False

    async def look(self, order: SampleTraffic) -> TrafficSampled:
        """Look once; what cannot be seen is no sign of life, and is told once."""
        began = self._clock()
        try:
            found = await asyncio.to_thread(self._count, order)
        except KernelError as error:
            if not self._deaf:
                log.warning("liveness.unavailable: %s; only late answers show that an uplink is busy", error)
            self._deaf = True
            return TrafficSampled(moved={}, since=began, took=self._clock() - began)
        self._deaf = False
        moved, since = life.moved(self._before, found), self._at
        self._before, self._at = found, began
        return TrafficSampled(moved=moved, since=since, took=self._clock() - began)

    def _count(self, order: SampleTraffic) -> life.Counters:
        marks = {watched.mark for watched in order.watched}
        # One mark is chosen by the kernel; for several it would walk its whole table once for each.
        only = next(iter(marks)) if len(marks) == 1 else None
        return life.counters(self._tracker.flows(order.mask, only), order.watched, order.inside)
