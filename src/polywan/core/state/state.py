"""What the daemon knows, as one value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from polywan.config import HealthSettings
from polywan.core.health.bad_targets import BadTargets, Observers
from polywan.core.health.layers import Checks
from polywan.core.health.passive import AttemptHistory
from polywan.core.health.rounds import ProbeState
from polywan.core.marks import Numbers
from polywan.core.net import Family, IPAddress
from polywan.core.plan.plan import ActualState, DesiredState
from polywan.core.policy.draining import Drains
from polywan.core.policy.selection import Selection
from polywan.core.policy.uplink_state import UplinkView
from polywan.core.resolved import Resolved
from polywan.core.ruleset.model import NftTable
from polywan.core.state.agenda import NOTHING_DUE, Agenda
from polywan.core.state.drift import Repairs
from polywan.core.state.memory import Memory
from polywan.core.state.refusals import Retries
from polywan.core.state.retired_marks import Retired
from polywan.core.state.told import NOTHING_LOGGED, Story
from polywan.core.world.lookups import NOTHING, Lookups
from polywan.core.world.observed import Observed
from polywan.core.world.paths import Reach, UplinkFamily


@dataclass(frozen=True, slots=True)
class RouterFailover:
    """The router of several on one link that is in use instead of the first, and since when (monotonic seconds)."""

    via: IPAddress
    at: float


@dataclass(frozen=True, kw_only=True)
class State:
    """Everything the daemon knows; `None` means not known yet. Times are monotonic seconds.

    Without slots, for `evolve.replace`.

    Attributes:
        config: the file, worked out with the numbers that the memory has of uplinks and policies.
        lookups: what rules refer to outside of the file, as last read.
        retired: marks that a reload removed; who still carries one is let go for a while.
        lost: links that lost an address since the last read, as the kernel told, by family.
        actual: what the kernel holds of ours, as read or as just applied.
        reach, health, selection, desired: the last decision; kept to tell what a new one changes.
        spare: metered uplinks that no policy needs now (`core/engine/standby_probing.py`).
        failovers: links with several routers whose first one failed (`core/engine/routers.py`).
        checks: what is known of the layers above the link; `bad_targets`: of targets that answer nobody.
        observers: the uplinks that are probed, by family, and whom they ask; they can tell a bad target.
        watches: what is known of new connections of the uplinks that are up.
        views: every uplink's state as people see it.
        generation: number of plans carried out.
        staged: sets that are declared in the kernel ahead of their use (`core/engine/list_preload.py`).
        ramps: who is in slow start, and how many percent of its weight it is given.
        drains: uplinks that are being left.
        unix: what added to monotonic seconds gives Unix time, as of the daemon's start; `zone`: local time minus UTC.
        story: what the log has told so far.
        held: the table that others cannot flush, as last asked for.
        repairs: what was done about changes by others (`core/state/drift.py`).
        retries: what became of the last plans (`core/state/refusals.py`).
        agenda: what is due when.
        rules_at: file and line of each rule.
        advice: what is odd in the configuration, though good.
        cautions: why nothing may work in this world, as of the last read.
        warnings: what the user should know, for status; `advice` and `cautions` are part of it.
    """

    config: Resolved | None = None
    memory: Memory = field(default_factory=Memory)
    lookups: Lookups = NOTHING
    retired: Retired = field(default_factory=dict)
    lost: frozenset[tuple[str, Family]] = frozenset()
    observed: Observed | None = None
    actual: ActualState | None = None
    reach: Mapping[UplinkFamily, Reach] = field(default_factory=dict)
    health: Mapping[UplinkFamily, ProbeState] = field(default_factory=dict)
    failovers: Mapping[UplinkFamily, RouterFailover] = field(default_factory=dict)
    checks: Checks = field(default_factory=Checks)
    bad_targets: BadTargets = field(default_factory=BadTargets)
    observers: Mapping[Family, Observers] = field(default_factory=dict)
    watches: Mapping[UplinkFamily, AttemptHistory] = field(default_factory=dict)
    selection: Selection | None = None
    spare: frozenset[UplinkFamily] = frozenset()
    desired: DesiredState | None = None
    views: Mapping[str, UplinkView] = field(default_factory=dict)
    generation: int = 0
    staged: frozenset[str] = frozenset()
    ramps: Mapping[UplinkFamily, int] = field(default_factory=dict)
    drains: Drains = field(default_factory=dict)
    unix: float = 0.0
    zone: float = 0.0
    story: Story = NOTHING_LOGGED
    held: NftTable | None = None
    repairs: Repairs = field(default_factory=Repairs)
    retries: Retries = field(default_factory=Retries)
    agenda: Agenda = NOTHING_DUE
    rules_at: tuple[str, ...] = ()
    advice: tuple[str, ...] = ()
    cautions: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def ready(self) -> bool:
        """True once a decision was made from a full read."""
        return self.desired is not None

    @property
    def numbers(self) -> Mapping[str, Numbers]:
        """Mark, table and priorities of every uplink."""
        return self.config.numbers if self.config is not None else {}

    @property
    def policy_marks(self) -> Mapping[str, Numbers]:
        """Numbers of the policies that have one."""
        return self.config.policy_marks if self.config is not None else {}

    @property
    def probing(self) -> Mapping[str, HealthSettings]:
        """How every uplink is probed."""
        return self.config.health if self.config is not None else {}
