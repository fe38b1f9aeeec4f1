"""Chains and sets of the rules: which policy a new connection goes to, and where it must never leave.

Rules stand in file order and the first match wins. What a rule must *not* be is asked in a chain of its own, which
returns when it is::

    steering_rules   conditions ──▶ policy_P       with `not`:  conditions ──▶ rule_N ──▶ policy_P
    kill_switch      conditions ──▶ pass, or drop  with `not`:  conditions ──▶ kill_switch_N ──▶ pass, or drop

So a negated condition that cannot be seen (the user of a forwarded packet) excludes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from polywan.config import Match, SteeringRule
from polywan.config.model.numbering import policy_name
from polywan.core.net import FAMILIES, Family, MarkLayout
from polywan.core.resolved import Resolved
from polywan.core.ruleset.conditions import (
    MOST_ADDRESSES,
    Condition,
    addresses_of,
    conditions,
    dns_set,
    domain_set,
    list_set,
    match_lines,
)
from polywan.core.ruleset.inputs import GOTO_UNMARKED, RulesetInput
from polywan.core.ruleset.last_resort import RESORTS
from polywan.core.ruleset.model import QUOTABLE, Chain, Hook, Key, NftRule, NftSet
from polywan.core.ruleset.neighbours.bridged import bridged_out
from polywan.core.ruleset.neighbours.ipsec import let_out
from polywan.core.world.lookups import Lookups, PrefixList
from polywan.core.world.shared_device import gateway_of, sole_router

BEFORE_LEAVING: Final = -153
"""Priority of chain `kill_switch`. A chain of its own hook, so that `accept` is the end of it and of nothing else."""

MOST_INSIDE: Final = 16384
"""Devices that set `inside` has room for; any more count as elsewhere."""

MOST_RESOLVED: Final = 65536
"""Addresses that a set has room for which dnsmasq fills."""


@dataclass(frozen=True, slots=True, eq=False)
class _Rules:
    """What the chains depend on. The same objects make the same chains: no event but a new file builds them anew."""

    config: Resolved
    lookups: Lookups
    layout: MarkLayout
    passing: tuple[NftRule, ...]

    def __hash__(self) -> int:
        return hash((id(self.config), id(self.lookups), self.layout, self.passing))

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, _Rules)
            and self.config is other.config
            and self.lookups is other.lookups
            and (self.layout, self.passing) == (other.layout, other.passing)
        )


def _rules(inputs: RulesetInput) -> _Rules:
    passing = (*bridged_out(inputs.observed), *let_out(xfrm=inputs.observed.xfrm))
    return _Rules(inputs.config, inputs.lookups, inputs.layout, passing)


def steering_chains(inputs: RulesetInput) -> dict[str, Chain]:
    """Return chain `steering_rules`, which tries the rules in file order, and the chains of the kill switch."""
    return dict(_chains(_rules(inputs)))


def steering_sets(inputs: RulesetInput) -> dict[str, NftSet]:
    """Return the sets that rules refer to."""
    sets = dict(_sets(_rules(inputs)))
    if any(rule.only for rule in inputs.config.rules):
        sets["inside"] = NftSet(f"type ifname; size {MOST_INSIDE};", _inside(inputs))
    return sets


@lru_cache(maxsize=2)
def _chains(rules: _Rules) -> Mapping[str, Chain]:
    steer: list[NftRule] = []
    chains: dict[str, Chain] = {}
    for number, rule in enumerate(rules.config.rules, start=1):
        wanted, unwanted = _conditions(rules, rule)
        verdict, why = _verdict(rule), _why(number, wanted)
        if unwanted:
            chains[f"rule_{number}"] = Chain((*_excluded(number, unwanted), NftRule(verdict, f"rule {number}")))
            verdict = f"jump rule_{number}"
        steer += [NftRule(f"{text} {verdict}".strip(), why) for text in match_lines(wanted)]
    # Before routing there is no such device: a forwarded packet passes.
    doubtful = "meta nfproto ipv4 meta l4proto != tcp oifname vmap @kept"
    steer.append(NftRule(doubtful, "no rule matched, and perhaps bound to this uplink's address"))
    steer.append(NftRule("goto policy_default", "no rule matched"))
    return {"steering_rules": Chain(tuple(steer)), **chains, **_only_chains(rules)}


@lru_cache(maxsize=2)
def _sets(rules: _Rules) -> Mapping[str, NftSet]:
    sets: dict[str, NftSet] = {}
    for match in (m for rule in rules.config.rules for m in (rule, rule.not_)):
        for family in FAMILIES:
            sets |= _sets_of(match, family, rules.lookups)
    return sets


def _verdict(rule: SteeringRule) -> str:
    if rule.action is None:
        return f"goto policy_{policy_name(rule)}"
    return GOTO_UNMARKED if rule.action == "bypass" else RESORTS["prohibit"].verdict


def _conditions(rules: _Rules, rule: SteeringRule) -> tuple[tuple[Condition, ...], tuple[Condition, ...]]:
    """What must hold, and what must not."""
    keep = rules.layout.keep
    return (
        conditions(rule, rule.protocol, rules.lookups, keep),
        conditions(rule.not_, rule.protocol, rules.lookups, keep),
    )


def _why(number: int, held: tuple[Condition, ...], more: str = "") -> str:
    versions = " ".join(c.version for c in held if c.version)
    return f"rule {number}{more}" + (f" ({versions})" if versions else "")


def _excluded(number: int, unwanted: tuple[Condition, ...]) -> Iterator[NftRule]:
    for condition in unwanted:
        for text in match_lines((condition,)):
            yield NftRule(f"{text} return".strip(), _why(number, (condition,), f": not {condition.key}"))


def _only_chains(rules: _Rules) -> dict[str, Chain]:
    """The kill switch: whatever became of marks, routes and rules, no packet of such a flow leaves elsewhere.

    It remembers nothing: each packet that leaves is held against the rules, up to the last one with `only`.
    """
    last = max((n for n, rule in enumerate(rules.config.rules, start=1) if rule.only), default=0)
    if not last:
        return {}
    only = [*_exempt(rules.layout.mask), *rules.passing]
    chains: dict[str, Chain] = {}
    for number, rule in enumerate(rules.config.rules[:last], start=1):
        wanted, unwanted = _conditions(rules, rule)
        if unwanted or any(name in rules.config.sharing for name in rule.only):
            chains[f"kill_switch_{number}"] = Chain((*_excluded(number, unwanted), *_guarded(rules, number, rule, "")))
            only += [
                NftRule(f"{text} jump kill_switch_{number}".strip(), f"rule {number}") for text in match_lines(wanted)
            ]
        else:
            only += [line for text in match_lines(wanted) for line in _guarded(rules, number, rule, text)]
    return {"kill_switch": Chain(tuple(only), Hook("filter", "postrouting", BEFORE_LEAVING)), **chains}


def _exempt(mask: int) -> Iterator[NftRule]:
    yield NftRule("oifname @inside accept", "stays inside")
    # A packet of the box with our mark, but a connection without, has it from its socket: polywan's own choices
    # are always written to both.
    own = f"iif 0 ct mark & {mask:#010x} == 0 meta mark @ours"
    yield NftRule(f"{own} accept", "a socket that chose for itself, as probes do")
    # Without these a link has no IPv6 at all, and its probes fail. The kernel never forwards to addresses of the link,
    # and a forwarded packet's hop limit is below 255.
    yield NftRule("ip6 daddr { fe80::/10, ff02::/16 } accept", "never goes beyond the link")
    neighbours = "icmpv6 type { nd-router-solicit, nd-neighbor-solicit, nd-neighbor-advert }"
    yield NftRule(f"ip6 hoplimit 255 {neighbours} accept", "never goes beyond the link")


def _guarded(rules: _Rules, number: int, rule: SteeringRule, text: str) -> Iterator[NftRule]:
    if not rule.only:
        yield NftRule(f"{text} accept".strip(), f"rule {number}: by any uplink")
        return
    for leaves in _leaves_by(rules.config, rule.only):
        yield NftRule(f"{text} {leaves} accept".strip(), f"rule {number}: by one of its uplinks")
    yield NftRule(f"{text} counter drop".strip(), f"rule {number}: never elsewhere")


def _leaves_by(config: Resolved, names: tuple[str, ...]) -> Iterator[str]:
    """Yield matches of which one holds for what leaves by one of these uplinks: by its device, or by its router.

    Where another uplink has the same router, the mark of the connection tells.
    """
    alone = [f'"{config.uplinks[name].interface}"' for name in names if name not in config.sharing]
    if alone:
        yield f"oifname {{ {', '.join(alone)} }}"
    for family in FAMILIES:
        hop = f"oifname . rt {family.header} nexthop"
        routers = {
            name: f'"{config.uplinks[name].interface}" . {via}'
            for name in names
            if name in config.sharing and (via := gateway_of(config.uplinks[name], family)) is not None
        }
        sole = [router for name, router in routers.items() if sole_router(config, name, family)]
        if sole:
            yield f"{hop} {{ {', '.join(sole)} }}"
        marked = [
            f"{router} . {int(config.numbers[name].mark):#010x}"
            for name, router in routers.items()
            if not sole_router(config, name, family)
        ]
        if marked:
            yield f"{hop} . ct mark & {config.layout.mask:#010x} {{ {', '.join(marked)} }}"


def _inside(inputs: RulesetInput) -> frozenset[Key]:
    """Devices that do not lead to the Internet: no uplink's, and with nobody's default route or pieces of one."""
    outside = {u.interface for u in inputs.config.uplinks.values()} | {d.link for d in inputs.observed.defaults}
    outside |= inputs.observed.wide
    known = sorted(name for name in inputs.observed.links if name not in outside and QUOTABLE.fullmatch(name))
    return frozenset(["lo", *known][:MOST_INSIDE])


def _sets_of(match: Match, family: Family, lookups: Lookups) -> dict[str, NftSet]:
    kind = _address(family)
    known = [lookups.lists[path] for path in match.list_ if path in lookups.lists]
    sets = {list_set(found, family): prefix_set(found, family) for found in known if found.of(family)}
    if match.domains:
        addresses: frozenset[Key] = addresses_of(match.domains, lookups, family)
        sets[domain_set(match.domains, family)] = NftSet(f"type {kind}; size {MOST_ADDRESSES};", addresses)
        # dnsmasq gives no time: what it has not seen for a day is forgotten.
        sets[dns_set(match.domains, family)] = NftSet(f"type {kind}; flags timeout; timeout 1d; size {MOST_RESOLVED};")
    return sets


def prefix_set(found: PrefixList, family: Family) -> NftSet:
    """Return the set of a file's prefixes of one family."""
    return NftSet(f"type {_address(family)}; flags interval;", frozenset(found.of(family)))


def _address(family: Family) -> str:
    return f"{family.nfproto}_addr"
