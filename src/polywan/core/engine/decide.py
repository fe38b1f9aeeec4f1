"""One decision of the engine: from what is known to what the kernel should hold, and what has to be done."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import inf
from typing import Final, NamedTuple

from polywan.core.engine import cuts, draining, routers, standby_probing, target_blame
from polywan.core.engine.log_events import record, tell
from polywan.core.evolve import replace
from polywan.core.health import fail_static, slow_start
from polywan.core.health import rounds as hl
from polywan.core.health.diagnosis import findings
from polywan.core.health.rounds import Health, ProbeState
from polywan.core.plan import cautions as cautious
from polywan.core.plan.compile import compile_state
from polywan.core.plan.conflicts import conflicts
from polywan.core.plan.plan import ActualState, DesiredState, NftBatch, Op, Plan, SetSysctl, diff
from polywan.core.policy.operator import off
from polywan.core.policy.selection import Selection, select
from polywan.core.policy.uplink_state import view
from polywan.core.resolved import Resolved
from polywan.core.ruleset.fast_path import FAST_TABLE, fast_path, obstacle
from polywan.core.ruleset.model import NftTable, in_force, state_of
from polywan.core.ruleset.second_table import KEEP_TABLE, keep
from polywan.core.shaping.changes import ShapingOp, assumed
from polywan.core.state import drift, outages, refusals, retired_marks
from polywan.core.state.agenda import Agenda
from polywan.core.state.effects import (
    Apply,
    Effect,
    ForgetUntranslated,
    Hold,
    Level,
    Log,
    Record,
    SaveMemory,
)
from polywan.core.state.memory import Memory
from polywan.core.state.state import Decision, State
from polywan.core.world.observed import Observed
from polywan.core.world.paths import NoPath, Path, Reach, UplinkFamily, reach
from polywan.core.world.world import World

PROBE_PHASES: Final = 2
"""Parts of the probe interval over which uplinks are spread: fewer bursts of probes cost less than many wake-ups."""


class _Known(NamedTuple):
    """What has to be known for a decision."""

    config: Resolved
    observed: Observed
    actual: ActualState


class _Choice(NamedTuple):
    """A decision about uplinks, before it is worked out for the kernel.

    Attributes:
        decision: what was chosen; `selection`: the part that is never missing from here on.
        probes: the rounds of every uplink, with what was settled about them.
        memory: what outlives the daemon.
        lost: uplinks whose address went.
    """

    decision: Decision
    selection: Selection
    probes: Mapping[UplinkFamily, ProbeState]
    memory: Memory
    lost: list[UplinkFamily]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Outcome:
    """A decision, and what follows from it at this moment.

    Attributes:
        decision: what the state keeps of it; `desired`: what the kernel should hold.
        choice: what it was made of.
        account: the outages of every uplink.
        plan: what has to be done.
        foreign: the operations of the plan that undo what another program did; `tampered`: nothing else explains them.
    """

    decision: Decision
    desired: DesiredState
    choice: _Choice
    account: outages.Outages
    plan: Plan
    foreign: tuple[Op, ...]
    tampered: bool


def decide(state: State, now: float, *, after_read: bool) -> tuple[State, tuple[Effect, ...]]:
    """Decide anew; returns no effects when nothing has to change, or when too little is known yet.

    Args:
        state: what is known.
        now: monotonic seconds.
        after_read: the kernel was just read, so that a difference without a cause of ours is somebody else's.
    """
    if state.known.config is None or state.known.observed is None or state.known.actual is None:
        return state, ()
    known = _Known(state.known.config, state.known.observed, state.known.actual)
    state, turning = routers.turn(state, known.observed, now)
    made = _judge(state, known, now, after_read=after_read)
    if made.tampered and (wait := drift.pause(state.done.repairs, now)):
        return replace(state, agenda=replace(state.agenda, read_at=now + wait)), ()
    memory = _recall(made.choice.memory, made.plan)
    reachable, selection = made.decision.reach, made.choice.selection
    sweeps, released = cuts.new_cuts(state, known.config, known.observed, reachable, selection, now)
    after = _adopted(state, known, made, memory, now, after_read=after_read)
    later = (*state.agenda.sweeps, *sweeps, *cuts.vanished(state, made.choice.lost, now))
    holds = tuple(_holds(state, made))
    # What is written now need not be written again for what was told before.
    renew_at = inf if any(hold.name == FAST_TABLE for hold in holds) else after.agenda.renew_at
    after = replace(after, agenda=replace(after.agenda, sweeps=later, renew_at=renew_at))
    logged, notes = tell(state, after, now)
    standings, changes = record(state, after, logged, now)
    effects = (
        *_written(state, made, memory),
        *holds,
        *cuts.misplaced(state, known.config, known.observed, reachable),
        *released,
        *draining.notes(state, made.decision.drains),
        *([SaveMemory(memory)] if memory is made.choice.memory is not state.known.memory else ()),
        *turning,
        *_at_once(state, made.choice.probes),
        *([drift.repair_log(made.foreign, state.done.repairs.culprit)] if made.tampered else ()),
        *_raised(state, made.decision),
        *notes,
        *([Record(changes)] if changes else ()),
    )
    return replace(after, done=replace(after.done, logged=logged, standings=standings)), effects


def _choose(state: State, known: _Known, now: float, *, after_read: bool) -> _Choice:
    """Decide which uplinks serve."""
    config, observed, actual = known
    before = state.decision
    reachable = routers.applied(reach(config, observed, state.known.memory.gateways), state, observed)
    probes = _follow(state, config, reachable, actual, now)
    paths = [key for key, path in reachable.items() if isinstance(path, Path)]
    probes = fail_static.settle(probes, config.health, paths, now)
    found = findings(config.health, reachable, probes, state.health.checks.known, state.health.bad_targets)
    ramps = slow_start.percents(probes, config.health, now)
    orders, limited = state.known.memory.orders, state.known.quotas.restrictions
    selection = select(config, reachable, probes, before.selection, orders, ramps, found, limited)
    drains, selection = draining.follow(state, config, reachable, probes, selection, now)
    memory = draining.remember(state.known.memory, drains, state.known.unix)
    lost = cuts.addresses_lost(state, config, reachable, after_read=after_read)
    decision = replace(
        before,
        reach=reachable,
        ramps=ramps,
        selection=selection,
        spare=standby_probing.spare(config, selection, drains),
        drains=drains,
        retired=cuts.retired_with(_retired(state, config, actual, now), lost, config, now),
        views={
            name: view(config, name, reachable, probes, before.views.get(name), now, memory.orders.get(name), found)
            for name in config.uplinks
        },
    )
    return _Choice(decision, selection, probes, memory, lost)


def _judge(state: State, known: _Known, now: float, *, after_read: bool) -> _Outcome:
    """Decide, and change nothing yet."""
    config, observed, actual = known
    choice = _choose(state, known, now, after_read=after_read)
    chosen, before = choice.decision, state.decision
    cautions = before.cautions
    if after_read or not state.ready:
        cautions = tuple(cautious.cautions(config, observed, actual, chosen.reach, cautions))
    world = _world(known, chosen)
    desired = compile_state(config, world, choice.selection, state.known.lookups)
    plan = diff(desired, actual, whole=after_read and refusals.replaces(state.done.retries.stuck))
    foreign = drift.by_others(plan, state.done.repairs, actual, state.known.lost, state.done.retries.undone)
    decision = replace(
        chosen,
        desired=desired,
        held=_held(config, world, desired, choice),
        cautions=cautions,
        slow=obstacle(config, observed),
        warnings=(
            *state.known.advice,
            *conflicts(config, actual, observed, config.marks),
            *cautions,
            *state.known.lookups.problems,
        ),
    )
    unix, zone, served = state.known.unix, state.known.zone, _left_serving(state, actual, chosen.reach)
    return _Outcome(
        decision=decision,
        desired=desired,
        choice=choice,
        account=outages.follow(choice.memory.outages, before.views, chosen.views, now + unix, zone, served),
        plan=plan,
        foreign=foreign,
        tampered=after_read and desired == before.desired and not state.done.retries.refused and bool(foreign),
    )


def _world(known: _Known, chosen: Decision) -> World:
    retired, actual = frozenset(chosen.retired), known.actual
    return World(
        observed=known.observed, reach=chosen.reach, sysctls=actual.sysctls, retired=retired, queues=actual.queues
    )


def _held(config: Resolved, world: World, desired: DesiredState, choice: _Choice) -> dict[str, NftTable]:
    """The tables that others cannot flush; the fast path is for uplinks that serve, and that nobody leaves."""
    chosen, lost = choice.decision, choice.selection.dead | choice.selection.moved | choice.selection.down
    serving = frozenset(
        key
        for key, probes in choice.probes.items()
        if probes.health is Health.UP and key not in lost and key not in chosen.drains
        if config.numbers[key[0]].mark not in chosen.retired
    )
    fast = fast_path(config, world, serving)
    kept = keep(desired.nft, config.layout.mask, ipsec=world.observed.ipsec, xfrm=world.observed.xfrm)
    return {KEEP_TABLE: kept, **({} if fast is None else {FAST_TABLE: fast})}


def _written(state: State, made: _Outcome, memory: Memory) -> Iterator[Effect]:
    """What is written, in its order: a setting's old value is on disk before the setting is changed."""
    if memory is not made.choice.memory:
        yield SaveMemory(memory)
    if made.plan:
        yield Apply(made.plan)
        if state.known.actual is None or not in_force(state.known.actual.nft):
            yield ForgetUntranslated()


