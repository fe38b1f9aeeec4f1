"""One decision of the engine: from what is known to what the kernel should hold, and what has to be done."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import inf
from typing import Final, NamedTuple

from polywan.core.engine import cuts, draining, routers, standby_probing, target_blame
from polywan.core.engine.story import tell
from polywan.core.evolve import replace
from polywan.core.health import fail_static, slow_start
from polywan.core.health import rounds as hl
from polywan.core.health.diagnosis import findings
from polywan.core.health.rounds import Health, ProbeState
from polywan.core.net import Family
from polywan.core.plan import cautions as cautious
from polywan.core.plan.compile import compile_state
from polywan.core.plan.conflicts import conflicts
from polywan.core.plan.plan import ActualState, DesiredState, NftBatch, Op, Plan, SetSysctl, diff
from polywan.core.policy.draining import Drains
from polywan.core.policy.operator import off
from polywan.core.policy.selection import Selection, select
from polywan.core.policy.uplink_state import UplinkView, view
from polywan.core.resolved import Resolved
from polywan.core.ruleset.model import state_of
from polywan.core.ruleset.second_table import keep
from polywan.core.state import drift, outages, refusals, retired_marks
from polywan.core.state.agenda import Agenda
from polywan.core.state.effects import (
    Apply,
    Effect,
    ForgetUntranslated,
    Hold,
    Level,
    Log,
    SaveMemory,
)
from polywan.core.state.memory import Memory
from polywan.core.state.state import State
from polywan.core.world.observed import Observed
from polywan.core.world.paths import NoPath, Path, Reach, UplinkFamily, reach
from polywan.core.world.world import World

PROBE_PHASES: Final = 4
"""Parts of the probe interval over which uplinks are spread: fewer bursts of probes cost less than many wake-ups."""


class _Known(NamedTuple):
    """What has to be known for a decision."""

    config: Resolved
    observed: Observed
    actual: ActualState


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What follows from everything that is known at one moment.

    Attributes:
        reach, probes, ramps, selection, drains, views: as in `State`, decided anew.
        memory: what outlives the daemon, without the account of outages.
        account: the outages of every uplink.
        lost: uplinks whose address went; `retired`: marks whose connections have nowhere to go.
        desired: what the kernel should hold, and `plan`: what has to be done for it.
        foreign: the operations of the plan that undo what another program did; `tampered`: nothing else explains them.
        cautions: why nothing may work in this world.
    """

    reach: Mapping[UplinkFamily, Reach]
    probes: Mapping[UplinkFamily, ProbeState]
    ramps: Mapping[UplinkFamily, int]
    selection: Selection
    drains: Drains
    memory: Memory
    views: Mapping[str, UplinkView]
    account: outages.Outages
    lost: list[UplinkFamily]
    retired: retired_marks.Retired
    desired: DesiredState
    plan: Plan
    foreign: tuple[Op, ...]
    tampered: bool
    cautions: tuple[str, ...]


def decide(state: State, now: float, *, after_read: bool) -> tuple[State, tuple[Effect, ...]]:
    """Decide anew; returns no effects when nothing has to change, or when too little is known yet.

    Args:
        state: what is known.
        now: monotonic seconds.
        after_read: the kernel was just read, so that a difference without a cause of ours is somebody else's.
    """
    if state.config is None or state.observed is None or state.actual is None:
        return state, ()
    known = _Known(state.config, state.observed, state.actual)
    state, turning = routers.turn(state, known.observed, now)
    made = _judge(state, known, now, after_read=after_read)
    if made.tampered and (wait := drift.pause(state.repairs, now)):
        return replace(state, agenda=replace(state.agenda, read_at=now + wait)), ()
    memory = _recall(made.memory, made.plan)
    sweeps, released = cuts.new_cuts(state, known.config, known.observed, made.reach, made.selection, now)
    after = _adopted(state, known, made, memory, now, after_read=after_read)
    later = (*state.agenda.sweeps, *sweeps, *cuts.vanished(state, made.lost, now))
    after = replace(after, agenda=replace(after.agenda, sweeps=later))
    story, notes = tell(state, after, now)
    effects = (
        *_written(state, made, memory, after),
        *cuts.misplaced(state, known.config, known.observed, made.reach),
        *released,
        *draining.notes(state, made.drains),
        *([SaveMemory(memory)] if memory is made.memory is not state.memory else ()),
        *turning,
        *_at_once(state, made.probes),
        *([drift.repair_log(made.foreign, state.repairs.culprit)] if made.tampered else ()),
        *(Log(Level.WARNING, "caution", text) for text in cautious.newly_raised(made.cautions, state.cautions)),
        *notes,
    )
    return replace(after, story=story), effects


