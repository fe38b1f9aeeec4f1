"""Tell a target that died from uplinks that died: what answers by no uplink is not held against any of them.

1. A target is *blamed* once it has missed `fall` probes in a row on each of at least two uplinks on which other
   targets answer, and answers on none. From then on the rounds are decided by the other targets.
2. Until that is known, a miss is *held*: it is counted neither for nor against its uplink while other targets answer
   there and no other uplink has heard the target since the probe was sent. Uplinks that have not asked lately are
   asked at once, so that the doubt is short.
3. A blamed target is still probed, and acquitted by its first answer on any uplink.

A single uplink never blames, and an uplink on which nothing answers gets no benefit of any doubt.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from math import inf
from typing import Final, TypeAlias

from polywan.core.evolve import replace
from polywan.core.health.probes import ProbeResult
from polywan.core.net import IPAddress
from polywan.core.world.paths import UplinkFamily

_LEAST_OBSERVERS: Final = 2
"""Uplinks that have to agree: one alone cannot tell its own filter from the target's death."""


@dataclass(frozen=True, slots=True)
class Observer:
    """An uplink that is probed in a family: whom it asks, and how many misses in a row it takes."""

    targets: frozenset[IPAddress]
    fall: int


Observers: TypeAlias = Mapping[UplinkFamily, Observer]


@dataclass(frozen=True, slots=True)
class PendingMiss:
    """A miss that waits for what other uplinks say; `sent` is when its round was."""

    result: ProbeResult
    sent: float


@dataclass(frozen=True, kw_only=True)
class BadTargets:
    """What is known of the targets; times are monotonic seconds. Without slots, for `evolve.replace`.

    Attributes:
        misses: probes in a row without an answer, by uplink and target; targets that were never judged are absent.
        heard: the last answers of a target by two different uplinks, newest first, as (uplink, time).
        until: results of rounds that were sent before do not count; endless while the target is blamed.
        pending: misses in doubt.
    """

    misses: Mapping[UplinkFamily, Mapping[IPAddress, int]] = field(default_factory=dict)
    heard: Mapping[IPAddress, tuple[tuple[str, float], ...]] = field(default_factory=dict)
    until: Mapping[IPAddress, float] = field(default_factory=dict)
    pending: tuple[PendingMiss, ...] = ()

    @property
    def bad(self) -> tuple[IPAddress, ...]:
        """Targets that are not counted now."""
        return tuple(target for target, until in self.until.items() if until == inf)

    def counted(self, targets: Iterable[IPAddress]) -> tuple[IPAddress, ...]:
        """Return the targets that decide a round: those not blamed, or all when none would be left."""
        targets = tuple(targets)
        if not self.until:
            return targets
        return tuple(t for t in targets if self.until.get(t) != inf) or targets

    def answering(self, key: UplinkFamily, observer: Observer, besides: IPAddress | None = None) -> bool:
        """Tell whether some target that counts answered its last probe on this uplink."""
        misses = self.misses.get(key, {})
        return any(misses.get(t) == 0 for t in observer.targets if t != besides and self.until.get(t) != inf)


@dataclass(frozen=True, slots=True, kw_only=True)
class Assessment:
    """What follows from a result.

    Attributes:
        counted: results that count for their rounds now, in order.
        ask: uplinks whose opinion is wanted at once.
        bad, cleared: the target whose standing has just changed.
    """

    bad_targets: BadTargets
    counted: tuple[ProbeResult, ...]
    ask: tuple[UplinkFamily, ...] = ()
    bad: IPAddress | None = None
    cleared: IPAddress | None = None


def take(
    bad_targets: BadTargets,
    result: ProbeResult,
    sent: float | None,
    observers: Observers,
    now: float,
) -> Assessment:
    """Take in one result.

    Args:
        bad_targets: what is known.
        result: of one target on one uplink.
        sent: when its round was sent, if that is undecided and could take the uplink down.
        observers: the uplinks that are probed in this family.
        now: monotonic seconds.
    """
    target = result.target
    if result.late:
        # What was held is settled: it was no miss.
        mine = (result.uplink, result.round, target)
        pending = tuple(h for h in bad_targets.pending if (h.result.uplink, h.result.round, h.result.target) != mine)
        bad_targets = replace(bad_targets, pending=pending)
    if (heard := usual(bad_targets, result, now)) is not None:
        return Assessment(bad_targets=heard, counted=(result,))
    bad_targets = _noted(bad_targets, result, now)
    key = (result.uplink, result.family)
    observer = observers.get(key)
    if result.rtt is not None:
        return _after_answer(bad_targets, result, sent, observers, now)
    if observer is None:
        return _released(bad_targets, (result,), observers)
    if _void(bad_targets, observer, target, sent):
        return _released(bad_targets, (), observers)
    if target not in bad_targets.until or bad_targets.until[target] != inf:
        bad_targets, is_bad = _judged(bad_targets, target, observers)
        if is_bad:
            # What was held against it is settled: it never counted.
            rest = tuple(h for h in bad_targets.pending if h.result.target != target)
            return replace(_released(replace(bad_targets, pending=rest), (), observers), bad=target)
    if sent is None or not _doubtful(bad_targets, PendingMiss(result, sent), observers):
        return _released(bad_targets, (result,), observers)
    assessment = _released(
        replace(bad_targets, pending=(*bad_targets.pending, PendingMiss(result, sent))), (), observers
    )
    return replace(assessment, ask=tuple(_others(bad_targets, key, target, observers)))


