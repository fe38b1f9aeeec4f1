"""When connections of uplinks in doubt are looked at for signs of life, and what a look changes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import inf
from typing import Final

from polywan.config import HealthSettings
from polywan.core.engine import probing
from polywan.core.evolve import replace
from polywan.core.health import passive
from polywan.core.health import rounds as hl
from polywan.core.health.life import Inside, Moved, Watched
from polywan.core.health.rounds import Health, ProbeState
from polywan.core.net import Family
from polywan.core.state.effects import SampleTraffic
from polywan.core.state.events import TrafficSampled
from polywan.core.state.state import State
from polywan.core.world.paths import Path, UplinkFamily

SAMPLE_INTERVAL: Final = (0.1, 0.25)
"""Seconds from one look to the next, a quarter of the interval within these limits."""

SAMPLE_SHARE: Final = 10
"""A look takes at most this part of the time until the next: many connections are looked at less often."""

LONGEST_PAUSE: Final = 1.0
"""Seconds between two looks at most, however long they take."""


def stir(state: State, key: UplinkFamily, now: float) -> State:
    """Look at once: an uplink has come into doubt. One that is under way is followed by the next anyway."""
    probes, agenda = state.health.rounds[key], state.agenda
    if not probes.life.looks and _doubted(state, key):
        state = replace(state, health=replace(state.health, rounds={**state.health.rounds, key: _awaiting(probes)}))
    return state if agenda.seeking or agenda.seek_at < inf else replace(state, agenda=replace(agenda, seek_at=now))


def start(state: State, _: float) -> tuple[State, tuple[SampleTraffic, ...]]:
    """Order a look if there is doubt."""
    doubted = [key for key in state.health.rounds if _doubted(state, key)]
    agenda = replace(state.agenda, seek_at=inf)
    state = replace(state, agenda=agenda)
    if not doubted or state.known.config is None or state.known.observed is None:
        return replace(
            state,
            health=replace(state.health, rounds={key: _settled(probes) for key, probes in state.health.rounds.items()}),
        ), ()
    own, networks = passive.inside(state.known.config, state.known.observed)
    # The line is one: what fills it may be of the other family.
    names = {name for name, _ in doubted}
    watched = tuple(_watched(state, key) for key in state.health.rounds if key[0] in names)
    new = {key: _awaiting(state.health.rounds[key]) for key in doubted if not state.health.rounds[key].life.looks}
    health = {**state.health.rounds, **new}
    order = SampleTraffic(state.known.config.layout.mask, watched, Inside(own, networks))
    return replace(
        state,
        health=replace(state.health, rounds=health),
        agenda=replace(agenda, seeking=frozenset(w.key for w in watched)),
    ), (order,)


def take(state: State, event: TrafficSampled, now: float) -> tuple[State, bool]:
    """Fold in what came back; the last value says whether a new decision is needed."""
    watched = state.agenda.seeking
    state = replace(state, agenda=replace(state.agenda, seeking=frozenset()))
    health = dict(state.health.rounds)
    changed = False
    for key, what in _moved(state, event):
        before, settings = health[key], state.known.probing[key[0]]
        health[key] = hl.on_moved(before, settings, what, event.since, now - event.took)
        changed = changed or hl.matters(before, health[key], settings)
        if hl.regraded(before, health[key]):
            state = probing.regrade(state, now)
    doubted = {key for key in health if _doubted(state, key)}
    for key, before in health.items():
        if key in doubted and key in watched:
            settings = state.known.probing[key[0]]
            health[key] = hl.on_looked(_with_line(health, key, settings, now), settings, now - event.took, now)
            changed = changed or hl.matters(before, health[key], settings)
            if hl.regraded(before, health[key]):
                state = probing.regrade(state, now)
        elif key in doubted:
            health[key] = _awaiting(before)
        else:
            health[key] = _settled(before)
    paces = [state.known.probing[key[0]].interval / 4 for key in doubted]
    if not paces:
        return replace(state, health=replace(state.health, rounds=health)), changed
    least, most = SAMPLE_INTERVAL
    wait = max(min(max(least, *paces), most), min(SAMPLE_SHARE * event.took, LONGEST_PAUSE))
    return replace(
        state, health=replace(state.health, rounds=health), agenda=replace(state.agenda, seek_at=now + wait)
    ), changed


def _with_line(
    health: Mapping[UplinkFamily, ProbeState], key: UplinkFamily, settings: HealthSettings, now: float
) -> ProbeState:
    name, family = key
    other = health.get((name, Family.V6 if family is Family.V4 else Family.V4))
    return health[key] if other is None else hl.on_line(health[key], settings, other, now)


def _awaiting(probes: ProbeState) -> ProbeState:
    """A look is asked for: no verdict before it has come."""
    return replace(probes, life=replace(probes.life, looks=1))


def _settled(probes: ProbeState) -> ProbeState:
    """Its doubt is over: the next one begins with looks of its own."""
    return replace(probes, life=replace(probes.life, looks=0)) if probes.life.looks else probes


def _moved(state: State, event: TrafficSampled) -> Iterator[tuple[UplinkFamily, Moved]]:
    """Yield what the look says of each family: both share the line and its queue, so that each has the load of both."""
    for key in state.health.rounds:
        line = [what for (name, _), what in event.moved.items() if name == key[0]]
        if line and _doubted(state, key):
            load = {"sent": sum(what.sent for what in line), "total": sum(what.total for what in line)}
            yield key, Moved(received=event.moved.get(key, Moved()).received, **load)


def _doubted(state: State, key: UplinkFamily) -> bool:
    probes = state.health.rounds[key]
    if (
        probes.health is not Health.UP
        or key[0] not in state.known.probing
        or not isinstance(state.decision.reach.get(key), Path)
    ):
        return False
    return probing.troubled(probes) or passive.alarmed(state.health.watches.get(key), probes)


def _watched(state: State, key: UplinkFamily) -> Watched:
    path, observed = state.decision.reach[key], state.known.observed
    own = observed.addresses_of(path.link, key[1]) if observed and isinstance(path, Path) else ()
    return Watched(key[0], key[1], int(state.known.numbers[key[0]].mark), tuple(ip.network for ip in own))
