"""Decide from probes whether an uplink carries traffic, per address family.

A *round* sends one probe to each target. It is good once `quorum` targets answered, bad once so many failed
that the quorum is out of reach. After `fall` bad rounds in a row a verdict is due: `fail_static.py` takes the uplink
down, unless all the others seem to fail as well. `rise` good rounds in a row, the first of them at least a hold-down
ago (`damping.py`), bring it back.

A round that stays undecided longer than its answers usually take makes the uplink *suspect*: further rounds
follow at a quarter of the interval without waiting for the timeout, at most `fall` at a time. While the round
trip is below interval/8, a silent death is therefore noticed after interval + (fall - 1) * interval/4 + timeout
at the latest (2.5 s by default); above that a round is suspect later, and the limit grows a little. A slow link
still has the whole timeout to answer.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from math import inf
from typing import Final

from polywan.config import HealthSettings
from polywan.core.evolve import replace
from polywan.core.health import damping as dm
from polywan.core.health import life as lf
from polywan.core.health import quality as ql
from polywan.core.health.damping import Damping
from polywan.core.health.life import Life, Moved
from polywan.core.health.probes import Round
from polywan.core.health.quality import Quality
from polywan.core.net import IPAddress
from polywan.core.words import counted

MOST_OPEN: Final = 16
"""Rounds of a busy uplink that are under way at a time."""

LEAST_PACE: Final = 0.05
"""Seconds between rounds of a busy uplink at least."""


class Health(StrEnum):
    """The verdict about one uplink in one family."""

    UP = "up"
    DOWN = "down"


@dataclass(frozen=True, kw_only=True)
class ProbeState:
    """What is known of one uplink in one family; without slots, for `evolve.replace`.

    Attributes:
        since: time of the last change of `health`.
        cause: why it is as it is, for people.
        good: good rounds in a row; `good_since` is the time of the first of them.
        bad: bad rounds in a row; `bad_since` is the time when the first of them was sent, and `doubted` when only one
            more was needed for a verdict.
        answered: when the last good round was sent.
        number: number of the last round that was started.
        void: rounds up to this number count for nothing.
        open: rounds under way, oldest first; `sent` is when the last one was started, `asked` the first of all.
        next: time of the next round when nothing is suspect.
        quality: what was measured, and whether that makes it degraded.
        proven: it has been up before; `hold_down` guards against its flapping, not against its first start.
        damping: how often it was lost in a row.
        returned: when it came back from a loss of its own; None when it has been up from the start.
        waiting: since when a verdict waits for what the other uplinks do (`fail_static.py`).
        together: it is down because all were at once, which is probably not its own doing.
        life: signs of life that were no good round.
    """

    health: Health
    since: float
    cause: str
    good: int = 0
    good_since: float = 0.0
    bad: int = 0
    bad_since: float = 0.0
    doubted: float = 0.0
    answered: float = -inf
    number: int = 0
    void: int = 0
    open: tuple[Round, ...] = ()
    sent: float = -inf
    asked: float = -inf
    next: float = 0.0
    quality: Quality = ql.UNKNOWN
    proven: bool = False
    damping: Damping = dm.NO_LOSS
    returned: float | None = None
    waiting: float | None = None
    together: bool = False
    life: Life = lf.NONE

    @property
    def loss(self) -> float | None:
        """Share of the last probes without an answer, 0..1; None before the first."""
        return self.quality.loss

    @property
    def rtt(self) -> float | None:
        """Smoothed round-trip time, seconds; None before the first answer."""
        return self.quality.rtt

    @property
    def jitter(self) -> float:
        """Smoothed difference between round-trip times, seconds."""
        return self.quality.jitter

    @property
    def degraded(self) -> str:
        """Why it should stand by while others are well; empty when it is well itself, or down."""
        return self.quality.reason


def initial(health: Health, cause: str, now: float) -> ProbeState:
    """Return the state of an uplink that has just come into view; its first round is due at once."""
    return ProbeState(health=health, since=now, cause=cause, next=now, proven=health is Health.UP)


def suspect_after(state: ProbeState, settings: HealthSettings) -> float:
    """Seconds after which an undecided round is suspect: twice the usual answer time, at least a quarter interval."""
    return min(max(settings.interval / 4, 2 * (state.rtt or 0.0)), settings.interval)


def timeout_of(state: ProbeState, settings: HealthSettings) -> float:
    """Seconds that the targets of a round have which is sent now.

    A long way is no loss: with the usual time of answers near `timeout`, they are given half of it in addition. An
    uplink that is down and answers later still could never come back otherwise; there is no hurry to lose it.
    """
    usual = state.rtt or 0.0
    longest = lf.LISTEN if state.health is Health.DOWN else settings.timeout * 3 / 2
    return max(settings.timeout, min((2 if state.health is Health.DOWN else 5 / 4) * usual, longest))


def due(state: ProbeState, settings: HealthSettings) -> float:
    """Return the time at which the next round has to be sent."""
    if state.health is Health.DOWN or not state.number:
        return state.next
    if state.quality.busy and state.bad:
        return min(state.next, _pressed(state, settings)) if len(state.open) < MOST_OPEN else state.next
    if len(state.open) >= settings.fall:
        return state.next
    soon = state.sent + settings.interval / 4
    if state.bad:
        return min(state.next, soon)
    if state.open:
        return min(state.next, max(state.open[0].sent + suspect_after(state, settings), soon))
    return state.next


def _pressed(state: ProbeState, settings: HealthSettings) -> float:
    """When a busy uplink is asked next: sooner once it has shown no life for a while, since its queue drops probes."""
    missed = state.sent - state.life.at >= settings.interval / 2
    return state.sent + max(settings.interval / (8 if missed else 4), LEAST_PACE)


def spread_of(state: ProbeState, settings: HealthSettings) -> float:
    """Seconds over which a round is spread: a full queue has room for all of a round or for none, as chance has it."""
    return max(settings.interval / 8, LEAST_PACE) if state.quality.busy else 0.0


def start_round(
    state: ProbeState,
    settings: HealthSettings,
    targets: int,
    now: float,
    pace: float = 0,
    decides: IPAddress | None = None,
) -> ProbeState:
    """Note that a round is sent now, the next `pace` seconds later (0: by the interval); forget unreported ones."""
    number = state.number + 1
    if decides is None and len(state.quality.targets) > targets:
        state = replace(state, quality=ql.only(state.quality, settings))
    alive = tuple([r for r in state.open if now - r.sent < 2 * timeout_of(state, settings) + 1])
    return replace(
        state,
        number=number,
        open=(*alive, Round(number=number, sent=now, targets=targets, decides=decides)),
        sent=now,
        asked=now if state.asked == -inf else state.asked,
        next=now + (pace or settings.interval),
    )


def on_result(
    state: ProbeState, settings: HealthSettings, number: int, target: IPAddress, rtt: float | None, now: float
) -> ProbeState:
    """Fold in one target's outcome; results of rounds that are decided or forgotten only count as samples.

    When a verdict against the uplink is due after that, it is `waiting`: `together.settle` gives it.
    """
    if number <= state.void:
        return state
    state = _sample(state, settings, number, target, rtt)
    current = next((r for r in state.open if r.number == number), None)
    if current is None or not (current.decides is None or current.decides == target):
        return state
    current = replace(current, answered=current.answered + (rtt is not None), failed=current.failed + (rtt is None))
    quorum = settings.quorum_for(current.targets)
    if current.answered >= quorum:
        # Older rounds have nothing left to say: the path works now.
        return _good(replace(state, open=_without(state.open, up_to=number)), settings, current.sent, now)
    if current.failed > current.targets - quorum:
        return _bad(replace(state, open=tuple(r for r in state.open if r.number != number)), settings, current, now)
    return replace(state, open=tuple(current if r.number == number else r for r in state.open))


def on_late(state: ProbeState, settings: HealthSettings, target: IPAddress, rtt: float, now: float) -> ProbeState:
    """Fold in an answer that came after its timeout: a sign of life, though its round has failed."""
    quality = ql.overtaken(state.quality, settings, target, rtt)
    state = replace(state, quality=quality, life=replace(state.life, late_at=now, late=rtt))
    return _revived(state, settings, now)


def on_moved(state: ProbeState, settings: HealthSettings, what: Moved, since: float, until: float) -> ProbeState:
    """Take note of what its connections have moved from one look to the next, which is now."""
    life = replace(state.life, loaded=lf.loaded_since(what, since, until, state.asked))
    if what.received:
        # When they came is not known: not before the first look.
        rate = what.received / max(until - since, 0.001)
        life = replace(life, back_at=max(since, life.back_at), found_at=until, rate=rate)
    return _revived(replace(state, life=life), settings, until)


def on_line(state: ProbeState, settings: HealthSettings, other: ProbeState, now: float) -> ProbeState:
    """Take note of how the other family of the same line does: it may be what fills the queue."""
    if other.health is Health.DOWN or not other.quality.busy or other.life.at <= state.life.line_at:
        return state
    return _revived(replace(state, life=replace(state.life, line_at=other.life.at)), settings, now)


def on_looked(state: ProbeState, settings: HealthSettings, at: float, now: float) -> ProbeState:
    """Note that its connections were looked at; a verdict may have waited for that alone."""
    state = replace(state, life=lf.seen(state.life, at))
    withheld = state.health is Health.UP and state.bad >= settings.fall and state.waiting is None
    return state if not withheld or lf.alive(state.life, settings, state.answered, now) else _due(state, now)


def _revived(state: ProbeState, settings: HealthSettings, now: float) -> ProbeState:
    """While there is life the worst verdict about an uplink that is up is that it is busy."""
    if state.health is Health.DOWN or not lf.alive(state.life, settings, state.answered, now):
        return state
    state = replace(state, waiting=None)
    if state.quality.busy or state.bad >= settings.fall:
        return _busy(state, settings, now)
    return replace(state, quality=ql.judged(state.quality, settings))


def _busy(state: ProbeState, settings: HealthSettings, now: float) -> ProbeState:
    text = lf.described(state.life, settings, state.quality.queue, state.cause, now)
    return replace(state, quality=ql.judged(ql.occupied(state.quality, text), settings))


def lose(state: ProbeState, settings: HealthSettings, cause: str, now: float) -> ProbeState:
    """The link itself is gone (carrier, address, gateway): down at once, nothing under way counts any more."""
    if state.health is Health.UP:
        state = _down(state, settings, now)
    return replace(state, open=(), good=0, bad=0, waiting=None, together=False, quality=ql.UNKNOWN, cause=cause)


def fall(state: ProbeState, settings: HealthSettings, now: float) -> ProbeState:
    """Give the verdict that is due: down, for its own fault."""
    return replace(_down(state, settings, now), waiting=None, together=False)


def fall_together(state: ProbeState, now: float) -> ProbeState:
    """Take it down together with all the others: its connections stay, and its first answer brings it back."""
    cause = f"{state.cause}; all uplinks failed at once: probably not their fault"
    quality = ql.cleared(state.quality)
    return replace(state, health=Health.DOWN, since=now, cause=cause, waiting=None, together=True, quality=quality)


def resume(state: ProbeState) -> ProbeState:
    """Nobody was there for a while (suspended, stopped): what was under way counts for nothing, for good or bad."""
    good, waiting = state.good if state.health is Health.UP else 0, state.waiting if state.together else None
    return replace(state, open=(), bad=0, good=good, waiting=waiting, void=state.number, asked=-inf)


def matters(before: ProbeState, after: ProbeState, settings: HealthSettings) -> bool:
    """True when a result calls for a decision at once; what changes the quality alone may wait (`regraded`)."""
    if after.health is not before.health:
        return True
    if after.health is Health.DOWN:
        # With good rounds it serves if no other is left; after `rise` of them it is held down.
        return len({(s.good > 0, s.good >= settings.rise, judged(s, settings)) for s in (before, after)}) > 1
    return after.waiting is not None and (after.bad != before.bad or before.waiting is None)


def judged(state: ProbeState, settings: HealthSettings) -> bool:
    """False while an uplink that was never up waits for its first answers: it may have connections that work."""
    return state.health is Health.UP or state.proven or state.bad >= settings.fall


def regraded(before: ProbeState, after: ProbeState) -> bool:
    """True when a result makes an uplink degraded, or well again, or for another reason."""
    return after.quality.poor != before.quality.poor


def unprobed(state: ProbeState, settings: HealthSettings, now: float) -> ProbeState:
    """Judge an uplink that has a path but no target to probe: up once the path has lasted for its hold-down."""
    hold = dm.hold_of(state.damping, settings)
    state = state if state.good else replace(state, good=1, good_since=now, next=now + hold)
    if state.health is Health.UP:
        return replace(state, next=float("inf"))
    if state.proven and now < state.good_since + hold:
        return state
    risen = _rise(state, settings, "has a link; no target to probe in this family", now)
    return replace(risen, next=float("inf"))


def _rise(state: ProbeState, settings: HealthSettings, cause: str, now: float) -> ProbeState:
    return replace(
        state,
        health=Health.UP,
        since=now,
        cause=cause,
        proven=True,
        returned=now if state.proven else None,
        quality=ql.recent(state.quality, settings, state.good),
    )


def _down(state: ProbeState, settings: HealthSettings, now: float) -> ProbeState:
    lasted = None if state.returned is None or state.health is Health.DOWN else now - state.returned
    return replace(
        state,
        health=Health.DOWN,
        since=now if state.health is Health.UP else state.since,
        damping=dm.after_loss(state.damping, settings, lasted, now),
        returned=None,
        quality=ql.cleared(state.quality),
    )


def _good(state: ProbeState, settings: HealthSettings, sent: float, now: float) -> ProbeState:
    since = state.good_since if state.good else sent
    answered = max(state.answered, sent)
    if state.health is Health.UP:
        explained = state.waiting is not None or state.quality.busy
        state = replace(state, good=state.good + 1, good_since=since, bad=0, answered=answered, waiting=None)
        if state.quality.busy and state.good >= settings.fall:
            state = replace(state, quality=ql.judged(ql.occupied(state.quality, ""), settings))
        return replace(state, cause="answers again") if explained else state
    state = replace(state, good=state.good + 1, good_since=since, bad=0, answered=answered)
    if state.together:
        cause = "answers again, after all uplinks failed at once"
        quality = ql.recent(state.quality, settings, 1)
        return replace(state, health=Health.UP, since=now, cause=cause, waiting=None, together=False, quality=quality)
    if state.good < settings.rise:
        return replace(state, cause=f"coming back: {state.good} of {settings.rise} good rounds")
    if state.proven and now - state.good_since < dm.hold_of(state.damping, settings):
        return replace(state, cause=f"coming back: {dm.described(state.damping, settings, now)}")
    return _rise(state, settings, f"{state.good} good rounds in a row", now)


def _bad(state: ProbeState, settings: HealthSettings, current: Round, now: float) -> ProbeState:
    since = state.bad_since if state.bad else current.sent
    state = replace(state, bad=state.bad + 1, bad_since=since, good=0)
    bad, of = counted(state.bad, "probe round"), f"{current.answered} of {current.targets} targets answered"
    cause = f"{bad} in a row failed ({of})"
    if state.health is Health.DOWN:
        return state if state.together else replace(state, cause=cause)
    if state.bad == max(1, settings.fall - 1):
        state = replace(state, doubted=now)
    if state.bad < settings.fall:
        return state
    state = replace(state, cause=cause)
    if lf.alive(state.life, settings, state.answered, now):
        return _busy(state, settings, now)
    return _due(state, now)


def _due(state: ProbeState, now: float) -> ProbeState:
    """Let a verdict be due, unless nobody has looked for signs of life yet."""
    if lf.unseen(state.life, state.bad_since, now):
        return state
    if state.quality.busy:
        state = replace(state, cause=f"was busy, and now receives nothing: {state.cause}")
    return replace(state, waiting=now if state.waiting is None else state.waiting)


def _sample(
    state: ProbeState, settings: HealthSettings, number: int, target: IPAddress, rtt: float | None
) -> ProbeState:
    quality = ql.sample(state.quality, settings, target, number, rtt)
    return replace(state, quality=ql.judged(quality, settings) if state.health is Health.UP else quality)


def _without(rounds: Iterable[Round], *, up_to: int) -> tuple[Round, ...]:
    return tuple(r for r in rounds if r.number > up_to)
