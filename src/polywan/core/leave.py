"""The engine's part of coming back (`drain.py`): what a decision, an order by hand, a look and time change."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from polywan.config import Config
from polywan.core import drain
from polywan.core.admin import Verb, order_of, reason
from polywan.core.compile import Memory, layout_of
from polywan.core.drain import Leavings, Situation
from polywan.core.effects import Effect, Empty, Level, Look, Note, Remember
from polywan.core.events import LeftSeen, Ordered
from polywan.core.evolve import replace
from polywan.core.health import ProbeState
from polywan.core.reach import Path, Reach, UplinkFamily
from polywan.core.select import Selection
from polywan.core.state import State
from polywan.core.words import lasted


def follow(
    state: State,
    config: Config,
    ways: Mapping[UplinkFamily, Reach],
    probes: Mapping[UplinkFamily, ProbeState],
    selection: Selection,
    now: float,
) -> tuple[Leavings, Selection]:
    """Return which uplinks are left after a selection, and the selection with those cut off whose deadline has come."""
    memory = state.memory
    remembered = {} if state.ready else {key: at - state.unix for key, at in memory.leaving.items()}
    given = Situation(config, ways, probes, memory.orders, remembered, state.unix)
    leavings = drain.follow(given, state.leavings, state.selection, selection, now)
    return leavings, replace(selection, dead=selection.dead | drain.cut_off(leavings))


def remember(memory: Memory, leavings: Leavings, unix: float) -> Memory:
    """Return what a next daemon has to know; the same object when it knows already."""
    orders, leaving = drain.kept(leavings, memory.orders, memory.leaving, unix)
    if orders == memory.orders and leaving == memory.leaving:
        return memory
    return replace(memory, orders=orders, leaving=leaving)


def notes(state: State, leavings: Leavings) -> Iterator[Note]:
    """Tell what began and what ended since the decision before."""
    for (name, family), leaving in leavings.items():
        old = state.leavings.get((name, family))
        if old is None or old.since != leaving.since:
            yield Note(
                Level.INFO, "uplink.left", f"connections move away from {name} (IPv{family}): {_how(leaving.pace)}"
            )
        elif leaving.done and not old.done:
            yield Note(Level.INFO, "uplink.empty", f"{name} has no connections any more (IPv{family})")
    for (name, family), old in state.leavings.items():
        if (name, family) not in leavings:
            what = "none is left that may move" if old.done else "it is needed again, or gone"
            yield Note(Level.INFO, "uplink.kept", f"no more connections move away from {name} (IPv{family}): {what}")


def _how(pace: drain.Pace) -> str:
    if pace.idle == drain.NEVER:
        first = "nothing moves"
    elif pace.idle:
        first = f"what is not TCP moves after {pace.idle:g} s without a packet"
    else:
        first = "what is not TCP moves at once"
    return first if pace.lasts == drain.NEVER else f"{first}, and what is left after {lasted(pace.lasts)} is ended"


def take_order(state: State, event: Ordered, now: float) -> tuple[State, tuple[Effect, ...]]:
    """Keep what somebody said about an uplink; the read that follows shows it in force."""
    state = replace(state, read_at=now)
    if state.config is None or event.uplink not in state.config.uplinks:
        return state, ()
    orders = dict(state.memory.orders)
    before = orders.pop(event.uplink, None)
    after = order_of(event.verb, now + state.unix, event.deadline)
    if before is not None and after is not None and before.verb is after.verb is Verb.DISABLE:
        return state, ()
    if after is not None:
        orders[event.uplink] = after
    if after is before:
        return state, ()
    memory = replace(state.memory, orders=orders)
    text = "taken back into use by hand" if after is None else reason(event.uplink, after)
    note = Note(Level.INFO, f"uplink.{event.verb}", f"{event.uplink}: {text}")
    return replace(state, memory=memory), (Remember(memory), note)


def take_seen(state: State, event: LeftSeen) -> State:
    """Fold in what was found of an uplink that is left."""
    key = (event.uplink, event.family)
    leavings = drain.seen(state.leavings, key, event.since, event.left, event.movable)
    return state if leavings is state.leavings else replace(state, leavings=leavings)


def take_time(state: State, now: float) -> tuple[State, tuple[Effect, ...], bool]:
    """Do what is due now; the last value says that a deadline has come, so that a decision is needed."""
    config = state.config
    if config is None or not state.leavings:
        return state, (), False
    done = drain.turn(state.leavings, now)
    state = replace(state, leavings=done.leavings)
    looks = [_look(state, config, key) for key in done.look]
    return state, (*looks, *(_empty(state, config, key) for key in done.empty)), done.changed


def due(state: State) -> float:
    """Return when time has to be taken in next."""
    return min((leaving.due for leaving in state.leavings.values()), default=drain.NEVER)


def _look(state: State, config: Config, key: UplinkFamily) -> Look:
    name, family = key
    leaving, way = state.leavings[key], state.reach.get(key)
    return Look(
        uplink=name,
        mark=state.numbers[name].mark,
        mask=layout_of(config).mask,
        family=family,
        since=leaving.since,
        idle=leaving.pace.idle,
        gather=leaving.looks <= drain.GATHER,
        spared=frozenset(map(str, way.addresses)) if isinstance(way, Path) else frozenset(),
    )


def _empty(state: State, config: Config, key: UplinkFamily) -> Empty:
    name, family = key
    return Empty(
        uplink=name,
        mark=state.numbers[name].mark,
        mask=layout_of(config).mask,
        family=family,
        since=state.leavings[key].since,
    )
