"""Rules by which somebody else chooses a link: one of several connections gets a mark."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from polywan.core.firewall.model import (
    Chain,
    Choose,
    Device,
    Direction,
    MarkIs,
    Prefix,
    Rule,
    SetMark,
    State,
    Statistic,
    Table,
)
from polywan.doctor.box import REMOTE, Box
from polywan.doctor.facts.egress import Egress


class Choice(NamedTuple):
    """A rule that chooses; `number` is its place in its chain, from 1, as iptables counts."""

    table: Table
    chain: Chain
    rule: Rule
    number: int

    @property
    def text(self) -> str:
        """Where it is, and what it says."""
        count = f" ({self.rule.packets} packets)" if self.rule.packets is not None else ""
        return f"{tool(self.table)}, {self.table.name} {self.chain.name} {self.number}: {self.rule.text}{count}"


def tool(table: Table) -> str:
    """Return the program that changes rules of a table."""
    if table.program == "nftables":
        return "nft"
    name = "ip6tables" if table.family == "ip6" else "iptables"
    return f"{name}-legacy" if table.program == "iptables-legacy" else f"{name}-nft"


def choices(box: Box) -> Iterator[Choice]:
    """Yield the rules that choose."""
    for table in box.firewall.tables:
        for chain in table.chains:
            for number, rule in enumerate(chain.rules, 1):
                if chooses(rule, table) and not _once(table, chain):
                    yield Choice(table, chain, rule, number)


def chooses(rule: Rule, table: Table) -> bool:
    """Tell whether a rule gives some packets a mark, by itself or by its chain, and others none or another one."""
    drawn = any(isinstance(match, Statistic) for match in rule.matches)
    below = (each for chain in table.chains if chain.name == rule.target for each in chain.rules)
    actions = (action for each in (rule, *below) for action in each.actions)
    marks = any(isinstance(action, SetMark) and action.value for action in actions)
    return (drawn and marks) or any(isinstance(action, Choose) for action in rule.actions)


def _once(table: Table, chain: Chain) -> bool:
    """True for chains that only the first packet of a connection meets."""
    return chain.kind == "nat" or (table.program != "nftables" and table.name == "nat")


def guarded(choice: Choice) -> bool:
    """Tell whether connections with a mark are spared: by the rule, by one before it, or where its chain is called."""
    if any(isinstance(match, MarkIs) for match in choice.rule.matches):
        return True
    if any(_spares(rule) for rule in choice.chain.rules[: choice.number - 1]):
        return True
    calls = [
        (chain, number, rule)
        for chain in choice.table.chains
        for number, rule in enumerate(chain.rules)
        if rule.target == choice.chain.name and rule.verdict in ("jump", "goto")
    ]
    return bool(calls) and all(
        any(isinstance(match, MarkIs) for match in rule.matches) or any(map(_spares, chain.rules[:number]))
        for chain, number, rule in calls
    )


def _spares(rule: Rule) -> bool:
    """True for a rule that ends the chain for what has a mark already, or is known already."""
    ends = rule.verdict in ("accept", "return", "goto", "drop")
    return ends and any(isinstance(match, MarkIs) for match in rule.matches)


def meets_answers(rule: Rule, egress: Egress) -> bool:
    """Tell whether a rule may match what comes back from the Internet by a link, in a connection of its mark."""
    for match in rule.matches:
        if isinstance(match, Device) and match.end == "in":
            named = any(_named(egress.device, name) for name in match.names)
            if named is match.invert:
                return False
        if isinstance(match, Prefix) and match.end == "source":
            inside = any(REMOTE[egress.family] in n for n in match.networks if n.version == egress.family)
            if inside is match.invert:
                return False
        if isinstance(match, Direction) and (match.direction == "reply") is match.invert:
            return False
        if isinstance(match, State) and ("established" in match.states) is match.invert:
            return False
        if isinstance(match, MarkIs) and match.of == "connection":
            fits = egress.mark & match.mask == match.value
            if fits is match.invert:
                return False
    return True


def _named(name: str, pattern: str) -> bool:
    return name.startswith(pattern[:-1]) if pattern.endswith("*") else name == pattern


def by_hand(box: Box) -> tuple[Egress, ...]:
    """Return the egresses that marks of others lead to."""
    return tuple(egress for egress in box.egresses if egress.mark and not egress.ours)
