"""Metrics of what limits an uplink: its shaped queues, and its quota."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from polywan.api.status import ShapingStatus, UplinkStatus
from polywan.api.views.quota import QuotaStatus
from polywan.core.metrics.metric import Kind, Metric, Read, moment
from polywan.core.metrics.uplinks import UPLINK, Found, of_uplink

_QUEUE: Final = (*UPLINK, "direction")


def _queues(value: Callable[[ShapingStatus], float]) -> Read:
    return of_uplink(lambda uplink: (((queue.direction,), value(queue)) for queue in uplink.shaping))


SHAPING: Final = (
    Metric(
        "polywan_shaping_active",
        Kind.GAUGE,
        "1 if the queue of that direction is in the kernel.",
        _QUEUE,
        _queues(lambda queue: queue.active),
    ),
    Metric(
        "polywan_shaping_rate_bytes_per_second",
        Kind.GAUGE,
        "Rate that the queue lets pass.",
        _QUEUE,
        _queues(lambda queue: queue.rate_bps / 8),
    ),
    Metric(
        "polywan_shaping_sent_bytes",
        Kind.COUNTER,
        "Bytes that the queue let pass since it was made.",
        _QUEUE,
        _queues(lambda queue: queue.sent_bytes),
    ),
    Metric(
        "polywan_shaping_dropped_packets",
        Kind.COUNTER,
        "Packets that the queue dropped since it was made.",
        _QUEUE,
        _queues(lambda queue: queue.dropped),
    ),
    Metric(
        "polywan_shaping_backlog_bytes",
        Kind.GAUGE,
        "Bytes that wait in the queue.",
        _QUEUE,
        _queues(lambda queue: queue.backlog_bytes),
    ),
)

QUOTA_STATES: Final = ("within", "soft", "hard")
QUOTA_ACTIONS: Final = ("none", "standby", "less", "block", "keep")


def _quota(value: Callable[[QuotaStatus], float | str | None]) -> Read:
    def found(uplink: UplinkStatus) -> Found:
        return () if uplink.quota is None else (((), value(uplink.quota)),)

    return of_uplink(found)


def _gauge(name: str, text: str, value: Callable[[QuotaStatus], float | None]) -> Metric:
    return Metric(f"polywan_quota_{name}", Kind.GAUGE, text, UPLINK, _quota(value))


QUOTA_METRICS: Final = (
    Metric(
        "polywan_quota_state",
        Kind.STATESET,
        "Which limit of its quota the uplink has passed: none, the soft one or the hard one.",
        UPLINK,
        _quota(lambda quota: quota.state),
        QUOTA_STATES,
    ),
    Metric(
        "polywan_quota_action",
        Kind.STATESET,
        "What happens to the uplink because of its quota.",
        UPLINK,
        _quota(lambda quota: quota.action),
        QUOTA_ACTIONS,
    ),
    _gauge("used_bytes", "Bytes used in this period, or of this bucket.", lambda quota: quota.used_bytes),
    _gauge("soft_limit_bytes", "Soft limit; absent without one.", lambda quota: quota.soft_bytes),
    _gauge("hard_limit_bytes", "Bytes that there are.", lambda quota: quota.hard_bytes),
    _gauge(
        "forecast_bytes",
        "Bytes that will have been used at the end of the period, as it goes on.",
        lambda quota: quota.forecast_bytes,
    ),
    _gauge(
        "period_start_timestamp_seconds",
        "When the period or the bucket began, in Unix time.",
        lambda quota: moment(quota.since),
    ),
    _gauge(
        "resets_timestamp_seconds",
        "When the period ends, in Unix time; absent for a bucket.",
        lambda quota: moment(quota.resets),
    ),
    _gauge(
        "runs_out_timestamp_seconds",
        "When the hard limit is reached as it goes on, in Unix time; absent if not in this period.",
        lambda quota: moment(quota.runs_out),
    ),
    _gauge(
        "reading_timestamp_seconds",
        "When the provider's reading was entered last, in Unix time.",
        lambda quota: moment(quota.reading_at),
    ),
)
