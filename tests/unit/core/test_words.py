import pytest

from polywan.core.words import by_family, counted, lasted, listed, ordinal


def test_one_thing_is_no_plural() -> None:
    assert [counted(n, "connection") for n in (0, 1, 2)] == ["0 connections", "1 connection", "2 connections"]


def test_ordinals_end_as_they_are_spoken() -> None:
    text = [ordinal(n) for n in (1, 2, 3, 4, 11, 12, 13, 21, 101, 111)]
    assert text == ["1st", "2nd", "3rd", "4th", "11th", "12th", "13th", "21st", "101st", "111th"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0 s"), (0.42, "0.4 s"), (1.4, "1 s"), (59.6, "1 min"), (60, "1 min"), (252, "4 min 12 s"),
        (3600, "1 h"), (7512, "2 h 5 min"), (86400 * 3 + 4 * 3600, "3 d 4 h"), (-1, "0.0 s"),
    ],
)  # fmt: skip
def test_a_time_span_is_told_in_its_two_largest_units(seconds: float, text: str) -> None:
    assert lasted(seconds) == text


def test_names_are_listed_as_they_are_spoken() -> None:
    assert [listed(n) for n in ([], ["a"], ["a", "b"], ["a", "b", "c"])] == ["", "a", "a and b", "a, b and c"]


def test_what_holds_for_both_families_is_said_once() -> None:
    assert by_family({"IPv4": "no carrier", "IPv6": "no carrier"}) == "no carrier"
    assert by_family({"IPv4": "no answer", "IPv6": "lost"}) == "IPv4: no answer; IPv6: lost"


def test_a_sentence_that_names_its_family_is_not_given_the_name_twice() -> None:
    assert by_family({"IPv4": "no IPv4 address yet", "IPv6": "lost"}) == "no IPv4 address yet; IPv6: lost"
