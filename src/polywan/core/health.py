"""Decide from probes whether an uplink carries traffic, per address family.

A *round* sends one probe to each target. It is good once `quorum` targets answered, bad once so many failed
that the quorum is out of reach. `fall` bad rounds in a row take the uplink down; `rise` good rounds in a row,
the first of them at least `hold_down` seconds ago, bring it back.

A round that stays undecided longer than its answers usually take makes the uplink *suspect*: further rounds
follow at a quarter of the interval without waiting for the timeout, at most `fall` at a time. While the round
trip is below interval/8, a silent death is therefore noticed after interval + (fall - 1) * interval/4 + timeout
at the latest (2.5 s by default); above that a round is suspect later, and the limit grows a little. A slow link
still has the whole timeout to answer.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final, Literal

from polywan.config import HealthSettings
from polywan.core.net import Family, IPAddress

WINDOW: Final = 60
"""Probes (not rounds) that loss is computed over: about 20 s at three targets a second."""

SMOOTHING: Final = 1 / 8
"""Weight of a new sample in the smoothed round-trip time and jitter (RFC 6298 uses the same for RTT)."""


class Health(StrEnum):
    """The verdict about one uplink in one family."""

    UP = "up"
    DOWN = "down"


@dataclass(frozen=True, slots=True)
class ProbeTarget:
    """Where a probe goes: the methods are alternatives, any answer counts."""

    address: IPAddress
    methods: tuple[Literal["icmp", "tcp"], ...]
    tcp_port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeOrder:
    """One round: probe every target once by this uplink.

    Attributes:
        interface: device the sockets are bound to before anything is sent.
        mark: packet mark of the uplink, set on the sockets as well.
        round: number that every result carries back.
        timeout: seconds a target has to answer.
    """

    uplink: str
    family: Family
    interface: str
    mark: int
    round: int
    timeout: float
    targets: tuple[ProbeTarget, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """A round under way: when it was sent, who answered and who did not."""

    number: int
    sent: float
    targets: int
    answered: int = 0
    failed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeState:
    """What is known of one uplink in one family.

    Attributes:
        since: time of the last change of `health`.
        cause: why it is as it is, for people.
        good: good rounds in a row; `good_since` is the time of the first of them.
        bad: bad rounds in a row.
        number: number of the last round that was started.
        open: rounds under way, oldest first.
        next: time of the next round when nothing is suspect.
        outcomes: the last probes, newest last: True for an answer.
        rtt, jitter: smoothed, in seconds; None before the first answer.
        proven: it has been up before; `hold_down` guards against its flapping, not against its first start.
    """

    health: Health
    since: float
    cause: str
    good: int = 0
    good_since: float = 0.0
    bad: int = 0
    number: int = 0
    open: tuple[Round, ...] = ()
    next: float = 0.0
    outcomes: tuple[bool, ...] = ()
    rtt: float | None = None
    jitter: float = 0.0
    proven: bool = False

    @property
    def loss(self) -> float | None:
        """Share of the last probes without an answer, 0..1; None before the first."""
        return self.outcomes.count(False) / len(self.outcomes) if self.outcomes else None


def initial(health: Health, cause: str, now: float) -> ProbeState:
    """Return the state of an uplink that has just come into view; its first round is due at once."""
    return ProbeState(health=health, since=now, cause=cause, next=now, proven=health is Health.UP)


def targets_of(settings: HealthSettings, family: Family) -> tuple[ProbeTarget, ...]:
    """Return the targets that can be probed in this family."""
    return tuple(ProbeTarget(a, settings.methods, settings.tcp_port) for a in settings.targets if a.version == family)


def suspect_after(state: ProbeState, settings: HealthSettings) -> float:
    """Seconds after which an undecided round is suspect: twice the usual answer time, at least a quarter interval."""
    return min(max(settings.interval / 4, 2 * (state.rtt or 0.0)), settings.interval)


def due(state: ProbeState, settings: HealthSettings) -> float:
    """Return the time at which the next round has to be sent."""
    if state.health is Health.DOWN or not state.number or len(state.open) >= settings.fall:
        return state.next
    soon = state.next - settings.interval * 3 / 4
    if state.bad:
        return min(state.next, soon)
    if state.open:
        return min(state.next, max(state.open[0].sent + suspect_after(state, settings), soon))
    return state.next


def start_round(state: ProbeState, settings: HealthSettings, targets: int, now: float) -> ProbeState:
    """Note that the next round is sent now; the caller sends it. Rounds that were never reported are forgotten."""
    number = state.number + 1
    alive = tuple(r for r in state.open if now - r.sent < 2 * settings.timeout + 1)
    return replace(
        state,
        number=number,
        open=(*alive, Round(number=number, sent=now, targets=targets)),
        next=now + settings.interval,
    )


def on_result(state: ProbeState, settings: HealthSettings, number: int, rtt: float | None, now: float) -> ProbeState:
    """Fold in one target's outcome; results of rounds that are decided or forgotten only count as samples."""
    state = _sample(state, rtt)
    current = next((r for r in state.open if r.number == number), None)
    if current is None:
        return state
    current = replace(current, answered=current.answered + (rtt is not None), failed=current.failed + (rtt is None))
    quorum = settings.quorum_for(current.targets)
    if current.answered >= quorum:
        # Older rounds have nothing left to say: the path works now.
        return _good(replace(state, open=_without(state.open, up_to=number)), settings, current.sent, now)
    if current.failed > current.targets - quorum:
        return _bad(replace(state, open=tuple(r for r in state.open if r.number != number)), settings, current, now)
    return replace(state, open=tuple(current if r.number == number else r for r in state.open))


