"""What each layer of an uplink says by itself: the report of `polywan uplink test`."""

from __future__ import annotations

from collections.abc import Iterator
from math import inf
from typing import TypeAlias

from polywan.api.uplinks import LayerReport
from polywan.core.health.layers import Layer, LayerState, LayerVerdict
from polywan.core.net import FAMILIES
from polywan.core.state.state import State
from polywan.core.world.paths import NoPath, Path, UplinkFamily

_Line: TypeAlias = tuple[str, LayerVerdict, str]
"""A layer, the verdict on it, and what was seen."""


def report(state: State, uplink: str) -> list[LayerReport]:
    """Return what is known of each layer of an uplink, lowest first; with both families, each layer names its own."""
    keys = [(uplink, family) for family in FAMILIES if (uplink, family) in state.decision.reach]
    lines: list[LayerReport] = []
    for key in keys:
        prefix = f"IPv{key[1]} " if len(keys) > 1 else ""
        lines += [
            LayerReport(layer=prefix + layer, verdict=verdict, detail=detail)
            for layer, verdict, detail in _lines(state, key)
        ]
    return lines


def tested(state: State, uplink: str, since: float) -> bool:
    """Tell whether a round and every check that were asked for at time `since` have their results."""
    for key, probes in state.health.rounds.items():
        if key[0] != uplink or not isinstance(state.decision.reach.get(key), Path):
            continue
        layers = state.health.checks.known.get(key, {}).values()
        if any(layer.next == -inf or (layer.pending and layer.checked < since) for layer in layers):
            return False
        number = state.health.checks.asked.get(key, 0)
        if probes.number < number or any(r.number == number for r in probes.open):
            return False
    return True


def _lines(state: State, key: UplinkFamily) -> Iterator[_Line]:
    path = state.decision.reach[key]
    if isinstance(path, NoPath):
        yield "link", LayerVerdict.BROKEN, path.reason
        return
    yield "link", LayerVerdict.OK, ", ".join(map(str, path.addresses)) or path.link
    layers = state.health.checks.known.get(key, {})
    if Layer.GATEWAY in layers:
        yield _line(Layer.GATEWAY, layers[Layer.GATEWAY])
    yield _targets(state, key)
    checks = state.known.probing[key[0]].checks if key[0] in state.known.probing else ()
    yield from (_line(layer, layers[layer]) for layer in Layer if layer in checks and layer in layers)


def _line(layer: Layer, known: LayerState) -> _Line:
    """Report the last check itself: who asks for a test wants to see what it found."""
    if known.well is None:
        return layer, LayerVerdict.UNKNOWN, known.detail
    took = f"{1000 * known.rtt:.1f} ms" if known.well and known.rtt is not None else ""
    detail = ", ".join(part for part in (known.detail, took) if part)
    return layer, LayerVerdict.OK if known.well else LayerVerdict.BROKEN, detail


def _targets(state: State, key: UplinkFamily) -> _Line:
    misses = state.health.bad_targets.misses.get(key, {})
    settings = state.known.probing.get(key[0])
    asked = [] if settings is None else [t for t in settings.targets if t.version == key[1]]
    judged = [t for t in asked if t in misses]
    if settings is None or not judged:
        return "targets", LayerVerdict.UNKNOWN, "no result yet" if asked else "none to probe"
    answer = [t for t in judged if misses[t] == 0]
    counted = state.health.bad_targets.counted(asked)
    enough = sum(t in counted for t in answer) >= settings.quorum_for(len(counted))
    silent = ", ".join(str(t) for t in judged if misses[t])
    detail = f"{len(answer)} of {len(asked)} answer" + (f"; not {silent}" if silent else "")
    return "targets", LayerVerdict.OK if enough else LayerVerdict.BROKEN, detail
