"""Lead packets that we have marked past the policy rules of others, without touching a mark of theirs.

Rules of others that stand before our band would compare the mark with our bits in it: ``not fwmark 0xca6c`` would hold
for a packet of the very program that set 0xca6c. So while there are any, rules ahead of all of them lead what carries
one of our numbers straight into the band. A connection has such a number only when nobody else decides about it
(docs/design/neighbours.md).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from polywan.core.net import Family, MarkLayout
from polywan.core.world.foreign_routing import ForeignRule

_WHOLE: Final = 0xFFFF_FFFF
_LOCAL: Final = 255


@dataclass(frozen=True, slots=True)
class Place:
    """Where our rules ahead of others stand: their priority, and that of the first rule of others behind them."""

    priority: int
    foreign: int


@dataclass(frozen=True, slots=True)
class Ahead:
    """What the rules of others ask of ours.

    Attributes:
        places: where marked packets have to be led past rules of others, by family; a family without any has none.
        whole: marks that a rule of others compares as a whole, and that have bits of ours, by family.
    """

    places: tuple[tuple[Family, Place], ...] = ()
    whole: tuple[tuple[Family, int], ...] = ()

    def place(self, family: Family) -> Place | None:
        """Return where to stand in a family, if anywhere."""
        return next((place for f, place in self.places if f is family), None)

    def words(self, family: Family) -> tuple[int, ...]:
        """Return the whole-word marks of others with bits of ours that rules of a family compare."""
        return tuple(word for f, word in self.whole if f is family)


def ahead_of(rules: Iterable[ForeignRule], layout: MarkLayout, numbers: Collection[int], base: int) -> Ahead:
    """Find where to stand.

    Args:
        rules: policy rules of others.
        layout: our bits.
        numbers: marks of ours that are given out; a word of others that is one of these cannot be told apart.
        base: where our band begins.
    """
    places, whole = [], []
    rules = tuple(rules)
    for family in Family:
        mine = [rule for rule in rules if rule.family is family]
        # Nobody may come before the addresses of this box: some setups move the rule that leads to them.
        local = max((rule.priority for rule in mine if rule.table == _LOCAL), default=0)
        before = [rule.priority for rule in mine if rule.priority < base and rule.table != _LOCAL]
        # The kernel puts a rule behind those of its own priority.
        if before and min(before) > max(local, 1):
            places.append((family, Place(min(before) - 1, min(before))))
        found = {rule.mark[0] for rule in mine if rule.mark is not None and rule.mark[1] == _WHOLE}
        whole += [(family, word) for word in sorted(found) if word & layout.mask and word not in numbers]
    return Ahead(tuple(places), tuple(whole))


def blocks(ids: Iterable[int], layout: MarkLayout) -> tuple[tuple[int, int], ...]:
    """Return marks with masks that together hold for the marks of these ids and for no other value of our bits.

    Neighbouring ids share a block, so that their number grows with the logarithm of the ids where these are dense.
    """
    width = layout.mask.bit_count()
    return tuple(
        (layout.spread(low), layout.spread(~((1 << bits) - 1) & ((1 << width) - 1))) for low, bits in _merged(ids)
    )


def _merged(ids: Iterable[int]) -> Iterator[tuple[int, int]]:
    """Yield the largest aligned blocks, as lowest id and number of free bits, that hold just these ids."""
    remaining = set(ids)
    while remaining:
        low, bits = min(remaining), 0
        while low % (2 << bits) == 0 and all(ident in remaining for ident in range(low, low + (2 << bits))):
            bits += 1
        yield low, bits
        remaining -= set(range(low, low + (1 << bits)))
