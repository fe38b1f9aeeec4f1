"""The engine's part of `bad_targets`: who may judge a result, and whose opinion is asked for at once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache

from polywan.config import HealthSettings
from polywan.core.engine import probing
from polywan.core.evolve import replace
from polywan.core.health import bad_targets as bl
from polywan.core.health.probes import ProbeResult
from polywan.core.health.rounds import Health
from polywan.core.identity import Same
from polywan.core.net import FAMILIES, Family
from polywan.core.resolved import Resolved
from polywan.core.state.effects import Effect, Level, Log
from polywan.core.state.state import State
from polywan.core.world.paths import Path, Reach, UplinkFamily


def weigh(state: State, event: ProbeResult, now: float) -> tuple[bl.Assessment, tuple[Effect, ...]]:
    """Ask who is to blame for a missing answer before it is counted."""
    key = (event.uplink, event.family)
    probes = state.health.rounds[key]
    sent = None
    if probes.health is not Health.DOWN:
        sent = next((r.sent for r in probes.open if r.number == event.round), None)
    assessment = bl.take(state.health.bad_targets, event, sent, state.health.observers.get(event.family, {}), now)
    notes = []
    if assessment.bad is not None:
        text = f"target {assessment.bad} answers through no uplink: not counted"
        notes.append(Log(Level.WARNING, "target.bad", text))
    if assessment.cleared is not None:
        notes.append(Log(Level.INFO, "target.cleared", f"target {assessment.cleared} answers again: counted again"))
    return assessment, tuple(notes)


def second_opinions(state: State, assessment: bl.Assessment, now: float) -> State:
    """Make a round due now on the uplinks that could settle a doubt and have not asked since it arose."""
    if not assessment.ask:
        return state
    since = assessment.bad_targets.pending[-1].sent
    hasty = {
        key: replace(probes, next=now)
        for key in assessment.ask
        if (probes := state.health.rounds[key]).next > now
        and not any(r.sent >= since and r.decides is None for r in probes.open)
    }
    return (
        probing.probe_by(replace(state, health=replace(state.health, rounds={**state.health.rounds, **hasty})), now)
        if hasty
        else state
    )


@lru_cache(maxsize=1024)
def _observer(settings: Same[HealthSettings], family: Family) -> bl.Observer:
    targets = frozenset(target for target in settings.value.targets if target.version == family)
    return bl.Observer(targets, settings.value.fall)


def kept(state: State, config: Resolved) -> bl.BadTargets:
    """Return what is known of the targets that this configuration still has."""
    targets = {target for name in config.uplinks for target in config.health[name].targets}
    return bl.retained(state.health.bad_targets, config.uplinks, targets)


def observers(
    probing: Mapping[str, HealthSettings], reach: Mapping[UplinkFamily, Reach], health: Iterable[UplinkFamily]
) -> Mapping[Family, bl.Observers]:
    """Return who is probed in each family, and whom it asks."""
    found: dict[Family, dict[UplinkFamily, bl.Observer]] = {family: {} for family in FAMILIES}
    for key in health:
        name, family = key
        if name in probing and isinstance(reach.get(key), Path):
            found[family][key] = _observer(Same(probing[name]), family)
    return found
