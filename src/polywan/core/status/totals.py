"""Make the document of what was counted since the daemon started."""

from __future__ import annotations

from polywan.api.views.totals import ProbeTotals, Totals, UplinkTotals
from polywan.core.net import FAMILIES
from polywan.core.policy.totals import NO_PROBES, RTT_BOUNDS, ProbeCount
from polywan.core.state.state import State


def totals(state: State) -> Totals:
    """Return what was counted; zeros, too: a counter that is there too late hides the first thing that it counts."""
    counted = state.done.totals
    config = state.known.config
    policies = dict.fromkeys(policy for policy, _ in counted.failovers)
    return Totals(
        rtt_bounds_ms=tuple(round(1000 * bound, 3) for bound in RTT_BOUNDS),
        uplinks={
            name: UplinkTotals(
                outages=counted.outages.get(name, 0),
                probes={
                    family.nfproto: _probes(counted.probes.get((name, family), NO_PROBES))
                    for family in FAMILIES
                    if (name, family) in state.decision.reach or (name, family) in counted.probes
                },
            )
            for name in (config.uplinks if config is not None else ())
        },
        failovers={
            policy: {family.nfproto: number for (name, family), number in counted.failovers.items() if name == policy}
            for policy in policies
        },
        repairs=counted.repairs,
    )


def _probes(count: ProbeCount) -> ProbeTotals:
    return ProbeTotals(
        sent=count.sent,
        lost=count.lost,
        late=count.late,
        rtt_sum_ms=round(1000 * count.rtt_sum, 3),
        rtt_buckets=count.buckets,
    )
