"""Metrics of the daemon: does it answer, what is in force, what did it repair?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from polywan.api.status import Status
from polywan.core.metrics.metric import Kind, Metric, Point, Read, moment, seconds


def _one(value: Callable[[Status], float | None]) -> Read:
    return lambda status: (Point((), value(status)),)


UP: Final = Metric("polywan_up", Kind.GAUGE, "1 if the daemon answers, else 0.", (), _one(lambda _: 1))
"""The only one that is there without a daemon."""

DAEMON: Final = (
    UP,
    Metric(
        "polywan",
        Kind.INFO,
        "Version of the daemon.",
        ("version",),
        lambda status: (Point((status.version,), None),),
    ),
    Metric(
        "polywan_start_time_seconds",
        Kind.GAUGE,
        "When the daemon started, in Unix time.",
        (),
        _one(lambda status: moment(status.since)),
    ),
    Metric("polywan_ready", Kind.GAUGE, "1 once the first plan is in force.", (), _one(lambda status: status.ready)),
    Metric(
        "polywan_plans",
        Kind.COUNTER,
        "Plans that were carried out, the generation of the status.",
        (),
        _one(lambda status: status.generation),
    ),
    Metric(
        "polywan_last_apply_seconds",
        Kind.GAUGE,
        "How long the last plan took.",
        (),
        _one(lambda status: seconds(status.apply_ms)),
    ),
    Metric(
        "polywan_last_apply_operations",
        Kind.GAUGE,
        "Operations of the last plan.",
        (),
        _one(lambda status: status.apply_ops),
    ),
    Metric(
        "polywan_refused_operations",
        Kind.GAUGE,
        "Operations that the kernel refuses now.",
        (),
        _one(lambda status: status.config.refused_ops if status.config else None),
    ),
    Metric(
        "polywan_config_last_reload_successful",
        Kind.GAUGE,
        "0 if the last reload was refused, so that the file says something other than what is in force, else 1.",
        (),
        _one(lambda status: not status.config.refused if status.config else None),
    ),
    Metric(
        "polywan_config_last_reload_success_timestamp_seconds",
        Kind.GAUGE,
        "When the configuration in force was read, in Unix time.",
        (),
        _one(lambda status: moment(status.config.since) if status.config else None),
    ),
    Metric(
        "polywan_warnings",
        Kind.GAUGE,
        "Warnings of the status.",
        (),
        _one(lambda status: len(status.warnings)),
    ),
    Metric(
        "polywan_drift_operations",
        Kind.GAUGE,
        "Operations of the last repair of changes made by another program, while the status lists them.",
        (),
        _one(lambda status: len(status.drift)),
    ),
    Metric(
        "polywan_drift_repairs",
        Kind.COUNTER,
        "Repairs of changes made by another program.",
        (),
        _one(lambda status: status.totals.repairs if status.totals else None),
    ),
)