def _judge(state: State, known: _Known, now: float, *, after_read: bool) -> Decision:
    """Decide, and change nothing yet."""
    config, observed, actual = known
    reachable = routers.applied(reach(config, observed, state.memory.gateways), state, observed)
    probes = _follow(state, config, reachable, actual, now)
    paths = [key for key, path in reachable.items() if isinstance(path, Path)]
    probes = fail_static.settle(probes, state.probing, paths, now)
    found = findings(state.probing, reachable, probes, state.checks.known, state.bad_targets)
    ramps = slow_start.percents(probes, state.probing, now)
    selection = select(config, reachable, probes, state.selection, state.memory.orders, ramps, found)
    drains, selection = draining.follow(state, config, reachable, probes, selection, now)
    memory = draining.remember(state.memory, drains, state.unix)
    views = {
        name: view(config, name, reachable, probes, state.views.get(name), now, memory.orders.get(name), found)
        for name in config.uplinks
    }
    lost = cuts.addresses_lost(state, config, reachable, after_read=after_read)
    retired = cuts.retired_with(_retired(state, config, actual, now), lost, config, now)
    world = World(observed=observed, reach=reachable, sysctls=actual.sysctls, retired=frozenset(retired))
    desired = compile_state(config, world, selection, state.lookups)
    plan = diff(desired, actual, whole=after_read and refusals.replaces(state.retries.stuck))
    new = drift.remade(state.repairs.devices, observed) if after_read else frozenset()
    foreign = drift.by_others(plan, state.memory.originals, new)
    looked = after_read or not state.ready
    return Decision(
        reach=reachable,
        probes=probes,
        ramps=ramps,
        selection=selection,
        drains=drains,
        memory=memory,
        views=views,
        account=outages.follow(memory.outages, state.views, views, now + state.unix, state.zone),
        lost=lost,
        retired=retired,
        desired=desired,
        plan=plan,
        foreign=foreign,
        tampered=after_read and desired == state.desired and not state.retries.refused and bool(foreign),
        cautions=tuple(cautious.cautions(config, observed, actual, reachable, state.cautions))
        if looked
        else state.cautions,
    )


def _written(state: State, made: Decision, memory: Memory, after: State) -> Iterator[Effect]:
    """What is written, in its order: a setting's old value is on disk before the setting is changed."""
    if memory is not made.memory:
        yield SaveMemory(memory)
    if made.plan:
        yield Apply(made.plan)
        if state.actual is None or state.actual.nft is None:
            yield ForgetUntranslated()
    if after.held != state.held and after.held is not None:
        yield Hold(after.held)


def _adopted(state: State, known: _Known, made: Decision, memory: Memory, now: float, *, after_read: bool) -> State:
    """Return the state once everything that was decided is done."""
    config, observed, actual = known
    saved = made.account is memory.outages
    repaired = made.foreign if made.tampered else ()
    return replace(
        state,
        memory=memory if saved else replace(memory, outages=made.account),
        drains=made.drains,
        retired=made.retired,
        lost=frozenset() if after_read else state.lost,
        reach=made.reach,
        health=made.probes,
        observers=target_blame.observers(state.probing, made.reach, made.probes),
        checks=replace(state.checks, wake=now),
        agenda=_agenda(state, made, now, saved=saved),
        ramps=made.ramps,
        selection=made.selection,
        spare=standby_probing.spare(config, made.selection, made.drains),
        desired=made.desired,
        views=made.views,
        actual=_assume(made.desired, actual),
        generation=state.generation + bool(made.plan),
        held=keep(made.desired.nft, config.layout.mask, ipsec=observed.ipsec),
        repairs=drift.after(state.repairs, observed, repaired, now) if after_read else state.repairs,
        retries=_retries(state, made, after_read=after_read),
        cautions=made.cautions,
        warnings=(
            *state.advice,
            *conflicts(config, actual, observed, config.marks),
            *made.cautions,
            *state.lookups.problems,
        ),
    )


