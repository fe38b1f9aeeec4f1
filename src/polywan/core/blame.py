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

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from math import inf
from typing import Final, TypeAlias

from polywan.core.events import ProbeResult
from polywan.core.net import Family, IPAddress
from polywan.core.reach import UplinkFamily

_JURORS: Final = 2
"""Uplinks that have to agree: one alone cannot tell its own filter from the target's death."""


@dataclass(frozen=True, slots=True)
class Juror:
    """An uplink that is probed in a family: whom it asks, and how many misses in a row it takes."""

    targets: frozenset[IPAddress]
    fall: int


Jury: TypeAlias = Mapping[UplinkFamily, Juror]


@dataclass(frozen=True, slots=True)
class Held:
    """A miss that waits for what other uplinks say; `sent` is when its round was."""

    result: ProbeResult
    sent: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Blame:
    """What is known of the targets; times are monotonic seconds.

    Attributes:
        misses: probes in a row without an answer, by uplink and target; targets that were never judged are absent.
        heard: the last answers of a target by two different uplinks, newest first, as (uplink, time).
        until: results of rounds that were sent before do not count; endless while the target is blamed.
        held: misses in doubt.
    """

    misses: Mapping[UplinkFamily, Mapping[IPAddress, int]] = field(default_factory=dict)
    heard: Mapping[IPAddress, tuple[tuple[str, float], ...]] = field(default_factory=dict)
    until: Mapping[IPAddress, float] = field(default_factory=dict)
    held: tuple[Held, ...] = ()

    @property
    def blamed(self) -> tuple[IPAddress, ...]:
        """Targets that are not counted now."""
        return tuple(target for target, until in self.until.items() if until == inf)

    def counted(self, targets: Iterable[IPAddress]) -> tuple[IPAddress, ...]:
        """Return the targets that decide a round: those not blamed, or all when none would be left."""
        targets = tuple(targets)
        return tuple(t for t in targets if self.until.get(t) != inf) or targets

    def answering(self, key: UplinkFamily, juror: Juror, besides: IPAddress | None = None) -> bool:
        """Tell whether some target that counts answered its last probe on this uplink."""
        misses = self.misses.get(key, {})
        return any(misses.get(t) == 0 for t in juror.targets if t != besides and self.until.get(t) != inf)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ruling:
    """What follows from a result.

    Attributes:
        counted: results that count for their rounds now, in order.
        ask: uplinks whose opinion is wanted at once.
        blamed, acquitted: the target whose standing has just changed.
    """

    blame: Blame
    counted: tuple[ProbeResult, ...]
    ask: tuple[UplinkFamily, ...] = ()
    blamed: IPAddress | None = None
    acquitted: IPAddress | None = None


def take(blame: Blame, result: ProbeResult, sent: float | None, jury: Callable[[Family], Jury], now: float) -> Ruling:
    """Take in one result.

    Args:
        blame: what is known.
        result: of one target on one uplink.
        sent: when its round was sent, if that is undecided and could take the uplink down.
        jury: returns the uplinks that are probed in a family; asked only when there is something to judge.
        now: monotonic seconds.
    """
    target = result.target
    if result.late:
        # What was held is settled: it was no miss.
        mine = (result.uplink, result.round, target)
        held = tuple(h for h in blame.held if (h.result.uplink, h.result.round, h.result.target) != mine)
        blame = replace(blame, held=held)
    blame = _noted(blame, result, now)
    if result.rtt is not None and not blame.held and target not in blame.until:
        return Ruling(blame=blame, counted=(result,))
    bench = jury(result.family)
    key = (result.uplink, result.family)
    juror = bench.get(key)
    if result.rtt is not None:
        return _after_answer(blame, result, sent, bench, now)
    if juror is None:
        return _released(blame, (result,), bench)
    if _void(blame, juror, target, sent):
        return _released(blame, (), bench)
    if target not in blame.until or blame.until[target] != inf:
        blame, guilty = _judged(blame, target, bench)
        if guilty:
            # What was held against it is settled: it never counted.
            rest = tuple(h for h in blame.held if h.result.target != target)
            return replace(_released(replace(blame, held=rest), (), bench), blamed=target)
    if sent is None or not _doubtful(blame, Held(result, sent), bench):
        return _released(blame, (result,), bench)
    ruling = _released(replace(blame, held=(*blame.held, Held(result, sent))), (), bench)
    return replace(ruling, ask=_others(blame, key, target, bench))


