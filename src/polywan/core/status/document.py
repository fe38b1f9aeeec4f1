"""The status document: one schema for the socket, the command and the page. It only ever grows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import inf
from typing import Any, Final

from polywan.config.model.numbering import DIRECT
from polywan.core.engine import passive, probing
from polywan.core.health import fail_static
from polywan.core.health.layers import Layer, LayerState, LayerVerdict, Spent
from polywan.core.health.rounds import ProbeState
from polywan.core.net import FAMILIES, Family
from polywan.core.policy.selection import Choice, Selection, unserved
from polywan.core.policy.uplink_state import UplinkState, judge_family
from polywan.core.resolved import Resolved
from polywan.core.state import drift
from polywan.core.state.state import State
from polywan.core.status import uplink_detail
from polywan.core.status.times import iso
from polywan.core.world.paths import NoPath
from polywan.core.world.prefixes6 import side_of

SCHEMA: Final = 1
"""Version of the document's shape; fields are added, never changed."""

MONTH: Final = 30 * 86400.0
"""Seconds that a month's volume is shown for."""

LEAST_UPTIME: Final = 60.0
"""Seconds after which the volume of a month can be told: before, the checks at the start weigh too much."""

_BADNESS: Final = {LayerVerdict.OK: 0, LayerVerdict.UNKNOWN: 1, LayerVerdict.BROKEN: 2}


@dataclass(frozen=True, slots=True)
class Traffic:
    """What was measured of an uplink: bytes since the link was made, bits per second, tracked connections."""

    connections: int = 0
    rx_bytes: int = 0
    tx_bytes: int = 0
    rx_bps: float = 0.0
    tx_bps: float = 0.0


def document(
    state: State,
    version: str,
    started: float,
    wall_offset: float,
    traffic: Mapping[str, Traffic],
    now: float = float("inf"),
) -> dict[str, Any]:
    """Return the status document.

    Args:
        state: the engine's state.
        version: of the program.
        started: when the daemon started, monotonic seconds.
        wall_offset: what added to monotonic seconds gives Unix time.
        traffic: measurements by uplink.
        now: monotonic seconds; without it nothing is told of what counts for seconds only.
    """
    config, selection = state.config, state.selection
    uplinks = (
        []
        if config is None
        else [
            {
                **_uplink(state, config, n, wall_offset, traffic.get(n, Traffic()), now),
                "unanswered": passive.unanswered(state, n, now),
            }
            for n in config.uplinks
        ]
    )
    policies = [] if config is None or selection is None else _policies(config, selection)
    return {
        "schema": SCHEMA,
        "version": version,
        "generation": state.generation,
        "since": iso(started + wall_offset),
        "ready": state.ready,
        "uplinks": uplinks,
        "policies": policies,
        "drift": list(drift.shown(state.repairs.mended, config, now)),
        "warnings": [
            *state.warnings,
            *(f"the kernel refused: {text}" for text in state.retries.refused),
            *map(fail_static.static_reason, fail_static.failed_at_once(state.health)),
            *forced(state),
            *(f"target {target} answers through no uplink: not counted" for target in state.bad_targets.bad),
        ],
        "apply_ms": round(1000 * state.retries.applied.seconds, 2) if state.retries.applied else None,
        "apply_ops": len(state.retries.applied.plan.ops) if state.retries.applied else 0,
    }


def _uplink(
    state: State, config: Resolved, name: str, wall_offset: float, traffic: Traffic, now: float
) -> dict[str, Any]:
    uplink = config.uplinks[name]
    seen = state.views.get(name)
    number = state.numbers[name]
    probes = [state.health[name, f] for f in FAMILIES if (name, f) in state.health]
    answered = [p for p in probes if p.rtt is not None]
    losses = [p.loss for p in probes if p.loss is not None]
    best = min(answered, key=lambda p: p.rtt or 0.0, default=None)
    return {
        "name": name,
        "interface": uplink.interface,
        "state": seen.state if seen else UplinkState.DOWN,
        "since": iso(seen.since + wall_offset) if seen else None,
        "reason": seen.reason if seen else "not evaluated yet",
        "weight": config.weights[name],
        "slow_start": _slow_start(state, name),
        "metered": uplink.metered,
        "share": _share(state.selection, "default", name),
        "gateway": _gateway(state, name, Family.V4),
        "gateway6": _gateway(state, name, Family.V6),
        "address": _address(state, name, Family.V4),
        "address6": _address(state, name, Family.V6),
        **_nat6(state, config, name),
        "mark": number.mark,
        "table": number.table,
        "rtt_ms": round(1000 * best.rtt, 3) if best and best.rtt is not None else None,
        "jitter_ms": round(1000 * best.jitter, 3) if best else None,
        "loss": round(max(losses), 4) if losses else None,
        **_lateness(probes),
        "drain": _drain(state, name, wall_offset),
        "connections": traffic.connections,
        "rx_bps": round(traffic.rx_bps),
        "tx_bps": round(traffic.tx_bps),
        "rx_bytes": traffic.rx_bytes,
        "tx_bytes": traffic.tx_bytes,
        **_probe_bytes(state.checks.spent.get(name)),
        "layers": _layers(state, name, FAMILIES, wall_offset),
        "families": _families(state, name, wall_offset, now),
        **uplink_detail.of_uplink(state, name, wall_offset, now),
    }


