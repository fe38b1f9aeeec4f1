"""The engine's part of `blame`: who may judge a result, and whose opinion is asked for at once."""

from __future__ import annotations

from polywan.config import Config
from polywan.core import blame as bl
from polywan.core.effects import Effect, Level, Note
from polywan.core.events import ProbeResult
from polywan.core.evolve import replace
from polywan.core.health import Health
from polywan.core.net import Family
from polywan.core.reach import Path
from polywan.core.state import State


def weigh(state: State, event: ProbeResult, now: float) -> tuple[bl.Ruling, tuple[Effect, ...]]:
    """Ask who is to blame for a missing answer before it is counted."""
    key = (event.uplink, event.family)
    probes = state.health[key]
    sent = None
    if probes.health is not Health.DOWN:
        sent = next((r.sent for r in probes.open if r.number == event.round), None)
    ruling = bl.take(state.blame, event, sent, lambda family: _jury(state, family), now)
    notes = []
    if ruling.blamed is not None:
        text = f"target {ruling.blamed} answers by no uplink: not counted against them"
        notes.append(Note(Level.WARNING, "target.blamed", text))
    if ruling.acquitted is not None:
        notes.append(Note(Level.INFO, "target.acquitted", f"target {ruling.acquitted} answers again: counted again"))
    return ruling, tuple(notes)


def second_opinions(state: State, ruling: bl.Ruling, now: float) -> State:
    """Make a round due now on the uplinks that could settle a doubt and have not asked since it arose."""
    if not ruling.ask:
        return state
    since = ruling.blame.held[-1].sent
    hasty = {
        key: replace(probes, next=now)
        for key in ruling.ask
        if (probes := state.health[key]).next > now and not any(r.sent >= since for r in probes.open)
    }
    return replace(state, health={**state.health, **hasty}, wake=min(state.wake, now)) if hasty else state


def kept(state: State, config: Config) -> bl.Blame:
    """Return what is known of the targets that this configuration still has."""
    targets = {target for name in config.uplinks for target in config.health_of(name).targets}
    return bl.kept(state.blame, config.uplinks, targets)


def _jury(state: State, family: Family) -> bl.Jury:
    return {
        key: bl.Juror(
            frozenset(t for t in state.probing[key[0]].targets if t.version == family), state.probing[key[0]].fall
        )
        for key in state.health
        if key[1] is family and key[0] in state.probing and isinstance(state.reach.get(key), Path)
    }