def _agenda(state: State, made: Decision, now: float, *, saved: bool) -> Agenda:
    write_at = state.agenda.write_at
    return replace(
        state.agenda,
        wake=now,
        write_at=write_at if saved else min(write_at, now + outages.WRITTEN),
        verdict_at=fail_static.deadline(made.probes, state.probing),
        decided_at=now,
        regrade_at=inf,
        ramp_at=slow_start.next_step(made.probes, state.probing, now),
    )


def _retries(state: State, made: Decision, *, after_read: bool) -> refusals.Retries:
    """Refusals count until a read finds the table as it should be."""
    changed = any(isinstance(op, NftBatch) for op in made.plan.ops)
    return state.retries if changed or not after_read else replace(state.retries, stuck=0)


def _follow(
    state: State, config: Resolved, reachable: Mapping[UplinkFamily, Reach], actual: ActualState, now: float
) -> dict[UplinkFamily, ProbeState]:
    """Let the probes' states follow the paths: a path that is gone is down at once, a new one has to prove itself."""
    result: dict[UplinkFamily, ProbeState] = {}
    for key, path in reachable.items():
        name, family = key
        if off(config, state.memory.orders, name):
            continue
        known = state.health.get(key)
        if isinstance(path, NoPath):
            known = known or hl.initial(Health.DOWN, path.reason, now)
            result[key] = hl.lose(known, state.probing[name], path.reason, now)
        elif known is None and state.ready:
            result[key] = hl.initial(Health.DOWN, "waiting for its first answers", now)
        elif known is None:
            # The first decision of this daemon: what was down stays so, everything else goes on working.
            sets = actual.nft.sets if actual.nft is not None else {}
            down = state.numbers[name].mark in sets.get(f"down_{family}", frozenset())
            cause = "was down before the daemon started" if down else "no outage since the daemon started"
            first = hl.initial(Health.DOWN if down else Health.UP, cause, now)
            # It was up once: what died has to hold its return, before a restart as well as after.
            result[key] = replace(first, next=now + _phase(state, key), proven=True)
        else:
            came_back = not isinstance(state.reach.get(key), Path)
            result[key] = replace(known, next=now, cause="path is back: waiting for answers") if came_back else known
    return result


def _phase(state: State, key: UplinkFamily) -> float:
    """Seconds until an uplink's first round: uplinks take turns within the interval, instead of a burst from all."""
    name, family = key
    turn = (2 * state.numbers[name].id + (family == Family.V6)) % PROBE_PHASES
    return state.probing[name].interval * turn / PROBE_PHASES


def _retired(state: State, config: Resolved, actual: ActualState, now: float) -> retired_marks.Retired:
    """What a reload removed lately; the first decision of a daemon goes on with what the one before it left."""
    if state.ready:
        return retired_marks.still_retired(state.retired, now)
    return retired_marks.found(actual.nft, config.layout, config.marks, now)


def _recall(memory: Memory, plan: Plan) -> Memory:
    """Keep the values that settings had before our first write."""
    first = {
        op.sysctl.path: op.old
        for op in plan.ops
        if isinstance(op, SetSysctl) and op.sysctl.path not in memory.originals
    }
    return replace(memory, originals={**memory.originals, **first}) if first else memory


def _assume(desired: DesiredState, actual: ActualState) -> ActualState:
    """What the kernel holds if every operation succeeds; the next read tells. Equal parts become the same objects."""
    missing = desired.dormant - actual.routes
    return replace(
        actual,
        nexthops=desired.nexthops,
        routes=desired.routes - missing if missing else desired.routes,
        rules=desired.rules,
        nft=state_of(desired.nft),
        sysctls={**actual.sysctls, **{s.path: s.value for s in desired.sysctls if s.path in actual.sysctls}},
    )


def _at_once(state: State, probes: Mapping[UplinkFamily, ProbeState]) -> Iterator[Log]:
    for family in fail_static.failed_at_once(probes):
        if family not in fail_static.failed_at_once(state.health):
            yield Log(Level.WARNING, "uplinks.all_down", fail_static.static_reason(family))
