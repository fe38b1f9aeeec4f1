"""An engine beside a kernel in memory, with uplinks that are shaped."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from polywan.config import Config
from polywan.core.engine import step as engine
from polywan.core.plan.plan import Plan
from polywan.core.state.effects import Apply, Effect
from polywan.core.state.events import Applied, ReadDone
from polywan.kernel.fake.kernel import FakeKernel
from support.engine_world import Engine, world
from support.engine_world import config as plain

ALL = frozenset({"cake", "htb", "fq_codel", "prio", "ifb", "ingress", "mirred"})
"""Whatever shaping may ask a kernel for."""


def config(count: int, shaped: Mapping[int, Any], **uplink: Any) -> Config:
    """Return a configuration of which some uplinks have these settings for shaping."""
    found = plain(count).model_dump(exclude_unset=True, by_alias=True)
    for number, settings in shaped.items():
        bandwidth = {"down": 50_000_000, "up": 10_000_000}
        found["uplinks"][f"u{number}"] |= {"bandwidth": bandwidth, "shaping": settings, **uplink}
    return Config.model_validate(found)


def kernel_of(count: int) -> FakeKernel:
    """Return a kernel with the devices of `count` uplinks."""
    there = world(count)
    return FakeKernel(links=there.links.values(), addresses=there.addresses, defaults=there.defaults)


class Box:
    """One box: what the engine decides is carried out, and read back until nothing is left to do."""

    def __init__(self, config: Config, kernel: FakeKernel) -> None:
        self.kernel = kernel
        self.daemon = Engine(config, kernel.observe())
        self.run(self.daemon.effects)

    def run(self, effects: list[Effect]) -> list[Plan]:
        """Carry out the plans among these effects, then read until there are none; return those of the reads."""
        self._carry_out(effects)
        plans: list[Plan] = []
        for _ in range(5):
            effects = self.daemon.feed(self.read())
            found = self._carry_out(effects)
            if not found:
                return plans
            plans += found
        raise AssertionError("it does not settle")

    def read(self) -> ReadDone:
        """Read the kernel as the daemon would."""
        state, observed = self.daemon.state, self.kernel.observe()
        return ReadDone(observed, self.kernel.read(engine.sysctl_paths(state, observed), engine.queue_kinds(state)))

    def feed(self, event: Any) -> list[Plan]:
        """Give the engine an event; return the plans of the reads that follow."""
        return self.run(self.daemon.feed(event))

    def _carry_out(self, effects: list[Effect]) -> list[Plan]:
        plans = [effect.plan for effect in effects if isinstance(effect, Apply)]
        for plan in plans:
            self.daemon.feed(Applied(self.kernel.apply(plan)))
        return plans
