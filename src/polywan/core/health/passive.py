"""Suspect an uplink whose new connections suddenly get no answer, and have it probed at once.

Each of a sample of new connections is an *attempt*: begun, and answered some time later or not. A *wall* is a run of
attempts to several destinations, all begun after the last one that was answered, on an uplink that has not been heard
from for a while and answered before. A wall raises an *alarm*: rounds of probes follow each other quickly, and their
timeouts end together, a few usual round trips later. The verdict is left to these rounds (`core/health/rounds.py`):
whoever scans dead addresses can cause probes, and nothing else.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, TypeAlias

from polywan.config import HealthSettings
from polywan.core.health.rounds import Health, ProbeState, timeout_of
from polywan.core.net import FAMILIES, PROTOCOLS, Family, IPAddress, IPNetwork
from polywan.core.resolved import Resolved
from polywan.core.world.conntrack import Flow
from polywan.core.world.observed import Observed
from polywan.core.world.paths import UplinkFamily

SAMPLE: Final = 3
"""Connections taken down in one look, of each mark and family: enough to see five in vain within 0.2 s."""

ANSWERING: Final = frozenset({53, 443})
"""UDP ports whose servers answer any first packet: DNS and QUIC. Others (syslog, games) may never."""

MEMORY: Final = 5.0
"""Seconds for which an attempt counts."""

ATTEMPTS: Final = 5
"""A wall has at least so many attempts in vain."""

DESTINATIONS: Final = 3
"""They go to at least so many destinations: one dead server is no wall."""

EXPECTED: Final = 4.0
"""Answers that a wall would have had at the share answered before it: fewer are no surprise (a scan, a worm)."""

ANSWERS: Final = 3
"""Answers that an uplink must have given before: without any there is nothing to compare with."""

LINK_QUIET: Final = 0.3
"""Seconds since the last answer of any attempt: a queue that grows delays answers, but they go on arriving."""

LEAST_WAIT: Final = 0.1
"""Seconds an attempt has to wait before it counts, or two round trips if that is longer."""

SPACING: Final = 0.1
"""Seconds between the rounds of an alarm, or a quarter of the interval if that is shorter.

With `LINK_QUIET` and three rounds, an interruption that is over within half a second is never a loss.
"""

ROUND_TRIPS: Final = 4.0
"""Smoothed round trips, with their jitter, that the last round of an alarm has for its answers."""

LEAST_TIMEOUT: Final = 0.15
"""Seconds that the last round of an alarm has at least."""

LEAST_ALARM: Final = 0.3
"""Seconds that the first round of an alarm has at least."""

PAUSES: Final = (1.0, 16.0)
"""Seconds from one alarm to the next: first and longest; it doubles while alarms turn out false."""

FORGIVEN: Final = 60.0
"""Seconds after an alarm from which on the pause is short again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """A new connection; `mark` is that of its uplink, `number` what its answer refers to."""

    number: int
    mark: int
    family: Family
    destination: IPAddress


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionAttempt:
    """A new connection of an uplink: when it was seen first, and when it was seen answered, if it was."""

    number: int
    destination: IPAddress
    began: float
    answered: float | None = None


@dataclass(frozen=True, slots=True)
class Silence:
    """What speaks for a wall: attempts in vain, their destinations, and the answers that were to be expected."""

    attempts: int = 0
    destinations: int = 0
    expected: float = 0.0

    @property
    def wall(self) -> bool:
        """True when it is enough to probe at once."""
        return self.attempts >= ATTEMPTS and self.destinations >= DESTINATIONS and self.expected >= EXPECTED


@dataclass(frozen=True, slots=True, kw_only=True)
class Alarm:
    """Rounds that follow quickly.

    Attributes:
        at: when the first of them is due.
        until: when the timeouts of all of them end.
        rounds: how many were sent.
    """

    at: float
    until: float
    rounds: int = 0


@dataclass(frozen=True, slots=True)
class AttemptHistory:
    """What is known of the new connections of one uplink in one family; `pause` is that after the last alarm."""

    attempts: tuple[ConnectionAttempt, ...] = ()
    alarm: Alarm | None = field(default=None, kw_only=True)
    pause: float = field(default=PAUSES[0], kw_only=True)


Judged: TypeAlias = Mapping[UplinkFamily, tuple[ProbeState, HealthSettings]]
"""The uplinks that are watched: up, and not opted out."""


def telling(flow: Flow) -> bool:
    """True for a connection that has only just begun, with a first packet that any working server answers."""
    if flow.protocol == PROTOCOLS["tcp"]:
        return flow.state == "SYN_SENT"
    return flow.protocol == PROTOCOLS["udp"] and flow.port in ANSWERING and flow.state == "UNREPLIED"


def inside(config: Resolved, observed: Observed) -> tuple[frozenset[IPAddress], tuple[IPNetwork, ...]]:
    """Return the box's addresses, and the networks of its links that are no uplinks: no way to the Internet."""
    uplinks = {uplink.interface for uplink in config.uplinks.values()}
    own = frozenset(a.ip.ip for a in observed.addresses)
    return own, tuple({a.ip.network for a in observed.addresses if a.link not in uplinks})


def noted(watch: AttemptHistory, opened: Iterable[Opening], answered: Collection[int], now: float) -> AttemptHistory:
    """Return the watch with further attempts and answers, without those that are too old."""
    attempts = [
        replace(a, answered=now) if a.number in answered and a.answered is None else a
        for a in watch.attempts
        if now - a.began < MEMORY
    ]
    attempts += (
        ConnectionAttempt(
            number=o.number, destination=o.destination, began=now, answered=now if o.number in answered else None
        )
        for o in opened
    )
    return replace(watch, attempts=tuple(attempts))


