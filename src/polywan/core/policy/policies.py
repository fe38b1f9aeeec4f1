"""Every policy of a configuration: those of the file, and those that rules bring along."""

from __future__ import annotations

from typing import Final

from polywan.config import Config, Policy, SteeringRule
from polywan.config.model import numbering
from polywan.config.model.config import DEFAULT_POLICY

DIRECT: Final = numbering.DIRECT
ONLY: Final = numbering.ONLY
MARKED: Final = numbering.MARKED
policy_name = numbering.policy_name


def policies_of(config: Config) -> dict[str, Policy]:
    """Return every policy that packets can reach: the written ones, `default`, and one per directly named uplink."""
    policies = dict(config.resolved_policies())
    for rule in config.rules:
        if rule.action is None:
            policies[policy_name(rule)] = _policy_of(config, rule)
    return policies


def served_by(rule: SteeringRule) -> str:
    """Say in words who serves a rule without an action; the names of policies made for rules say little."""
    if rule.uplink is not None:
        base = f"{rule.uplink}, or policy {DEFAULT_POLICY} without it"
    else:
        base = f"policy {rule.policy}" if rule.policy is not None else ""
    only = f"only {', '.join(rule.only)}" if rule.only else ""
    return ", ".join(filter(None, (base, only)))


def titles_of(config: Config) -> dict[str, str]:
    """Return every policy that packets can reach, in words, by its name."""
    made = {policy_name(rule): served_by(rule) for rule in config.rules if rule.action is None}
    return {name: made.get(name, f"policy {name}") for name in policies_of(config)}


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
    return tuple(name for name, _ in numbering.marked(config.policies, config.rules))
