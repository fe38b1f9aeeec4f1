"""What the daemon knows, as one value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from polywan.config import HealthSettings
from polywan.core.health.bad_targets import BadTargets, Observers
from polywan.core.health.layers import Checks
from polywan.core.health.passive import AttemptHistory
from polywan.core.health.rounds import ProbeState
from polywan.core.journal.changes import Standings
from polywan.core.marks import Numbers
from polywan.core.net import Family, IPAddress
from polywan.core.plan.plan import ActualState, DesiredState
from polywan.core.policy.draining import Drains
from polywan.core.policy.selection import Selection
from polywan.core.policy.totals import NOTHING_COUNTED, Totals
from polywan.core.policy.uplink_state import UplinkView
from polywan.core.quota.limits import NO_QUOTAS, Quotas
from polywan.core.resolved import Resolved
from polywan.core.ruleset.model import NftTable
from polywan.core.state.agenda import NOTHING_DUE, Agenda
from polywan.core.state.drift import Repairs
from polywan.core.state.logged import NOTHING_LOGGED, Logged
from polywan.core.state.memory import Memory
from polywan.core.state.refusals import Retries
from polywan.core.state.retired_marks import Retired
from polywan.core.world.lookups import NOTHING, Lookups
from polywan.core.world.observed import Observed
from polywan.core.world.paths import Reach, UplinkFamily


@dataclass(frozen=True, slots=True)
class RouterFailover:
    """The router of several on one link that is in use instead of the first, and since when (monotonic seconds)."""

    via: IPAddress
    at: float


@dataclass(frozen=True, kw_only=True)
class Known:
    """What was read: the file, what it refers to, the kernel, and what outlives the daemon.

    Attributes:
        config: the file, worked out with the numbers that the memory has of uplinks and policies.
        rules_at: file and line of each rule; `advice`: what is odd in the file, though good.
        memory: what outlives the daemon.
        lookups: what rules refer to outside of the file, as last read.
        observed: links, addresses and routes of others.
        actual: what the kernel holds of ours, as read or as just applied.
        lost: links that lost an address since the last read, as the kernel told, by family.
        quotas: what is used of the uplinks' quotas, and what follows from it.
        unix: what added to monotonic seconds gives Unix time, as of the daemon's start; `zone`: local time minus UTC.
    """

    config: Resolved | None = None
    rules_at: tuple[str, ...] = ()
    advice: tuple[str, ...] = ()
    memory: Memory = field(default_factory=Memory)
    lookups: Lookups = NOTHING
    observed: Observed | None = None
    actual: ActualState | None = None
    lost: frozenset[tuple[str, Family]] = frozenset()
    quotas: Quotas = NO_QUOTAS
    unix: float = 0.0
    zone: float = 0.0

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


@dataclass(frozen=True, kw_only=True)
class HealthState:
    """What is known of every uplink's health.

    Attributes:
        rounds: of the rounds of probes, and what they say.
        failovers: links with several routers whose first one failed (`core/engine/routers.py`).
        checks: what is known of the layers above the link; `bad_targets`: of targets that answer nobody.
        observers: the uplinks that are probed, by family, and whom they ask; they can tell a bad target.
        watches: what is known of new connections of the uplinks that are up.
    """

    rounds: Mapping[UplinkFamily, ProbeState] = field(default_factory=dict)
    failovers: Mapping[UplinkFamily, RouterFailover] = field(default_factory=dict)
    checks: Checks = field(default_factory=Checks)
    bad_targets: BadTargets = field(default_factory=BadTargets)
    observers: Mapping[Family, Observers] = field(default_factory=dict)
    watches: Mapping[UplinkFamily, AttemptHistory] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What was decided last; kept to tell what a new decision changes.

    Attributes:
        reach: how every uplink is reached, or why it is not.
        ramps: uplinks in slow start, and how many percent of their weight they are given.
        selection: which uplinks serve which policy.
        spare: metered uplinks that no policy needs now (`core/engine/standby_probing.py`).
        drains: uplinks that are being left.
        retired: marks that a reload removed, and until when they are dead.
        views: every uplink's state as people see it.
        desired: what the kernel should hold; None before the first decision.
        held: the tables that others cannot flush, by family and name.
        cautions: why nothing may work in this world, as of the last read.
        slow: why no connection may take the fast path; empty when some may, or nobody wants it.
        warnings: what the user should know, for status; advice and cautions are part of it.
    """

    reach: Mapping[UplinkFamily, Reach] = field(default_factory=dict)
    ramps: Mapping[UplinkFamily, int] = field(default_factory=dict)
    selection: Selection | None = None
    spare: frozenset[UplinkFamily] = frozenset()
    drains: Drains = field(default_factory=dict)
    retired: Retired = field(default_factory=dict)
    views: Mapping[str, UplinkView] = field(default_factory=dict)
    desired: DesiredState | None = None
    held: Mapping[str, NftTable] = field(default_factory=dict)
    cautions: tuple[str, ...] = ()
    slow: str = ""
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Done:
    """What was done about decisions, and what came of it.

    Attributes:
        generation: number of plans carried out.
        staged: sets that are declared in the kernel ahead of their use (`core/engine/list_preload.py`).
        repairs: of changes by others (`core/state/drift.py`).
        retries: of what the kernel refused (`core/state/refusals.py`).
        logged: what the log has told so far; `standings`: what the journal has recorded, of a daemon before at first.
        totals: what was counted since the daemon started.
    """

    generation: int = 0
    staged: frozenset[str] = frozenset()
    repairs: Repairs = field(default_factory=Repairs)
    retries: Retries = field(default_factory=Retries)
    logged: Logged = NOTHING_LOGGED
    standings: Standings = field(default_factory=dict)
    totals: Totals = NOTHING_COUNTED


@dataclass(frozen=True, kw_only=True)
class State:
    """Everything the daemon knows; `None` means not known yet. Times are monotonic seconds.

    It and its parts have no slots, for `evolve.replace`.

    Attributes:
        known: what was read.
        health: what probes, checks and connections say of the uplinks.
        decision: what follows from both, as decided last.
        done: what was done about it.
        agenda: what is due when.
    """

    known: Known = Known()
    health: HealthState = HealthState()
    decision: Decision = Decision()
    done: Done = Done()
    agenda: Agenda = NOTHING_DUE

    @property
    def ready(self) -> bool:
        """True once a decision was made from a full read."""
        return self.decision.desired is not None
