"""Measure what goes by each uplink: bytes and rates at a fixed cadence, connections when somebody asks."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Final

from polywan.core.errors import KernelError
from polywan.core.state.state import State
from polywan.core.status import rates
from polywan.core.status.document import Traffic
from polywan.core.status.rates import Counters, Sample, Samples
from polywan.core.views.samples import measured
from polywan.daemon import clock
from polywan.kernel.api import Machine

log = logging.getLogger("polywan")

QUICK: Final = 0.001
"""Seconds up to which counters are read in the loop."""

FRESH: Final = 0.5
"""Seconds for which a measurement of traffic is shown again instead of being taken anew."""


class Meter:
    """Samples counters as long as it runs, and tells what they come to.

    Args:
        kernel: what is asked.
        state: returns the engine's state.

    Attributes:
        listeners: get every sample of those taken at a fixed cadence.
    """

    def __init__(self, kernel: Machine, state: Callable[[], State]) -> None:
        self._kernel = kernel
        self._state = state
        self._samples: Samples = ()
        self._took = 0.0
        self._shown: tuple[float, Mapping[str, Traffic]] | None = None
        self._measuring = asyncio.Lock()
        self.listeners: list[Callable[[Sample], None]] = []

    async def run(self) -> None:
        """Take a sample every `rates.CADENCE` seconds until cancelled."""
        while True:
            try:
                sample = await self.look()
                self._samples = rates.taken(self._samples, sample)
                for listener in self.listeners:
                    listener(sample)
            except KernelError as error:
                log.debug("traffic.unknown: %s", error)
            await clock.turn(rates.CADENCE)

    async def traffic(self) -> Mapping[str, Traffic]:
        """Return connections, bytes and rates by uplink.

        Raises:
            KernelError: the kernel shows none of it.
        """
        async with self._measuring:
            time = asyncio.get_running_loop().time
            if self._shown is not None and time() - self._shown[0] < FRESH:
                return self._shown[1]
            config = self._state().known.config
            if config is None:
                return {}
            sample = await self.look()
            counts = await asyncio.to_thread(self._kernel.connections, config.layout.mask)
            found = measured(self._state(), self._samples, sample, counts)
            self._shown = time(), found
            return found

    async def look(self) -> Sample:
        """Return the counters of all devices now.

        Raises:
            KernelError: the kernel does not show them.
        """
        time = asyncio.get_running_loop().time
        began = time()
        # A thread costs more than the read, unless there are hundreds of devices.
        quick = self._took < QUICK
        found = self._kernel.counters() if quick else await asyncio.to_thread(self._kernel.counters)
        at = time()
        self._took = at - began
        observed = self._state().known.observed
        links = observed.links if observed is not None else {}
        # A device may be known under other names, too.
        known = {n: Counters(link.index, *found[link.name]) for n, link in links.items() if link.name in found}
        return Sample(at, known)
