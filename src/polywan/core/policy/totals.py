"""Count what happens as long as the daemon runs: no number decreases, whatever becomes of uplinks meanwhile.

An uplink that is disabled, lost or probed anew keeps its counts; those of an uplink that the file does not name any
more are forgotten, as are those of its policies.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from polywan.core.evolve import replace
from polywan.core.health.probes import ProbeResult
from polywan.core.net import Family
from polywan.core.policy.selection import Selection
from polywan.core.policy.uplink_state import OUT, UplinkView
from polywan.core.world.paths import UplinkFamily

RTT_BOUNDS: Final = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
"""Seconds: from a router in the same building to the slowest satellite, with a ratio of 2.5 at most between two."""


@dataclass(frozen=True, slots=True)
class ProbeCount:
    """Probes of an uplink in one family whose outcome counts.

    Attributes:
        sent: all of them; `lost`: those without an answer in time.
        late: answers after their timeout; of probes that were lost until then.
        rtt_sum: seconds of all answers in time; `buckets`: their number by `RTT_BOUNDS`, and beyond.
    """

    sent: int = 0
    lost: int = 0
    late: int = 0
    rtt_sum: float = 0.0
    buckets: tuple[int, ...] = (0,) * (len(RTT_BOUNDS) + 1)


NO_PROBES: Final = ProbeCount()

PolicyFamily: TypeAlias = tuple[str, Family]


@dataclass(frozen=True, kw_only=True)
class Totals:
    """What was counted; without slots, for `evolve.replace`.

    Attributes:
        probes: by uplink and family.
        outages: that began, by uplink.
        failovers: how often a policy's new connections were taken over from a lost uplink.
        repairs: how often changes by others were repaired.
    """

    probes: Mapping[UplinkFamily, ProbeCount] = field(default_factory=dict)
    outages: Mapping[str, int] = field(default_factory=dict)
    failovers: Mapping[PolicyFamily, int] = field(default_factory=dict)
    repairs: int = 0


NOTHING_COUNTED: Final = Totals()


def probed(totals: Totals, results: Iterable[ProbeResult]) -> Totals:
    """Count outcomes of probes; the same object when there are none."""
    counts: dict[UplinkFamily, ProbeCount] = {}
    for result in results:
        key = (result.uplink, result.family)
        counts[key] = _counted(counts.get(key) or totals.probes.get(key, NO_PROBES), result)
    return replace(totals, probes={**totals.probes, **counts}) if counts else totals


def _counted(known: ProbeCount, result: ProbeResult) -> ProbeCount:
    if result.late:
        return ProbeCount(known.sent, known.lost, known.late + 1, known.rtt_sum, known.buckets)
    if result.rtt is None:
        return ProbeCount(known.sent + 1, known.lost + 1, known.late, known.rtt_sum, known.buckets)
    place = bisect_left(RTT_BOUNDS, result.rtt)
    buckets = (*known.buckets[:place], known.buckets[place] + 1, *known.buckets[place + 1 :])
    return ProbeCount(known.sent + 1, known.lost, known.late, known.rtt_sum + result.rtt, buckets)


def decided(
    totals: Totals,
    selections: tuple[Selection | None, Selection],
    views: Mapping[str, UplinkView],
    lost: Collection[str],
    *,
    repaired: bool,
) -> Totals:
    """Count what a decision has changed.

    Args:
        totals: what was counted before it.
        selections: the choices before and after it.
        views: the uplinks after it; of others nothing is kept.
        lost: uplinks of which an outage began with it.
        repaired: it repairs changes by others.
    """
    before, after = selections
    return Totals(
        probes={key: count for key, count in totals.probes.items() if key[0] in views},
        outages={name: totals.outages.get(name, 0) + (name in lost) for name in views},
        failovers={
            key: totals.failovers.get(key, 0) + (before is not None and _taken_over(key, before, after, views))
            for key in after.choices
        },
        repairs=totals.repairs + repaired,
    )


def _taken_over(key: PolicyFamily, before: Selection, after: Selection, views: Mapping[str, UplinkView]) -> bool:
    """Tell whether a member was lost, and others serve."""
    was, now = before.choices.get(key), after.choices[key]
    if was is None or was.members == now.members or now.forced:
        return False
    staying = {name for name, _ in now.members}
    lost = any(name not in staying and name in views and views[name].state in OUT for name, _ in was.members)
    return bool(staying) and lost
