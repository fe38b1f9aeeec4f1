"""What has happened since the daemon started; no number decreases while it runs. Fields are added, never changed."""

from collections.abc import Mapping

from polywan.api.document import Document


class ProbeTotals(Document):
    """Probes of an uplink in one family whose outcome counts for its health.

    Attributes:
        sent: probes with an outcome.
        lost: of these, those without an answer before their timeout.
        late: answers that came after their timeout.
        rtt_sum_ms: round trips of all answers in time, added up.
        rtt_buckets: answers in time, by how long they took: one number for each of `rtt_bounds_ms`, of answers that
            took as long at most and longer than the bound before, and a last one of those that took longer than all.
    """

    sent: int
    lost: int
    late: int
    rtt_sum_ms: float
    rtt_buckets: tuple[int, ...]


class UplinkTotals(Document):
    """What was counted of an uplink: `outages` that began; `probes` by "ipv4" and "ipv6"."""

    outages: int
    probes: Mapping[str, ProbeTotals]


class Totals(Document):
    """What was counted since the daemon started.

    Attributes:
        rtt_bounds_ms: round trips up to which `rtt_buckets` count.
        uplinks: by name.
        failovers: how often other uplinks took over a policy's new connections from one that was lost, by policy and
            family.
        repairs: how often changes made by other programs were repaired.
    """

    rtt_bounds_ms: tuple[float, ...]
    uplinks: Mapping[str, UplinkTotals]
    failovers: Mapping[str, Mapping[str, int]]
    repairs: int
