"""A name over time: when it is asked again, and which of its addresses count."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from polywan.core.world import domains
from polywan.core.world.domains import (
    ADDRESS_LIFETIME,
    ASK,
    MOST_PER_NAME,
    NAME_RETRY,
    RETRY_SPREAD,
    Domain,
    Reply,
    learn,
)

ONE, TWO = ip_address("192.0.2.1"), ip_address("2001:db8::1")


def test_a_name_is_asked_again_when_its_time_to_live_is_over() -> None:
    known = learn(Domain(), "a.example", Reply(addresses=(ONE,), ttl=100), 1000)
    assert 1100 <= known.due <= 1100 + 100 * RETRY_SPREAD
    assert known.addresses == (ONE,)


@pytest.mark.parametrize(("ttl", "wait"), [(0, ASK[0]), (86400, ASK[1])])
def test_times_to_live_are_bounded_at_both_ends(ttl: int, wait: float) -> None:
    assert wait <= learn(Domain(), "a", Reply(addresses=(ONE,), ttl=ttl), 0).due <= wait * (1 + RETRY_SPREAD)


def test_names_that_were_asked_together_are_not_asked_together_forever() -> None:
    dues = {learn(Domain(), f"{n}.example", Reply(addresses=(ONE,), ttl=100), 0).due for n in range(20)}
    assert len(dues) == 20


def test_addresses_of_earlier_answers_count_for_an_hour() -> None:
    known = learn(Domain(), "a", Reply(addresses=(ONE,), ttl=60), 0)
    assert learn(known, "a", Reply(addresses=(TWO,), ttl=60), ADDRESS_LIFETIME - 1).addresses == (ONE, TWO)
    assert learn(known, "a", Reply(addresses=(TWO,), ttl=60), ADDRESS_LIFETIME + 1).addresses == (TWO,)


def test_addresses_that_live_long_count_for_twice_as_long() -> None:
    known = learn(Domain(), "a", Reply(addresses=(ONE,), ttl=3000), 0)
    assert learn(known, "a", Reply(addresses=(TWO,), ttl=60), 5999).addresses == (ONE, TWO)
    assert learn(known, "a", Reply(addresses=(TWO,), ttl=60), 6001).addresses == (TWO,)


def test_of_too_many_addresses_those_seen_last_are_kept() -> None:
    old = tuple(ip_address(f"10.0.{n >> 8}.{n & 255}") for n in range(MOST_PER_NAME))
    new = (ip_address("192.0.2.1"), ip_address("192.0.2.2"))
    known = learn(Domain(), "a", Reply(addresses=old, ttl=60), 0)
    known = learn(known, "a", Reply(addresses=new, ttl=60), 60)
    assert len(known.addresses) == MOST_PER_NAME
    assert set(new) <= set(known.addresses)


def test_without_an_answer_the_addresses_stay_and_the_reason_is_kept() -> None:
    known = learn(Domain(), "a", Reply(addresses=(ONE,), ttl=60), 0)
    known = learn(known, "a", Reply(problem="NXDOMAIN"), 10 * ADDRESS_LIFETIME)
    assert (known.addresses, known.problem) == ((ONE,), "NXDOMAIN")
    assert learn(known, "a", Reply(addresses=(TWO,), ttl=60), 10 * ADDRESS_LIFETIME).problem == ""


def test_a_name_that_does_not_answer_is_asked_less_and_less_often() -> None:
    known, waits = Domain(), []
    for _ in range(8):
        known = learn(known, "a", Reply(problem="timeout"), 0)
        waits.append(round(known.due / (1 + RETRY_SPREAD * domains._turn("a"))))
    assert waits == [10, 20, 40, 80, 160, 300, 300, 300]


def test_a_name_without_addresses_is_a_problem_even_if_nobody_says_so() -> None:
    assert learn(Domain(), "a", Reply(), 0).problem == "no address"


def test_a_family_that_fails_is_asked_again_soon_and_is_no_problem_beside_the_other() -> None:
    known = learn(Domain(), "a", Reply(addresses=(ONE,), ttl=3000, problem="timeout"), 0)
    assert known.problem == ""
    assert known.due <= NAME_RETRY[0] * (1 + RETRY_SPREAD)
