"""Lay out slots: which uplink the next connection takes, in an order that is exact and well mixed."""

from __future__ import annotations

from collections.abc import Sequence
from math import gcd
from typing import Final

MAX_SLOTS: Final = 1024
"""Upper bound of a slot map; weights that do not fit are rounded to within 1/1024."""


def shares(weights: Sequence[int]) -> list[int]:
    """Reduce weights to the smallest whole numbers of slots with the same ratio, at most `MAX_SLOTS` in all."""
    divisor = gcd(*weights)
    reduced = [w // divisor for w in weights]
    total = sum(reduced)
    if total <= MAX_SLOTS:
        return reduced
    # Largest remainder, but nobody who has a weight is left without a slot.
    exact = [w * MAX_SLOTS / total for w in reduced]
    counts = [max(1, int(x)) for x in exact]
    by_remainder = sorted(range(len(counts)), key=lambda i: counts[i] - exact[i])
    for i in by_remainder[: max(0, MAX_SLOTS - sum(counts))]:
        counts[i] += 1
    return counts


def slots(weights: Sequence[int]) -> tuple[int, ...]:
    """Return positions of a weighted round robin: element i is the index of the member that takes turn i.

    Each member's turns are spread evenly over the whole (its k-th at (k + ½)/count). After n connections a
    member of share s is off its exact n*s by at most ½ + s*members/2, and after a whole round by nothing.
    """
    counts = shares(weights)
    turns = [((2 * k + 1) / count, i) for i, count in enumerate(counts) for k in range(count)]
    return tuple(i for _, i in sorted(turns))
