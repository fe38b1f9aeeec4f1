"""Measure how well an uplink carries, and judge when it is degraded: up, but lossy, slow or unsteady.

Every target is measured for itself, and the figures of an uplink are those of its quorum-th best target: so much at
least the link itself can do. One target that is far away, limits its answers or is gone does not speak for the link.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from polywan.config import HealthSettings
from polywan.core.health.life import REPORTED_QUEUE
from polywan.core.net import IPAddress

LOSS_WINDOW: Final = 30
"""Rounds that loss is computed over: half a minute by default, so that a link is well again within a minute.

A target that some rounds do not ask has fewer probes in the same time.
"""

LEAST_PROBES: Final = 20
"""Probes of a target before its loss counts: of fewer, two lost by chance would be more than the usual limit."""

STEADY: Final = 8
"""Answers of a target before its times count: a first one that waits for ARP or a radio is no slow link."""

SMOOTHING: Final = 1 / 8
"""Weight of a new sample in the smoothed round-trip time and jitter (RFC 6298 uses the same for RTT)."""

FORGETTING: Final = 1 / 16384
"""How fast the least time of an answer follows a way that has become longer: within hours, a queue is shorter."""

_ALL: Final = (1 << LOSS_WINDOW) - 1

_WEIGHTS: Final = tuple(1 - (1 - SMOOTHING) ** rounds for rounds in range(LOSS_WINDOW + 1))
"""Weight of a sample by the rounds since the one before: what rounds did not ask takes no longer to be forgotten."""


class Measure(StrEnum):
    """What an uplink can be degraded by."""

    BUSY = "busy"
    LOSS = "loss"
    RTT = "round trip"
    JITTER = "jitter"


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetQuality:
    """What was measured with one target.

    Attributes:
        number: the last round that asked it and is known of.
        asked: one bit for each of the last rounds up to that one, the newest lowest, set when it asked the target.
        lost: the same for those whose probe was lost, and `late` for those that were answered after their timeout.
        answers: number of answers, counted up to `STEADY`.
        rtt, jitter: smoothed, seconds; None before the first answer.
        last: seconds of the last answer, and `least` what answers take when nothing queues.
    """

    address: IPAddress
    number: int = 0
    asked: int = 0
    lost: int = 0
    late: int = 0
    answers: int = 0
    rtt: float | None = None
    jitter: float = 0.0
    last: float = 0.0
    least: float | None = None

    @property
    def count(self) -> int:
        """Number of probes in the window."""
        return self.asked.bit_count()

    @property
    def loss(self) -> float:
        """Share of lost probes, 0..1."""
        return self.lost.bit_count() / self.asked.bit_count() if self.lost else 0.0

    @property
    def queue(self) -> float | None:
        """Seconds that the last answer waited in a queue; None before the first."""
        return None if self.least is None else self.last - self.least


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """How well one uplink carries one family.

    Attributes:
        loss: share of lost probes, 0..1; None before the first.
        rtt, jitter: smoothed, seconds; None before the first answer.
        busy: why it is busy, for people; empty when it is not.
        poor: what it is degraded by, with hysteresis; empty while it is well.
        reason: the same for people, with figures and limits.
    """

    targets: tuple[TargetQuality, ...] = ()
    loss: float | None = None
    rtt: float | None = None
    jitter: float = 0.0
    busy: str = ""
    poor: tuple[Measure, ...] = ()
    reason: str = ""

    def of(self, address: IPAddress) -> TargetQuality | None:
        """Return what was measured with a target, None before its first probe."""
        # By identity first: comparing addresses takes longer than all the rest, and this is done for every probe.
        for target in self.targets:
            if target.address is address:
                return target
        return next((target for target in self.targets if target.address == address), None)

    @property
    def queue(self) -> float | None:
        """Seconds that answers wait in a queue: so much at least, for every target; None before the first answer."""
        return min((t.queue for t in self.targets if t.queue is not None), default=None)

    @property
    def late(self) -> float | None:
        """Share of the last probes that were answered after their timeout, 0..1; None before the first."""
        shares = [t.late.bit_count() / t.count for t in self.targets if t.count]
        return max(shares, default=None)


UNKNOWN: Final = Quality()


def sample(quality: Quality, settings: HealthSettings, target: IPAddress, number: int, rtt: float | None) -> Quality:
    """Fold in the outcome of one probe of round `number`: its round-trip time in seconds, None when it was lost."""
    known = quality.of(target)
    new = _measured(known or TargetQuality(address=target, number=number - 1), number, rtt)
    if known is None:
        return _summed((*quality.targets, new), settings, quality)
    return _summed(tuple(new if t is known else t for t in quality.targets), settings, quality)


def overtaken(quality: Quality, settings: HealthSettings, target: IPAddress, rtt: float) -> Quality:
    """Fold in an answer that came after its timeout: what counted as lost was late."""
    known = quality.of(target)
    if known is None:
        return quality
    rest = known.lost & (known.lost - 1) if known.lost else 0
    timed = replace(_timed(known, rtt, 1), lost=rest, late=known.late | (known.lost ^ rest))
    return _summed(tuple(timed if t is known else t for t in quality.targets), settings, quality)


def occupied(quality: Quality, busy: str) -> Quality:
    """Note why the uplink is busy; without a reason, that it is not any more."""
    return quality if quality.busy == busy else replace(quality, busy=busy)


def judged(quality: Quality, settings: HealthSettings) -> Quality:
    """Judge whether the uplink is degraded: it is from `degraded_*` on, and no longer at `recovered_*`."""
    if not quality.poor and not quality.busy and _below(quality, settings):
        return quality
    findings = dict(_findings(quality, settings))
    poor, reason = tuple(findings), ", ".join(findings.values())
    return quality if (poor, reason) == (quality.poor, quality.reason) else replace(quality, poor=poor, reason=reason)


def _below(quality: Quality, settings: HealthSettings) -> bool:
    """True when no figure is at its limit: by far the most common case, and one of every probe."""
    limit = settings.degraded_jitter
    return (
        (quality.loss or 0.0) < settings.degraded_loss
        and (quality.rtt or 0.0) < settings.degraded_rtt
        and (limit is None or quality.jitter < limit)
    )


def cleared(quality: Quality) -> Quality:
    """Return the same figures without a verdict: what is down is not degraded."""
    return replace(quality, poor=(), reason="", busy="") if quality.poor or quality.busy else quality


def recent(quality: Quality, settings: HealthSettings, rounds: int) -> Quality:
    """Forget the loss of all rounds but the last: an outage that is over says nothing about the link now."""
    mask = (1 << min(rounds, LOSS_WINDOW)) - 1
    targets = (replace(t, asked=t.asked & mask, lost=t.lost & mask, late=t.late & mask) for t in quality.targets)
    return _summed(tuple(targets), settings, quality)


def only(quality: Quality, settings: HealthSettings) -> Quality:
    """Forget targets that the configuration no longer names."""
    return _summed(tuple(t for t in quality.targets if t.address in settings.targets), settings, quality)


def _measured(target: TargetQuality, number: int, rtt: float | None) -> TargetQuality:
    # Built directly, here and in `_summed`: `replace` takes several times as long, and this is done for every probe.
    rounds = number - target.number
    timed = target if rtt is None else _timed(target, rtt, rounds)
    # Results come out of order: that of an older round has its place among the others.
    shift, place = (min(rounds, LOSS_WINDOW), 0) if rounds > 0 else (0, -rounds)
    return TargetQuality(
        address=target.address,
        number=max(number, target.number),
        asked=(target.asked << shift | 1 << place) & _ALL,
        lost=(target.lost << shift | (rtt is None) << place) & _ALL,
        late=target.late << shift & _ALL,
        answers=timed.answers,
        rtt=timed.rtt,
        jitter=timed.jitter,
        last=timed.last,
        least=timed.least,
    )


def _timed(target: TargetQuality, rtt: float, rounds: int) -> TargetQuality:
    """Fold in the time of an answer that stands for so many rounds."""
    smooth, jitter, least = target.rtt, target.jitter, target.least
    rounds = min(max(rounds, 1), LOSS_WINDOW)
    if smooth is not None:
        weight = _WEIGHTS[rounds]
        jitter += weight * (abs(rtt - smooth) - jitter)
        smooth += weight * (rtt - smooth)
    if least is not None:
        least = min(rtt, least + rounds * FORGETTING * (rtt - least))
    return TargetQuality(
        address=target.address,
        number=target.number,
        asked=target.asked,
        lost=target.lost,
        late=target.late,
        answers=min(target.answers + 1, STEADY),
        rtt=rtt if smooth is None else smooth,
        jitter=jitter,
        last=rtt,
        least=rtt if least is None else least,
    )


def _summed(targets: tuple[TargetQuality, ...], settings: HealthSettings, before: Quality) -> Quality:
    """The quorum-th best target of each figure; with fewer answers than that, the worst of them."""
    if not targets:
        return Quality(poor=before.poor, busy=before.busy)
    place = settings.quorum_for(len(targets)) - 1
    times = sorted([t.rtt for t in targets if t.rtt is not None])
    waves = sorted([t.jitter for t in targets if t.rtt is not None])
    return Quality(
        targets=targets,
        loss=sorted([t.loss for t in targets])[place],
        rtt=times[min(place, len(times) - 1)] if times else None,
        jitter=waves[min(place, len(waves) - 1)] if waves else 0.0,
        busy=before.busy,
        poor=before.poor,
    )


def _findings(quality: Quality, settings: HealthSettings) -> Iterator[tuple[Measure, str]]:
    if quality.busy:
        # What is lost in a full queue, and how long answers take, is told by that already.
        yield Measure.BUSY, quality.busy
        return
    loss_known = all(t.count >= LEAST_PROBES for t in quality.targets)
    if loss_known or Measure.LOSS in quality.poor:
        limits = (settings.degraded_loss, settings.recovered_loss)
        yield from _finding(quality, Measure.LOSS, quality.loss, limits, 100, "%")
    needed = settings.quorum_for(len(quality.targets))
    if sum(t.answers >= STEADY for t in quality.targets) < needed:
        return
    limits = (settings.degraded_rtt, settings.recovered_rtt)
    for measure, text in _finding(quality, Measure.RTT, quality.rtt, limits, 1000, "ms"):
        yield measure, text + _waiting(quality)
    if (limit := settings.degraded_jitter) is not None:
        yield from _finding(quality, Measure.JITTER, quality.jitter, (limit, limit / 2), 1000, "ms")


def _waiting(quality: Quality) -> str:
    """Tell a queue from a long way: most of the time is spent waiting, and it was shorter before."""
    queue = quality.queue or 0.0
    return f", {1000 * queue:.0f} ms of it in a queue" if queue >= max(REPORTED_QUEUE, (quality.rtt or 0.0) / 2) else ""


def _finding(
    quality: Quality, measure: Measure, value: float | None, limits: tuple[float, float], scale: int, unit: str
) -> Iterator[tuple[Measure, str]]:
    enter, leave = limits
    if value is None:
        return
    if value >= enter:
        yield measure, f"{measure} {scale * value:.0f} {unit} (limit {scale * enter:g} {unit})"
    elif measure in quality.poor and value > leave:
        yield measure, f"{measure} {scale * value:.0f} {unit} (recovers at {scale * leave:g} {unit})"
