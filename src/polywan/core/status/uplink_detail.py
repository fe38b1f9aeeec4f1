"""What the status document tells of an uplink beyond its summary: outages, hold-down, each family by itself."""

from __future__ import annotations

from math import isfinite

from polywan.api.status import OutageStatus, TargetStatus
from polywan.core.engine.log_events import held_for
from polywan.core.net import FAMILIES, Family
from polywan.core.policy import draining
from polywan.core.policy.selection import Choice
from polywan.core.policy.uplink_state import UplinkState
from polywan.core.state import outages
from polywan.core.state.state import State
from polywan.core.status.times import iso
from polywan.core.world.paths import UplinkFamily


def held(state: State, name: str, now: float) -> float | None:
    """Return for how many seconds an uplink stays down although it answers; None when it does not.

    Args:
        state: the engine's state.
        name: the uplink.
        now: monotonic seconds; endless when what counts for seconds only is not to be told.
    """
    remaining = [each for family in FAMILIES if (each := family_held(state, (name, family), now)) is not None]
    return max(remaining, default=None)


def family_held(state: State, key: UplinkFamily, now: float) -> float | None:
    """Return the same for one family of an uplink."""
    remaining = held_for(state, key, now) if isfinite(now) and key in state.decision.reach else None
    return None if remaining is None else round(remaining, 1)


def outages_today(state: State, name: str, wall_offset: float, now: float) -> int:
    """Return how many outages of an uplink began today, local time; `wall_offset` plus `now` is Unix time."""
    history = state.known.memory.outages.get(name)
    return outages.today(history, now + wall_offset, state.known.zone) if isfinite(now) else 0


def last_ended(state: State, name: str) -> outages.Outage | None:
    """Return the last outage of an uplink that is over."""
    history = state.known.memory.outages.get(name)
    return history.ended if history else None


def last_outages(state: State, name: str) -> tuple[OutageStatus, ...]:
    """Return the last outages of an uplink, newest first."""
    history = state.known.memory.outages.get(name)
    return tuple(
        OutageStatus(
            since=iso(outage.began),
            seconds=None if outage.lasted is None else round(outage.lasted, 1),
            reason=outage.reason,
        )
        for outage in (history.last if history else ())
    )


def stands_by(state: State, name: str) -> bool:
    """True for an uplink that could serve and is given nothing by any policy, because others are preferred.

    One that is blocked for its quota does not: it never stands in.
    """
    seen, selection = state.decision.views.get(name), state.decision.selection
    if seen is None or selection is None or seen.state not in (UplinkState.UP, UplinkState.DEGRADED):
        return False
    blocked = state.known.quotas.restrictions.get(name) == "block"
    return not blocked and not any(member == name for member, _ in draining.serving(selection))


def share_of(choice: Choice, name: str) -> float:
    """Return an uplink's share of the new connections that a choice is for, 0..1."""
    total = sum(weight for _, weight in choice.members)
    return round(sum(weight for member, weight in choice.members if member == name) / total, 6) if total else 0.0


def share(state: State, policy: str, key: UplinkFamily) -> float:
    """Return an uplink's share of a policy's new connections in a family, 0..1."""
    choice = state.decision.selection.choices.get((policy, key[1])) if state.decision.selection else None
    return share_of(choice, key[0]) if choice is not None else 0.0


def shares(state: State, policy: str, name: str) -> dict[str, float]:
    """Return an uplink's share of a policy's new connections in each family that the policy has, 0..1."""
    return {
        family.nfproto: share(state, policy, (name, family))
        for family in FAMILIES
        if state.decision.selection is not None and (policy, family) in state.decision.selection.choices
    }


def targets(state: State, key: UplinkFamily) -> tuple[TargetStatus, ...]:
    """Return each target: probes in a row without an answer (None: not known yet), and what was measured with it."""
    settings, probes = state.known.probing.get(key[0]), state.health.rounds.get(key)
    if settings is None:
        return ()
    missed = state.health.bad_targets.misses.get(key, {})
    measured = {t.address: t for t in probes.quality.targets} if probes else {}
    return tuple(
        TargetStatus(
            target=str(target),
            missed=missed.get(target),
            rtt_ms=round(1000 * known.rtt, 3) if known and known.rtt is not None else None,
            loss=round(known.loss, 4) if known and known.count else None,
        )
        for target, known in ((target, measured.get(target)) for target in settings.targets)
        if Family(target.version) is key[1]
    )