def kept(blame: Blame, uplinks: Iterable[str], targets: Iterable[IPAddress]) -> Blame:
    """Return what still concerns a configuration with these uplinks and targets."""
    names, wanted = set(uplinks), set(targets)
    return Blame(
        misses={key: known for key, known in blame.misses.items() if key[0] in names},
        heard={target: by for target, by in blame.heard.items() if target in wanted},
        until={target: until for target, until in blame.until.items() if target in wanted},
        held=tuple(h for h in blame.held if h.result.uplink in names and h.result.target in wanted),
    )


def _noted(blame: Blame, result: ProbeResult, now: float) -> Blame:
    key, target = (result.uplink, result.family), result.target
    own = blame.misses.get(key, {})
    missed = own.get(target)
    if result.rtt is None:
        own = {**own, target: (missed or 0) + 1}
        return replace(blame, misses={**blame.misses, key: own})
    before = [entry for entry in blame.heard.get(target, ()) if entry[0] != result.uplink]
    heard = {**blame.heard, target: ((result.uplink, now), *before[:1])}
    if missed == 0:
        return replace(blame, heard=heard)
    return replace(blame, heard=heard, misses={**blame.misses, key: {**own, target: 0}})


def _after_answer(blame: Blame, result: ProbeResult, sent: float | None, bench: Jury, now: float) -> Ruling:
    target = result.target
    juror = bench.get((result.uplink, result.family))
    void = juror is not None and _void(blame, juror, target, sent)
    acquitted = target if blame.until.get(target) == inf else None
    if acquitted:
        blame = replace(blame, until={**blame.until, target: now})
    ruling = _released(blame, () if void else (result,), bench)
    return replace(ruling, acquitted=acquitted)


def _void(blame: Blame, juror: Juror, target: IPAddress, sent: float | None) -> bool:
    """Tell whether this result belongs to a round that does without the target."""
    until = blame.until.get(target)
    if until is None or all(blame.until.get(t) == inf for t in juror.targets):
        return False
    return until == inf if sent is None else sent < until


def _judged(blame: Blame, target: IPAddress, bench: Jury) -> tuple[Blame, bool]:
    """Blame the target if every uplink that can tell has given it up."""
    asked = {key: juror for key, juror in bench.items() if target in juror.targets}
    misses = {key: blame.misses.get(key, {}).get(target) for key in asked}
    if any(missed == 0 for missed in misses.values()):
        return blame, False
    able = [key for key, juror in asked.items() if blame.answering(key, juror, target)]
    if len(able) < _JURORS or any((misses[key] or 0) < asked[key].fall for key in able):
        return blame, False
    return replace(blame, until={**blame.until, target: inf}), True


def _released(blame: Blame, counted: tuple[ProbeResult, ...], bench: Jury) -> Ruling:
    """Let go of the held misses about which there is no doubt any more; they count before the newest result."""
    if not blame.held:
        return Ruling(blame=blame, counted=counted)
    family = {key[1] for key in bench}
    mine = [h for h in blame.held if h.result.family in family]
    still = [h for h in mine if _doubtful(blame, h, bench)]
    # Of an uplink that is not probed any more nothing counts.
    free = [h.result for h in mine if h not in still and (h.result.uplink, h.result.family) in bench]
    held = tuple(h for h in blame.held if h in still or h not in mine)
    return Ruling(blame=replace(blame, held=held), counted=(*free, *counted))


def _doubtful(blame: Blame, held: Held, bench: Jury) -> bool:
    """Tell whether it may be the target that failed, not the uplink."""
    result = held.result
    key, target = (result.uplink, result.family), result.target
    juror = bench.get(key)
    if juror is None or not blame.answering(key, juror, target):
        return False
    if any(uplink != result.uplink and at >= held.sent for uplink, at in blame.heard.get(target, ())):
        return False
    return bool(_others(blame, key, target, bench))


def _others(blame: Blame, key: UplinkFamily, target: IPAddress, bench: Jury) -> tuple[UplinkFamily, ...]:
    """Return the other uplinks that can tell: they ask this target too, and others answer them."""
    return tuple(
        other
        for other, juror in bench.items()
        if other != key and target in juror.targets and blame.answering(other, juror, target)
    )
