"""Make the status document (`polywan/api/status.py`) of what the engine knows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import Final

from polywan.api.status import (
    ChoiceStatus,
    ConfigStatus,
    DrainStatus,
    FamilyStatus,
    LayerStatus,
    Member,
    PolicyStatus,
    Status,
    UplinkStatus,
)
from polywan.api.views.quota import QuotaStatus
from polywan.config.model.numbering import DIRECT
from polywan.core.engine import passive, probing
from polywan.core.engine.log_events import ends_of
from polywan.core.health import fail_static
from polywan.core.health.layers import Layer, LayerState, LayerVerdict, Spent
from polywan.core.health.rounds import ProbeState
from polywan.core.net import FAMILIES, Family
from polywan.core.policy.selection import Choice, Selection, unserved
from polywan.core.policy.uplink_state import UplinkState, judge_family
from polywan.core.quota.report import quota_status
from polywan.core.resolved import Resolved
from polywan.core.state import drift
from polywan.core.state.state import State
from polywan.core.status import uplink_detail
from polywan.core.status.shaping import shaping
from polywan.core.status.times import iso
from polywan.core.status.totals import totals
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
class InForce:
    """When the configuration came into force (Unix seconds), and whether a later one was refused."""

    since: float = 0.0
    refused: bool = False


@dataclass(frozen=True, slots=True)
class Traffic:
    """What was measured of an uplink: bytes since the link was made, bits per second, tracked connections.

    `counted` says that the numbers of bytes are the uplink's, and not just unknown.
    """

    connections: int = 0
    rx_bytes: int = 0
    tx_bytes: int = 0
    rx_bps: float = 0.0
    tx_bps: float = 0.0
    counted: bool = False


def document(
    state: State,
    version: str,
    started: float,
    wall_offset: float,
    traffic: Mapping[str, Traffic],
    now: float = inf,
    troubles: Sequence[str] = (),
    notes: Sequence[str] = (),
    uplinks: Sequence[UplinkStatus] | None = None,
    in_force: InForce | None = None,
) -> Status:
    """Return the status document.

    Args:
        state: the engine's state.
        version: of the program.
        started: when the daemon started, monotonic seconds.
        wall_offset: what added to monotonic seconds gives Unix time.
        traffic: measurements by uplink.
        now: monotonic seconds; without it nothing is told of what counts for seconds only.
        troubles: what else people should know.
        notes: what else is worth knowing.
        uplinks: what `uplink_status` said of each, where somebody has asked already.
        in_force: what is known of the configuration.
    """
    config, selection, applied = state.known.config, state.decision.selection, state.done.retries.applied
    if uplinks is None:
        uplinks = [uplink_status(state, name, wall_offset, traffic.get(name), now) for name in uplinks_of(state)]
    return Status(
        schema=SCHEMA,
        version=version,
        generation=state.done.generation,
        since=iso(started + wall_offset),
        ready=state.ready,
        uplinks=tuple(uplinks),
        policies=() if config is None or selection is None else tuple(_policies(config, selection)),
        drift=tuple(drift.shown(state.done.repairs.mended, config, now)),
        warnings=(*_warnings(state), *troubles),
        notes=(
            *([f"every packet takes the slow path: {state.decision.slow}"] if state.decision.slow else []),
            *notes,
        ),
        apply_ms=round(1000 * applied.seconds, 2) if applied else None,
        apply_ops=len(applied.plan.ops) if applied else 0,
        config=None if in_force is None else _config(state, in_force),
        totals=totals(state),
    )


def _warnings(state: State) -> Iterator[str]:
    yield from state.decision.warnings
    yield from (f"the kernel refused: {text}" for text in state.done.retries.refused)
    yield from map(fail_static.static_reason, fail_static.failed_at_once(state.health.rounds))
    yield from forced(state)
    yield from (f"target {target} answers through no uplink: not counted" for target in state.health.bad_targets.bad)


def _config(state: State, in_force: InForce) -> ConfigStatus:
    return ConfigStatus(
        since=iso(in_force.since), refused=in_force.refused, refused_ops=len(state.done.retries.refused)
    )


def uplinks_of(state: State) -> tuple[str, ...]:
    """Return the names of the uplinks in the order of the status."""
    return () if state.known.config is None else tuple(state.known.config.uplinks)


def uplink_status(
    state: State, name: str, wall_offset: float, measured: Traffic | None = None, now: float = inf
) -> UplinkStatus:
    """Return what the status says of one uplink of `uplinks_of`; arguments as of `document`."""
    config, traffic = state.known.config, measured or Traffic()
    assert config is not None  # noqa: S101 - without a configuration there are no uplinks
    uplink = config.uplinks[name]
    seen = state.decision.views.get(name)
    number = state.known.numbers[name]
    probes = _probes(state, name)
    rtt_ms, jitter_ms, loss = line_quality(state, name)
    prefixes6, nat6_mode = _nat6(state, config, name)
    spent = state.health.checks.spent.get(name)
    ended = uplink_detail.last_ended(state, name)
    return UplinkStatus(
        name=name,
        interface=uplink.interface,
        state=seen.state if seen else UplinkState.DOWN,
        since=iso(seen.since + wall_offset) if seen else None,
        reason=seen.reason if seen else "not evaluated yet",
        weight=config.weights[name],
        slow_start=_slow_start(state, name),
        metered=uplink.metered,
        share=share_of_uplink(state.decision.selection, "default", name),
        gateway=_gateway(state, name, Family.V4),
        gateway6=_gateway(state, name, Family.V6),
        address=_address(state, name, Family.V4),
        address6=_address(state, name, Family.V6),
        prefixes6=prefixes6,
        nat6_mode=nat6_mode,
        mark=number.mark,
        table=number.table,
        rtt_ms=rtt_ms,
        jitter_ms=jitter_ms,
        loss=loss,
        late=_largest(p.quality.late for p in probes),
        queue_ms=_queue(probes),
        drain=_drain(state, name, wall_offset),
        connections=traffic.connections,
        rx_bps=round(traffic.rx_bps),
        tx_bps=round(traffic.tx_bps),
        rx_bytes=traffic.rx_bytes,
        tx_bytes=traffic.tx_bytes,
        counted=name not in config.sharing,
        probe_bytes=spent.total if spent else 0,
        probe_bytes_month=_month(spent),
        layers=_layers(state, name, FAMILIES, wall_offset),
        families=_families(state, name, wall_offset, now),
        standby=uplink_detail.stands_by(state, name),
        shares=uplink_detail.shares(state, "default", name),
        held_for=uplink_detail.held(state, name, now),
        outages_today=uplink_detail.outages_today(state, name, wall_offset, now),
        last_outage_s=round(ended.lasted, 1) if ended and ended.lasted is not None else None,
        outages=uplink_detail.last_outages(state, name),
        unanswered=passive.unanswered(state, name, now),
        shaping=tuple(shaping(state, config, name)),
        quota=_quota(state, config, name, now + wall_offset),
    )


def _probes(state: State, name: str) -> list[ProbeState]:
    return [state.health.rounds[name, f] for f in FAMILIES if (name, f) in state.health.rounds]


def line_quality(state: State, name: str) -> tuple[float | None, float | None, float | None]:
    """Return an uplink's round trip and jitter in milliseconds, and its loss, 0..1; None for what is not known."""
    probes = _probes(state, name)
    best = min((p for p in probes if p.rtt is not None), key=lambda p: p.rtt or 0.0, default=None)
    rtt_ms = round(1000 * best.rtt, 3) if best and best.rtt is not None else None
    return rtt_ms, round(1000 * best.jitter, 3) if best else None, _largest(p.loss for p in probes)