def _holds(state: State, made: _Outcome) -> Iterator[Hold]:
    before, after = state.decision.held, made.decision.held
    # Whatever is written of routing, repairs too: what is on the fast path asks for its way only when it is told to.
    routed = any(not isinstance(op, SetSysctl | NftBatch | ShapingOp) for op in made.plan.ops)
    for name in dict.fromkeys((*after, *before)):
        if before.get(name) != after.get(name) or (routed and name == FAST_TABLE):
            yield Hold(name, after.get(name))


def _adopted(state: State, known: _Known, made: _Outcome, memory: Memory, now: float, *, after_read: bool) -> State:
    """Return the state once everything that was decided is done."""
    config, _, actual = known
    decision, probes = made.decision, made.choice.probes
    saved = made.account is memory.outages
    repaired = made.foreign if made.tampered else ()
    repairs = drift.after(state.done.repairs, repaired, now) if after_read else state.done.repairs
    return replace(
        state,
        known=replace(
            state.known,
            memory=memory if saved else replace(memory, outages=made.account),
            lost=frozenset() if after_read else state.known.lost,
            actual=_assume(made.desired, actual),
        ),
        health=replace(
            state.health,
            rounds=probes,
            observers=target_blame.observers(config.health, decision.reach, probes),
            checks=replace(state.health.checks, wake=now),
        ),
        decision=decision,
        done=replace(
            state.done,
            generation=state.done.generation + bool(made.plan),
            repairs=drift.written(repairs, made.desired.sysctls, actual, made.plan, all_seen=after_read),
            retries=_retries(state, made, after_read=after_read),
        ),
        agenda=_agenda(state, config, probes, now, saved=saved),
    )


