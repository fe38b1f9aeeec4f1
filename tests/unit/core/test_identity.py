"""Results that are made once for equal inputs."""

from __future__ import annotations

from polywan.core import identity
from polywan.core.identity import PerKey, forget, remembered


def test_equal_arguments_have_the_same_result() -> None:
    made = []

    @remembered
    def squares(numbers: tuple[int, ...], *, negative: bool) -> list[int]:
        made.append(numbers)
        return [-n * n if negative else n * n for n in numbers]

    first = squares((1, 2), negative=False)
    assert squares((1, 2), negative=False) is first
    assert squares((1, 2), negative=True) == [-1, -4]
    assert squares((1, 2), negative=False) is first
    assert made == [(1, 2), (1, 2)]


def test_the_last_two_results_are_kept() -> None:
    made = []

    @remembered
    def own(text: str) -> str:
        made.append(text)
        return text.upper()

    assert [own(text) for text in ("a", "b", "a", "c", "a", "b")] == ["A", "B", "A", "C", "A", "B"]
    assert made == ["a", "b", "c", "b"]


def test_a_result_for_a_key_belongs_to_the_very_objects_that_it_was_made_from() -> None:
    results: PerKey[str, int] = PerKey()
    seen = [1, 2]
    assert results.put("fibre", 3, seen) == 3
    assert results.get("fibre", seen) == 3
    assert results.get("fibre", [1, 2]) is None
    assert results.get("lte", seen) is None


def test_a_value_that_equals_the_one_before_gives_way_to_it() -> None:
    values: PerKey[str, tuple[int, ...]] = PerKey()
    first = values.settled("fibre", (1, 2))
    assert values.settled("fibre", (*first,)) is first
    assert values.settled("fibre", (3,)) == (3,)


def test_of_values_that_settle_together_only_those_of_the_last_time_are_kept() -> None:
    values: PerKey[str, tuple[int, ...]] = PerKey()
    first = values.all_settled({"list_1": (1, 2), "own": (3,)})
    assert values.all_settled({"own": (*first["own"],), "list_2": (4,)})["own"] is first["own"]
    assert values.get("list_1") is None


def test_results_of_keys_without_end_are_forgotten() -> None:
    values: PerKey[int, int] = PerKey()
    assert [values.put(number, number) for number in range(identity._MOST_KEYS + 1)][-1] == identity._MOST_KEYS
    assert values.get(0) is None


def test_everything_can_be_forgotten() -> None:
    made = []

    @remembered
    def own(text: str) -> str:
        made.append(text)
        return text

    own("a")
    forget()
    own("a")
    assert made == ["a", "a"]
