"""Find policy rules and settings of others that are in our way, and say what to change."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace
from typing import Final, Literal, NamedTuple, TypeAlias

from polywan.core.marks import FALLBACK, FIRST_SPECIFIC, FIRST_TCP, PAST
from polywan.core.net import FAMILIES, TABLE_MAIN
from polywan.core.plan.plan import ActualState
from polywan.core.resolved import Resolved
from polywan.core.routing.sysctls import EVENTS
from polywan.core.ruleset.neighbours.foreign_rules import MAIN_RULE
from polywan.core.world.destinations import Tables, everything
from polywan.core.world.foreign_routing import MOST_ROUTES, TABLE_LOCAL, WHOLE, ForeignRule
from polywan.core.world.observed import Observed

PRIORITY_BAND = PAST
"""Width of the priority band that polywan uses, counted from `global.priority`."""

MASKS: Final = (0x3F00_0000, 0x3F00, 0xFF00, 0x3F_0000, 0x3F)
"""Mark masks to propose, in this order; Kubernetes, Tailscale and Calico take bits 14 to 19 and 16 to 31."""


_LATE = (FIRST_SPECIFIC, FIRST_TCP, FALLBACK)
"""Priorities of ours outside of the band."""


Kind: TypeAlias = Literal["pinned", "elsewhere", "among", "mark", "first"]
"""What a policy rule of others does to polywan: it leads to one uplink whether that works or not, or elsewhere; it is
among our rules; its marks cannot be told from ours; it precedes all that we can add."""


class RuleConflict(NamedTuple):
    """A policy rule of others that is in our way.

    Attributes:
        text: what it does, for people.
        advice: what to change; empty when it may be meant so.
        priority: the one that the rule should have; 0 when another one does not help.
    """

    kind: Kind
    rule: ForeignRule
    text: str
    advice: str = ""
    priority: int = 0

    def __str__(self) -> str:
        return "; ".join(filter(None, (self.text, self.advice)))


def conflicts(config: Resolved, actual: ActualState, observed: Observed, marks: Collection[int]) -> Iterator[str]:
    """Yield one sentence per conflict with a rule or a setting of somebody else; `marks` are ours that are in use."""
    if actual.sysctls.get(EVENTS) == "0" and any(config.health[name].passive for name in config.uplinks):
        yield (
            f"{EVENTS.replace('/', '.')} is 0: only probes notice silence under load, and idle connections of "
            "a device that goes down are not released; set it to 1 or 2"
        )
    yield from (str(conflict) for conflict in rule_conflicts(config, observed, marks))
    yield from _unread(observed)


def rule_conflicts(config: Resolved, observed: Observed, marks: Collection[int]) -> Iterator[RuleConflict]:
    """Yield the policy rules of others that are in our way; `marks` are ours that are in use."""
    for rule in observed.rules:
        taken = _takes(config, observed, rule) or _in_our_place(config, rule)
        yield from filter(None, (taken, _by_mark(config, observed.rules, rule, marks)))
    yield from _ahead_of_all(config, observed.rules)


def _takes(config: Resolved, observed: Observed, rule: ForeignRule) -> RuleConflict | None:
    """Say that a rule of others takes so much that polywan has nothing left to balance, or to fail over."""
    late = rule.priority >= MAIN_RULE and observed.main_default_links(rule.family)
    by_mark = rule.mark is not None and not rule.invert
    if late or by_mark or rule.to is not None or rule.unknown:
        return None
    links = everything(rule, observed.tables)
    if _bound(observed, rule, links):
        return None
    by = " and ".join(links)
    text = f"policy rule `{rule.text()}` of another program sends"
    uplinks = ([f'"{name}"' for name, u in config.uplinks.items() if u.interface == link] for link in links)
    if ours := next(filter(None, uplinks), None):
        wanted = f"delete it, and give polywan a rule with `uplink = {' or '.join(ours)}`"
        return RuleConflict("pinned", rule, f"{text} {_what(rule)} always by {by}, with no failover", wanted)
    if links and _broad(config, rule):
        return RuleConflict("elsewhere", rule, f"{text} {_what(rule)} by {by}, so polywan does not balance it")
    return None


def _bound(observed: Observed, rule: ForeignRule, links: Collection[str]) -> bool:
    """True when a rule leads by the link whose address it is about: a socket with that source has chosen it already."""
    from_ = rule.from_
    if from_ is None or rule.invert or from_.num_addresses != 1:
        return False
    return any(a.ip.ip == from_.network_address and a.link in links for a in observed.addresses)


def _broad(config: Resolved, rule: ForeignRule) -> bool:
    """True when a rule takes everything that comes from a network of the inside, or from anywhere."""
    not_inside = rule.iif == "lo" or any(rule.iif == uplink.interface for uplink in config.uplinks.values())
    host = rule.from_ is not None and rule.from_.prefixlen == rule.from_.max_prefixlen
    return not (not_inside or host or _narrow(rule))


def _narrow(rule: ForeignRule) -> bool:
    narrow = (rule.tos, rule.dscp, rule.ipproto, rule.sport, rule.dport, rule.uidrange, rule.oif, rule.tun_id)
    return any(selector is not None for selector in narrow)


def _plain(rule: ForeignRule) -> ForeignRule:
    """The same rule without selectors."""
    return ForeignRule(
        family=rule.family,
        priority=rule.priority,
        table=rule.table,
        invert=rule.invert,
        suppress_prefixlength=rule.suppress_prefixlength,
        protocol=rule.protocol,
    )


def _what(rule: ForeignRule) -> str:
    if rule.invert and rule.mark is not None and rule == replace(_plain(rule), mark=rule.mark):
        return f"everything without mark {rule.mark[0]:#x}"
    if rule.invert or _narrow(rule):
        return "everything that it matches"
    origin = "" if rule.iif is None else " of this box" if rule.iif == "lo" else f" from {rule.iif}"
    found = f"everything{origin}"
    return found if rule.from_ is None else f"{found} from {rule.from_}"


def _in_our_place(config: Resolved, rule: ForeignRule) -> RuleConflict | None:
    low = config.global_.priority
    text = f"another program's policy rule is among those of polywan: {rule.text()}"
    if low <= rule.priority <= low + PRIORITY_BAND:
        wanted = f"set global.priority to the start of a free band of {PRIORITY_BAND + 1} (now {low})"
        return RuleConflict("among", rule, text, wanted)
    # What leads to main's specific routes does as ours there.
    specific = rule.table == TABLE_MAIN and rule.suppress_prefixlength is not None
    if rule.priority in _LATE and not specific:
        wanted = f"give it a priority other than {', '.join(map(str, _LATE))}"
        return RuleConflict("among", rule, text, wanted, min(_LATE) - 1)
    return None


def _by_mark(
    config: Resolved, rules: Iterable[ForeignRule], rule: ForeignRule, marks: Collection[int]
) -> RuleConflict | None:
    """Say that a rule compares marks in a way that cannot be told apart from ours."""
    mask = config.global_.mark_mask
    if rule.mark is None:
        return None
    value, compared = rule.mark
    # Whole words with bits of ours are known from the rules, and put back after routing.
    if value not in (*marks, mask) if compared == WHOLE else not compared & mask:
        return None
    free = free_mask(rule.mark for rule in rules if rule.mark is not None)
    advice = f"set global.mark_mask = {free:#x}" if free else "no common mask is free: choose one yourself"
    text = f"another program uses mark bits of polywan ({mask:#x}): {rule.text()}"
    return RuleConflict("mark", rule, text, advice)


def free_mask(marks: Iterable[tuple[int, int]]) -> int | None:
    """Return a mask for polywan that shares no bit with marks of others; None when no common one is free.

    Args:
        marks: value and mask of each. Of one that counts as a whole, the bits that it has are in use.
    """
    known = tuple(marks)
    parts = [mask for _, mask in known if mask != WHOLE]
    words = [value for value, mask in known if mask == WHOLE]
    free = [m for m in MASKS if not any(m & part for part in parts)]
    return next((m for m in free if not any(m & word for word in words)), None)


def _ahead_of_all(config: Resolved, rules: Iterable[ForeignRule]) -> Iterator[RuleConflict]:
    """Tell of rules that marked packets cannot be led past, and that would take them."""
    rules = tuple(rules)
    for family in FAMILIES:
        mine = [rule for rule in rules if rule.family is family]
        # Nobody may come before the addresses of this box: some setups move the rule that leads to them.
        floor = max((rule.priority for rule in mine if rule.table == TABLE_LOCAL), default=0)
        floor = max(floor, 1)
        for rule in mine:
            main = rule.table == TABLE_MAIN and rule.suppress_prefixlength is None
            marked = rule.mark is not None and rule.mark[1] & config.global_.mark_mask
            if rule.priority <= floor and rule.table != TABLE_LOCAL and (main or marked):
                text = (
                    f"policy rule `{rule.text()}` of another program precedes all that polywan can add, and takes "
                    "connections that have an uplink"
                )
                yield RuleConflict("first", rule, text, f"give it a priority above {floor + 1}", floor + 2)


def _unread(observed: Observed) -> Iterator[str]:
    """Tell of rules whose decision is not known: what they decide is balanced all the same."""
    for rule in observed.rules:
        if rule.unknown or rule.suppress_ifgroup is not None:
            yield f"polywan does not understand policy rule `{rule.text()}` of another program, and ignores it"
        elif _too_large(rule, observed.tables) and not everything(rule, observed.tables):
            yield (
                f"table {rule.table} has more than {MOST_ROUTES} routes and no default: polywan ignores "
                f"policy rule `{rule.text()}` of another program"
            )


def _too_large(rule: ForeignRule, tables: Tables) -> bool:
    known = tables.get(rule.table, ()) if rule.table is not None else ()
    return any(d.kind == "large" and d.prefix.version == rule.family for d in known)