def _agenda(
    state: State, config: Resolved, probes: Mapping[UplinkFamily, ProbeState], now: float, *, saved: bool
) -> Agenda:
    write_at = state.agenda.write_at
    return replace(
        state.agenda,
        wake=now,
        write_at=write_at if saved else min(write_at, now + outages.WRITTEN),
        verdict_at=fail_static.deadline(probes, config.health),
        decided_at=now,
        regrade_at=inf,
        ramp_at=slow_start.next_step(probes, config.health, now),
    )


def _retries(state: State, made: _Outcome, *, after_read: bool) -> refusals.Retries:
    """Refusals count until a read finds the table as it should be, and an operation until none is wanted."""
    retries = state.done.retries
    if not after_read:
        return retries
    changed = any(isinstance(op, NftBatch) for op in made.plan.ops)
    return replace(retries, stuck=retries.stuck if changed else 0, undone=retries.undone & frozenset(made.plan.ops))


def _follow(
    state: State, config: Resolved, reachable: Mapping[UplinkFamily, Reach], actual: ActualState, now: float
) -> dict[UplinkFamily, ProbeState]:
    """Let the probes' states follow the paths: a path that is gone is down at once, a new one has to prove itself."""
    result: dict[UplinkFamily, ProbeState] = {}
    for key, path in reachable.items():
        name = key[0]
        if off(config, state.known.memory.orders, name):
            continue
        known = state.health.rounds.get(key)
        if isinstance(path, NoPath):
            known = known or hl.initial(Health.DOWN, path.reason, now)
            result[key] = hl.lose(known, state.known.probing[name], path.reason, now)
        elif known is None and state.ready:
            result[key] = hl.initial(Health.DOWN, "waiting for its first answers", now)
        elif known is None:
            # The first decision of this daemon: what was down stays so, everything else goes on working.
            down = _left_down(state, actual, key)
            cause = "was down before the daemon started" if down else "no outage since the daemon started"
            first = hl.initial(Health.DOWN if down else Health.UP, cause, now)
            # It was up once: what died has to hold its return, before a restart as well as after.
            result[key] = replace(first, next=now + _phase(state, key), proven=True)
        else:
            came_back = not isinstance(state.decision.reach.get(key), Path)
            result[key] = replace(known, next=now, cause="path is back: waiting for answers") if came_back else known
    return result


