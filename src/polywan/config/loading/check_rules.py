"""What is wrong with rules, beyond single values: whom they name, and conditions that contradict each other."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from polywan.config.faults import ConfigFault, Path, shown, suggest
from polywan.config.kinds.matches import FwMark
from polywan.config.loading.parts import Parts
from polywan.config.model.config import DEFAULT_POLICY
from polywan.config.model.steering_rule import WITH_PORTS, Match, SteeringRule

_ALL_BITS: Final = 0xFFFF_FFFF
_TARGETS: Final = ("policy", "uplink", "action")
_OF_THE_BOX: Final = ("user", "group", "cgroup")
_OF_OTHERS: Final = ("in_interface", "mac")


def check_rules(parts: Parts) -> Iterator[ConfigFault]:
    """Yield the faults of every rule that could be read."""
    for place, rule in enumerate(parts.rules):
        if rule:
            yield from _rule(("rules", place), rule, parts)
    yield from _unseen_groups(parts)


def _rule(path: Path, rule: SteeringRule, parts: Parts) -> Iterator[ConfigFault]:
    yield from _targets(path, rule)
    yield from _names(path, rule, parts)
    yield from _only(path, rule, parts)
    yield from _ports(path, rule)
    yield from _rule_families(path, rule)
    yield from _origins(path, rule)
    if parts.global_:
        yield from _marks(path, rule, parts.global_.mark_mask)


def _targets(path: Path, rule: SteeringRule) -> Iterator[ConfigFault]:
    targets = [key for key in _TARGETS if getattr(rule, key) is not None]
    if len(targets) > 1 or not (targets or rule.only):
        found = " and ".join(targets) or "none"
        hint = "" if targets else "or use only, a list of uplinks, without any of them"
        yield ConfigFault(path, f"expected exactly one of policy, uplink and action, got {found}", hint)
    elif rule.only and rule.action is not None:
        yield ConfigFault(
            (*path, "only"),
            f"limits the uplinks of a connection, but action = {shown(rule.action)} selects none",
            "remove one of the two",
        )


def _names(path: Path, rule: SteeringRule, parts: Parts) -> Iterator[ConfigFault]:
    if rule.policy is not None and rule.policy not in {DEFAULT_POLICY, *parts.policies}:
        known = {DEFAULT_POLICY, *parts.policies}
        yield ConfigFault((*path, "policy"), f"there is no policy {shown(rule.policy)}", suggest(rule.policy, known))
    uplinks = [("uplink", rule.uplink)] if rule.uplink is not None else []
    for key, name in [*uplinks, *(("only", name) for name in rule.only)]:
        if name not in parts.uplinks:
            yield ConfigFault((*path, key), f"there is no uplink {shown(name)}", suggest(name, parts.uplinks))


def _only(path: Path, rule: SteeringRule, parts: Parts) -> Iterator[ConfigFault]:
    """What `only` allows has to leave something; names that do not exist are reported elsewhere."""
    if not rule.only or any(name not in parts.uplinks for name in rule.only):
        return
    where = (*path, "only")
    if rule.uplink in parts.uplinks and rule.uplink not in rule.only:
        hint = "add it to only, or remove uplink"
        yield ConfigFault(where, f"lacks {shown(rule.uplink)}, the uplink of the rule", hint)
    policy = parts.policies.get(rule.policy) if rule.policy else None
    if policy:
        members = list(dict.fromkeys(member.uplink for tier in policy.tiers for member in tier))
        if not set(members) & set(rule.only):
            hint = f"its members are {', '.join(members)}"
            yield ConfigFault(
                where, f"names no member of policy {shown(rule.policy)}, so every connection would be refused", hint
            )
    for key, match in (("cgroup", rule), ("not", rule.not_)):
        if match.cgroup:
            yield ConfigFault(
                (*path, "cgroup") if key == "cgroup" else (*path, "not", "cgroup"),
                "cannot be combined with only: where packets leave, their control group is no longer known",
                "use user instead",
            )


def _unseen_groups(parts: Parts) -> Iterator[ConfigFault]:
    """The guard of `only` asks the rules before it as well: which of them would have taken the packet?"""
    last = max((place for place, rule in enumerate(parts.rules) if rule and rule.only), default=-1)
    for place, rule in enumerate(parts.rules[: max(last, 0)]):
        if rule is None or rule.only:
            continue
        for key, match in ((("cgroup",), rule), (("not", "cgroup"), rule.not_)):
            if match.cgroup:
                yield ConfigFault(
                    ("rules", place, *key),
                    "cannot precede a rule with only: where packets leave, their control group is no longer known, "
                    "nor which of the two rules applies; the other rule is",
                    "move it after that rule, or use user instead",
                    other=("rules", next(n for n in range(place + 1, last + 1) if _limits(parts.rules[n]))),
                )


def _limits(rule: SteeringRule | None) -> bool:
    return rule is not None and bool(rule.only)


def _ports(path: Path, rule: SteeringRule) -> Iterator[ConfigFault]:
    if rule.protocol in WITH_PORTS:
        return
    has = f'"{rule.protocol}" has no ports' if rule.protocol else "only some protocols have ports"
    places: tuple[tuple[Path, Match], ...] = ((path, rule), ((*path, "not"), rule.not_))
    for where, match in places:
        for key in ("port", "source_port"):
            if getattr(match, key):
                yield ConfigFault(
                    (*where, key),
                    f"{has}; expected protocol tcp, udp or sctp in the rule",
                    'add protocol = "tcp"',
                )


def _rule_families(path: Path, rule: SteeringRule) -> Iterator[ConfigFault]:
    versions = {key: {n.version for n in nets} for key, nets in (("from", rule.from_), ("to", rule.to)) if nets}
    if rule.family is not None:
        for key, found in versions.items():
            others = [v for v in sorted(found) if f"ipv{v}" != rule.family]
            if others:
                message = f'contains IPv{others[0]} addresses, but family is "{rule.family}"'
                yield ConfigFault((*path, key), message, "remove family: the addresses imply it")
    elif len(versions) == 2 and not versions["from"] & versions["to"]:
        yield ConfigFault((*path, "to"), "shares no address family with from, so the rule never matches")


def _origins(path: Path, rule: SteeringRule) -> Iterator[ConfigFault]:
    own = next((key for key in _OF_THE_BOX if getattr(rule, key)), None)
    arriving = next((key for key in _OF_OTHERS if getattr(rule, key)), None)
    if own and arriving:
        yield ConfigFault(
            (*path, own),
            f"only the box's own connections have a {own}, and those have no {arriving}: the rule never matches",
            "split it into two rules",
        )


def _marks(path: Path, rule: SteeringRule, ours: int) -> Iterator[ConfigFault]:
    for where, asked in (((*path, "fwmark"), rule.fwmark), ((*path, "not", "fwmark"), rule.not_.fwmark)):
        if asked is None:
            continue
        if asked.value & ours:
            yield ConfigFault(
                where,
                f"{asked.value:#x} has bits of global.mark_mask = {ours:#x}, which hold polywan's choice",
                "rules are evaluated before the choice: use another condition",
            )
        elif asked.mask != _ALL_BITS and asked.mask & ours:
            yield ConfigFault(
                where,
                f"the mask {asked.mask:#x} contains bits of global.mark_mask = {ours:#x}, which are polywan's",
                _narrowed(asked, ours),
            )


def _narrowed(asked: FwMark, ours: int) -> str:
    free = asked.mask & ~ours
    return f'did you mean "{asked.value:#x}/{free:#x}"?' if free else "match other bits"