def lose(state: ProbeState, cause: str, now: float) -> ProbeState:
    """The link itself is gone (carrier, address, gateway): down at once, nothing under way counts any more."""
    state = replace(state, open=(), good=0, bad=0, outcomes=(), rtt=None, jitter=0.0, cause=cause)
    return state if state.health is Health.DOWN else replace(state, health=Health.DOWN, since=now)


def unprobed(state: ProbeState, settings: HealthSettings, now: float) -> ProbeState:
    """Judge an uplink that has a path but no target to probe: up once the path has lasted for `hold_down`."""
    state = state if state.good else replace(state, good=1, good_since=now, next=now + settings.hold_down)
    if state.health is Health.UP or (state.proven and now - state.good_since < settings.hold_down):
        return state
    return replace(_rise(state, "has a link; there is no target to probe in this family", now), next=float("inf"))


def _rise(state: ProbeState, cause: str, now: float) -> ProbeState:
    return replace(state, health=Health.UP, since=now, cause=cause, proven=True)


def _good(state: ProbeState, settings: HealthSettings, sent: float, now: float) -> ProbeState:
    since = state.good_since if state.good else sent
    state = replace(state, good=state.good + 1, good_since=since, bad=0)
    if state.health is Health.UP:
        return state
    if state.good < settings.rise:
        return replace(state, cause=f"coming back: {state.good} of {settings.rise} good rounds")
    if state.proven and now - state.good_since < settings.hold_down:
        return replace(state, cause=f"coming back: held down for {settings.hold_down:g} s after its first answer")
    return _rise(state, f"{state.good} good rounds in a row", now)


def _bad(state: ProbeState, settings: HealthSettings, current: Round, now: float) -> ProbeState:
    state = replace(state, bad=state.bad + 1, good=0)
    cause = f"{state.bad} rounds in a row without quorum ({current.answered} of {current.targets} targets answered)"
    if state.health is Health.DOWN:
        return replace(state, cause=cause)
    if state.bad < settings.fall:
        return state
    return replace(state, health=Health.DOWN, since=now, cause=cause)


def _sample(state: ProbeState, rtt: float | None) -> ProbeState:
    outcomes = (*state.outcomes, rtt is not None)[-WINDOW:]
    if rtt is None:
        return replace(state, outcomes=outcomes)
    if state.rtt is None:
        return replace(state, outcomes=outcomes, rtt=rtt)
    off = rtt - state.rtt
    return replace(
        state,
        outcomes=outcomes,
        rtt=state.rtt + SMOOTHING * off,
        jitter=state.jitter + SMOOTHING * (abs(off) - state.jitter),
    )


def _without(rounds: Iterable[Round], *, up_to: int) -> tuple[Round, ...]:
    return tuple(r for r in rounds if r.number > up_to)
