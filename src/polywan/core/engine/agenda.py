"""What time alone brings about: every timer of the engine in one table, with when it is due and what it does."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from math import inf
from typing import Final, TypeAlias

from polywan.core.engine import draining, passive, probing, seeking, standby_probing
from polywan.core.engine.cuts import second_cuts
from polywan.core.evolve import replace
from polywan.core.health import rounds as hl
from polywan.core.health.probes import ProbeOrder, ProbeTarget, targets_of
from polywan.core.health.rounds import ProbeState
from polywan.core.identity import Same
from polywan.core.state import probe_costs, rerouting, retired_marks
from polywan.core.state.effects import Effect, Read, SaveMemory, StartProbe
from polywan.core.state.state import State
from polywan.core.world.paths import Path, UplinkFamily, patience

FOLD: Final = 0.02
"""Seconds within which further notifications share one read."""

LATER: Final = 1.0
"""The same for notifications about devices that no decision looks at: hundreds of containers may come and go."""

RESYNC: Final = (10.0, 60.0)
"""Seconds between reads when nothing happens, at least and at most: the net below the notifications."""

READ_SHARE: Final = 200
"""A read takes at most this part of the time until the next: with thousands of devices it is made less often."""

LOOK_SHARE: Final = 0.0002
"""Seconds by uplink and family between two looks at all of them: looking for what is due takes a tenth at most.