def _quota(state: State, config: Resolved, name: str, unix: float) -> QuotaStatus | None:
    quota, usage = config.uplinks[name].quota, state.known.quotas.usages.get(name)
    return None if quota is None or usage is None else quota_status(usage, quota, unix, state.known.zone)


def _largest(shares: Iterable[float | None]) -> float | None:
    """The worse of the families' shares, 0..1."""
    known = [share for share in shares if share is not None]
    return round(max(known), 4) if known else None


def _queue(probes: Iterable[ProbeState]) -> float | None:
    """How long answers wait in a queue, in milliseconds."""
    waits = [p.quality.queue for p in probes if p.quality.queue is not None]
    return round(1000 * min(waits), 1) if waits else None


def _slow_start(state: State, name: str) -> float | None:
    """Part of its weight that an uplink in slow start is given beside others, 0..1; None for all others."""
    parts = [part for (uplink, _), part in state.decision.ramps.items() if uplink == name]
    return min(parts) / 100 if parts else None


def _nat6(state: State, config: Resolved, name: str) -> tuple[tuple[str, ...], str | None]:
    """Prefixes that the provider routes here, and what happens to IPv6 sources; None without IPv6."""
    if state.known.observed is None or (name, Family.V6) not in state.decision.reach:
        return (), None
    side = side_of(name, config, state.known.observed)
    return tuple(map(str, side.prefixes)), side.mode


