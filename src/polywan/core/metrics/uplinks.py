"""Metrics of uplinks: state, traffic, share and quality, as a whole and by family."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Final, TypeAlias

from polywan.api.status import FamilyStatus, UplinkStatus
from polywan.core.metrics.metric import Kind, Metric, Point, Read, moment, seconds

UPLINK: Final = ("uplink", "interface")
FAMILY: Final = (*UPLINK, "family")

STATES: Final = ("up", "degraded", "down", "missing", "disabled", "draining", "drained")
"""States that an uplink may have; other states that a newer daemon knows are added."""

Found: TypeAlias = Iterable[tuple[tuple[str, ...], float | str | None]]
"""Values of an uplink, each with the labels that it has beside those of the uplink."""


def of_uplink(found: Callable[[UplinkStatus], Found]) -> Read:
    """Return a reader of what an uplink has several of."""
    return lambda status: (
        Point((uplink.name, uplink.interface, *labels), value)
        for uplink in status.uplinks
        for labels, value in found(uplink)
    )


def one(value: Callable[[UplinkStatus], float | str | None]) -> Read:
    """Return a reader of what an uplink has one of."""
    return of_uplink(lambda uplink: (((), value(uplink)),))


def by_family(value: Callable[[FamilyStatus], float | str | None]) -> Read:
    """Return a reader of what each family of an uplink has one of."""
    return of_uplink(lambda uplink: (((name,), value(family)) for name, family in uplink.families.items()))


def _about(uplink: UplinkStatus) -> Found:
    ends = (uplink.address, uplink.gateway, uplink.address6, uplink.gateway6)
    yield (str(uplink.metered).lower(), *(end or "" for end in ends)), None


def _layers(uplink: UplinkStatus) -> Iterator[tuple[tuple[str, ...], float | None]]:
    for name, layer in uplink.layers.items():
        yield (name,), {"ok": 1, "broken": 0}.get(layer.state)


def _gauge(name: str, text: str, read: Read, labels: tuple[str, ...] = UPLINK) -> Metric:
    return Metric(f"polywan_uplink_{name}", Kind.GAUGE, text, labels, read)


def _counter(name: str, text: str, read: Read) -> Metric:
    return Metric(f"polywan_uplink_{name}", Kind.COUNTER, text, UPLINK, read)


_STATE: Final = (
    Metric(
        "polywan_uplink",
        Kind.INFO,
        "What the uplink is.",
        (*UPLINK, "metered", "address", "gateway", "address6", "gateway6"),
        of_uplink(_about),
    ),
    Metric(
        "polywan_uplink_state",
        Kind.STATESET,
        "State of the uplink: 1 for the state that it has, 0 for the others.",
        UPLINK,
        one(lambda uplink: uplink.state),
        STATES,
    ),
    Metric(
        "polywan_uplink_family_state",
        Kind.STATESET,
        "State of the uplink in one family.",
        FAMILY,
        by_family(lambda family: family.state),
        STATES,
    ),
    _gauge(
        "state_changed_timestamp_seconds",
        "When the uplink got its state, in Unix time.",
        one(lambda uplink: moment(uplink.since)),
    ),
    _gauge(
        "standby",
        "1 if the uplink could serve and no policy gives it anything, because others are preferred.",
        one(lambda u: u.standby),
    ),
    _gauge("draining", "1 while connections are taken off the uplink.", one(lambda uplink: uplink.drain is not None)),
    _gauge(
        "drain_deadline_timestamp_seconds",
        "When connections that remain are ended, in Unix time; absent without a deadline.",
        one(lambda uplink: moment(uplink.drain.deadline) if uplink.drain else None),
    ),
    _gauge(
        "hold_down_seconds",
        "How long the uplink stays down although it answers; 0 if it does not.",
        one(lambda uplink: uplink.held_for or 0),
    ),
    _gauge(
        "family_hold_down_seconds",
        "How long the uplink stays down in one family although it answers; 0 if it does not.",
        by_family(lambda family: family.held_for or 0),
        FAMILY,
    ),
    _gauge(
        "layer_ok",
        "1 if the layer works, 0 if it is broken; absent while that is unknown.",
        of_uplink(_layers),
        (*UPLINK, "layer"),
    ),
    _gauge(
        "last_outage_seconds",
        "How long the last outage lasted that is over.",
        one(lambda uplink: uplink.last_outage_s),
    ),
)

_SHARE: Final = (
    _gauge("weight", "Weight of the uplink.", one(lambda uplink: uplink.weight)),
    _gauge(
        "slow_start_ratio",
        "Part of its weight that the uplink has in slow start; absent otherwise.",
        one(lambda uplink: uplink.slow_start),
    ),
    _gauge(
        "share_ratio",
        "Share of the family's new connections that the uplink is given in policy default.",
        of_uplink(lambda uplink: (((family,), share) for family, share in uplink.shares.items())),
        FAMILY,
    ),
    _gauge("connections", "Connections that are tracked.", one(lambda uplink: uplink.connections)),
)

_TRAFFIC: Final = (
    _counter(
        "receive_bytes",
        "Bytes that the device received since it was made; absent where uplinks share a device.",
        one(lambda uplink: uplink.rx_bytes if uplink.counted else None),
    ),
    _counter(
        "transmit_bytes",
        "Bytes that the device sent since it was made; absent where uplinks share a device.",
        one(lambda uplink: uplink.tx_bytes if uplink.counted else None),
    ),
    _counter("probe_bytes", "Bytes of probes and checks, both ways.", one(lambda uplink: uplink.probe_bytes)),
)

_QUALITY: Final = (
    _gauge("rtt_seconds", "Smoothed round trip, of the better family.", one(lambda uplink: seconds(uplink.rtt_ms))),
    _gauge(
        "jitter_seconds",
        "Smoothed difference between round trips.",
        one(lambda uplink: seconds(uplink.jitter_ms)),
    ),
    _gauge("loss_ratio", "Share of the last probes that was lost, of the worse family.", one(lambda u: u.loss)),
    _gauge(
        "late_ratio",
        "Share of the last probes that was answered after the timeout.",
        one(lambda uplink: uplink.late),
    ),
    _gauge("queue_seconds", "How long answers wait in a queue.", one(lambda uplink: seconds(uplink.queue_ms))),
    _gauge(
        "unanswered_ratio",
        "Share of new connections without an answer.",
        one(lambda uplink: uplink.unanswered),
    ),
    _gauge(
        "family_rtt_seconds",
        "Smoothed round trip of one family.",
        by_family(lambda family: seconds(family.rtt_ms)),
        FAMILY,
    ),
    _gauge(
        "family_loss_ratio",
        "Share of the last probes of one family that was lost.",
        by_family(lambda family: family.loss),
        FAMILY,
    ),
)

UPLINKS: Final = (*_STATE, *_SHARE, *_TRAFFIC, *_QUALITY)
