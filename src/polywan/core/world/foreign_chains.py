"""Chains of other programs that may drop what this box forwards, or have to see all of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from polywan.core.net import Family


@dataclass(frozen=True, slots=True)
class ForwardChain:
    """A base chain at the hook forward whose policy is drop, as ``iptables -P FORWARD DROP`` makes one.

    Attributes:
        family: as nft(8) names it: "ip", "ip6" or "inet".
    """

    family: str
    table: str
    name: str

    def __str__(self) -> str:
        return f"chain {self.name} of table {self.family} {self.table}"

    def meets(self, family: Family) -> bool:
        """True when packets of the family come by here."""
        return self.family in ("inet", "ip" if family is Family.V4 else "ip6")


class IngressChain(NamedTuple):
    """A base chain of another program at the hook ingress: it sees what comes in by devices before anything else.

    Attributes:
        family: "netdev" or "inet".
        devices: their names; one that ends with ``*`` stands for all that begin so.
    """

    family: str
    table: str
    name: str
    devices: tuple[str, ...]

    def __str__(self) -> str:
        return f"chain {self.name} of table {self.family} {self.table}"

    def meets(self, device: str) -> bool:
        """True when what comes in by the device passes here."""
        return any(device == name or (name[-1:] == "*" and device.startswith(name[:-1])) for name in self.devices)


def may_drop(chains: Iterable[ForwardChain], family: Family) -> tuple[ForwardChain, ...]:
    """Return the chains that drop a forwarded packet of the family unless a rule of theirs accepts it.

    What their rules say is not looked at: whether they let a given packet pass, only the packet can tell.
    """
    return tuple(chain for chain in chains if chain.meets(family))


class FilterRule(NamedTuple):
    """What a rule of another program does with a packet of an established connection.

    Attributes:
        met: such a packet may match it. `sure`: every such packet does.
        watches: what it does that differs from packet to packet, as nft(8) or iptables(8) name it; empty for nothing.
        verdicts: where it may lead: "accept", "drop", "return", "jump CHAIN", "goto CHAIN".
    """

    met: bool
    sure: bool
    watches: str = ""
    verdicts: tuple[str, ...] = ()


class HookedChain(NamedTuple):
    """A base chain of another program that forwarded packets pass."""

    family: str
    table: str
    name: str

    def __str__(self) -> str:
        return f"chain {self.name} of table {self.family} {self.table}"


FilterRules: TypeAlias = Mapping[tuple[str, str], Mapping[str, Sequence[FilterRule]]]
"""Rules by family and table, then by chain."""


def watching(hooked: Iterable[HookedChain], rules: FilterRules) -> str:
    """Return which chain of others has to see every packet of an established connection, and why; empty for none.

    What decides by properties of the connection alone need not: it has let the connection pass, and is asked again
    whenever rules change. What counts, limits, logs, or changes packets has to.
    """
    for chain in hooked:
        found = _walk(chain.name, rules.get((chain.family, chain.table), {}), frozenset())
        if found.watches:
            return f"{chain} has to see every packet ({found.watches})"
    return ""


class _Walked(NamedTuple):
    watches: str
    ended: bool


def _walk(name: str, chains: Mapping[str, Sequence[FilterRule]], above: frozenset[str]) -> _Walked:
    """Follow an established packet through a chain; `ended` when none comes back from it."""
    if name in above:
        return _Walked("", ended=False)
    for rule in chains.get(name, ()):
        if not rule.met:
            continue
        if rule.watches:
            return _Walked(rule.watches, ended=False)
        ends = []
        for verdict in rule.verdicts:
            word, _, target = verdict.partition(" ")
            beyond = _walk(target, chains, above | {name}) if target else _Walked("", ended=word in ("accept", "drop"))
            if beyond.watches:
                return beyond
            ends.append(beyond.ended)
            if rule.sure and word in ("goto", "return") and len(rule.verdicts) == 1:
                return beyond
        if rule.sure and ends and all(ends):
            return _Walked("", ended=True)
    return _Walked("", ended=False)
