"""The daemon as a value: `step(state, event, now)` returns the next state and what to do about it.

Rules of the engine:

1. Every decision is made anew from configuration, world and health (`decide.py`); nothing is patched.
2. The kernel is believed only after it was read; between reads it is assumed to hold what was applied.
3. Loss acts at once, on the event itself; the full read that follows puts right what the kernel dropped silently.
4. Connections are let go only after the new path is in force.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, assert_never

from polywan.core.engine import (
    agenda,
    draining,
    list_preload,
    passive,
    probing,
    reconfigure,
    routers,
    seeking,
    target_blame,
)
from polywan.core.engine.decide import decide
from polywan.core.evolve import replace
from polywan.core.health import bad_targets as bl
from polywan.core.health import fail_static
from polywan.core.health import rounds as hl
from polywan.core.health.bad_targets import BadTargets
from polywan.core.health.layers import CheckResult
from polywan.core.health.probes import ProbeResult
from polywan.core.health.rounds import Health, ProbeState
from polywan.core.journal.hooks import of_quota
from polywan.core.plan.cautions import READ_SETTINGS
from polywan.core.plan.plan import ApplyReport
from polywan.core.policy import totals
from polywan.core.quota import ledger
from polywan.core.routing.sysctls import ALL_RP_FILTER, EVENTS, build_sysctls
from polywan.core.shaping.shapers import kinds_of
from polywan.core.state import outages, refusals, relevance, rerouting
from polywan.core.state.effects import Effect, Level, Log, Record, SaveMemory
from polywan.core.state.events import (
    AddressLost,
    Applied,
    BytesCounted,
    ConfigLoaded,
    DrainInspected,
    Event,
    EventsLost,
    ForeignStateChanged,
    KernelEvent,
    LinkChanged,
    LinkRemoved,
    ListsPreloaded,
    LookupsChanged,
    NewConnections,
    OperatorCommand,
    OwnStateChanged,
    ProbesReported,
    QuotaEntered,
    ReadDone,
    TestRequested,
    Tick,
    TrafficSampled,
)
from polywan.core.state.state import State
from polywan.core.world.observed import Observed
from polywan.core.world.paths import UplinkFamily

CLOCK_GAP: Final = 0.5
"""Seconds after a deadline from which nobody was there; `REPORTED_GAP` is how long that is in the log."""

REPORTED_GAP: Final = 5.0


def step(state: State, event: Event, now: float) -> tuple[State, tuple[Effect, ...]]:
    """Take in one event at time `now` (seconds, monotonic); return the next state and the effects, in order."""
    state, notes = _notice_gap(state, now)
    state, effects, changed = _take(state, event, now)
    if not changed and agenda.deadline(state) > now:
        return state, effects + notes
    changed = changed or (state.ready and now >= agenda.decision_due(state))
    # A decision is carried out before anything else is considered: timers that are due wait for the next `Tick`.
    work = decide(state, now, after_read=isinstance(event, ReadDone)) if changed else agenda.run(state, now)
    after = _totalled(state, work[0])
    if work[1] and isinstance(work[1][0], SaveMemory):
        # What it holds was to be saved before as well, and forcing it to disk twice takes twice as long.
        effects = tuple(effect for effect in effects if not isinstance(effect, SaveMemory))
    return after, effects + work[1] + notes


def _totalled(before: State, after: State) -> State:
    """Count what a decision has changed."""
    chosen, was = after.decision.selection, before.decision.selection
    if chosen is None or after.decision is before.decision:
        return after
    found = totals.decided(
        after.done.totals,
        (was, chosen),
        after.decision.views,
        outages.began(before.known.memory.outages, after.known.memory.outages),
        repaired=after.done.repairs.mended is not before.done.repairs.mended,
    )
    return replace(after, done=replace(after.done, totals=found))


def _notice_gap(state: State, now: float) -> tuple[State, tuple[Effect, ...]]:
    """Count nothing that was under way while nobody was here: suspended, stopped, or kept from the processor.

    Answers have come in vain by then, and timeouts mean nothing.
    """
    late = now - agenda.deadline(state) if state.ready else 0.0
    if late < CLOCK_GAP or late == float("inf"):
        return state, ()
    health = {
        key: hl.resume(s) if key[0] in state.known.probing and late >= state.known.probing[key[0]].timeout else s
        for key, s in state.health.rounds.items()
    }
    after = probing.resume(replace(state, health=replace(state.health, rounds=health)))
    note = Log(Level.WARNING, "clock.gap", f"{late:.1f} s passed unnoticed (suspended?); pending probes do not count")
    return after, (note,) if late >= REPORTED_GAP else ()


def _take(state: State, event: Event, now: float) -> tuple[State, tuple[Effect, ...], bool]:
    """Fold the event into what is known; the last value says whether a new decision is needed."""
    match event:
        case ConfigLoaded():
            return *_take_config(state, event, now), True
        case ReadDone():
            return *_take_read(state, event, now), True
        case ListsPreloaded(names):
            return replace(state, done=replace(state.done, staged=names)), (), False
        case LinkChanged() | LinkRemoved() | ForeignStateChanged() | AddressLost() | OwnStateChanged() | EventsLost():
            return _take_kernel(state, event, now)
        case LookupsChanged(lookups):
            after = list_preload.arrived(replace(state, known=replace(state.known, lookups=lookups)))
            return agenda.read_soon(after, now), (), lookups != state.known.lookups
        case ProbeResult() | ProbesReported() | CheckResult() | TestRequested() | TrafficSampled():
            return _take_probing(state, event, now)
        case NewConnections():
            return passive.take(state, event, now)
        case Applied(report):
            return *_take_report(state, report, now), False
        case OperatorCommand() | BytesCounted() | QuotaEntered():
            return _take_entry(state, event, now)
        case DrainInspected():
            after = draining.take_seen(state, event)
            return after, (), after is not state
        case Tick():
            return draining.take_time(state, now)
        case _:
            assert_never(event)


def _take_config(state: State, event: ConfigLoaded, now: float) -> tuple[State, tuple[Effect, ...]]:
    notes = tuple(Log(Level.WARNING, "config.warning", text) for text in event.warnings)
    lookups = state.known.lookups if event.lookups is None else event.lookups
    known = replace(state.known, advice=event.warnings, rules_at=event.rules_at, lookups=lookups)
    state, effects = reconfigure.take(list_preload.arrived(replace(state, known=known)), event.config, now)
    return agenda.read_soon(state, now), (*effects, *notes)


def _take_read(state: State, event: ReadDone, now: float) -> tuple[State, tuple[Effect, ...]]:
    staged = state.done.staged if event.actual.nft is not None else frozenset()
    actual = list_preload.unseen(event.actual, staged)
    after = replace(
        state,
        known=replace(state.known, observed=event.observed, actual=actual),
        done=replace(state.done, staged=staged, retries=replace(state.done.retries, stale=False)),
        agenda=replace(state.agenda, took=now - state.agenda.last_read),
    )
    return routers.learn(after, state.known.observed)


def _take_entry(
    state: State, event: OperatorCommand | BytesCounted | QuotaEntered, now: float
) -> tuple[State, tuple[Effect, ...], bool]:
    if isinstance(event, OperatorCommand):
        return *draining.take_order(state, event, now), True
    quotas = ledger.configured(state.known.config) if state.known.config is not None else {}
    before, news = state.known.quotas, list[ledger.News]()
    if isinstance(event, BytesCounted):
        after = ledger.looked(before, quotas, event.seen, event.unix, event.zone)
    else:
        amounts = (event.reading, event.bought)
        after, entries = ledger.entered(before, quotas, event.uplink, amounts, event.unix, event.zone)
        news += entries
        # The read that follows shows it in force.
        state = replace(state, agenda=replace(state.agenda, read_at=now))
    limits = tuple(ledger.passed(before, after, quotas))
    notes: list[Effect] = [
        Log(Level.WARNING if n.warning else Level.INFO, f"quota.{n.topic}", f"{n.uplink}: {n.text}")
        for n in (*news, *limits)
    ]
    standings = state.done.standings
    changes = tuple(of_quota(standings[n.uplink], n.text, now) for n in limits if n.uplink in standings)
    notes += [Record(changes)] if changes else []
    state = replace(state, known=replace(state.known, quotas=after))
    return state, tuple(notes), after.restrictions != before.restrictions


def _take_kernel(state: State, event: KernelEvent, now: float) -> tuple[State, tuple[Effect, ...], bool]:
    state = rerouting.heard(state, event, now)
    if not relevance.counts(state, event):
        return state, (), False
    if relevance.foreign(state, event):
        return agenda.read_soon(state, now, agenda.LATER), (), False
    match event:
        case LinkChanged() | LinkRemoved():
            return _take_link(state, event, now)
        case ForeignStateChanged():
            return agenda.read_soon(state, now), (), False
        case AddressLost(link, family):
            known = replace(state.known, lost=state.known.lost | {(link, family)})
            return agenda.read_soon(replace(state, known=known), now), (), False
        case OwnStateChanged(_, by):
            repairs = replace(state.done.repairs, culprit=by or state.done.repairs.culprit)
            return agenda.read_soon(replace(state, done=replace(state.done, repairs=repairs)), now), (), False
        case EventsLost():
            note = Log(Level.WARNING, "events.lost", "the kernel dropped notifications; reading everything again")
            repairs = replace(state.done.repairs, unheard=True)
            return agenda.read_soon(replace(state, done=replace(state.done, repairs=repairs)), now), (note,), False
        case _:
            assert_never(event)


def _take_probing(
    state: State, event: ProbeResult | ProbesReported | CheckResult | TestRequested | TrafficSampled, now: float
) -> tuple[State, tuple[Effect, ...], bool]:
    match event:
        case ProbeResult():
            return _take_results(state, (event,), now)
        case ProbesReported(results):
            return _take_results(state, results, now)
        case CheckResult():
            after, notes, changed = probing.take_check(state, event, now)
            return after, notes, changed or routers.due(after, (event.uplink, event.family), now)
        case TestRequested(uplink):
            return probing.ask(state, uplink, now), (), False
        case TrafficSampled():
            state, changed = seeking.take(state, event, now)
            return state, (), changed
        case _:
            assert_never(event)


def _take_link(state: State, event: LinkChanged | LinkRemoved, now: float) -> tuple[State, tuple[Effect, ...], bool]:
    before = state.known.observed
    if before is None:
        return state, (), False
    if isinstance(event, LinkRemoved):
        after = before.without_link(event.name) if event.name in before.links else before
    else:
        after = before if before.links.get(event.link.name) == event.link else before.with_link(event.link)
    if after is before:
        return state, (), False
    return agenda.read_soon(replace(state, known=replace(state.known, observed=after)), now), (), True


def _take_results(state: State, results: Iterable[ProbeResult], now: float) -> tuple[State, tuple[Effect, ...], bool]:
    effects: list[Effect] = []
    counted: list[ProbeResult] = []
    changed = False
    rounds, bad_targets = dict(state.health.rounds), state.health.bad_targets
    for result in results:
        if (usual := _usual(state, rounds, bad_targets, result, now)) is not None:
            rounds[result.uplink, result.family], bad_targets = usual
            counted.append(result)
            continue
        state = replace(state, health=replace(state.health, rounds=rounds, bad_targets=bad_targets))
        state, notes, matters = _take_result(state, result, now)
        rounds, bad_targets = dict(state.health.rounds), state.health.bad_targets
        effects += notes
        changed = changed or matters
    state = replace(state, health=replace(state.health, rounds=rounds, bad_targets=bad_targets))
    state = replace(state, done=replace(state.done, totals=totals.probed(state.done.totals, counted)))
    return agenda.rested(state), tuple(effects), changed


def _usual(
    state: State, rounds: Mapping[UplinkFamily, ProbeState], bad_targets: BadTargets, event: ProbeResult, now: float
) -> tuple[ProbeState, BadTargets] | None:
    """Fold in an answer that changes nothing but figures, as nearly all do; None when it may do more."""
    before, settings = rounds.get((event.uplink, event.family)), state.known.probing.get(event.uplink)
    if before is None or settings is None or before.health is Health.DOWN or before.bad or event.round <= before.void:
        return None
    if event.rtt is None or event.late or before.waiting is not None or state.agenda.verdict_at < float("inf"):
        return None
    heard = bl.usual(bad_targets, event, now)
    if heard is None:
        return None
    after = hl.on_result(before, settings, event.round, event.target, event.rtt, now)
    # With one open round less the next may be due earlier than anybody wakes for it.
    sooner = bool(after.open) and hl.due(after, settings) < state.agenda.wake
    return None if sooner or hl.regraded(before, after) else (after, heard)


def _take_result(state: State, event: ProbeResult, now: float) -> tuple[State, tuple[Effect, ...], bool]:
    key = (event.uplink, event.family)
    if key not in state.health.rounds or event.uplink not in state.known.probing:
        return state, (), False
    assessment, notes = target_blame.weigh(state, event, now)
    if not assessment.counted:
        state = replace(state, health=replace(state.health, bad_targets=assessment.bad_targets))
    changed = False
    for result in assessment.counted:
        state, moved = _count(state, result, assessment.bad_targets, now)
        changed = changed or moved
    return target_blame.second_opinions(state, assessment, now), notes, changed


def _count(state: State, event: ProbeResult, bad_targets: BadTargets, now: float) -> tuple[State, bool]:
    key = (event.uplink, event.family)
    before = state.health.rounds[key]
    settings = state.known.probing[event.uplink]
    if event.late and event.rtt is not None:
        after = hl.on_late(before, settings, event.target, event.rtt, now)
    else:
        after = hl.on_result(before, settings, event.round, event.target, event.rtt, now)
    health = {**state.health.rounds, key: after}
    wake = min(state.agenda.wake, hl.due(after, settings))
    if after.health is Health.UP and after.bad == settings.fall - 1 > before.bad:
        # One more bad round and a verdict is due: by then it should be known what the others do.
        asked = fail_static.hasten(health, state.known.probing, key, now, most=1)
        health, wake = {**health, **asked}, now if asked else wake
    decided = (before.good, before.bad) != (after.good, after.bad)
    changed = hl.matters(before, after, settings) or (decided and state.agenda.verdict_at < float("inf"))
    if bool(after.bad) != bool(before.bad):
        state = probing.stir(state, now)
    if hl.regraded(before, after):
        state = probing.regrade(state, now)
    state = replace(state, health=replace(state.health, bad_targets=bad_targets, rounds=health))
    if event.round > before.void:
        state = replace(state, done=replace(state.done, totals=totals.probed(state.done.totals, (event,))))
    state = probing.probe_by(state, wake) if wake < state.agenda.wake else state
    return seeking.stir(state, key, now) if bool(after.bad) != bool(before.bad) else state, changed


def _take_report(state: State, report: ApplyReport, now: float) -> tuple[State, tuple[Effect, ...]]:
    retries, wait, notes = refusals.reported(state.done.retries, report)
    if wait is None:
        # What a refused transaction had no dead marks for was not cut then.
        sweeps = state.agenda.sweeps
        late = tuple(replace(sweep, at=now) for sweep in sweeps) if state.done.retries.tries else ()
        due = replace(state.agenda, sweeps=(*sweeps, *late))
        return agenda.read_soon(replace(state, done=replace(state.done, retries=retries), agenda=due), now), ()
    planned = state.agenda.read_at if state.done.retries.stale else None
    due = replace(state.agenda, read_at=now + wait if planned is None else planned)
    return replace(state, done=replace(state.done, retries=retries), agenda=due), notes


def sysctl_paths(state: State, observed: Observed | None) -> tuple[str, ...]:
    """Return the settings whose values a decision about this world will want."""
    if state.known.config is None or observed is None:
        return ()
    wanted = (sysctl.path for sysctl in build_sysctls(state.known.config, observed, state.decision.reach, {}))
    return tuple(dict.fromkeys((*wanted, ALL_RP_FILTER, EVENTS, *READ_SETTINGS)))


def queue_kinds(state: State) -> frozenset[str] | None:
    """Return what shaping needs of the kernel; None when nobody has to look at queues.

    Without shaping they are read as long as something of ours may be there: by the first read, and until what a reload
    no longer wants is gone.
    """
    if state.known.config is None:
        return None
    kinds, actual = kinds_of(state.known.config), state.known.actual
    ours = actual is not None and actual.queues is not None and (actual.queues.ours or state.done.retries.refused)
    return kinds if kinds or not state.ready or ours else None
