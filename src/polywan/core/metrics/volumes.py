"""Metrics of what limits an uplink: its shaped queues, and its quota."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from polywan.api.status import ShapingStatus
from polywan.core.metrics.metric import Kind, Metric, Read
from polywan.core.metrics.uplinks import UPLINK, of_uplink

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