def _left_down(state: State, actual: ActualState, key: UplinkFamily) -> bool:
    """True for what the daemon before left as down; the kernel keeps that."""
    sets = actual.nft.sets if actual.nft is not None else {}
    return state.known.numbers[key[0]].mark in sets.get(f"down_{key[1]}", frozenset())


def _left_serving(state: State, actual: ActualState, reachable: Iterable[UplinkFamily]) -> frozenset[str]:
    """Return the uplinks that the daemon before had, and did not leave as down: none after a boot."""
    if state.ready or actual.nft is None:
        return frozenset()
    routed = {rule.mark[0] for rule in actual.rules if rule.mark}
    return frozenset(
        key[0] for key in reachable if state.known.numbers[key[0]].mark in routed and not _left_down(state, actual, key)
    )


def _phase(state: State, key: UplinkFamily) -> float:
    """Seconds until an uplink's first round: uplinks take turns within the interval, instead of a burst from all."""
    name, _ = key
    turn = state.known.numbers[name].id % PROBE_PHASES
    return state.known.probing[name].interval * turn / PROBE_PHASES


def _retired(state: State, config: Resolved, actual: ActualState, now: float) -> retired_marks.Retired:
    """What a reload removed lately; the first decision of a daemon goes on with what the one before it left."""
    if state.ready:
        return retired_marks.still_retired(state.decision.retired, now)
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
        queues=assumed(desired.shapers, actual.queues),
    )


def _raised(state: State, decision: Decision) -> Iterator[Log]:
    if decision.slow and decision.slow != state.decision.slow:
        yield Log(Level.INFO, "fastpath.off", f"every packet takes the slow path: {decision.slow}")
    elif decision.slow != state.decision.slow and FAST_TABLE in decision.held:
        yield Log(Level.INFO, "fastpath.on", "established connections may take the fast path again")
    for text in cautious.newly_raised(decision.cautions, state.decision.cautions):
        yield Log(Level.WARNING, "caution", text)


def _at_once(state: State, probes: Mapping[UplinkFamily, ProbeState]) -> Iterator[Log]:
    for family in fail_static.failed_at_once(probes):
        if family not in fail_static.failed_at_once(state.health.rounds):
            yield Log(Level.WARNING, "uplinks.all_down", fail_static.static_reason(family))
