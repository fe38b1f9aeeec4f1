"""What `/v1/stream` sends (server-sent events, HTML Living Standard 9.2). Fields are added, never changed.

Events, by name: `snapshot` (a `Status`) first, and again where a change cannot say it; `change` (a `Change`); `sample`
(a `StreamSample`) once a second; and `entry` (a `LinkEvent` of the journal).
"""

from collections.abc import Mapping

from polywan.api.document import Document
from polywan.api.status import ConfigStatus, PolicyStatus, UplinkStatus


class UplinkSample(Document):
    """What is measured of an uplink, second by second.

    Attributes:
        rx_bps, tx_bps: bits per second over the last second; None where nobody knows whose the device's bytes are.
        rx_bytes, tx_bytes: since the link was made.
        connections: that are tracked now; None until they were counted.
        share_seen: of all connections that uplinks have now, 0..1; None while there are none.
        rtt_ms, jitter_ms, loss: as in its status.
    """

    rx_bps: int | None
    tx_bps: int | None
    rx_bytes: int | None
    tx_bytes: int | None
    connections: int | None
    share_seen: float | None
    rtt_ms: float | None
    jitter_ms: float | None
    loss: float | None


class StreamSample(Document):
    """What is measured: `time` in ISO 8601; `uplinks` by name."""

    time: str
    uplinks: Mapping[str, UplinkSample]


class Change(Document):
    """What has changed of the status, apart from what is measured.

    Attributes:
        time: when, ISO 8601.
        uplinks: those that changed, whole.
        removed: names of uplinks that are no more.
        policies: all of them, when one changed.
        generation, ready, drift, warnings, notes, apply_ms, apply_ops, config: as in the status.
    """

    time: str
    uplinks: tuple[UplinkStatus, ...]
    removed: tuple[str, ...]
    policies: tuple[PolicyStatus, ...] | None
    generation: int
    ready: bool
    drift: tuple[str, ...]
    warnings: tuple[str, ...]
    notes: tuple[str, ...]
    apply_ms: float | None
    apply_ops: int
    config: ConfigStatus | None = None
