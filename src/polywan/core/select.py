"""Choose which uplinks serve each policy right now, and say why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2s

from polywan.config import Config, Policy, SteeringRule
from polywan.core.health import Health, ProbeState
from polywan.core.net import FAMILIES, Family
from polywan.core.reach import Path, Reach, UplinkFamily

DIRECT = "uplink_"
"""Prefix of the policies made for rules that name an uplink: prefer it, else what the default policy offers."""

ONLY = "only_"
"""Prefix of the policies made for rules with `only`: a digest of the uplinks, then the policy that is limited."""

MARKED = frozenset({"multipath", "per-packet"})
"""Algorithms whose connections carry a mark of the policy until, or as long as, no uplink is theirs."""


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
    """The choice of every policy in every active family, and whose connections have to be let go."""

    choices: Mapping[tuple[str, Family], Choice]
    dead: frozenset[UplinkFamily]


def policies_of(config: Config) -> dict[str, Policy]:
    """Return every policy that packets can reach: the written ones, `default`, and one per directly named uplink."""
    policies = dict(config.resolved_policies())
    for rule in config.rules:
        if rule.action is None:
            policies[policy_name(rule)] = _policy_of(config, rule)
    return policies


def policy_name(rule: SteeringRule) -> str:
    """Return the name of the policy that a rule without an action sends its connections to."""
    base = rule.policy or (DIRECT + rule.uplink if rule.uplink is not None else "")
    if not rule.only:
        return base
    digest = blake2s(" ".join(rule.only).encode(), digest_size=4).hexdigest()
    return f"{ONLY}{digest}_{base}" if base else f"{ONLY}{digest}"


def _policy_of(config: Config, rule: SteeringRule) -> Policy:
    if rule.policy is None and rule.uplink is None:
        return config.only_policy(rule.only)
    policy = config.resolved_policies()[rule.policy] if rule.policy else config.direct_policy(str(rule.uplink))
    if not rule.only:
        return policy
    tiers = (tuple(m for m in tier if m.uplink in rule.only) for tier in policy.tiers)
    # What may leave by these uplinks only must not fall to main either.
    resort = "unreachable" if policy.last_resort in ("main", "throw") else policy.last_resort
    return policy.model_copy(update={"tiers": tuple(t for t in tiers if t), "last_resort": resort})


def marked_policies(config: Config) -> tuple[str, ...]:
    """Return the policies that need a number of their own."""
    return tuple(name for name, policy in policies_of(config).items() if policy.algorithm in MARKED)


def select(
    config: Config,
    reach: Mapping[UplinkFamily, Reach],
    health: Mapping[UplinkFamily, ProbeState],
    previous: Selection | None,
) -> Selection:
    """Choose for every policy and active family; a family is active when some uplink has it."""
    active = [f for f in FAMILIES if any(family is f for _, family in reach)]
    choices: dict[tuple[str, Family], Choice] = {}
    for name, policy in policies_of(config).items():
        for family in active:
            before = previous.choices.get((name, family)) if previous else None
            choices[name, family] = _choose(config, policy, family, reach, health, before)
    return Selection(choices, _dead(config, reach, health, choices))


def usable(key: UplinkFamily, reach: Mapping[UplinkFamily, Reach], health: Mapping[UplinkFamily, ProbeState]) -> bool:
    """True when the uplink has a path and its probes say so."""
    return isinstance(reach.get(key), Path) and key in health and health[key].health is Health.UP


def _choose(
    config: Config,
    policy: Policy,
    family: Family,
    reach: Mapping[UplinkFamily, Reach],
    health: Mapping[UplinkFamily, ProbeState],
    before: Choice | None,
) -> Choice:
    tiers = [
        [
            (m.uplink, config.member_weight(m))
            for m in tier
            if config.uplinks[m.uplink].enabled and isinstance(reach.get((m.uplink, family)), Path)
        ]
        for tier in policy.tiers
    ]
    for index, tier in enumerate(policy.tiers):
        up = tuple(m for m in tiers[index] if usable((m[0], family), reach, health))
        if up:
            return Choice(members=up, tier=index, reason=f"tier {index + 1}: {len(up)} of {len(tier)} healthy")
    return _forced(tiers, health, family, before)


def _forced(
    tiers: list[list[tuple[str, int]]],
    health: Mapping[UplinkFamily, ProbeState],
    family: Family,
    before: Choice | None,
) -> Choice:
    """Nobody is healthy: whoever begins to answer, else the last good choice, else the first tier with a link."""
    for index, tier in enumerate(tiers):
        answering = tuple(m for m in tier if (m[0], family) in health and health[m[0], family].good)
        if answering:
            return Choice(
                members=answering,
                tier=index,
                reason="no healthy uplink; serving by one that answers again",
                forced=True,
            )
    kept = {u for u, _ in before.members} if before else set()
    for index, tier in enumerate(tiers):
        last_good = tuple(m for m in tier if m[0] in kept)
        if last_good:
            return Choice(
                members=last_good,
                tier=index,
                reason="no healthy uplink; the last good choice stays",
                forced=True,
            )
    for index, tier in enumerate(tiers):
        if tier:
            return Choice(members=tuple(tier), tier=index, reason="no healthy uplink; trying every link", forced=True)
    return Choice(members=(), tier=None, reason="no uplink has a link; the last resort applies")


def _dead(
    config: Config,
    reach: Mapping[UplinkFamily, Reach],
    health: Mapping[UplinkFamily, ProbeState],
    choices: Mapping[tuple[str, Family], Choice],
) -> frozenset[UplinkFamily]:
    """Uplinks whose connections are let go: down while another of the family is healthy, and serving nobody.

    A disabled uplink is not probed and keeps its connections as long as it has a path.
    """
    healthy = {family for name, family in reach if usable((name, family), reach, health)}
    serving = {(name, family) for (_, family), choice in choices.items() for name, _ in choice.members}
    return frozenset(
        key
        for key, way in reach.items()
        if key[1] in healthy
        and key not in serving
        and (not usable(key, reach, health) if config.uplinks[key[0]].enabled else not isinstance(way, Path))
    )
