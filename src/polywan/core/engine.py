"""The daemon as a value: `step(state, event, now)` returns the next state and what to do about it.

Rules of the engine:

1. Every decision is made anew from configuration, world and health (`decide.py`); nothing is patched.
2. The kernel is believed only after it was read; between reads it is assumed to hold what was applied.
3. Loss acts at once, on the event itself; the full read that follows puts right what the kernel dropped silently.
4. Connections are let go only after the new path is in force.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from errno import ENOENT
from typing import Final, assert_never

from polywan.core import (
    alarms,
    checking,
    concern,
    leave,
    reconfigure,
    resting,
    retire,
    routers,
    seeking,
    staging,
    stuck,
    together,
)
from polywan.core import health as hl
from polywan.core.blame import Blame
from polywan.core.cautions import SETTINGS
from polywan.core.decide import decide, second_cuts
from polywan.core.effects import Effect, Level, Note, Read, Remember, StartProbe
from polywan.core.events import (
    AddressLost,
    Applied,
    CameBack,
    CheckResult,
    ConfigLoaded,
    Event,
    EventsLost,
    KernelEvent,
    LeftSeen,
    LinkChanged,
    LinkRemoved,
    Looked,
    Ordered,
    OursTouched,
    ProbeResult,
    ReadDone,
    Signs,
    Staging,
    TestAsked,
    Tick,
    WorldTouched,
)
from polywan.core.evolve import replace
from polywan.core.health import Health, ProbeOrder, ProbeState
from polywan.core.observed import Observed
from polywan.core.plan import ApplyReport, Failure, PutNexthop, PutRoute, headline
from polywan.core.reach import Path, UplinkFamily, patience
from polywan.core.state import State
from polywan.core.tuning import ALL_RP_FILTER, EVENTS, build_sysctls

FOLD: Final = 0.02
"""Seconds within which further notifications share one read."""

LATER: Final = 1.0
"""The same for notifications about devices that no decision looks at: hundreds of containers may come and go."""

RESYNC: Final = (10.0, 60.0)
"""Seconds between reads when nothing happens, at least and at most: the net below the notifications."""

SHARE: Final = 200
"""A read takes at most this part of the time until the next: with thousands of devices it is made less often."""

GAP: Final = 0.5
"""Seconds after a deadline from which nobody was there; `TOLD_GAP` is how long that is in the log."""

TOLD_GAP: Final = 5.0

RETRY: Final = (0.25, 30.0)
"""Seconds until a refused operation is tried again: first and longest wait; it doubles in between."""


def step(state: State, event: Event, now: float) -> tuple[State, tuple[Effect, ...]]:
    """Take in one event at time `now` (seconds, monotonic); return the next state and the effects, in order."""
    state, notes = _notice_gap(state, now)
    state, effects, changed = _take(state, event, now)
    changed = changed or (state.ready and now >= _decision_due(state))
    # A decision is carried out before anything else is considered: timers that are due wait for the next `Tick`.
    work = decide(state, now, after_read=isinstance(event, ReadDone)) if changed else _run_timers(state, now)
    return work[0], effects + work[1] + notes


def deadline(state: State) -> float:
    """Return the time at which the engine wants a `Tick`, if nothing happens before."""
    times = [_resync_due(state), leave.due(state), state.write_at, *(sweep.at for sweep in state.sweeps)]
    if state.read_at is not None:
        times.append(state.read_at)
    if state.ready:
        times += [state.wake, state.checks.wake, _decision_due(state)]
        times.append(state.seek_at)
    return min(times)


def _resync_due(state: State) -> float:
    """Return when everything is read again although nothing has happened."""
    least, most = RESYNC
    return state.last_read + min(max(least, SHARE * state.took), most)


def _decision_due(state: State) -> float:
    """Return when time alone asks for a decision."""
    return min(state.verdict_at, state.ramp_at, retire.due(state.retired), state.story.at)


def _notice_gap(state: State, now: float) -> tuple[State, tuple[Effect, ...]]:
    """Count nothing that was under way while nobody was here: suspended, stopped, or kept from the processor.

    Answers have come in vain by then, and timeouts mean nothing.
    """
    late = now - deadline(state) if state.ready else 0.0
    if late < GAP or late == float("inf"):
        return state, ()
    health = {
        key: hl.resume(s) if key[0] in state.probing and late >= state.probing[key[0]].timeout else s
        for key, s in state.health.items()
    }
    told = Note(Level.WARNING, "clock.gap", f"{late:.1f} s went by unseen (suspended?); probes under way do not count")
    return checking.resume(replace(state, health=health)), (told,) if late >= TOLD_GAP else ()


def _take(state: State, event: Event, now: float) -> tuple[State, tuple[Effect, ...], bool]:
    """Fold the event into what is known; the last value says whether a new decision is needed."""
    match event:
        case ConfigLoaded(config, warnings, lookups=lookups, rules_at=places):
            notes = tuple(Note(Level.WARNING, "config.odd", text) for text in warnings)
            state = replace(state, advice=warnings, rules_at=places)
            state = replace(state, lookups=state.lookups if lookups is None else lookups)
            state, effects = reconfigure.take(staging.arrived(state), config, now)
            return read_soon(state, now), (*effects, *notes), True
        case ReadDone(observed, actual):
            staged = state.staged if actual.nft is not None else frozenset()
            actual = staging.unseen(actual, staged)
            took = now - state.last_read
            after = replace(state, observed=observed, actual=actual, staged=staged, stale=False, took=took)
            return *routers.learn(after, state.observed), True
        case Staging(names):
            return replace(state, staged=names), (), False
        case LinkChanged() | LinkRemoved() | WorldTouched() | AddressLost() | OursTouched() | EventsLost():
            return _take_kernel(state, event, now)
        case Looked(lookups):
            after = staging.arrived(replace(state, lookups=lookups))
            return read_soon(after, now), (), lookups != state.lookups
        case ProbeResult() | CheckResult() | TestAsked() | CameBack():
            return _take_probing(state, event, now)
        case Signs():
            return alarms.take(state, event, now)
        case Applied(report):
            return *_take_report(state, report, now), False
        case Ordered():
            return *leave.take_order(state, event, now), True
        case LeftSeen():
            after = leave.take_seen(state, event)
            return after, (), after is not state
        case Tick():
            return leave.take_time(state, now)
        case _:
            assert_never(event)


def _take_kernel(state: State, event: KernelEvent, now: float) -> tuple[State, tuple[Effect, ...], bool]:
    if concern.foreign(state, event):
        return read_soon(state, now, LATER), (), False
    match event:
        case LinkChanged() | LinkRemoved():
            return _take_link(state, event, now)
        case WorldTouched():
            return read_soon(state, now), (), False
        case AddressLost(link, family):
            return read_soon(replace(state, lost=state.lost | {(link, family)}), now), (), False
        case OursTouched(_, by):
            return read_soon(replace(state, culprit=by or state.culprit), now), (), False
        case EventsLost():
            note = Note(Level.WARNING, "events.lost", "the kernel dropped notifications; reading everything again")
            return read_soon(state, now), (note,), False
        case _:
            assert_never(event)


def _take_probing(
    state: State, event: ProbeResult | CheckResult | TestAsked | CameBack, now: float
) -> tuple[State, tuple[Effect, ...], bool]:
    match event:
        case ProbeResult():
            return _take_result(state, event, now)
        case CheckResult():
            after, notes, changed = checking.take_check(state, event, now)
            return after, notes, changed or routers.due(after, (event.uplink, event.family), now)
        case TestAsked(uplink):
            return checking.ask(state, uplink, now), (), False
        case CameBack():
            state, changed = seeking.take(state, event, now)
            return state, (), changed
        case _:
            assert_never(event)


def _take_link(state: State, event: LinkChanged | LinkRemoved, now: float) -> tuple[State, tuple[Effect, ...], bool]:
    before = state.observed
    if before is None:
        return state, (), False
    if isinstance(event, LinkRemoved):
        after = before.without_link(event.name) if event.name in before.links else before
    else:
        after = before if before.links.get(event.link.name) == event.link else before.with_link(event.link)
    if after is before:
        return state, (), False
    return read_soon(replace(state, observed=after), now), (), True


def read_soon(state: State, now: float, fold: float = FOLD) -> State:
    """Ask for a read: now when the last one is long ago, otherwise once `fold` seconds have passed since."""
    at = max(now, state.last_read + fold)
    return replace(state, read_at=at if state.read_at is None else min(at, state.read_at))


def _take_result(state: State, event: ProbeResult, now: float) -> tuple[State, tuple[Effect, ...], bool]:
    key = (event.uplink, event.family)
    if key not in state.health or event.uplink not in state.probing:
        return state, (), False
    ruling, notes = checking.weigh(state, event, now)
    if not ruling.counted:
        state = replace(state, blame=ruling.blame)
    changed = False
    for result in ruling.counted:
        state, moved = _count(state, result, ruling.blame, now)
        changed = changed or moved
    return checking.second_opinions(state, ruling, now), notes, changed


def _count(state: State, event: ProbeResult, blame: Blame, now: float) -> tuple[State, bool]:
    key = (event.uplink, event.family)
    before = state.health[key]
    settings = state.probing[event.uplink]
    if event.late and event.rtt is not None:
        after = hl.on_late(before, settings, event.target, event.rtt, now)
    else:
        after = hl.on_result(before, settings, event.round, event.target, event.rtt, now)
    health = {**state.health, key: after}
    wake = min(state.wake, hl.due(after, settings))
    if after.health is Health.UP and after.bad == settings.fall - 1 > before.bad:
        # One more bad round and a verdict is due: by then it should be known what the others do.
        asked = together.hasten(health, state.probing, key, now, most=1)
        health, wake = {**health, **asked}, now if asked else wake
    decided = (before.good, before.bad) != (after.good, after.bad)
    changed = hl.matters(before, after, settings) or (decided and state.verdict_at < float("inf"))
    if bool(after.bad) != bool(before.bad):
        state = seeking.stir(checking.stir(state, now), now)
    return replace(state, blame=blame, health=health, wake=wake), changed


def _take_report(state: State, report: ApplyReport, now: float) -> tuple[State, tuple[Effect, ...]]:
    if not report.failures:
        # What a refused transaction had no dead marks for was not cut then.
        late = tuple(replace(sweep, at=now) for sweep in state.sweeps) if state.tries else ()
        state = replace(state, applied=report, refused={}, tries=0, stale=False, sweeps=(*state.sweeps, *late))
        return read_soon(state, now), ()
    refused = {f"{headline(f.op)}: {f.message}": f for f in report.failures}
    if state.stale:
        return _refused_again(state, report, refused)
    times = {text: state.refused.get(text, 0) + 1 for text in refused}
    soon, longest = RETRY
    retry = min(longest, soon * 2**state.tries)
    refusals = state.stuck + stuck.refused(report)
    if refusals > state.stuck:
        retry = stuck.wait(refusals, retry)
    notes = tuple(
        note for text, f in refused.items() for note in _refusal(f, text, times[text], first=times[text] > state.tries)
    )
    state = replace(state, applied=report, refused=times, tries=state.tries + 1, stale=True, stuck=refusals)
    return replace(state, read_at=now + retry), notes


def _refused_again(
    state: State, report: ApplyReport, refused: Mapping[str, Failure]
) -> tuple[State, tuple[Effect, ...]]:
    """Take in the refusal of a plan that was made before anybody had read why the one before it was refused.

    It says nothing new, so it does not count as one more in a row; only what it names for the first time is told.
    """
    new = {text: f for text, f in refused.items() if text not in state.refused}
    notes = tuple(note for text, f in new.items() for note in _refusal(f, text, 1, first=state.tries <= 1))
    known = {text: state.refused.get(text, 1) for text in refused}
    return replace(state, applied=report, refused={**state.refused, **known}), notes


def _refusal(failure: Failure, text: str, times: int, *, first: bool) -> Iterator[Note]:
    """Tell of an operation that was refused so many times in a row, since the `first` plan that was or a later one.

    That first time may only mean that somebody was faster: a link that went down and took routes and next hops with
    it, another program that took what the operation refers to.
    """
    raced = failure.errno == ENOENT or isinstance(failure.op, PutNexthop | PutRoute)
    patience = 1 if raced and first else 0
    if times == 1 + patience:
        yield Note(Level.ERROR, "apply.refused", text)
    elif times == patience:
        yield Note(Level.INFO, "apply.again", text)


def _run_timers(state: State, now: float) -> tuple[State, tuple[Effect, ...]]:
    effects: list[Effect] = []
    if (state.read_at is not None and state.read_at <= now) or _resync_due(state) <= now:
        state = replace(state, read_at=None, last_read=now)
        effects.append(Read())
    if state.write_at <= now:
        state = replace(state, write_at=float("inf"))
        effects.append(Remember(state.memory))
    if state.config is None:
        return state, tuple(effects)
    due = [sweep for sweep in state.sweeps if sweep.at <= now]
    if due:
        effects += second_cuts(state, state.config, due)
        state = replace(state, sweeps=tuple(s for s in state.sweeps if s.at > now))
    state, probes = _start_probes(state, now)
    state, checks = checking.start_checks(state, now)
    state, looks = seeking.start(state, now)
    return state, (*effects, *probes, *checks, *looks)


def sysctl_paths(state: State, observed: Observed | None) -> tuple[str, ...]:
    """Return the settings whose values a decision about this world will want."""
    if state.config is None or observed is None:
        return ()
    wanted = (sysctl.path for sysctl in build_sysctls(state.config, observed, state.reach, {}))
    return tuple(dict.fromkeys((*wanted, ALL_RP_FILTER, EVENTS, *SETTINGS)))


def _probed(state: State) -> Iterator[tuple[UplinkFamily, ProbeState]]:
    for key, probes in state.health.items():
        if isinstance(state.reach.get(key), Path):
            yield key, probes


def _start_probes(state: State, now: float) -> tuple[State, list[Effect]]:
    config = state.config
    if config is None or not state.ready or now < state.wake:
        return state, []
    orders: list[Effect] = []
    health = dict(state.health)
    for key, probes in _probed(state):
        name, family = key
        settings = state.probing[name]
        if min(resting.due(state, key), alarms.due(state, key)) > now:
            continue
        targets = hl.targets_of(settings, family)
        if not targets:
            health[key] = hl.unprobed(probes, settings, now)
            state = read_soon(state, now)
            continue
        health[key], targets = resting.start_round(state, key, targets, now)
        state = checking.paid_round(state, key, targets, now, alone=len(health[key].open) == 1)
        orders.append(
            StartProbe(
                ProbeOrder(
                    uplink=name,
                    family=family,
                    interface=config.uplinks[name].interface,
                    mark=state.numbers[name].mark,
                    round=health[key].number,
                    timeout=max(alarms.timeout(state, key, now), patience(state.reach.get(key), state.observed)),
                    targets=targets,
                    spread=hl.spread_of(probes, settings),
                )
            )
        )
        state = alarms.sent(state, key)
        if len(health[key].open) > 1:
            state = seeking.stir(state, now)
    state = replace(state, health=health)
    ends = [min(resting.due(state, key), alarms.due(state, key)) for key, _ in _probed(state)]
    return replace(state, wake=min(ends, default=float("inf"))), orders
