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
from polywan.core.net import IPAddress

WINDOW: Final = 30
"""Rounds that loss is computed over: half a minute by default, so that a link is well again within a minute."""

ENOUGH: Final = 20
"""Probes of a target before its loss counts: of fewer, two lost by chance would be more than the usual limit."""

STEADY: Final = 8
"""Answers of a target before its times count: a first one that waits for ARP or a radio is no slow link."""

SMOOTHING: Final = 1 / 8
"""Weight of a new sample in the smoothed round-trip time and jitter (RFC 6298 uses the same for RTT)."""

_ALL: Final = (1 << WINDOW) - 1


class Measure(StrEnum):
    """What an uplink can be degraded by."""

    LOSS = "loss"
    RTT = "round trip"
    JITTER = "jitter"


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetQuality:
    """What was measured with one target.

    Attributes:
        lost: one bit for each of the last `count` probes, the newest lowest, set when it was lost.
        answers: number of answers, counted up to `STEADY`.
        rtt, jitter: smoothed, seconds; None before the first answer.
    """

    address: IPAddress
    lost: int = 0
    count: int = 0
    answers: int = 0
    rtt: float | None = None
    jitter: float = 0.0

    @property
    def loss(self) -> float:
        """Share of lost probes, 0..1."""
        return self.lost.bit_count() / self.count if self.count else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """How well one uplink carries one family.

    Attributes:
        loss: share of lost probes, 0..1; None before the first.
        rtt, jitter: smoothed, seconds; None before the first answer.
        poor: what it is degraded by, with hysteresis; empty while it is well.
        reason: the same for people, with figures and limits.
    """

    targets: tuple[TargetQuality, ...] = ()
    loss: float | None = None
    rtt: float | None = None
    jitter: float = 0.0
    poor: tuple[Measure, ...] = ()
    reason: str = ""


UNKNOWN: Final = Quality()


def sample(quality: Quality, settings: HealthSettings, target: IPAddress, rtt: float | None) -> Quality:
    """Fold in one probe's outcome: its round-trip time in seconds, None when it was lost."""
    known = next((t for t in quality.targets if t.address == target), None)
    new = _measured(known or TargetQuality(address=target), rtt)
    if known is None:
        return _summed((*quality.targets, new), settings, quality.poor)
    return _summed(tuple(new if t is known else t for t in quality.targets), settings, quality.poor)


def judged(quality: Quality, settings: HealthSettings) -> Quality:
    """Judge whether the uplink is degraded: it is from `degraded_*` on, and no longer at `recovered_*`."""
    if not quality.poor and _below(quality, settings):
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
    return replace(quality, poor=(), reason="") if quality.poor else quality


def recent(quality: Quality, settings: HealthSettings, rounds: int) -> Quality:
    """Forget the loss of all rounds but the last: an outage that is over says nothing about the link now."""
    keep = min(rounds, WINDOW)
    targets = (replace(t, lost=t.lost & ((1 << keep) - 1), count=min(t.count, keep)) for t in quality.targets)
    return _summed(tuple(targets), settings, quality.poor)


def only(quality: Quality, settings: HealthSettings) -> Quality:
    """Forget targets that the configuration no longer names."""
    return _summed(tuple(t for t in quality.targets if t.address in settings.targets), settings, quality.poor)


def _measured(target: TargetQuality, rtt: float | None) -> TargetQuality:
    # Built directly, here and in `_summed`: `replace` takes several times as long, and this is done for every probe.
    lost = (target.lost << 1 | (rtt is None)) & _ALL
    smooth, jitter = target.rtt, target.jitter
    if rtt is not None and smooth is not None:
        jitter += SMOOTHING * (abs(rtt - smooth) - jitter)
        smooth += SMOOTHING * (rtt - smooth)
    return TargetQuality(
        address=target.address,
        lost=lost,
        count=min(target.count + 1, WINDOW),
        answers=target.answers if rtt is None else min(target.answers + 1, STEADY),
        rtt=rtt if smooth is None else smooth,
        jitter=jitter,
    )


def _summed(targets: tuple[TargetQuality, ...], settings: HealthSettings, poor: tuple[Measure, ...]) -> Quality:
    """The quorum-th best target of each figure; with fewer answers than that, the worst of them."""
    if not targets:
        return Quality(poor=poor)
    place = settings.quorum_for(len(targets)) - 1
    times = sorted(t.rtt for t in targets if t.rtt is not None)
    waves = sorted(t.jitter for t in targets if t.rtt is not None)
    return Quality(
        targets=targets,
        loss=sorted(t.loss for t in targets)[place],
        rtt=times[min(place, len(times) - 1)] if times else None,
        jitter=waves[min(place, len(waves) - 1)] if waves else 0.0,
        poor=poor,
    )


def _findings(quality: Quality, settings: HealthSettings) -> Iterator[tuple[Measure, str]]:
    loss_known = all(t.count >= ENOUGH for t in quality.targets)
    if loss_known or Measure.LOSS in quality.poor:
        limits = (settings.degraded_loss, settings.recovered_loss)
        yield from _finding(quality, Measure.LOSS, quality.loss, limits, 100, "%")
    needed = settings.quorum_for(len(quality.targets))
    if sum(t.answers >= STEADY for t in quality.targets) < needed:
        return
    yield from _finding(quality, Measure.RTT, quality.rtt, (settings.degraded_rtt, settings.recovered_rtt), 1000, "ms")
    if (limit := settings.degraded_jitter) is not None:
        yield from _finding(quality, Measure.JITTER, quality.jitter, (limit, limit / 2), 1000, "ms")


def _finding(
    quality: Quality, measure: Measure, value: float | None, limits: tuple[float, float], scale: int, unit: str
) -> Iterator[tuple[Measure, str]]:
    enter, leave = limits
    if value is None:
        return
    if value >= enter:
        yield measure, f"{measure} {scale * value:.0f} {unit} (limit {scale * enter:g} {unit})"
    elif measure in quality.poor and value > leave:
        yield measure, f"{measure} {scale * value:.0f} {unit} (well again at {scale * leave:g} {unit})"
