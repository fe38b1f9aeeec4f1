"""Slow start: an uplink that came back takes its full share of new connections in steps, not at once.

Should it fail again under load, few connections have been given to it by then.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import floor, gcd
from typing import Final

from polywan.config import HealthSettings
from polywan.core.health.rounds import Health, ProbeState
from polywan.core.world.paths import UplinkFamily

STEPS: Final = 10
"""Steps from 1 % to the whole weight. Each is a plan of its own, which replaces the slots of the policies concerned."""

FULL_SHARE: Final = 100
"""Percent of its weight that an uplink has when it is not in slow start."""

SLACK: Final = 0.01
"""Seconds that a step may be late: none is worth a wake-up of its own."""


def percent(state: ProbeState, settings: HealthSettings, now: float) -> int:
    """Return how much of its weight an uplink is given, 1..100: HAProxy's ``slowstart`` grows in the same way."""
    if state.health is Health.DOWN or state.returned is None or now >= state.returned + settings.slow_start:
        return FULL_SHARE
    return max(1, _step(state.returned, settings, now) * FULL_SHARE // STEPS)


def percents(
    health: Mapping[UplinkFamily, ProbeState], probing: Mapping[str, HealthSettings], now: float
) -> dict[UplinkFamily, int]:
    """Return the uplinks in slow start, and how much of their weights they are given."""
    found = {key: percent(state, probing[key[0]], now) for key, state in health.items()}
    return {key: part for key, part in found.items() if part < FULL_SHARE}


def next_step(health: Mapping[UplinkFamily, ProbeState], probing: Mapping[str, HealthSettings], now: float) -> float:
    """Return when the next uplink is given more."""
    times = []
    for key, state in health.items():
        settings = probing[key[0]]
        if percent(state, settings, now) < FULL_SHARE and state.returned is not None:
            step = (_step(state.returned, settings, now) + 1) / STEPS
            times.append(max(state.returned + step * settings.slow_start, now + SLACK))
    return min(times, default=float("inf"))


def scaled(members: tuple[tuple[str, int], ...], parts: Mapping[str, int]) -> tuple[tuple[str, int], ...]:
    """Return members of a tier with the weights that are in force.

    Who is alone, or among its like, has nobody to leave anything to: then weights are as they were.

    Args:
        members: (uplink, weight).
        parts: percent by uplink, for those in slow start.
    """
    percents = [parts.get(name, FULL_SHARE) for name, _ in members]
    if len(set(percents)) < 2:
        return members
    weights = [weight * part for (_, weight), part in zip(members, percents, strict=True)]
    divisor = gcd(*weights)
    return tuple((name, weight // divisor) for (name, _), weight in zip(members, weights, strict=True))


def _step(returned: float, settings: HealthSettings, now: float) -> int:
    # A wake-up at exactly the time of a step must find it done, whatever rounding did to that time.
    return floor(STEPS * (now - returned) / settings.slow_start + 1e-6)
