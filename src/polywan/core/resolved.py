"""A configuration as decisions want it: unfolded once for each reload, with the numbers of its uplinks and policies."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from polywan.config import Config, GlobalSettings, HealthSettings, Member, Policy, SteeringRule, Uplink
from polywan.config.model import numbering
from polywan.config.model.config import DEFAULT_POLICY
from polywan.core.marks import Numbers, allocate, numbers
from polywan.core.net import MarkLayout

POLICY: Final = "policy:"
"""Prefix of policies among the remembered numbers."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Resolved:
    """What a file says, worked out for each uplink and policy; the same object until the next reload.

    Attributes:
        file: the configuration as it was read; `uplinks`, `rules` and `global_` are its parts.
        layout: the bits of marks that are ours.
        named: the policies that have a name in the file, and `default`.
        policies: those, and one for each rule that names an uplink or limits a policy.
        titles: all of them in words.
        health: how each uplink is probed; `unsaid`: those of its paces that nobody has set (`Config.unsaid`).
        weights: of the uplinks.
        numbers: mark, table and priorities of the uplinks; `policy_marks`: of the policies that have some.
        sharing: by name, the other uplinks with the same device; uplinks that have theirs alone are left out.
    """

    file: Config
    uplinks: Mapping[str, Uplink]
    rules: tuple[SteeringRule, ...]
    global_: GlobalSettings
    layout: MarkLayout
    named: Mapping[str, Policy]
    policies: Mapping[str, Policy]
    titles: Mapping[str, str]
    health: Mapping[str, HealthSettings]
    unsaid: Mapping[str, frozenset[str]]
    weights: Mapping[str, int]
    numbers: Mapping[str, Numbers]
    policy_marks: Mapping[str, Numbers]
    sharing: Mapping[str, tuple[Uplink, ...]]

    def others(self, name: str) -> tuple[Uplink, ...]:
        """Return the other uplinks with the same device."""
        return self.sharing.get(name, ())

    @property
    def marks(self) -> frozenset[int]:
        """Marks that are in use."""
        return frozenset(int(number.mark) for number in (*self.numbers.values(), *self.policy_marks.values()))

    def weight_of(self, member: Member) -> int:
        """Return a member's weight: its own, else that of its uplink."""
        return self.weights[member.uplink] if member.weight is None else member.weight


def resolve(config: Config, ids: Mapping[str, int], before: Resolved | None = None) -> Resolved:
    """Work out a configuration.

    Args:
        config: the file.
        ids: the numbers that are remembered of uplinks and policies.
        before: the configuration in force; what a reload does not change stays the same object, with all that others
            have worked out of it.

    Raises:
        CapacityError: it needs more numbers than the mark mask has room for.
    """
    layout = MarkLayout(config.global_.mark_mask)
    allocated = allocate(numbered(config), ids, layout)
    base, priority = config.global_.table_base, config.global_.priority

    def numbers_of(names: Iterable[str]) -> dict[str, Numbers]:
        return {name: numbers(allocated[name], layout, table_base=base, priority=priority) for name in names}

    policy_marks = numbers_of(map(policy_id, _marked(config)))
    uplinks = {name: _same(before.uplinks.get(name) if before else None, link) for name, link in config.uplinks.items()}
    paced = before if before is not None and _equal_pace(before.file, config) else None
    stays = {name for name, link in uplinks.items() if paced is not None and link is paced.uplinks.get(name)}
    policies = _policies(config)
    made = {numbering.policy_name(rule): served_by(rule) for rule in config.rules if rule.action is None}
    return Resolved(
        file=config,
        uplinks=uplinks,
        rules=config.rules,
        global_=config.global_,
        layout=layout,
        named=config.resolved_policies(),
        policies=policies,
        titles={name: made.get(name, f"policy {name}") for name in policies},
        health={n: paced.health[n] if paced and n in stays else config.health_of(n) for n in uplinks},
        unsaid={n: paced.unsaid[n] if paced and n in stays else config.unsaid(n) for n in uplinks},
        weights={name: config.weight_of(name) for name in config.uplinks},
        numbers=numbers_of(config.uplinks),
        policy_marks={name.removeprefix(POLICY): number for name, number in policy_marks.items()},
        sharing=_sharing(uplinks),
    )


def _sharing(uplinks: Mapping[str, Uplink]) -> dict[str, tuple[Uplink, ...]]:
    found: dict[str, dict[str, Uplink]] = {}
    for name, uplink in uplinks.items():
        found.setdefault(uplink.interface, {})[name] = uplink
    return {
        name: tuple(link for other, link in together.items() if other != name)
        for together in found.values()
        for name in (together if len(together) > 1 else ())
    }


def _same(before: Uplink | None, now: Uplink) -> Uplink:
    return before if before is not None and before == now else now


def _equal_pace(before: Config, now: Config) -> bool:
    """True when both say the same of probing, and leave the same to the defaults."""
    said = before.health.model_fields_set == now.health.model_fields_set
    return said and before.health == now.health


def policy_id(policy: str) -> str:
    """Return the name under which a policy's number is remembered; no uplink can have it."""
    return POLICY + policy


def numbered(config: Config) -> list[str]:
    """Return every name that needs a number: uplinks, then policies."""
    return [*config.uplinks, *map(policy_id, _marked(config))]


def served_by(rule: SteeringRule) -> str:
    """Say in words who serves a rule without an action; the names of policies made for rules say little."""
    if rule.uplink is not None:
        base = f"{rule.uplink}, or policy {DEFAULT_POLICY} without it"
    else:
        base = f"policy {rule.policy}" if rule.policy is not None else ""
    only = f"only {', '.join(rule.only)}" if rule.only else ""
    return ", ".join(filter(None, (base, only)))


def _marked(config: Config) -> tuple[str, ...]:
    return tuple(name for name, _ in numbering.marked(config.policies, config.rules))


def _policies(config: Config) -> dict[str, Policy]:
    policies = config.resolved_policies()
    for rule in config.rules:
        if rule.action is None and (name := numbering.policy_name(rule)) not in policies:
            policies[name] = config.policy_for(rule)
    return policies
