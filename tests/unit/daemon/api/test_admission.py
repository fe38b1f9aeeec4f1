"""Who may connect to the control socket."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polywan.daemon.api.admission import (
    EACH,
    MOST_PEERS,
    PAGE_PEERS,
    READER_PEERS,
    ROOT_PEERS,
    SPARE,
    SPARE_FROM_WRITERS,
    refusal,
)

WRITERS = (0, 990)
PAGE = 991
MANY = 1 << 20


@given(st.lists(st.integers(0, 40) | st.sampled_from([*WRITERS, PAGE]), max_size=600))
def test_whoever_comes_in_whatever_order_the_limits_hold_and_writers_get_in(arrivals: list[int]) -> None:
    inside: Counter[int] = Counter()
    for uid in arrivals:
        if refusal(uid, WRITERS, inside, MANY, PAGE) is None:
            inside[uid] += 1
    readers = {uid: count for uid, count in inside.items() if uid not in (*WRITERS, PAGE)}
    assert inside.total() <= MOST_PEERS
    assert sum(readers.values()) <= READER_PEERS
    assert all(count <= EACH for count in readers.values())
    assert inside[PAGE] <= PAGE_PEERS
    asked_by_writers = sum(uid in WRITERS for uid in arrivals)
    assert inside.total() - sum(readers.values()) - inside[PAGE] >= min(asked_by_writers, ROOT_PEERS)


def test_readers_together_leave_room_for_the_administrator() -> None:
    readers = dict.fromkeys(range(1000, 1000 + READER_PEERS // EACH), EACH)
    assert "reserved for root" in str(refusal(2000, WRITERS, readers, MANY))
    assert refusal(0, WRITERS, readers, MANY) is None
    assert refusal(2000, WRITERS, {**readers, 1000: EACH - 1}, MANY) is None


def test_the_page_has_a_stream_for_each_of_a_hundred_visitors_beside_readers_and_root() -> None:
    others = dict.fromkeys(range(1000, 1000 + READER_PEERS // EACH), EACH)
    assert refusal(PAGE, WRITERS, {**others, PAGE: 100}, MANY, PAGE) is None
    assert refusal(0, WRITERS, {**others, PAGE: PAGE_PEERS}, MANY, PAGE) is None
    assert "has 112" in str(refusal(PAGE, WRITERS, {PAGE: PAGE_PEERS}, MANY, PAGE))
    assert "has 8" in str(refusal(PAGE, WRITERS, {PAGE: EACH}, MANY))


def test_one_user_cannot_keep_another_out() -> None:
    assert refusal(1000, WRITERS, {1000: EACH}, MANY) is not None
    assert refusal(1001, WRITERS, {1000: EACH}, MANY) is None


@pytest.mark.parametrize(("uid", "least"), [(1000, SPARE), (0, SPARE_FROM_WRITERS), (990, SPARE_FROM_WRITERS)])
def test_descriptors_stay_free_for_the_daemon(uid: int, least: int) -> None:
    assert refusal(uid, WRITERS, {}, least) is None
    assert "LimitNOFILE" in str(refusal(uid, WRITERS, {}, least - 1))
