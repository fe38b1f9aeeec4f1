"""Choose which uplinks serve each policy right now, and say why."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Final, NamedTuple, TypeAlias

from polywan.config import Policy
from polywan.config.model.policy import OnDown
from polywan.core.health import rounds, slow_start
from polywan.core.health.layers import NO_FINDINGS, Findings
from polywan.core.health.rounds import Health, ProbeState
from polywan.core.identity import remembered
from polywan.core.net import FAMILIES, Family
from polywan.core.policy.operator import Order, available, off
from polywan.core.quota.limits import LESS, UNRESTRICTED, Restrictions
from polywan.core.resolved import Resolved
from polywan.core.words import by_family
from polywan.core.world.paths import Path, Reach, UplinkFamily

Members: TypeAlias = tuple[tuple[str, int], ...]

FULL_WEIGHT: Final[Mapping[UplinkFamily, int]] = MappingProxyType({})
"""Nobody is in slow start."""

NO_ORDERS: Final[Mapping[str, Order]] = MappingProxyType({})
"""Nobody has said anything about an uplink by hand."""

_HARSHEST: Final[tuple[OnDown, ...]] = ("reset", "move", "keep")


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """Who serves a policy in one family.

    Attributes:
        members: (uplink, weight), in file order; empty means the policy's last resort applies.
        tier: index of the tier they are of, None for the last resort.
        reason: one sentence for people.
        forced: True when nobody is healthy and the last good choice stays in force.
    """

    members: tuple[tuple[str, int], ...]
    tier: int | None
    reason: str
    forced: bool = False


@dataclass(frozen=True, slots=True)
class Selection:
    """The choice of every policy in every active family, and whose connections have to be let go.

    Attributes:
        choices: who serves, by policy and family.
        dead: uplinks whose connections are ended, or choose again.
        moved: uplinks that are lost as well, but whose TCP is left alone; everything else chooses again.
        down: uplinks that do not answer, whoever serves; the kernel keeps this for the daemon that starts next.
    """

    choices: Mapping[tuple[str, Family], Choice]
    dead: frozenset[UplinkFamily]
    moved: frozenset[UplinkFamily] = frozenset()
    down: frozenset[UplinkFamily] = frozenset()


def unserved(config: Resolved, selection: Selection) -> dict[tuple[str, Family], str]:
    """Tell which policies nobody well serves, and what happens instead."""
    titles = config.titles
    return {
        (policy, family): f"{titles[policy]} (IPv{family}): {choice.reason}"
        for (policy, family), choice in selection.choices.items()
        if choice.forced or not choice.members
    }


def unserved_policies(config: Resolved, selection: Selection) -> dict[str, str]:
    """Tell the same by policy: once where it is so in every family."""
    if all(choice.members and not choice.forced for choice in selection.choices.values()):
        return {}
    titles, found = config.titles, unserved(config, selection)
    message: dict[str, str] = {}
    for policy in dict.fromkeys(policy for policy, _ in found):
        families = [family for name, family in selection.choices if name == policy]
        lacking = [family for family in families if (policy, family) in found]
        reasons = {f"IPv{family}": selection.choices[policy, family].reason for family in lacking}
        same = len(lacking) == len(families) and len(set(reasons.values())) == 1
        text = by_family(reasons) if same else "; ".join(f"{family}: {text}" for family, text in reasons.items())
        message[policy] = f"{titles[policy]}: {text}"
    return message


def select(
    config: Resolved,
    reach: Mapping[UplinkFamily, Reach],
    health: Mapping[UplinkFamily, ProbeState],
    previous: Selection | None,
    orders: Mapping[str, Order] = NO_ORDERS,
    ramps: Mapping[UplinkFamily, int] = FULL_WEIGHT,
    found: Findings = NO_FINDINGS,
    limited: Restrictions = UNRESTRICTED,
) -> Selection:
    """Choose for every policy and active family; a family is active when some uplink has it.

    Uplinks that somebody has disabled or drained by hand (`orders`) serve nobody. Those in slow start (`ramps`) have
    so many percent of their weight. Those on which a layer above the network is broken (`found`) are passed over, and
    keep their connections. What their quotas do to uplinks is `limited`.
    """
    active = [f for f in FAMILIES if any(family is f for _, family in reach)]
    working = {key for key in reach if usable(key, reach, health)}
    healthy = {f for name, f in working if available(config, orders, name) and limited.get(name) != "block"}
    choices: dict[tuple[str, Family], Choice] = {}
    for name, policy in config.policies.items():
        for family in active:
            before = previous.choices.get((name, family)) if previous else None
            tiers = _ranked(_linked(config, policy, family, reach, orders), limited)
            choice = _choose(policy, tiers, family, working, _Condition(health, ramps, found, limited))
            choice = choice or _forced(tiers, health, family, before, known=family in healthy)
            unasked = _unasked(policy, choice, limited) if limited else ""
            choices[name, family] = replace(choice, reason=choice.reason + unasked) if unasked else choice
    words = on_down(config)
    lost = _lost(config, reach, healthy, health, choices, orders)
    return Selection(
        choices,
        dead=frozenset(key for key in lost if words[key[0]] == "reset"),
        moved=frozenset(key for key in lost if words[key[0]] == "move"),
        down=frozenset(key for key in reach if key in health and health[key].health is Health.DOWN),
    )


@remembered
def on_down(config: Resolved) -> dict[str, OnDown]:
    """Return what happens to the connections of each uplink when it is lost.

    A connection's mark tells its uplink, not its policy. So of all written policies that have the uplink as a member,
    and `default`, the one counts that ends most: "reset", then "move", then "keep".
    """
    asked: dict[str, set[OnDown]] = {name: set() for name in config.uplinks}
    for policy in config.named.values():
        for member in (m for tier in policy.tiers for m in tier):
            asked[member.uplink].add(policy.on_down)
    return {name: next((word for word in _HARSHEST if word in words), "reset") for name, words in asked.items()}


def usable(key: UplinkFamily, reach: Mapping[UplinkFamily, Reach], health: Mapping[UplinkFamily, ProbeState]) -> bool:
    """True when the uplink has a path and its rounds say so: its connections work, as far as the network goes."""
    return isinstance(reach.get(key), Path) and key in health and health[key].health is Health.UP


class _Rank(NamedTuple):
    """Members of one tier that may serve together: those that stand by for their quota are behind all others."""

    tier: int
    members: list[tuple[str, int]]
    standby: bool = False


class _Condition(NamedTuple):
    """What is known of the uplinks: see `select`."""

    health: Mapping[UplinkFamily, ProbeState]
    ramps: Mapping[UplinkFamily, int]
    found: Findings
    limited: Restrictions

    def poor(self, key: UplinkFamily) -> bool:
        """True for an uplink that works, but not well."""
        return bool(self.health[key].degraded) or key in self.found.impaired


def _ranked(tiers: list[list[tuple[str, int]]], limited: Restrictions) -> list[_Rank]:
    """Return who may serve together, in order of preference."""
    if not limited:
        return [_Rank(index, tier) for index, tier in enumerate(tiers)]
    asked = [[m for m in tier if limited.get(m[0]) not in ("standby", "block")] for tier in tiers]
    waiting = [[m for m in tier if limited.get(m[0]) == "standby"] for tier in tiers]
    behind = [_Rank(index, tier, standby=True) for index, tier in enumerate(waiting) if tier]
    return [*(_Rank(index, tier) for index, tier in enumerate(asked)), *behind]


def _choose(
    policy: Policy, tiers: list[_Rank], family: Family, working: Collection[UplinkFamily], condition: _Condition
) -> Choice | None:
    """Who of the linked tiers serves, as far as the network is well somewhere; None when it is not."""
    healthy = {name for name, other in working if other is family}
    for rank in tiers:
        up = tuple(m for m in rank.members if (key := (m[0], family)) in working and key not in condition.found.blocked)
        if up:
            text = f"tier {rank.tier + 1}: {len(up)} of {len(policy.tiers[rank.tier])} healthy"
            if rank.standby:
                text = f"only uplinks that stand by for their quota are healthy; {text}"
            well = tuple(m for m in up if not condition.poor((m[0], family))) or up
            ramps = {name: condition.ramps[name, family] for name, _ in well if (name, family) in condition.ramps}
            members = slow_start.scaled(well, _parts(well, ramps, condition.limited))
            aside = "" if rank.standby else _held_back(policy, rank, well, condition.limited, healthy)
            return Choice(members=members, tier=rank.tier, reason=f"{text}{_but(up, well, members, ramps)}{aside}")
    return _blocked(tiers, working, family)


def _parts(well: Members, ramps: Mapping[str, int], limited: Restrictions) -> dict[str, int]:
    """Return how many percent of their weight those have that are given less, by slow start or for their quota."""
    quotas = {name: LESS for name, _ in well if limited.get(name) == "less"}
    both = {name: max(1, ramps[name] * quotas[name] // slow_start.FULL_SHARE) for name in ramps if name in quotas}
    return {**ramps, **quotas, **both}


def _unasked(policy: Policy, choice: Choice, limited: Restrictions) -> str:
    """Who is healthy perhaps, and blocked for its quota, where the reason of the choice does not say so."""
    members = (member.uplink for tier in policy.tiers for member in tier)
    blocked = [name for name in dict.fromkeys(members) if limited.get(name) == "block"]
    poor = choice.forced or choice.tier is None or all(limited.get(name) == "standby" for name, _ in choice.members)
    return f"; quota: {', '.join(f'{name} blocked' for name in blocked)}" if blocked and poor else ""


def _held_back(policy: Policy, rank: _Rank, well: Members, limited: Restrictions, healthy: Collection[str]) -> str:
    """Whose quota lets them serve less than their weight, or not at all, although they would be asked first."""
    less = [name for name, _ in well if limited.get(name) == "less"]
    less = less if len(less) < len(well) else []
    asked = dict.fromkeys(m.uplink for tier in policy.tiers[: rank.tier + 1] for m in tier if m.uplink in healthy)
    phrases = [
        *(f"{name} at {LESS} %" for name in less),
        *(f"{name} standing by" for name in asked if limited.get(name) == "standby"),
        *(f"{name} blocked" for name in asked if limited.get(name) == "block"),
    ]
    return f"; quota: {', '.join(phrases)}" if phrases else ""


def _linked(
    config: Resolved,
    policy: Policy,
    family: Family,
    reach: Mapping[UplinkFamily, Reach],
    orders: Mapping[str, Order],
) -> list[list[tuple[str, int]]]:
    """Who of each tier may serve and has a path, with the weight."""
    return [
        [
            (m.uplink, config.weight_of(m))
            for m in tier
            if available(config, orders, m.uplink) and isinstance(reach.get((m.uplink, family)), Path)
        ]
        for tier in policy.tiers
    ]


def _but(up: Members, well: Members, members: Members, parts: Mapping[str, int]) -> str:
    """Who of the healthy serves less than its weight, and why."""
    serving = {name for name, _ in well}
    aside = [name for name, _ in up if name not in serving]
    slow = [f"{name} at {part} %" for name, part in parts.items()] if members != well else []
    message = [f"{' and '.join(aside)} degraded, standing by"] if aside else []
    message += [f"slow start: {', '.join(slow)}"] if slow else []
    return "".join(f"; {text}" for text in message)


def _blocked(tiers: list[_Rank], working: Collection[UplinkFamily], family: Family) -> Choice | None:
    """Some layer above the network is broken on each uplink, perhaps by whoever is asked: the network decides."""
    for rank in tiers:
        if answering := tuple(m for m in rank.members if (m[0], family) in working):
            reason = "no uplink is healthy in every layer; using those whose network answers"
            return Choice(members=answering, tier=rank.tier, reason=reason, forced=True)
    return None


def _forced(
    tiers: list[_Rank],
    health: Mapping[UplinkFamily, ProbeState],
    family: Family,
    before: Choice | None,
    *,
    known: bool,
) -> Choice:
    """Nobody is healthy: whoever begins to answer, else the last good choice, else the first tier with a link.

    With `known` others are healthy, who may not serve here: then it is these uplinks that are down, and not the
    targets. Whoever answers serves; otherwise connections are refused at once instead of hanging, and those that the
    uplinks carry for others are let go.
    """
    for rank in tiers:
        answering = tuple(m for m in rank.members if (m[0], family) in health and health[m[0], family].good)
        if answering:
            return Choice(
                members=answering,
                tier=rank.tier,
                reason="no healthy uplink; using one that answers again",
                forced=True,
            )
    if not any(rank.members for rank in tiers):
        return Choice(
            members=(), tier=None, reason="all its uplinks are without a link or out of use; the last resort applies"
        )
    if known:
        return Choice(
            members=(), tier=None, reason="none of its uplinks answers, other uplinks do; the last resort applies"
        )
    kept = {u for u, _ in before.members} if before else set()
    for rank in tiers:
        last_good = tuple(m for m in rank.members if m[0] in kept)
        if last_good:
            return Choice(
                members=last_good,
                tier=rank.tier,
                reason="no healthy uplink; keeping the last good choice",
                forced=True,
            )
    first = next(rank for rank in tiers if rank.members)
    return Choice(
        members=tuple(first.members), tier=first.tier, reason="no healthy uplink; trying every link", forced=True
    )


def _works(config: Resolved, key: UplinkFamily, health: Mapping[UplinkFamily, ProbeState]) -> bool:
    """True until its rounds say that an uplink with a path does not work."""
    state = health.get(key)
    return state is not None and (state.health is Health.UP or not rounds.judged(state, config.health[key[0]]))


def _lost(
    config: Resolved,
    reach: Mapping[UplinkFamily, Reach],
    healthy: Collection[Family],
    health: Mapping[UplinkFamily, ProbeState],
    choices: Mapping[tuple[str, Family], Choice],
    orders: Mapping[str, Order],
) -> frozenset[UplinkFamily]:
    """Uplinks whose connections are let go: down while another of the family is healthy, and serving nobody.

    A disabled uplink is not probed and keeps its connections as long as it has a path; once it is enabled it keeps them
    until it has not answered. So does one that failed at the same moment as all the others
    (`core/health/fail_static.py`).
    """
    serving = {(name, family) for (_, family), choice in choices.items() for name, _ in choice.members}
    return frozenset(
        key
        for key, path in reach.items()
        if key[1] in healthy
        and key not in serving
        and not (key in health and health[key].together)
        and not (isinstance(path, Path) and (off(config, orders, key[0]) or _works(config, key, health)))
    )
