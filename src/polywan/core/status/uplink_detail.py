"""What the status document tells of an uplink beyond its summary: outages, hold-down, each family by itself."""

from __future__ import annotations

from math import isfinite
from typing import Any

from polywan.core.engine.story import ends_of, held_for
from polywan.core.net import FAMILIES, Family
from polywan.core.policy import draining
from polywan.core.policy.uplink_state import UplinkState
from polywan.core.state import outages
from polywan.core.state.state import State
from polywan.core.status.times import iso
from polywan.core.world.paths import UplinkFamily


def of_uplink(state: State, name: str, wall_offset: float, now: float) -> dict[str, Any]:
    """Return the fields of an uplink as a whole.

    Args:
        state: the engine's state.
        name: the uplink.
        wall_offset: what added to monotonic seconds gives Unix time.
        now: monotonic seconds; endless when what counts for seconds only is not to be told.
    """
    history = state.memory.outages.get(name)
    ended = history.ended if history else None
    remaining = [held for family in FAMILIES if (held := _held(state, (name, family), now)) is not None]
    return {
        "standby": stands_by(state, name),
        "shares": {
            family.nfproto: share(state, "default", (name, family))
            for family in FAMILIES
            if state.selection is not None and ("default", family) in state.selection.choices
        },
        "held_for": max(remaining, default=None),
        "outages_today": outages.today(history, now + wall_offset, state.zone) if isfinite(now) else 0,
        "last_outage_s": round(ended.lasted, 1) if ended and ended.lasted is not None else None,
        "outages": [
            {
                "since": iso(outage.began),
                "seconds": None if outage.lasted is None else round(outage.lasted, 1),
                "reason": outage.reason,
            }
            for outage in (history.last if history else ())
        ],
    }


def of_family(state: State, key: UplinkFamily, wall_offset: float, now: float) -> dict[str, Any]:
    """Return the fields of one family of an uplink; arguments as above."""
    ends, probes = ends_of(state, key), state.health.get(key)
    return {
        "since": iso(probes.since + wall_offset) if probes else None,
        "address": ends.address if ends else None,
        "gateway": ends.gateway if ends else None,
        "share": share(state, "default", key),
        "rtt_ms": round(1000 * probes.rtt, 3) if probes and probes.rtt is not None else None,
        "loss": round(probes.loss, 4) if probes and probes.loss is not None else None,
        "held_for": _held(state, key, now),
        "targets": _targets(state, key),
    }


def stands_by(state: State, name: str) -> bool:
    """True for an uplink that could serve and is given nothing by any policy, because others are preferred."""
    seen, selection = state.views.get(name), state.selection
    if seen is None or selection is None or seen.state not in (UplinkState.UP, UplinkState.DEGRADED):
        return False
    return not any(member == name for member, _ in draining.serving(selection))


def share(state: State, policy: str, key: UplinkFamily) -> float:
    """Return an uplink's share of a policy's new connections in a family, 0..1."""
    choice = state.selection.choices.get((policy, key[1])) if state.selection else None
    total = sum(weight for _, weight in choice.members) if choice else 0
    mine = sum(weight for member, weight in choice.members if member == key[0]) if choice else 0
    return round(mine / total, 6) if total else 0.0


def _held(state: State, key: UplinkFamily, now: float) -> float | None:
    remaining = held_for(state, key, now) if isfinite(now) and key in state.reach else None
    return None if remaining is None else round(remaining, 1)


def _targets(state: State, key: UplinkFamily) -> list[dict[str, Any]]:
    """Each target: probes in a row without an answer (None: not known yet), and what was measured with it."""
    settings, probes = state.probing.get(key[0]), state.health.get(key)
    if settings is None:
        return []
    missed = state.bad_targets.misses.get(key, {})
    measured = {t.address: t for t in probes.quality.targets} if probes else {}
    result = []
    for target in settings.targets:
        if Family(target.version) is key[1]:
            known = measured.get(target)
            result.append(
                {
                    "target": str(target),
                    "missed": missed.get(target),
                    "rtt_ms": round(1000 * known.rtt, 3) if known and known.rtt is not None else None,
                    "loss": round(known.loss, 4) if known and known.count else None,
                }
            )
    return result
