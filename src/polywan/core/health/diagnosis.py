"""What the layers of an uplink amount to, in sentences; the lowest layer that broke is named."""

from __future__ import annotations

from collections.abc import Mapping

from polywan.config import HealthSettings
from polywan.core.health.bad_targets import BadTargets
from polywan.core.health.layers import REQUIRED, Findings, Layer, LayerState, LayerVerdict
from polywan.core.health.life import ONSET
from polywan.core.health.rounds import Health, ProbeState
from polywan.core.net import Family
from polywan.core.world.paths import Path, Reach, UplinkFamily


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
            return f"network answers, {settings.script[0] if settings.script else 'the script'} reports a failure{seen}"
