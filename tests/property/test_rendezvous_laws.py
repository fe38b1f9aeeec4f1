"""Laws of the slots that hashes fall into: the same members, the same slots; a change moves as little as it can."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from polywan.core.policy.slots import HASH_SLOTS, rendezvous

members = st.dictionaries(st.from_regex("[a-z]{1,8}", fullmatch=True), st.integers(1, 1000), min_size=1, max_size=6)


def owners(given_members: dict[str, int]) -> list[str]:
    names = list(given_members)
    return [names[i] for i in rendezvous(list(given_members.items()))]


@given(members)
def test_every_slot_has_an_owner(some: dict[str, int]) -> None:
    assert len(owners(some)) == HASH_SLOTS


@given(members)
def test_the_order_of_the_members_does_not_matter(some: dict[str, int]) -> None:
    assert owners(some) == owners(dict(reversed(some.items())))


@given(members.filter(lambda m: len(m) > 1))
def test_a_member_that_leaves_moves_its_own_slots_only(some: dict[str, int]) -> None:
    leaver = min(some)
    before, after = owners(some), owners({n: w for n, w in some.items() if n != leaver})
    assert all(old == new for old, new in zip(before, after, strict=True) if old != leaver)


@given(members, st.integers(1, 1000))
def test_a_member_that_comes_takes_its_share_from_others_and_moves_nothing_else(some: dict[str, int], w: int) -> None:
    before, after = owners(some), owners({**some, "NEW": w})
    assert all(new in (old, "NEW") for old, new in zip(before, after, strict=True))


@given(members, st.integers(1, 1000))
def test_more_weight_only_gains_slots(some: dict[str, int], more: int) -> None:
    name = max(some)
    before, after = owners(some), owners({**some, name: some[name] + more})
    assert all(new in (old, name) for old, new in zip(before, after, strict=True))


def test_shares_follow_the_weights_within_a_few_points() -> None:
    seen = Counter(owners({"fibre": 3, "dsl": 2, "lte": 1}))
    for name, weight in (("fibre", 3), ("dsl", 2), ("lte", 1)):
        assert abs(seen[name] / HASH_SLOTS - weight / 6) < 0.05