def _month(spent: Spent | None) -> int | None:
    """Volume of a month of probes and checks, at the rate since the start once a minute has shown it."""
    lasted = spent.until - spent.since if spent is not None else 0.0
    return round(spent.total / lasted * MONTH) if spent is not None and lasted >= LEAST_UPTIME else None


def _layers(state: State, name: str, families: Iterable[Family], wall_offset: float) -> dict[str, LayerStatus]:
    """Each layer that is checked; of two families, the one that is worse."""
    worst: dict[Layer, LayerState] = {}
    wanted = {Layer.GATEWAY, *state.known.probing[name].checks} if name in state.known.probing else set()
    for family in families:
        for layer, known in state.health.checks.known.get((name, family), {}).items():
            if layer in wanted and (layer not in worst or _BADNESS[known.verdict] > _BADNESS[worst[layer].verdict]):
                worst[layer] = known
    return {
        layer: LayerStatus(
            state=worst[layer].verdict,
            detail=worst[layer].detail,
            since=None if _BADNESS[worst[layer].verdict] == 1 else iso(worst[layer].since + wall_offset),
        )
        for layer in Layer
        if layer in worst
    }


def _families(state: State, name: str, wall_offset: float, now: float) -> dict[str, FamilyStatus]:
    """State of each family that the uplink has, by its name in nft(8)."""
    found = probing.found(state)
    result = {}
    for family in FAMILIES:
        key = (name, family)
        if key not in state.decision.reach:
            continue
        word, cause = judge_family(key, state.decision.reach, state.health.rounds, found)
        ends, probes = ends_of(state, key), state.health.rounds.get(key)
        result[family.nfproto] = FamilyStatus(
            state=word,
            reason=cause,
            layers=_layers(state, name, [family], wall_offset),
            since=iso(probes.since + wall_offset) if probes else None,
            address=ends.address if ends else None,
            gateway=ends.gateway if ends else None,
            share=uplink_detail.share(state, "default", key),
            rtt_ms=round(1000 * probes.rtt, 3) if probes and probes.rtt is not None else None,
            loss=round(probes.loss, 4) if probes and probes.loss is not None else None,
            held_for=uplink_detail.family_held(state, key, now),
            targets=uplink_detail.targets(state, key),
        )
    return result


def _drain(state: State, name: str, wall_offset: float) -> DrainStatus | None:
    """Since when the uplink is being left, by hand or because a better one serves again, and when the rest is ended."""
    found = [drain_state for (n, _), drain_state in state.decision.drains.items() if n == name and not drain_state.done]
    if not found:
        return None
    deadline = max(drain_state.deadline for drain_state in found)
    return DrainStatus(
        since=iso(min(drain_state.since for drain_state in found) + wall_offset),
        deadline=None if deadline == inf else iso(deadline + wall_offset),
        by_operator=name in state.known.memory.orders,
    )


def share_of_uplink(selection: Selection | None, policy: str, name: str) -> float:
    """Return an uplink's share of a policy's new connections, 0..1; the larger of the families' when they differ."""
    if selection is None:
        return 0.0
    shares = (uplink_detail.share_of(c, name) for (p, _), c in selection.choices.items() if p == policy)
    return max(shares, default=0.0)


def _policies(config: Resolved, selection: Selection) -> Iterator[PolicyStatus]:
    known, titles = config.policies, config.titles
    for policy in dict.fromkeys(p for p, _ in selection.choices):
        choices = {f: c for (p, f), c in selection.choices.items() if p == policy}
        first = next(iter(choices.values()))
        yield PolicyStatus(
            name=policy,
            title=titles[policy],
            algorithm=known[policy].algorithm,
            direct=policy.startswith(DIRECT),
            active_tier=first.tier,
            members=_members(first),
            families={
                f.nfproto: ChoiceStatus(active_tier=c.tier, reason=c.reason, members=_members(c))
                for f, c in choices.items()
            },
        )


def _members(choice: Choice) -> tuple[Member, ...]:
    return tuple(Member(uplink=n, share=uplink_detail.share_of(choice, n)) for n, _ in choice.members)


def forced(state: State) -> Iterable[str]:
    """Return which policies nobody well serves, for people."""
    return (
        unserved(state.known.config, state.decision.selection).values()
        if state.known.config and state.decision.selection
        else ()
    )


def _gateway(state: State, name: str, family: Family) -> str | None:
    reached = state.decision.reach.get((name, family))
    path = reached.path if isinstance(reached, NoPath) else reached
    return str(path.via) if path is not None and path.via is not None else None


def _address(state: State, name: str, family: Family) -> str | None:
    reached = state.decision.reach.get((name, family))
    path = reached.path if isinstance(reached, NoPath) else reached
    return str(path.addresses[0]) if path is not None and path.addresses else None