With 53 busy uplinks something is due a thousand times a second; together they are looked at fifty to a hundred times.
"""

Stepped: TypeAlias = tuple[State, tuple[Effect, ...]]


@dataclass(frozen=True, slots=True)
class Timer:
    """Something that is done when its time has come.

    Attributes:
        due: returns when that is, monotonic seconds; endless while there is nothing to do.
        run: does it; None where a new decision does, or where a `Tick` does it before all else.
    """

    due: Callable[[State], float]
    run: Callable[[State, float], Stepped] | None = None


def deadline(state: State) -> float:
    """Return the time at which the engine wants a `Tick`, if nothing happens before."""
    return _deadline(Same(state))


@lru_cache(maxsize=4)
def _deadline(state: Same[State]) -> float:
    # Asked of one state by its last step, by the loop, and by the next step.
    return min([timer.due(state.value) for timer in (EVERY_TIMER if state.value.ready else STARTING)])


def decision_due(state: State) -> float:
    """Return when time alone asks for a decision."""
    return min([timer.due(state) for timer in DECISIONS])


def run(state: State, now: float) -> Stepped:
    """Do all that is due, in the order of the table."""
    effects: list[Effect] = []
    for timer in TIMERS if state.ready else STARTING:
        if timer.run is not None and timer.due(state) <= now:
            state, more = timer.run(state, now)
            effects += more
    return state, tuple(effects)


def read_soon(state: State, now: float, fold: float = FOLD) -> State:
    """Ask for a read: now when the last one is long ago, otherwise once `fold` seconds have passed since."""
    at = max(now, state.agenda.last_read + fold)
    at = at if state.agenda.read_at is None else min(at, state.agenda.read_at)
    return replace(state, agenda=replace(state.agenda, read_at=at))


def _read_due(state: State) -> float:
    least, most = RESYNC
    regular = state.agenda.last_read + min(max(least, READ_SHARE * state.agenda.took), most)
    return regular if state.agenda.read_at is None else min(state.agenda.read_at, regular)


def _read(state: State, now: float) -> Stepped:
    return replace(state, agenda=replace(state.agenda, read_at=None, last_read=now)), (Read(),)


def _write(state: State, _: float) -> Stepped:
    return replace(state, agenda=replace(state.agenda, write_at=inf)), (SaveMemory(state.known.memory),)


def _sweep_due(state: State) -> float:
    return min((sweep.at for sweep in state.agenda.sweeps), default=inf)


def _sweep(state: State, now: float) -> Stepped:
    due = [sweep for sweep in state.agenda.sweeps if sweep.at <= now]
    cuts = second_cuts(state, state.known.config, due) if state.known.config is not None else ()
    later = tuple(sweep for sweep in state.agenda.sweeps if sweep.at > now)
    return replace(state, agenda=replace(state.agenda, sweeps=later)), cuts


def _probed(state: State) -> Iterator[tuple[UplinkFamily, ProbeState, Path]]:
    for key, probes in state.health.rounds.items():
        path = state.decision.reach.get(key)
        if isinstance(path, Path):
            yield key, probes, path


def _probes_due(state: State) -> float:
    return max(state.agenda.wake, state.agenda.looked + LOOK_SHARE * len(state.health.rounds))


def _checks_due(state: State) -> float:
    return max(state.health.checks.wake, state.health.checks.looked + LOOK_SHARE * len(state.health.rounds))


def _round_due(state: State, key: UplinkFamily, probes: ProbeState) -> float:
    watch = state.health.watches.get(key)
    doubt = probes.open or probes.bad or (watch is not None and watch.alarm is not None)
    if not doubt and probes.next != probes.sent + standby_probing.SPARE_PACE:
        # By far the most common case, and one of every uplink each time.
        return probes.next
    return min(standby_probing.due(state, key), passive.due(state, key))


def _order(
    state: State, key: UplinkFamily, path: Path, number: int, targets: tuple[ProbeTarget, ...], now: float
) -> ProbeOrder:
    name, family = key
    return ProbeOrder(
        uplink=name,
        family=family,
        interface=path.link,
        mark=state.known.numbers[name].mark,
        round=number,
        timeout=max(passive.timeout(state, key, now), patience(path, state.known.observed)),
        targets=targets,
        spread=hl.spread_of(state.health.rounds[key], state.known.probing[name]),
    )


def _start_probes(state: State, now: float) -> Stepped:
    ends: list[float] = []
    due: list[tuple[UplinkFamily, Path]] = []
    for key, probes, path in _probed(state):
        at = _round_due(state, key, probes)
        if at > now:
            ends.append(at)
        else:
            due.append((key, path))
    orders: list[Effect] = []
    rounds = dict(state.health.rounds)
    sent: dict[UplinkFamily, tuple[ProbeTarget, ...]] = {}
    for key, path in due:
        targets = targets_of(state.known.probing[key[0]], key[1])
        if targets:
            rounds[key], sent[key] = standby_probing.start_round(state, key, targets, now)
            orders.append(StartProbe(_order(state, key, path, rounds[key].number, sent[key], now)))
        else:
            rounds[key] = hl.unprobed(rounds[key], state.known.probing[key[0]], now)
    if len(sent) < len(due):
        state = read_soon(state, now)
    state = probe_costs.paid_rounds(state, sent, now)
    state = replace(state, health=replace(state.health, rounds=rounds))
    for key in sent:
        state = passive.sent(state, key)
        if len(rounds[key].open) > 1:
            # The round before is undecided still: it may be time to ask the layers why.
            state = seeking.stir(probing.stir(state, now), key, now)
    ends += [_round_due(state, key, state.health.rounds[key]) for key, _ in due]
    return replace(state, agenda=replace(state.agenda, looked=now, wake=min(ends, default=inf))), tuple(orders)


def rested(state: State) -> State:
    """Return the state without the times at which rounds would have been suspect, if all of them are decided."""
    rounds = state.health.rounds
    if state.agenda.wake == inf or any(probes.open for probes in rounds.values()):
        return state
    ends = [_round_due(state, key, probes) for key, probes, _ in _probed(state)]
    return replace(state, agenda=replace(state.agenda, wake=min(ends, default=inf)))


STARTING: Final = (Timer(_read_due, _read),)
"""Everything that is done at some time before the first decision."""

TIMERS: Final = (
    *STARTING,
    Timer(lambda state: state.agenda.write_at, _write),
    Timer(lambda state: state.agenda.renew_at, rerouting.renew),
    Timer(_sweep_due, _sweep),
    Timer(draining.due),
    Timer(_probes_due, _start_probes),
    Timer(_checks_due, probing.start_checks),
    Timer(lambda state: state.agenda.seek_at, seeking.start),
)
"""Everything that is done at some time; a new timer is a line here, or among `DECISIONS`."""

DECISIONS: Final = (
    Timer(lambda state: state.agenda.verdict_at),
    Timer(lambda state: state.agenda.ramp_at),
    Timer(lambda state: state.agenda.regrade_at),
    Timer(lambda state: retired_marks.due(state.decision.retired)),
    Timer(lambda state: state.done.logged.at),
)
"""Everything that asks for a new decision at some time."""

EVERY_TIMER: Final = (*TIMERS, *DECISIONS)
"""What a `Tick` is wanted for."""
