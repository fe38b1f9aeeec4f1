"""What the layers of an uplink amount to, in sentences; the lowest layer that broke is named."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import inf
from typing import NamedTuple

from polywan.config import HealthSettings
from polywan.core.blame import BadTargets
from polywan.core.health import Health, ProbeState
from polywan.core.layers import REQUIRED, Findings, Layer, LayerState, LayerVerdict
from polywan.core.life import ONSET
from polywan.core.net import FAMILIES, Family
from polywan.core.reach import NoPath, Path, Reach, UplinkFamily
from polywan.core.state import State


class Line(NamedTuple):
    """One line of a report: a layer, "ok", "broken" or "unknown", and what was seen."""

    layer: str
    verdict: str
    detail: str


def findings(
    probing: Mapping[str, HealthSettings],
    reach: Mapping[UplinkFamily, Reach],
    health: Mapping[UplinkFamily, ProbeState],
    known: Mapping[UplinkFamily, Mapping[Layer, LayerState]],
    bad_targets: BadTargets,
) -> Findings:
    """Sum up; layers that are no longer asked for count no more."""
    blocked: dict[UplinkFamily, str] = {}
    impaired: dict[UplinkFamily, str] = {}
    reasons: dict[UplinkFamily, str] = {}
    for key, layers in known.items():
        path, probes, settings = reach.get(key), health.get(key), probing.get(key[0])
        if not isinstance(path, Path) or probes is None or settings is None:
            continue
        if probes.health is Health.DOWN:
            sentence = _where(key, path, probes, layers.get(Layer.GATEWAY), bad_targets)
            if sentence:
                reasons[key] = sentence
        broken = [layer for layer in REQUIRED if layer in settings.checks and _broken(layers.get(layer))]
        if broken:
            blocked[key] = _missing(broken[0], layers[broken[0]], settings)
        if Layer.LARGE in settings.checks and _broken(layers.get(Layer.LARGE)):
            impaired[key] = _missing(Layer.LARGE, layers[Layer.LARGE], settings)
    return Findings(blocked, impaired, reasons)


def report(state: State, uplink: str) -> list[Line]:
    """Return what is known of each layer of an uplink, lowest first; with both families, each layer names its own."""
    keys = [(uplink, family) for family in FAMILIES if (uplink, family) in state.reach]
    lines: list[Line] = []
    for key in keys:
        prefix = f"IPv{key[1]} " if len(keys) > 1 else ""
        lines += [line._replace(layer=prefix + line.layer) for line in _lines(state, key)]
    return lines


def tested(state: State, uplink: str, since: float) -> bool:
    """Tell whether a round and every check that were asked for at time `since` have their results."""
    for key, probes in state.health.items():
        if key[0] != uplink or not isinstance(state.reach.get(key), Path):
            continue
        layers = state.checks.known.get(key, {}).values()
        if any(layer.next == -inf or (layer.pending and layer.checked < since) for layer in layers):
            return False
        number = state.checks.asked.get(key, 0)
        if probes.number < number or any(r.number == number for r in probes.open):
            return False
    return True


def _broken(known: LayerState | None) -> bool:
    return known is not None and known.verdict is LayerVerdict.BROKEN


def _where(
    key: UplinkFamily, path: Path, probes: ProbeState, gateway: LayerState | None, bad_targets: BadTargets
) -> str | None:
    """Return how far packets get when the rounds fail; None when that is not known, or some targets answer."""
    if not probes.bad or gateway is None or gateway.well is None or not gateway.troubled or path.via is None:
        return None
    if any(missed == 0 for missed in bad_targets.misses.get(key, {}).values()):
        return None
    if gateway.well:
        return f"gateway answers, nothing beyond it: {probes.cause}"
    if max(probes.life.at, probes.life.loaded) >= probes.bad_since - ONSET:
        # It was busy: in a full queue of this box the question is lost like everything else.
        return None
    question = "ARP" if key[1] is Family.V4 else "neighbour discovery"
    return f"gateway {path.via} does not answer {question} although the link is up"


def _missing(layer: Layer, known: LayerState, settings: HealthSettings) -> str:
    seen = f" ({known.detail})" if known.detail else ""
    match layer:
        case Layer.DNS:
            return f"network answers, DNS does not{seen}"
        case Layer.HTTP:
            # The prober says so where the answer was somebody else's.
            if "captive portal" in known.detail:
                return f"a captive portal answers instead of {settings.http_url}{seen}"
            return f"network answers, {settings.http_url} does not{seen}"
        case Layer.LARGE:
            return f"small packets pass, large ones do not: path MTU{seen}"
        case _:
            return f"network answers, {settings.script[0] if settings.script else 'the script'} says no{seen}"


def _lines(state: State, key: UplinkFamily) -> Iterator[Line]:
    path = state.reach[key]
    if isinstance(path, NoPath):
        yield Line("link", LayerVerdict.BROKEN, path.reason)
        return
    yield Line("link", LayerVerdict.OK, ", ".join(map(str, path.addresses)) or path.link)
    layers = state.checks.known.get(key, {})
    if Layer.GATEWAY in layers:
        yield _line(Layer.GATEWAY, layers[Layer.GATEWAY])
    yield _targets(state, key)
    checks = state.probing[key[0]].checks if key[0] in state.probing else ()
    yield from (_line(layer, layers[layer]) for layer in Layer if layer in checks and layer in layers)


def _line(layer: Layer, known: LayerState) -> Line:
    """Report the last check itself: who asks for a test wants to see what it found."""
    if known.well is None:
        return Line(layer, LayerVerdict.UNKNOWN, known.detail)
    took = f"{1000 * known.rtt:.1f} ms" if known.well and known.rtt is not None else ""
    detail = ", ".join(part for part in (known.detail, took) if part)
    return Line(layer, LayerVerdict.OK if known.well else LayerVerdict.BROKEN, detail)


def _targets(state: State, key: UplinkFamily) -> Line:
    misses = state.bad_targets.misses.get(key, {})
    settings = state.probing.get(key[0])
    asked = [] if settings is None else [t for t in settings.targets if t.version == key[1]]
    judged = [t for t in asked if t in misses]
    if settings is None or not judged:
        return Line("targets", LayerVerdict.UNKNOWN, "none answered or failed yet" if asked else "none to probe")
    answer = [t for t in judged if misses[t] == 0]
    counted = state.bad_targets.counted(asked)
    enough = sum(t in counted for t in answer) >= settings.quorum_for(len(counted))
    silent = ", ".join(str(t) for t in judged if misses[t])
    detail = f"{len(answer)} of {len(asked)} answer" + (f"; not {silent}" if silent else "")
    return Line("targets", LayerVerdict.OK if enough else LayerVerdict.BROKEN, detail)
