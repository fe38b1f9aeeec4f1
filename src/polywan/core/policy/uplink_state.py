"""Sum up an uplink's families in one state, as people see it.

The reasons are found elsewhere: no path in `world/paths.py`, probes in `health/rounds.py`, a bad line in
`health/quality.py`, layers in `health/diagnosis.py`, the operator's orders in `policy/operator.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from polywan.core.health.layers import NO_FINDINGS, Findings
from polywan.core.health.rounds import ProbeState
from polywan.core.identity import PerKey
from polywan.core.net import FAMILIES
from polywan.core.policy import operator
from polywan.core.policy.operator import Order, Verb
from polywan.core.policy.selection import usable
from polywan.core.resolved import Resolved
from polywan.core.words import by_family
from polywan.core.world.paths import NoPath, Reach, UplinkFamily

BUSY: Final = "busy"
"""How the reason of an uplink begins that is degraded because it is full."""


class UplinkState(StrEnum):
    """The states of `status`; `draining` and `drained` are by hand, as `disabled` can be."""

    UP = "up"
    DEGRADED = "degraded"
    DOWN = "down"
    DISABLED = "disabled"
    MISSING = "missing"
    DRAINING = "draining"
    DRAINED = "drained"


SERVING: Final = (UplinkState.UP, UplinkState.DEGRADED)
"""States in which an uplink may be given new connections."""

OUT: Final = (UplinkState.DOWN, UplinkState.MISSING)
"""States in which it is not, although people want it to be."""


@dataclass(frozen=True, slots=True)
class UplinkView:
    """An uplink's state, since when (monotonic seconds), and why."""

    state: UplinkState
    since: float
    reason: str


def view(
    config: Resolved,
    name: str,
    reach: Mapping[UplinkFamily, Reach],
    health: Mapping[UplinkFamily, ProbeState],
    before: UplinkView | None,
    now: float,
    order: Order | None = None,
    found: Findings = NO_FINDINGS,
) -> UplinkView:
    """Return the uplink's view; `since` moves only when the state changes. `order` is what somebody said by hand."""
    state, reason = _judged(config, name, reach, health, found) if order is None else _ordered(config, name, order)
    if before is not None and before.state is state:
        return before if before.reason == reason else UplinkView(state, before.since, reason)
    return UplinkView(state, now, reason)


_JUDGED: Final[PerKey[str, tuple[UplinkState, str]]] = PerKey()


def _judged(
    config: Resolved,
    name: str,
    reach: Mapping[UplinkFamily, Reach],
    health: Mapping[UplinkFamily, ProbeState],
    found: Findings,
) -> tuple[UplinkState, str]:
    """Judge, unless paths and rounds are the same as the last time, and no layer has anything to say."""
    if found.blocked or found.impaired or found.reasons:
        return _judge(config, name, reach, health, found)
    keys = [(name, family) for family in FAMILIES]
    inputs = (config.uplinks[name], *map(reach.get, keys), *map(health.get, keys))
    known = _JUDGED.get(name, *inputs)
    return _JUDGED.put(name, _judge(config, name, reach, health, found), *inputs) if known is None else known


def _ordered(config: Resolved, name: str, order: Order) -> tuple[UplinkState, str]:
    """The file comes first: what it disables, nobody enables by hand."""
    by_hand = operator.reason(name, order)
    if not config.uplinks[name].enabled:
        return UplinkState.DISABLED, f"disabled in the configuration; {by_hand}"
    if order.verb is Verb.DISABLE:
        return UplinkState.DISABLED, by_hand
    return UplinkState.DRAINED if order.empty else UplinkState.DRAINING, by_hand


def _judge(
    config: Resolved,
    name: str,
    reach: Mapping[UplinkFamily, Reach],
    health: Mapping[UplinkFamily, ProbeState],
    found: Findings,
) -> tuple[UplinkState, str]:
    if not config.uplinks[name].enabled:
        return UplinkState.DISABLED, "disabled in the configuration"
    keys = [(name, family) for family in FAMILIES if (name, family) in reach]
    paths = [reach[key] for key in keys]
    if any(isinstance(path, NoPath) and path.missing for path in paths):
        return UplinkState.MISSING, _reason(keys[0], reach, health, found)
    judged = {key[1]: judge_family(key, reach, health, found) for key in keys}
    down = {family: reason for family, (state, reason) in judged.items() if state is UplinkState.DOWN}
    if not down:
        poor = [(family, reason) for family, (state, reason) in judged.items() if state is UplinkState.DEGRADED]
        if len(poor) == len(keys) and all(reason.startswith(BUSY) for _, reason in poor):
            # One queue holds up both families; what each of them sees of it is in `families`.
            return UplinkState.DEGRADED, poor[0][1]
        if len(poor) == len(keys):
            return UplinkState.DEGRADED, by_family({f"IPv{family}": reason for family, reason in poor})
        if poor:
            return UplinkState.DEGRADED, "; ".join(f"IPv{family}: {reason}" for family, reason in poor)
        return judged[keys[0][1]]
    if len(down) < len(keys):
        family, reason = next(iter(down.items()))
        return UplinkState.DEGRADED, f"IPv{family} down: {reason}"
    return UplinkState.DOWN, by_family({f"IPv{family}": reason for family, reason in down.items()})


def judge_family(
    key: UplinkFamily,
    reach: Mapping[UplinkFamily, Reach],
    health: Mapping[UplinkFamily, ProbeState],
    found: Findings,
) -> tuple[UplinkState, str]:
    """Return whether an uplink is up, degraded or down in one family, and why."""
    if not usable(key, reach, health) or key in found.blocked:
        return UplinkState.DOWN, _reason(key, reach, health, found)
    poor = health[key].degraded or found.impaired.get(key)
    return (UplinkState.DEGRADED, poor) if poor else (UplinkState.UP, _reason(key, reach, health, found))


def _reason(
    key: UplinkFamily,
    reach: Mapping[UplinkFamily, Reach],
    health: Mapping[UplinkFamily, ProbeState],
    found: Findings,
) -> str:
    path = reach[key]
    if isinstance(path, NoPath):
        return path.reason
    state = health.get(key)
    if state is None:
        return "not probed yet"
    if usable(key, reach, health):
        return found.blocked.get(key, state.cause)
    return found.reasons.get(key, state.cause)
