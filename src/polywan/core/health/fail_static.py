"""Fail static: tell an uplink that fails from all of them failing at once, which is hardly their doing.

A verdict that is due waits while no other uplink of the family has answered just now: a quarter of the interval
before the last bad round but one, or later. It falls as soon as one does; when all of them fail, they are down
*together*: nobody's connections are let go, the last good choice stays, and the first answer brings each of them back,
without any hold-down. Nobody waits long: one of the others is asked before the verdict is due unless somebody has
answered anyway, and all of them once it is. The loss of a link itself never comes here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import inf

from polywan.config import HealthSettings
from polywan.core.evolve import replace
from polywan.core.health import rounds as hl
from polywan.core.health.probes import targets_of
from polywan.core.health.rounds import Health, ProbeState
from polywan.core.net import FAMILIES, Family
from polywan.core.world.paths import UplinkFamily


def settle(
    health: Mapping[UplinkFamily, ProbeState],
    probing: Mapping[str, HealthSettings],
    paths: Iterable[UplinkFamily],
    now: float,
) -> dict[UplinkFamily, ProbeState]:
    """Give the verdicts that are due, or let them wait.

    Args:
        health: what is known of every uplink and family.
        probing: health settings by uplink.
        paths: who has a path; the others were lost already.
        now: monotonic seconds.
    """
    result = dict(health)
    there = [key for key in paths if key in health]
    for family in FAMILIES:
        states = {key: health[key] for key in there if key[1] is family}
        if any(state.waiting is not None or state.together for state in states.values()):
            result.update(_settled(states, probing, now))
    return result


def hasten(
    states: Mapping[UplinkFamily, ProbeState],
    probing: Mapping[str, HealthSettings],
    key: UplinkFamily,
    now: float,
    most: int | None = None,
) -> dict[UplinkFamily, ProbeState]:
    """Return the other uplinks of the family that have to show now whether they answer, with their round due.

    Nobody has to once one of them does. With `most`, those that are probed most often anyway have to.
    """
    since = _recently(states[key], probing[key[0]])
    others = {
        other: state
        for other, state in states.items()
        if other != key and other[1] is key[1] and state.health is Health.UP
    }
    if any(_alive(other, state, probing, since, now) for other, state in others.items()):
        return {}
    silent = [other for other, state in others.items() if not state.open and state.next > now]
    silent.sort(key=lambda other: (probing[other[0]].interval, other))
    return {other: replace(others[other], next=now) for other in silent[:most]}


def deadline(states: Mapping[UplinkFamily, ProbeState], probing: Mapping[str, HealthSettings]) -> float:
    """Return when a verdict has waited long enough."""
    waits = [
        state.waiting + _patience(key, state, states, probing)
        for key, state in states.items()
        if state.waiting is not None
    ]
    return min(waits, default=inf)


def failed_at_once(states: Mapping[UplinkFamily, ProbeState]) -> tuple[Family, ...]:
    """Return the families in which every uplink that was up failed at once, and none is back yet."""
    up = {family for (_, family), state in states.items() if state.health is Health.UP}
    together = {family for (_, family), state in states.items() if state.together}
    return tuple(family for family in FAMILIES if family in together - up)


def static_reason(family: Family) -> str:
    """Return what people should know about that."""
    return (
        f"all uplinks failed at once (IPv{family:d}): probably not their fault; keeping connections and the last choice"
    )


def _settled(
    states: Mapping[UplinkFamily, ProbeState], probing: Mapping[str, HealthSettings], now: float
) -> dict[UplinkFamily, ProbeState]:
    result = dict(states)
    up = {key: state for key, state in states.items() if state.health is Health.UP}
    suspects = {key: state for key, state in up.items() if state.waiting is not None}
    static = len(up) > 1 or any(state.together for state in states.values())
    for key, state in suspects.items():
        settings = probing[key[0]]
        if len(suspects) == len(up):
            result[key] = hl.fall_together(state, now) if static else hl.fall(state, settings, now)
        elif _cleared(state, settings, up, probing, now) or _waited(key, state, states, probing, now):
            result[key] = hl.fall(state, settings, now)
        else:
            result.update(hasten(states, probing, key, now))
    back = any(state.health is Health.UP for state in result.values())
    for key, state in result.items():
        if state.together:
            result[key] = _alone(key, state, states, probing, now) if back else replace(state, waiting=None)
    return result


def _cleared(
    state: ProbeState,
    settings: HealthSettings,
    up: Mapping[UplinkFamily, ProbeState],
    probing: Mapping[str, HealthSettings],
    now: float,
) -> bool:
    """True when somebody else answers: then it is this uplink that fails."""
    since = _recently(state, settings)
    return any(_alive(key, other, probing, since, now) for key, other in up.items())


def _recently(state: ProbeState, settings: HealthSettings) -> float:
    """From when on the answer of another uplink tells that it is this one that fails.

    The signs of life of busy uplinks that die at once may end an interval apart.
    """
    return max(state.bad_since, state.doubted - settings.interval / 4, state.life.at + settings.interval)


def _alive(
    key: UplinkFamily, state: ProbeState, probing: Mapping[str, HealthSettings], since: float, now: float
) -> bool:
    """True when an uplink has answered a round sent since then, and none of its rounds is late; or shows other life."""
    settings = probing[key[0]]
    if state.life.at >= since and state.health is Health.UP:
        return True
    if not targets_of(settings, key[1]):
        return state.health is Health.UP
    late = state.open and now - state.open[0].sent > hl.suspect_after(state, settings)
    return state.bad == 0 and state.answered >= since and not late


def _alone(
    key: UplinkFamily,
    state: ProbeState,
    states: Mapping[UplinkFamily, ProbeState],
    probing: Mapping[str, HealthSettings],
    now: float,
) -> ProbeState:
    """Others are back: give this one the time in which it would have shown to be down by itself."""
    if state.waiting is None:
        return replace(state, waiting=now, next=min(state.next, now))
    if not _waited(key, state, states, probing, now):
        return state
    cause = f"{state.bad} probe rounds in a row failed, while other uplinks answer again"
    return replace(hl.fall(state, probing[key[0]], now), cause=cause)


def _waited(
    key: UplinkFamily,
    state: ProbeState,
    states: Mapping[UplinkFamily, ProbeState],
    probing: Mapping[str, HealthSettings],
    now: float,
) -> bool:
    return state.waiting is not None and now >= state.waiting + _patience(key, state, states, probing)


def _patience(
    key: UplinkFamily,
    state: ProbeState,
    states: Mapping[UplinkFamily, ProbeState],
    probing: Mapping[str, HealthSettings],
) -> float:
    """How long a verdict may wait: until the slowest of the others, asked again and again, must have failed as well.

    An uplink that is down already has to be given its own time: its rounds come at their interval.
    """
    if state.health is Health.DOWN:
        settings = probing[key[0]]
        return settings.fall * max(settings.interval, settings.timeout) + settings.timeout
    others = {name for (name, family), other in states.items() if family is key[1] and other.health is Health.UP}
    return max(probing[name].fall * probing[name].timeout for name in others)
