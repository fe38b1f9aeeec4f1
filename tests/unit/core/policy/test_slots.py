from collections import Counter

import pytest

from polywan.core.policy.slots import MAX_SLOTS, shares, slots


def test_weights_are_reduced_to_the_smallest_whole_ratio() -> None:
    assert shares([300, 200, 100]) == [3, 2, 1]


def test_equal_weights_take_turns_in_order() -> None:
    assert slots([7, 7, 7]) == (0, 1, 2)


def test_turns_of_a_heavy_member_are_spread_between_those_of_light_ones() -> None:
    assert slots([3, 2, 1]) == (0, 1, 0, 2, 1, 0)


def test_a_single_member_needs_a_single_slot() -> None:
    assert slots([5]) == (0,)


def test_every_member_has_exactly_its_share() -> None:
    weights = [20, 15, 1]
    assert Counter(slots(weights)) == dict(enumerate(weights))


def test_weights_beyond_the_map_are_rounded_and_nobody_is_left_out() -> None:
    counts = shares([1000, 999, 1])
    assert sum(counts) <= MAX_SLOTS + 1
    assert min(counts) >= 1
    assert abs(counts[0] / sum(counts) - 0.5) < 2 / MAX_SLOTS


@pytest.mark.parametrize("members", [2, 53, 200])
def test_equal_shares_are_exact_for_any_number_of_uplinks(members: int) -> None:
    assert Counter(slots([1] * members)) == dict.fromkeys(range(members), 1)
