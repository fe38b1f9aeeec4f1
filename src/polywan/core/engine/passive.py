"""Passive signs in the engine: what is heard of new connections becomes alarms, and alarms become rounds."""

from __future__ import annotations

from collections.abc import Mapping

from polywan.core.engine import probing
from polywan.core.evolve import replace
from polywan.core.health import passive
from polywan.core.health.passive import Opening
from polywan.core.health.rounds import Health
from polywan.core.state.effects import Effect, Level, Log
from polywan.core.state.events import NewConnections
from polywan.core.state.state import State
from polywan.core.world.paths import Path, UplinkFamily


def mask(state: State) -> int:
    """Return the bits of the marks whose connections are worth hearing of: none when no uplink wants it."""
    if state.known.config is None or not any(settings.passive for settings in state.known.probing.values()):
        return 0
    return state.known.config.layout.mask


def take(state: State, new_connections: NewConnections, now: float) -> tuple[State, tuple[Effect, ...], bool]:
    """Fold in what was heard; rounds of a new alarm are due at once. It never asks for a decision."""
    judged = {
        key: (probes, state.known.probing[key[0]])
        for key, probes in state.health.rounds.items()
        if probes.health is Health.UP
        and isinstance(state.decision.reach.get(key), Path)
        and state.known.probing[key[0]].passive
    }
    watches, raised = passive.heard(
        state.health.watches, judged, _by_uplink(state, new_connections), new_connections.answered, now
    )
    notes = tuple(
        Log(
            Level.INFO,
            "passive.alarm",
            f"{name} (IPv{family:d}): new connections suddenly get no answer: probing at once",
        )
        for name, family in raised
    )
    state = replace(state, health=replace(state.health, watches=watches))
    return probing.probe_by(state, now) if raised else state, notes, False


def _by_uplink(state: State, new_connections: NewConnections) -> Mapping[UplinkFamily, list[Opening]]:
    if state.known.config is None or state.known.observed is None or not new_connections.opened:
        return {}
    names = {int(numbers.mark): name for name, numbers in state.known.numbers.items()}
    own, networks = passive.inside(state.known.config, state.known.observed)
    found: dict[UplinkFamily, list[Opening]] = {}
    for opening in new_connections.opened:
        to = opening.destination
        if opening.mark in names and to not in own and not any(to in network for network in networks):
            found.setdefault((names[opening.mark], opening.family), []).append(opening)
    return found


def due(state: State, key: UplinkFamily) -> float:
    """Return the time at which an alarm wants the next round; infinity without one."""
    return passive.due(state.health.watches.get(key), state.health.rounds[key], state.known.probing[key[0]])


def timeout(state: State, key: UplinkFamily, now: float) -> float:
    """Return the seconds that a round has for its answers when it is sent now."""
    return passive.timeout(state.health.watches.get(key), state.health.rounds[key], state.known.probing[key[0]], now)


def sent(state: State, key: UplinkFamily) -> State:
    """Note that a round was sent."""
    watch = state.health.watches.get(key)
    if watch is None or watch.alarm is None:
        return state
    return replace(state, health=replace(state.health, watches={**state.health.watches, key: passive.sent(watch)}))


def unanswered(state: State, name: str, now: float) -> float | None:
    """Return the share of an uplink's new connections without an answer, 0..1; None when there were none lately."""
    watched = (
        (w, state.health.rounds[key])
        for key, w in state.health.watches.items()
        if key[0] == name and key in state.health.rounds
    )
    share = passive.unanswered(watched, now)
    return None if share is None else round(share, 4)
