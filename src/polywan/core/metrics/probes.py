"""Metrics of probes and outages that were counted since the start, and of single targets."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import accumulate
from math import inf
from typing import Final

from polywan.api.status import Status, TargetStatus
from polywan.api.views.totals import ProbeTotals
from polywan.core.metrics.metric import Kind, Metric, Point, Read, seconds
from polywan.core.metrics.uplinks import FAMILY, UPLINK

_TARGET: Final = (*FAMILY, "target")


def _outages(status: Status) -> Iterator[Point]:
    counted = status.totals.uplinks if status.totals else {}
    for uplink in status.uplinks:
        if uplink.name in counted:
            yield Point((uplink.name, uplink.interface), counted[uplink.name].outages)


def _counts(status: Status) -> Iterator[tuple[tuple[str, ...], ProbeTotals]]:
    counted = status.totals.uplinks if status.totals else {}
    for uplink in status.uplinks:
        if uplink.name in counted:
            for family, probes in counted[uplink.name].probes.items():
                yield (uplink.name, uplink.interface, family), probes


def _of_probes(value: Callable[[ProbeTotals], float]) -> Read:
    return lambda status: (Point(labels, value(probes)) for labels, probes in _counts(status))


def _rtt(status: Status) -> Iterator[Point]:
    bounds = tuple(bound / 1000 for bound in status.totals.rtt_bounds_ms) if status.totals else ()
    for labels, probes in _counts(status):
        if len(probes.rtt_buckets) == len(bounds) + 1:
            below = tuple(zip((*bounds, inf), accumulate(probes.rtt_buckets), strict=True))
            yield Point(labels, probes.rtt_sum_ms / 1000, below)


def _of_targets(value: Callable[[TargetStatus], float | None]) -> Read:
    return lambda status: (
        Point((uplink.name, uplink.interface, family, target.target), value(target))
        for uplink in status.uplinks
        for family, found in uplink.families.items()
        for target in found.targets
    )


PROBES: Final = (
    Metric(
        "polywan_uplink_outages",
        Kind.COUNTER,
        "Outages that began since the daemon started.",
        UPLINK,
        _outages,
    ),
    Metric(
        "polywan_probes_sent",
        Kind.COUNTER,
        "Probes whose outcome counts for the uplink's health.",
        FAMILY,
        _of_probes(lambda probes: probes.sent),
    ),
    Metric(
        "polywan_probes_lost",
        Kind.COUNTER,
        "Of these, probes without an answer before their timeout.",
        FAMILY,
        _of_probes(lambda probes: probes.lost),
    ),
    Metric(
        "polywan_probes_late",
        Kind.COUNTER,
        "Answers that came after the timeout.",
        FAMILY,
        _of_probes(lambda probes: probes.late),
    ),
    Metric("polywan_probe_rtt_seconds", Kind.HISTOGRAM, "Round trips of answers in time.", FAMILY, _rtt),
    Metric(
        "polywan_target_rtt_seconds",
        Kind.GAUGE,
        "Smoothed round trip to one target.",
        _TARGET,
        _of_targets(lambda target: seconds(target.rtt_ms)),
    ),
    Metric(
        "polywan_target_loss_ratio",
        Kind.GAUGE,
        "Share of the last probes of one target that was lost.",
        _TARGET,
        _of_targets(lambda target: target.loss),
    ),
    Metric(
        "polywan_target_missed_probes",
        Kind.GAUGE,
        "Probes of one target in a row without an answer.",
        _TARGET,
        _of_targets(lambda target: target.missed),
    ),
)
