"""The engine's part of coming back (`policy/draining.py`): what decisions, orders by hand, looks and time change."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import inf

from polywan.core.evolve import replace
from polywan.core.health.rounds import ProbeState
from polywan.core.policy import draining
from polywan.core.policy.draining import Drains, Situation
from polywan.core.policy.operator import Verb, order_of, reason
from polywan.core.policy.selection import Selection
from polywan.core.resolved import Resolved
from polywan.core.state.effects import Effect, ForgetAll, InspectDrain, Level, Log, SaveMemory
from polywan.core.state.events import DrainInspected, OperatorCommand
from polywan.core.state.memory import Memory
from polywan.core.state.state import State
from polywan.core.words import lasted
from polywan.core.world.paths import Path, Reach, UplinkFamily


def follow(
    state: State,
    config: Resolved,
    reachable: Mapping[UplinkFamily, Reach],
    probes: Mapping[UplinkFamily, ProbeState],
    selection: Selection,
    now: float,
) -> tuple[Drains, Selection]:
    """Return which uplinks are left after a selection, and the selection with those cut off whose deadline has come."""
    memory = state.known.memory
    remembered = {} if state.ready else {key: at - state.known.unix for key, at in memory.drains.items()}
    situation = Situation(config, reachable, probes, memory.orders, remembered, state.known.unix)
    drains = draining.follow(situation, state.decision.drains, state.decision.selection, selection, now)
    return drains, replace(selection, dead=selection.dead | draining.cut_off(drains))


def remember(memory: Memory, drains: Drains, unix: float) -> Memory:
    """Return what a next daemon has to know; the same object when it knows already."""
    orders, began = draining.to_remember(drains, memory.orders, memory.drains, unix)
    if orders == memory.orders and began == memory.drains:
        return memory
    return replace(memory, orders=orders, drains=began)


def notes(state: State, drains: Drains) -> Iterator[Log]:
    """Tell what began and what ended since the decision before."""
    for (name, family), drain_state in drains.items():
        old = state.decision.drains.get((name, family))
        if old is None or old.since != drain_state.since:
            yield Log(
                Level.INFO,
                "drain.start",
                f"draining {name} (IPv{family}): {_how(drain_state.timing)}",
            )
        elif drain_state.done and not old.done:
            yield Log(Level.INFO, "drain.done", f"drain of {name} (IPv{family}) finished: no connections remain")
    for (name, family), old in state.decision.drains.items():
        if (name, family) not in drains:
            what = "no connections remain that may move" if old.done else "the uplink is needed again, or gone"
            yield Log(Level.INFO, "drain.cancelled", f"drain of {name} (IPv{family}) ended: {what}")


def _how(timing: draining.DrainTiming) -> str:
    if timing.idle == inf:
        first = "nothing moves"
    elif timing.idle:
        first = f"non-TCP connections move after {timing.idle:g} s without a packet"
    else:
        first = "non-TCP connections move at once"
    return first if timing.lasts == inf else f"{first}, and the rest ends after {lasted(timing.lasts)}"


def take_order(state: State, event: OperatorCommand, now: float) -> tuple[State, tuple[Effect, ...]]:
    """Keep what somebody said about an uplink; the read that follows shows it in force."""
    state = replace(state, agenda=replace(state.agenda, read_at=now))
    if state.known.config is None or event.uplink not in state.known.config.uplinks:
        return state, ()
    orders = dict(state.known.memory.orders)
    before = orders.pop(event.uplink, None)
    after = order_of(event.verb, now + state.known.unix, event.deadline)
    if before is not None and after is not None and before.verb is after.verb is Verb.DISABLE:
        return state, ()
    if after is not None:
        orders[event.uplink] = after
    if after is before:
        return state, ()
    memory = replace(state.known.memory, orders=orders)
    text = "put back into use by operator" if after is None else reason(event.uplink, after)
    note = Log(Level.INFO, f"uplink.{event.verb}", f"{event.uplink}: {text}")
    return replace(state, known=replace(state.known, memory=memory)), (SaveMemory(memory), note)


def take_seen(state: State, event: DrainInspected) -> State:
    """Fold in what was found of an uplink that is left."""
    key = (event.uplink, event.family)
    drains = draining.inspected(state.decision.drains, key, event.since, event.remaining, event.movable)
    return state if drains is state.decision.drains else replace(state, decision=replace(state.decision, drains=drains))


def take_time(state: State, now: float) -> tuple[State, tuple[Effect, ...], bool]:
    """Do what is due now; the last value says that a deadline has come, so that a decision is needed."""
    config = state.known.config
    if config is None or not state.decision.drains:
        return state, (), False
    done = draining.advance(state.decision.drains, now)
    state = replace(state, decision=replace(state.decision, drains=done.drains))
    looks = [_look(state, config, key) for key in done.look]
    return state, (*looks, *(_empty(state, config, key) for key in done.empty)), done.changed


def due(state: State) -> float:
    """Return when time has to be taken in next."""
    return min((drain_state.due for drain_state in state.decision.drains.values()), default=inf)


def _look(state: State, config: Resolved, key: UplinkFamily) -> InspectDrain:
    name, family = key
    drain_state, path = state.decision.drains[key], state.decision.reach.get(key)
    return InspectDrain(
        uplink=name,
        mark=state.known.numbers[name].mark,
        mask=config.layout.mask,
        family=family,
        since=drain_state.since,
        idle=drain_state.timing.idle,
        gather=drain_state.looks <= draining.GATHER,
        exempt=frozenset(map(str, path.addresses)) if isinstance(path, Path) else frozenset(),
    )


def _empty(state: State, config: Resolved, key: UplinkFamily) -> ForgetAll:
    name, family = key
    return ForgetAll(
        uplink=name,
        mark=state.known.numbers[name].mark,
        mask=config.layout.mask,
        family=family,
        since=state.decision.drains[key].since,
    )
