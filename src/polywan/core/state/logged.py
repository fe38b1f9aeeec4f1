"""What the log has told so far, as a value; `core/engine/log_events.py` tells on from there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias

from polywan.core.journal.ends import Ends
from polywan.core.policy.uplink_state import UplinkState
from polywan.core.world.observed import Observed
from polywan.core.world.paths import UplinkFamily

Waiting: TypeAlias = tuple[Literal["state", "ends", "policies"], str]


@dataclass(frozen=True, slots=True)
class Flaps:
    """How often a link went away during one outage, and when it did first (monotonic seconds)."""

    count: int
    first: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Logged:
    """What was told last; times are monotonic seconds.

    Attributes:
        states: of each uplink: its state, and since when it has had that.
        ends: address and gateway of each uplink and family.
        policies: what was told of a policy that nobody well serves.
        flaps: of uplinks that are out.
        held: uplinks of which it was told that they answer again and are held; until they serve.
        waits: what is not told yet, lest half of it be told, and when it is.
        seen: the world that addresses and gateways were told of.
    """

    states: Mapping[str, tuple[UplinkState, float]] = field(default_factory=dict)
    ends: Mapping[UplinkFamily, Ends] = field(default_factory=dict)
    policies: Mapping[str, str] = field(default_factory=dict)
    flaps: Mapping[str, Flaps] = field(default_factory=dict)
    held: frozenset[str] = frozenset()
    waits: Mapping[Waiting, float] = field(default_factory=dict)
    seen: Observed | None = None

    @property
    def at(self) -> float:
        """When something is to be told; endless when nothing waits."""
        return min(self.waits.values(), default=float("inf"))


NOTHING_LOGGED: Final = Logged()
"""A daemon that has just started."""
