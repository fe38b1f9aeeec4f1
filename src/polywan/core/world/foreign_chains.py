"""Chains of other programs that may drop what this box forwards."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

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


def may_drop(chains: Iterable[ForwardChain], family: Family) -> tuple[ForwardChain, ...]:
    """Return the chains that drop a forwarded packet of the family unless a rule of theirs accepts it.

    What their rules say is not looked at: whether they let a given packet pass, only the packet can tell.
    """
    return tuple(chain for chain in chains if chain.meets(family))
