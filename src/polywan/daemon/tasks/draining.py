"""Looks at the connections of uplinks that are left, beside the loop, and forgets those that may move."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from math import inf
from typing import Final, TypeAlias

from polywan.core.errors import KernelError
from polywan.core.net import Family
from polywan.core.policy.draining import Drains, IdleTracker, Key, key_of
from polywan.core.state.effects import ForgetAll, InspectDrain
from polywan.core.state.events import DrainInspected
from polywan.core.words import counted
from polywan.core.world.conntrack import Flow
from polywan.kernel.api import Tracker

log = logging.getLogger("polywan")

_Id: TypeAlias = tuple[str, Family, float]

_NOTHING: Final = IdleTracker({})


class DrainWorker:
    """What is known of the connections of uplinks that are left.

    Args:
        tracker: the kernel's memory.
        clock: monotonic seconds.
        drains: returns what is being left now.
    """

    def __init__(self, tracker: Tracker, clock: Callable[[], float], drains: Callable[[], Drains]) -> None:
        self._tracker = tracker
        self._clock = clock
        self._drains = drains
        self._watches: dict[_Id, IdleTracker] = {}
        self._one_at_a_time = asyncio.Lock()

    async def carry_out(self, effect: InspectDrain | ForgetAll) -> DrainInspected | None:
        """Do what the engine asks; None when the kernel refused to show a look's connections: the next one tells."""
        try:
            async with self._one_at_a_time:
                if isinstance(effect, InspectDrain):
                    return await asyncio.to_thread(self._look, effect)
                return await asyncio.to_thread(self._empty, effect)
        except KernelError as error:
            log.error("drain.failed: %s: %s", effect.uplink, error)
            return None if isinstance(effect, InspectDrain) else _answer(effect, 0, 0)

    def _look(self, asked: InspectDrain) -> DrainInspected:
        name = (asked.uplink, asked.family, asked.since)
        # A leaving that began anew has forgotten what was watched before.
        self._watches = {i: w for i, w in self._watches.items() if i[:2] != name[:2] or i == name}
        flows = [f for f in self._tracker.flows(asked.mask, asked.mark) if f.family is asked.family]
        now = self._clock()
        watch = self._watches.get(name, _NOTHING).look(flows, now, gather=asked.gather, exempt=asked.exempt)
        moved: list[Key] = []

        def moves(flow: Flow) -> bool:
            idle = watch.idle(flow, asked.idle, self._clock()) and self._still(asked)
            if idle:
                moved.append(key_of(flow))
            return idle

        gone = 0
        if asked.idle != inf and any(watch.idle(flow, asked.idle, now) for flow in flows):
            gone = self._tracker.drop(asked.mark, asked.mask, asked.family, moves)
            log.info(
                "drain.moved: %s of %s (IPv%d) choose again", counted(gone, "connection"), asked.uplink, asked.family
            )
        self._watches[name] = watch = watch.without(moved)
        return _answer(asked, len(flows) - gone, len(watch.samples))

    def _still(self, asked: InspectDrain | ForgetAll) -> bool:
        """True unless the uplink has come to serve since the engine asked."""
        drain_state = self._drains().get((asked.uplink, asked.family))
        return drain_state is not None and drain_state.since == asked.since

    def _empty(self, asked: ForgetAll) -> DrainInspected:
        self._watches = {i: w for i, w in self._watches.items() if i[:2] != (asked.uplink, asked.family)}
        gone = self._tracker.drop(asked.mark, asked.mask, asked.family, lambda _: self._still(asked))
        if gone:
            text = counted(gone, "connection")
            log.info("drain.deadline: %s of %s (IPv%d) ended at the deadline", text, asked.uplink, asked.family)
        return _answer(asked, 0, 0)


def _answer(asked: InspectDrain | ForgetAll, remaining: int, movable: int) -> DrainInspected:
    return DrainInspected(
        uplink=asked.uplink, family=asked.family, since=asked.since, remaining=remaining, movable=movable
    )