def usual(bad_targets: BadTargets, result: ProbeResult, now: float) -> BadTargets | None:
    """Take in an answer of a target about which there is no doubt; None when there is some."""
    if result.rtt is None or bad_targets.pending or result.target in bad_targets.until:
        return None
    return _noted(bad_targets, result, now)


def retained(bad_targets: BadTargets, uplinks: Iterable[str], targets: Iterable[IPAddress]) -> BadTargets:
    """Return what still concerns a configuration with these uplinks and targets."""
    names, wanted = set(uplinks), set(targets)
    return BadTargets(
        misses={key: known for key, known in bad_targets.misses.items() if key[0] in names},
        heard={target: by for target, by in bad_targets.heard.items() if target in wanted},
        until={target: until for target, until in bad_targets.until.items() if target in wanted},
        pending=tuple(h for h in bad_targets.pending if h.result.uplink in names and h.result.target in wanted),
    )


def _noted(bad_targets: BadTargets, result: ProbeResult, now: float) -> BadTargets:
    key, target = (result.uplink, result.family), result.target
    own = bad_targets.misses.get(key, {})
    missed = own.get(target)
    if result.rtt is None:
        own = {**own, target: (missed or 0) + 1}
        return replace(bad_targets, misses={**bad_targets.misses, key: own})
    before = [entry for entry in bad_targets.heard.get(target, ()) if entry[0] != result.uplink]
    heard = {**bad_targets.heard, target: ((result.uplink, now), *before[:1])}
    if missed == 0:
        return replace(bad_targets, heard=heard)
    return replace(bad_targets, heard=heard, misses={**bad_targets.misses, key: {**own, target: 0}})


def _after_answer(
    bad_targets: BadTargets, result: ProbeResult, sent: float | None, observers: Observers, now: float
) -> Assessment:
    target = result.target
    observer = observers.get((result.uplink, result.family))
    void = observer is not None and _void(bad_targets, observer, target, sent)
    cleared = target if bad_targets.until.get(target) == inf else None
    if cleared:
        bad_targets = replace(bad_targets, until={**bad_targets.until, target: now})
    assessment = _released(bad_targets, () if void else (result,), observers)
    return replace(assessment, cleared=cleared)


def _void(bad_targets: BadTargets, observer: Observer, target: IPAddress, sent: float | None) -> bool:
    """Tell whether this result belongs to a round that does without the target."""
    until = bad_targets.until.get(target)
    if until is None or all(bad_targets.until.get(t) == inf for t in observer.targets):
        return False
    return until == inf if sent is None else sent < until


def _judged(bad_targets: BadTargets, target: IPAddress, observers: Observers) -> tuple[BadTargets, bool]:
    """Blame the target if every uplink that can tell has given it up."""
    able = []
    for key, observer in observers.items():
        if target not in observer.targets:
            continue
        missed = bad_targets.misses.get(key, {}).get(target)
        if missed == 0:
            return bad_targets, False
        if bad_targets.answering(key, observer, target):
            able.append((missed or 0) >= observer.fall)
    if len(able) < _LEAST_OBSERVERS or not all(able):
        return bad_targets, False
    return replace(bad_targets, until={**bad_targets.until, target: inf}), True


def _released(bad_targets: BadTargets, counted: tuple[ProbeResult, ...], observers: Observers) -> Assessment:
    """Let go of the held misses about which there is no doubt any more; they count before the newest result."""
    if not bad_targets.pending:
        return Assessment(bad_targets=bad_targets, counted=counted)
    family = {key[1] for key in observers}
    mine = [h for h in bad_targets.pending if h.result.family in family]
    still = [h for h in mine if _doubtful(bad_targets, h, observers)]
    # Of an uplink that is not probed any more nothing counts.
    free = [h.result for h in mine if h not in still and (h.result.uplink, h.result.family) in observers]
    pending = tuple(h for h in bad_targets.pending if h in still or h not in mine)
    return Assessment(bad_targets=replace(bad_targets, pending=pending), counted=(*free, *counted))


def _doubtful(bad_targets: BadTargets, pending: PendingMiss, observers: Observers) -> bool:
    """Tell whether it may be the target that failed, not the uplink."""
    result = pending.result
    key, target = (result.uplink, result.family), result.target
    observer = observers.get(key)
    if observer is None or not bad_targets.answering(key, observer, target):
        return False
    if any(uplink != result.uplink and at >= pending.sent for uplink, at in bad_targets.heard.get(target, ())):
        return False
    return any(True for _ in _others(bad_targets, key, target, observers))


def _others(
    bad_targets: BadTargets, key: UplinkFamily, target: IPAddress, observers: Observers
) -> Iterator[UplinkFamily]:
    """Yield the other uplinks that can tell: they ask this target too, and others answer them."""
    return (
        other
        for other, observer in observers.items()
        if other != key and target in observer.targets and bad_targets.answering(other, observer, target)
    )
