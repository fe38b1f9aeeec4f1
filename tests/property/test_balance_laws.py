from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from polywan.core.policy.slots import MAX_SLOTS, shares, slots

weights = st.lists(st.integers(1, 1000), min_size=1, max_size=60)


@given(weights)
def test_shares_follow_weights_to_within_one_slot_and_the_floor_of_one(given_weights: list[int]) -> None:
    counts = shares(given_weights)
    total = sum(given_weights)
    for weight, count in zip(given_weights, counts, strict=True):
        exact = weight * sum(counts) / total
        assert count == 1 or abs(count - exact) <= 1 + len(counts) / MAX_SLOTS * exact


@given(st.lists(st.integers(1, 20), min_size=1, max_size=12))
def test_the_first_turns_are_shared_by_weight_to_within_half_a_turn_and_a_share_of_everybodys_half_turn(
    given_weights: list[int],
) -> None:
    turns = slots(given_weights)
    total = sum(given_weights)
    for end in range(1, len(turns) + 1):
        seen = Counter(turns[:end])
        for member, weight in enumerate(given_weights):
            bound = 0.5 + weight / total * len(given_weights) / 2
            assert abs(seen[member] - end * weight / total) <= bound + 1e-9


@given(weights)
def test_slots_hold_exactly_the_shares(given_weights: list[int]) -> None:
    assert Counter(slots(given_weights)) == dict(enumerate(shares(given_weights)))
