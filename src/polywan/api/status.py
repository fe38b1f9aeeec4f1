"""The status of everything: what `polywan status --json` prints. Fields are added, never changed."""

from collections.abc import Mapping

from polywan.api.document import Document
from polywan.api.views.quota import QuotaStatus
from polywan.api.views.totals import Totals


class LayerStatus(Document):
    """One layer of an uplink that is checked.

    Attributes:
        state: "ok", "broken" or "unknown".
        detail: what was seen, for people.
        since: when it became so (ISO 8601); None while it is not known.
    """

    state: str
    detail: str
    since: str | None


class TargetStatus(Document):
    """One target of an uplink's probes.

    Attributes:
        missed: probes in a row without an answer; None when none was answered or missed yet.
        rtt_ms: round trip.
        loss: share of the last probes that was lost, 0..1.
    """

    target: str
    missed: int | None
    rtt_ms: float | None
    loss: float | None


class FamilyStatus(Document):
    """One family of an uplink by itself.

    Attributes:
        state: "up", "degraded", "down" …, as of the uplink.
        since: when it became so (ISO 8601).
        address, gateway: as now, or as last known.
        share: of the family's new connections in policy `default`, 0..1.
        held_for: seconds for which it stays down although it answers.
    """

    state: str
    reason: str
    layers: Mapping[str, LayerStatus]
    since: str | None
    address: str | None
    gateway: str | None
    share: float
    rtt_ms: float | None
    loss: float | None
    held_for: float | None
    targets: tuple[TargetStatus, ...]


class DrainStatus(Document):
    """An uplink is being drained.

    Attributes:
        since: when that began (ISO 8601).
        deadline: when what is left is ended; None for never.
        by_operator: somebody asked for it, else a better uplink serves again.
    """

    since: str
    deadline: str | None
    by_operator: bool


class OutageStatus(Document):
    """One outage: `since` as ISO 8601; `seconds` None while it lasts; `reason` as it began."""

    since: str
    seconds: float | None
    reason: str


class ShapingStatus(Document):
    """The queue of an uplink in one direction, as the kernel was last read: at most 10 s ago.

    Attributes:
        direction: "down" or "up".
        device: whose queue it is: the uplink's, or the ifb device that incoming packets pass.
        rate_bps: bits per second that it lets pass.
        active: it is there; else `reason` says why not.
        sent_bytes, dropped: since the queue was made; `dropped` packets.
        backlog_bytes: what waited.
    """

    direction: str
    algorithm: str
    device: str
    rate_bps: int
    active: bool
    reason: str
    sent_bytes: int
    dropped: int
    backlog_bytes: int


class UplinkStatus(Document):
    """One uplink. Where its families differ, the better of the two, but `loss` and `layers` of the worse.

    Attributes:
        state: "up", "degraded", "down", "missing", "disabled", "draining" or "drained"; more may come.
        since: when it became so (ISO 8601).
        slow_start: part of its weight that it is given beside others, 0..1; None when it is not in slow start.
        share: of new connections in policy `default`, 0..1.
        nat6_mode: what happens to IPv6 sources; None without IPv6.
        late: share of the last probes answered after their timeout, 0..1.
        queue_ms: how long answers wait in a queue.
        rx_bps, tx_bps: bits per second.
        rx_bytes, tx_bytes: since the link was made.
        counted: false where other uplinks have the device, too: nobody knows whose its bytes are, and these are 0.
        probe_bytes: volume of probes and checks since the start; `probe_bytes_month` what a month would take.
        families: by "ipv4" and "ipv6".
        standby: it could serve and no policy gives it anything, because others are preferred.
        shares: as `share`, by family.
        held_for: seconds for which it stays down although it answers.
        last_outage_s: seconds that the last outage took which is over.
        outages: the last ones, newest first.
        unanswered: share of its new connections without an answer, 0..1; None when there were none lately.
        shaping: each direction; empty for an uplink that is not shaped.
        quota: what is used of it; None for an uplink without a quota.
    """

    name: str
    interface: str
    state: str
    since: str | None
    reason: str
    weight: int
    slow_start: float | None
    metered: bool
    share: float
    gateway: str | None
    gateway6: str | None
    address: str | None
    address6: str | None
    prefixes6: tuple[str, ...]
    nat6_mode: str | None
    mark: int
    table: int
    rtt_ms: float | None
    jitter_ms: float | None
    loss: float | None
    late: float | None
    queue_ms: float | None
    drain: DrainStatus | None
    connections: int
    rx_bps: int
    tx_bps: int
    rx_bytes: int
    tx_bytes: int
    probe_bytes: int
    probe_bytes_month: int | None
    layers: Mapping[str, LayerStatus]
    families: Mapping[str, FamilyStatus]
    standby: bool
    shares: Mapping[str, float]
    held_for: float | None
    outages_today: int
    last_outage_s: float | None
    outages: tuple[OutageStatus, ...]
    unanswered: float | None
    counted: bool = True
    shaping: tuple[ShapingStatus, ...] = ()
    quota: QuotaStatus | None = None


class Member(Document):
    """An uplink that serves a policy: its share of the policy's new connections, 0..1."""

    uplink: str
    share: float


class ChoiceStatus(Document):
    """Who serves a policy in one family: `active_tier` from 0, None for the last resort; why, for people."""

    active_tier: int | None
    reason: str
    members: tuple[Member, ...]


class PolicyStatus(Document):
    """Who serves a policy.

    Attributes:
        title: what people call it.
        direct: made for rules with `uplink = NAME`.
        active_tier, members: of the first family.
        families: each by itself, by "ipv4" and "ipv6".
    """

    name: str
    title: str
    algorithm: str
    direct: bool
    active_tier: int | None
    members: tuple[Member, ...]
    families: Mapping[str, ChoiceStatus]


class ConfigStatus(Document):
    """The configuration in force.

    Attributes:
        since: when it came into force (ISO 8601).
        refused: the last reload was refused: the file says something other than what is in force.
        refused_ops: operations for it that the kernel refuses.
    """

    since: str
    refused: bool
    refused_ops: int


class Status(Document):
    """The status of everything.

    Attributes:
        schema: version of the document.
        generation: number of the last plan.
        since: when the daemon started (ISO 8601).
        ready: the first plan is in force.
        drift: what the daemon repaired lately, for people.
        warnings: what people should know.
        notes: what is worth knowing, and wrong with nothing.
        apply_ms, apply_ops: time and operations of the last plan; None and 0 before the first.
        config: None from an older daemon, as `totals`: what was counted since the start.
    """

    schema: int
    version: str
    generation: int
    since: str
    ready: bool
    uplinks: tuple[UplinkStatus, ...]
    policies: tuple[PolicyStatus, ...]
    drift: tuple[str, ...]
    warnings: tuple[str, ...]
    notes: tuple[str, ...] = ()
    apply_ms: float | None
    apply_ops: int
    config: ConfigStatus | None = None
    totals: Totals | None = None
