"""Lay out slots: which uplink the next connection takes, in an order that is exact and well mixed."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from hashlib import blake2b
from math import gcd, log
from typing import Final

MAX_SLOTS: Final = 1024
"""Upper bound of a slot map; weights that do not fit are rounded to within 1/1024."""

HASH_SLOTS: Final = 1024
"""Slots of the algorithms that hash: a member's share is off its weight's by about 1.5 points at two members."""

SEED: Final = 0x706F_6C79
"""Seed of the kernel's hash. Written down, since a seed of the kernel's own choosing would move every client at
each reload."""


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


def rendezvous(members: Sequence[tuple[str, int]]) -> tuple[int, ...]:
    """Return the slots of a hash: element i is the index of the member that slot i belongs to.

    Weighted rendezvous hashing (highest random weight): every member draws for every slot, by its name alone, and
    the best draw for its weight wins. So a member that leaves gives up its own slots only, one that comes takes its
    share only, and the same members have the same slots after a restart and on another box.
    """
    draws = [(_draws(name), weight) for name, weight in members]
    return tuple(min(range(len(draws)), key=lambda m: draws[m][0][slot] / draws[m][1]) for slot in range(HASH_SLOTS))


@lru_cache(maxsize=512)
def _draws(name: str) -> tuple[float, ...]:
    """An exponential variate per slot: divided by the weight, the smallest of several wins by weight exactly."""
    return tuple(-log((_hash(f"{slot} {name}") + 1) / 2.0**64) for slot in range(HASH_SLOTS))


def _hash(text: str) -> int:
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big")
