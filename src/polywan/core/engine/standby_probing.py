"""Metered uplinks that stand by are asked seldom: what nobody needs now must not cost much.

An uplink is *spare* in a family while no policy there needs it. While it is well as well, a round is one probe, its
targets take turns, and the next comes after `SPARE_PACE`. The first sign of trouble, and a decision by which it is
needed, bring back the usual pace at once, counted from the last round. Both families together cost at most 20 MB a
month on the wire then: an echo and its answer are 84 + 84 bytes there (IPv6: 104 + 104), and the kernel asks for the
gateway's hardware address about as often (84 + 84 and 110 + 110); that is 764 bytes each `SPARE_PACE`, 16.5 MB in 30
days. Every check there is adds some 3 MB at `SPARE_CHECK_PACE`.
"""

from __future__ import annotations

from typing import Final

from polywan.core.health import passive, turns
from polywan.core.health import rounds as hl
from polywan.core.health.probes import ProbeTarget
from polywan.core.health.rounds import Health, ProbeState
from polywan.core.health.turns import Turn
from polywan.core.policy.draining import Drains, tier_of
from polywan.core.policy.selection import Selection
from polywan.core.resolved import Resolved
from polywan.core.state.state import State
from polywan.core.world.paths import UplinkFamily

SPARE_PACE: Final = 120.0
"""Seconds from one round to the next: the death of an uplink that stands by is noticed within 2.5 minutes."""

SPARE_CHECK_PACE: Final = 14400.0
"""Seconds between two checks of a layer: what has broken meanwhile is found when the uplink is needed."""


def spare(config: Resolved, selection: Selection, drains: Drains) -> frozenset[UplinkFamily]:
    """Return the metered uplinks that no policy needs: not to serve, not in place of somebody who should, not to end.

    A policy needs those that serve it, those of its tiers up to the one that serves, and all when nobody well does.
    """
    metered = {name for name, uplink in config.uplinks.items() if uplink.metered}
    if not metered:
        return frozenset()
    policies = config.policies
    needed = {key for key, drain_state in drains.items() if not drain_state.done}
    for (policy, family), choice in selection.choices.items():
        needed |= {(name, family) for name, _ in choice.members}
        for name in metered:
            place = tier_of(policies[policy], name)
            if place is not None and (choice.tier is None or choice.forced or place <= choice.tier):
                needed.add((name, family))
    families = {family for _, family in selection.choices}
    return frozenset((name, family) for name in metered for family in families) - needed


def calm(state: State, key: UplinkFamily) -> bool:
    """Tell whether a spare uplink is well, as far as its rounds tell."""
    probes = state.health.rounds.get(key)
    return key in state.decision.spare and probes is not None and probes.health is Health.UP and not _doubtful(probes)


def _doubtful(probes: ProbeState) -> bool:
    return probes.bad > 0 or probes.waiting is not None or bool(probes.quality.busy)


def seldom_asked(state: State, key: UplinkFamily) -> bool:
    """Tell whether the rounds of an uplink may come seldom: nobody has set their interval either."""
    return calm(state, key) and state.known.config is not None and "interval" in state.known.config.unsaid[key[0]]


def seldom_checked(state: State, key: UplinkFamily) -> bool:
    """Tell the same of the checks of its layers."""
    return calm(state, key) and state.known.config is not None and "check_interval" in state.known.config.unsaid[key[0]]


def due(state: State, key: UplinkFamily) -> float:
    """Return the time at which the next round has to be sent: as `health.due`, but for a rest that is over."""
    probes, settings = state.health.rounds[key], state.known.probing[key[0]]
    at = hl.due(probes, settings)
    if probes.next != probes.sent + SPARE_PACE or seldom_asked(state, key):
        return at
    return min(at, probes.sent + settings.interval)


def start_round(
    state: State, key: UplinkFamily, targets: tuple[ProbeTarget, ...], now: float
) -> tuple[ProbeState, tuple[ProbeTarget, ...]]:
    """Note that a round is sent now; return the state of the uplink after that, and the targets that are asked.

    A round that somebody has asked for before its time asks all of them: it has to settle a doubt.
    """
    probes, settings = state.health.rounds[key], state.known.probing[key[0]]
    counted = state.health.bad_targets.counted(target.address for target in targets)
    pace = 0.0 if probes.open or not seldom_asked(state, key) else SPARE_PACE
    turn = None
    if pace:
        if probes.number and now >= probes.sent + pace:
            turn = Turn.of(counted[probes.number % len(counted)])
    elif not passive.alarmed(state.health.watches.get(key), probes):
        misses = state.health.bad_targets.misses.get(key, {})
        turn = turns.turn(probes, settings, [target.address for target in targets], counted, misses, now)
    if turn is None:
        return hl.start_round(probes, settings, len(counted), now, pace), targets
    asked = tuple(target for target in targets if target.address in turn.asked)
    return hl.start_round(probes, settings, 1, now, pace, turn.decides), asked