def _lateness(probes: Iterable[ProbeState]) -> dict[str, Any]:
    """Share of the last probes that were answered after their timeout, 0..1, and how long answers wait in a queue."""
    late = [p.quality.late for p in probes if p.quality.late is not None]
    waits = [p.quality.queue for p in probes if p.quality.queue is not None]
    return {
        "late": round(max(late), 4) if late else None,
        "queue_ms": round(1000 * min(waits), 1) if waits else None,
    }


def _slow_start(state: State, name: str) -> float | None:
    """Part of its weight that an uplink in slow start is given beside others, 0..1; None for all others."""
    parts = [part for (uplink, _), part in state.ramps.items() if uplink == name]
    return min(parts) / 100 if parts else None


def _nat6(state: State, config: Resolved, name: str) -> dict[str, Any]:
    """Prefixes that the provider routes here, and what happens to IPv6 sources; None without IPv6."""
    if state.observed is None or (name, Family.V6) not in state.reach:
        return {"prefixes6": [], "nat6_mode": None}
    side = side_of(name, config.uplinks[name], state.observed)
    return {"prefixes6": list(map(str, side.prefixes)), "nat6_mode": side.mode}


def _probe_bytes(spent: Spent | None) -> dict[str, Any]:
    """Volume of probes and checks since the start, and of a month at this rate once a minute has shown it."""
    if spent is None:
        return {"probe_bytes": 0, "probe_bytes_month": None}
    lasted = spent.until - spent.since
    month = round(spent.total / lasted * MONTH) if lasted >= LEAST_UPTIME else None
    return {"probe_bytes": spent.total, "probe_bytes_month": month}


def _layers(state: State, name: str, families: Iterable[Family], wall_offset: float) -> dict[str, Any]:
    """Each layer that is checked; of two families, the one that is worse."""
    worst: dict[Layer, LayerState] = {}
    wanted = {Layer.GATEWAY, *state.probing[name].checks} if name in state.probing else set()
    for family in families:
        for layer, known in state.checks.known.get((name, family), {}).items():
            if layer in wanted and (layer not in worst or _BADNESS[known.verdict] > _BADNESS[worst[layer].verdict]):
                worst[layer] = known
    return {
        layer: {
            "state": worst[layer].verdict,
            "detail": worst[layer].detail,
            "since": None if _BADNESS[worst[layer].verdict] == 1 else iso(worst[layer].since + wall_offset),
        }
        for layer in Layer
        if layer in worst
    }


def _families(state: State, name: str, wall_offset: float, now: float) -> dict[str, Any]:
    """State of each family that the uplink has, by its name in nft(8)."""
    result: dict[str, Any] = {}
    found = probing.found(state)
    for family in FAMILIES:
        if (name, family) not in state.reach:
            continue
        word, cause = judge_family((name, family), state.reach, state.health, found)
        result[family.nfproto] = {
            "state": word,
            "reason": cause,
            "layers": _layers(state, name, [family], wall_offset),
            **uplink_detail.of_family(state, (name, family), wall_offset, now),
        }
    return result


def _drain(state: State, name: str, wall_offset: float) -> dict[str, Any] | None:
    """Since when the uplink is being left, by hand or because a better one serves again, and when the rest is ended."""
    found = [drain_state for (n, _), drain_state in state.drains.items() if n == name and not drain_state.done]
    if not found:
        return None
    deadline = max(drain_state.deadline for drain_state in found)
    return {
        "since": iso(min(drain_state.since for drain_state in found) + wall_offset),
        "deadline": None if deadline == inf else iso(deadline + wall_offset),
        "by_operator": name in state.memory.orders,
    }


def _share(selection: Selection | None, policy: str, name: str) -> float:
    """Share of new connections, 0..1; the larger of the families' when they differ."""
    if selection is None:
        return 0.0
    shares = [_choice_share(c, name) for (p, _), c in selection.choices.items() if p == policy]
    return round(max(shares, default=0.0), 6)


def _choice_share(choice: Choice, name: str) -> float:
    total = sum(weight for _, weight in choice.members)
    return sum(weight for member, weight in choice.members if member == name) / total if total else 0.0


def _policies(config: Resolved, selection: Selection) -> list[dict[str, Any]]:
    known, titles = config.policies, config.titles
    result = []
    for policy in dict.fromkeys(p for p, _ in selection.choices):
        choices = {f: c for (p, f), c in selection.choices.items() if p == policy}
        first = next(iter(choices.values()))
        result.append(
            {
                "name": policy,
                "title": titles[policy],
                "algorithm": known[policy].algorithm,
                "direct": policy.startswith(DIRECT),
                "active_tier": first.tier,
                "members": [{"uplink": n, "share": round(_choice_share(first, n), 6)} for n, _ in first.members],
                "families": {
                    f.nfproto: {
                        "active_tier": c.tier,
                        "reason": c.reason,
                        "members": [{"uplink": n, "share": round(_choice_share(c, n), 6)} for n, _ in c.members],
                    }
                    for f, c in choices.items()
                },
            }
        )
    return result


def forced(state: State) -> Iterable[str]:
    """Return which policies nobody well serves, for people."""
    return unserved(state.config, state.selection).values() if state.config and state.selection else ()


def _gateway(state: State, name: str, family: Family) -> str | None:
    reached = state.reach.get((name, family))
    path = reached.path if isinstance(reached, NoPath) else reached
    return str(path.via) if path is not None and path.via is not None else None


def _address(state: State, name: str, family: Family) -> str | None:
    reached = state.reach.get((name, family))
    path = reached.path if isinstance(reached, NoPath) else reached
    return str(path.addresses[0]) if path is not None and path.addresses else None
