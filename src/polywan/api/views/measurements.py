"""What was measured, as it is kept on disk. Fields are added, never changed. Months are "2026-11", of local time."""

from collections.abc import Mapping
from typing import TypeAlias

from polywan.api.document import Document

Point: TypeAlias = tuple[float | None, ...]
"""Values of one interval in the order of the columns."""


class Series(Document):
    """What was measured of one uplink, oldest first.

    Attributes:
        columns: "time" (begin of the interval, Unix seconds), "rx_bps", "tx_bps" (mean), "rx_bps_max", "tx_bps_max",
            "rtt_ms" (mean), "rtt_max_ms", "jitter_ms", "loss" (0..1), "connections", "served" (part of the known
            time, without that out of use by order, in which it could carry connections, 0..1).
        points: null where nothing is known.
    """

    uplink: str
    columns: tuple[str, ...]
    points: tuple[Point, ...]


class Measurements(Document):
    """What was measured: `step_s` seconds of an interval; `problem`: why something is missing, for people, or empty."""

    schema: int
    step_s: int
    series: tuple[Series, ...]
    problem: str


class Beat(Document):
    """An interval of an uplink's life.

    Attributes:
        start: ISO 8601; `seconds`: how long it is.
        up, degraded, down: seconds of it in that state; `off`: out of use by order, such as disabled.
            What is missing to `seconds` nobody knows: no daemon ran, or it lies ahead.
        reasons: of its outages, for people.
    """

    start: str
    seconds: int
    up: float
    degraded: float
    down: float
    off: float
    reasons: tuple[str, ...]


class Availability(Document):
    """The lives of uplinks in intervals of the same length, oldest first."""

    schema: int
    uplinks: Mapping[str, tuple[Beat, ...]]


class Incident(Document):
    """An outage, or a time of bad quality.

    Attributes:
        id: number of the journal's entry with which it began.
        state: "down", "missing" or "degraded".
        since, until: ISO 8601; None while it lasts. `seconds`: how long it took so far.
        reason: as it began.
        evidence: what was seen, line by line, for people: reasons, targets, layers.
    """

    id: int
    uplink: str
    state: str
    since: str
    until: str | None
    seconds: float
    reason: str
    evidence: tuple[str, ...]


class Incidents(Document):
    """Incidents, newest first; `more`: there were others that are not listed."""

    schema: int
    incidents: tuple[Incident, ...]
    more: bool


class UplinkVolume(Document):
    """Bytes that an uplink received and sent in a month; `probe_bytes`: of these, probes and checks."""

    month: str
    uplink: str
    rx_bytes: int
    tx_bytes: int
    probe_bytes: int


class ClientVolume(Document):
    """Bytes that a client received and sent in a month; "others" for those of whom there were too many to count."""

    month: str
    client: str
    rx_bytes: int
    tx_bytes: int


class Volumes(Document):
    """Bytes by month: uplinks, and clients, those with most first."""

    schema: int
    uplinks: tuple[UplinkVolume, ...]
    clients: tuple[ClientVolume, ...]
    problem: str