def silence(attempts: Collection[ConnectionAttempt], wait: float, now: float, since: float = float("-inf")) -> Silence:
    """Return what speaks for a wall now.

    Args:
        attempts: of the last `MEMORY` seconds, in any order.
        wait: seconds an attempt has to wait before it counts.
        now: monotonic seconds.
        since: an answer is needed after this time: that of the last alarm.
    """
    answers = [a for a in attempts if a.answered is not None]
    heard = max((a.answered for a in answers if a.answered is not None), default=float("-inf"))
    if len(answers) < ANSWERS or heard <= since or now - heard < LINK_QUIET:
        return Silence()
    newest = max(a.began for a in answers)
    vain = [a for a in attempts if newest < a.began <= now - wait]
    share = len(answers) / sum(a.began <= newest for a in attempts)
    return Silence(len(vain), len({a.destination for a in vain}), len(vain) * share)


def unanswered(watched: Iterable[tuple[AttemptHistory, ProbeState]], now: float) -> float | None:
    """Return the share of an uplink's attempts without an answer, 0..1; None when there were none lately.

    Args:
        watched: its families.
        now: monotonic seconds.
    """
    ripe = [
        attempt.answered is None
        for watch, probes in watched
        for attempt in watch.attempts
        if now - attempt.began < MEMORY and (attempt.answered is not None or now - attempt.began >= _wait(probes))
    ]
    return ripe.count(True) / len(ripe) if ripe else None


def heard(
    watches: Mapping[UplinkFamily, AttemptHistory],
    judged: Judged,
    openings: Mapping[UplinkFamily, Sequence[Opening]],
    answered: Collection[int],
    now: float,
) -> tuple[dict[UplinkFamily, AttemptHistory], tuple[UplinkFamily, ...]]:
    """Take in attempts and answers; return the watches of the judged, and which of them have a new alarm."""
    result = {key: noted(watches.get(key, AttemptHistory()), openings.get(key, ()), answered, now) for key in judged}
    raised = tuple(key for key in sorted(result) if _walled(result, judged, key, now))
    for key in raised:
        result[key] = _raised(result[key], *judged[key], now)
    return result, raised


def _walled(watches: Mapping[UplinkFamily, AttemptHistory], judged: Judged, key: UplinkFamily, now: float) -> bool:
    watch = watches[key]
    if not watch.attempts or (watch.alarm is not None and now < watch.alarm.at + watch.pause):
        return False
    since = watch.alarm.at if watch.alarm is not None else float("-inf")
    wait = _wait(judged[key][0])
    own = silence(watch.attempts, wait, now, since)
    if own.wall:
        return True
    # Families mostly die together: half of the attempts each, and both are silent, is a wall as soon as one of all.
    pair = [watches[key[0], f] for f in FAMILIES if (key[0], f) in watches]
    return own.attempts > 0 and silence([a for w in pair for a in w.attempts], wait, now, since).wall


def _wait(probes: ProbeState) -> float:
    return max(LEAST_WAIT, 2 * (probes.rtt or 0.0))


def _raised(watch: AttemptHistory, probes: ProbeState, settings: HealthSettings, now: float) -> AttemptHistory:
    first, longest = PAUSES
    soon = watch.alarm is not None and now - watch.alarm.at < FORGIVEN
    last = max(LEAST_TIMEOUT, ROUND_TRIPS * ((probes.rtt or 0.0) + probes.jitter))
    whole = max(LEAST_ALARM, (settings.fall - 1) * _spacing(settings) + last)
    alarm = Alarm(at=now, until=now + whole)
    return replace(watch, alarm=alarm, pause=min(2 * watch.pause, longest) if soon else first)


def _spacing(settings: HealthSettings) -> float:
    return min(SPACING, settings.interval / 4)


def _active(watch: AttemptHistory | None, probes: ProbeState) -> Alarm | None:
    """Return the alarm, unless it is over: the uplink has answered a round that was sent since, or is down."""
    alarm = watch.alarm if watch is not None else None
    heard = max(probes.answered, probes.life.at)
    return alarm if alarm and probes.health is Health.UP and heard < alarm.at else None


def alarmed(watch: AttemptHistory | None, probes: ProbeState) -> bool:
    """Tell whether an alarm is under way."""
    return _active(watch, probes) is not None


def due(watch: AttemptHistory | None, probes: ProbeState, settings: HealthSettings) -> float:
    """Return the time at which an alarm wants the next round; infinity without one, and once they are all sent."""
    alarm = _active(watch, probes)
    if alarm is None or alarm.rounds >= settings.fall:
        return float("inf")
    return alarm.at + alarm.rounds * _spacing(settings)


def timeout(watch: AttemptHistory | None, probes: ProbeState, settings: HealthSettings, now: float) -> float:
    """Return the seconds that a round has which is sent now: those of an alarm end together, others have theirs."""
    alarm = _active(watch, probes)
    usual = timeout_of(probes, settings)
    if alarm is None or alarm.rounds >= settings.fall:
        return usual
    return min(usual, max(LEAST_TIMEOUT, alarm.until - now))


def sent(watch: AttemptHistory) -> AttemptHistory:
    """Note that a round was sent during the alarm."""
    return watch if watch.alarm is None else replace(watch, alarm=replace(watch.alarm, rounds=watch.alarm.rounds + 1))
