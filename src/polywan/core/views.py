"""Sum up an uplink's families in one state, as people see it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from polywan.config import Config
from polywan.core.health import ProbeState
from polywan.core.net import FAMILIES
from polywan.core.reach import NoPath, Reach, UplinkFamily
from polywan.core.select import usable


class UplinkState(StrEnum):
    """The states of `status`; `draining` belongs to them too once uplinks can drain."""

    UP = "up"
    DEGRADED = "degraded"
    DOWN = "down"
    DISABLED = "disabled"
    MISSING = "missing"


@dataclass(frozen=True, slots=True)
class UplinkView:
    """An uplink's state, since when (monotonic seconds), and why."""

    state: UplinkState
    since: float
    reason: str


def view(
    config: Config,
    name: str,
    reach: Mapping[UplinkFamily, Reach],
    health: Mapping[UplinkFamily, ProbeState],
    before: UplinkView | None,
    now: float,
) -> UplinkView:
    """Return the uplink's view; `since` moves only when the state changes."""
    state, reason = _judge(config, name, reach, health)
    if before is not None and before.state is state:
        return UplinkView(state, before.since, reason)
    return UplinkView(state, now, reason)


def _judge(
    config: Config, name: str, reach: Mapping[UplinkFamily, Reach], health: Mapping[UplinkFamily, ProbeState]
) -> tuple[UplinkState, str]:
    if not config.uplinks[name].enabled:
        return UplinkState.DISABLED, "disabled in the configuration"
    keys = [(name, family) for family in FAMILIES if (name, family) in reach]
    ways = [reach[key] for key in keys]
    if any(isinstance(way, NoPath) and way.missing for way in ways):
        return UplinkState.MISSING, _reason(keys[0], reach, health)
    down = [key for key in keys if not usable(key, reach, health)]
    if not down:
        return UplinkState.UP, _reason(keys[0], reach, health)
    if len(down) < len(keys):
        return UplinkState.DEGRADED, f"IPv{down[0][1]} down: {_reason(down[0], reach, health)}"
    reasons = {key: _reason(key, reach, health) for key in down}
    if len(set(reasons.values())) == 1:
        return UplinkState.DOWN, reasons[down[0]]
    return UplinkState.DOWN, "; ".join(f"IPv{family}: {reason}" for (_, family), reason in reasons.items())


def _reason(key: UplinkFamily, reach: Mapping[UplinkFamily, Reach], health: Mapping[UplinkFamily, ProbeState]) -> str:
    way = reach[key]
    if isinstance(way, NoPath):
        return way.reason
    state = health.get(key)
    if state is None:
        return "not probed yet"
    return state.cause
