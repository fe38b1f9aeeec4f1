"""Make the status document beside the loop: with many uplinks that takes longer than a decision may wait."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from polywan import __version__
from polywan.api.status import Status, UplinkStatus
from polywan.core.state.state import State
from polywan.core.status.document import InForce, Traffic, document, uplink_status, uplinks_of

CLOCKS_APART: Final = 0.01
"""Seconds by which the clocks must drift apart until moments are told by the new one: reading them takes microseconds,
and a state that began once must not seem to begin a millisecond later in the next answer."""

AT_ONCE: Final = 4
"""Uplinks of which documents are made before others get their turn: less than a millisecond."""


class Composer:
    """Makes status documents of what the daemon knows.

    Args:
        state: returns what the daemon knows now.
        troubles: returns what else people should know.
        notes: returns what else is worth knowing.
        in_force: returns what is known of the configuration.
    """

    def __init__(
        self,
        state: Callable[[], State],
        troubles: Callable[[], Sequence[str]],
        notes: Callable[[], Sequence[str]],
        in_force: Callable[[], InForce | None] = lambda: None,
    ) -> None:
        self._state = state
        self._troubles = troubles
        self._notes = notes
        self._in_force = in_force
        self._started = asyncio.get_running_loop().time()
        self._wall = time.time() - self._started

    def offset(self, now: float) -> float:
        """Return what the clock on the wall has more than the other, the same for all answers until it is set."""
        found = time.time() - now
        if abs(found - self._wall) > CLOCKS_APART:
            self._wall = found
        return self._wall

    async def compose(self, traffic: Mapping[str, Traffic]) -> Status:
        """Return the document of this moment; other work goes on meanwhile."""
        state, now = self._state(), asyncio.get_running_loop().time()
        offset = self.offset(now)
        uplinks: list[UplinkStatus] = []
        for name in uplinks_of(state):
            uplinks.append(uplink_status(state, name, offset, traffic.get(name), now))
            if len(uplinks) % AT_ONCE == 0:
                await asyncio.sleep(0)
        troubles, notes = self._troubles(), self._notes()
        return document(
            state, __version__, self._started, offset, traffic, now, troubles, notes, uplinks, self._in_force()
        )
