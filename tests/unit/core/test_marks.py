import pytest

from polywan.core.errors import CapacityError
from polywan.core.marks import allocate, numbers
from polywan.core.net import MarkLayout

SMALL = MarkLayout(0x700)


def test_uplinks_are_numbered_in_file_order() -> None:
    assert allocate(["a", "b"], {}, SMALL) == {"a": 1, "b": 2}


def test_reordering_the_file_changes_no_number() -> None:
    assert allocate(["b", "a"], {"a": 1, "b": 2}, SMALL) == {"a": 1, "b": 2}


def test_a_removed_uplink_keeps_its_number_while_there_is_room() -> None:
    assert allocate(["b", "c"], {"a": 1, "b": 2}, SMALL) == {"a": 1, "b": 2, "c": 3}


def test_a_forgotten_number_is_given_again_only_when_none_is_left() -> None:
    remembered = {"old": 1, "b": 2, "c": 3, "d": 4, "e": 5, "f": 6}
    assert allocate(["b", "c", "d", "e", "f", "new"], remembered, SMALL)["new"] == 1


def test_more_uplinks_than_marks_are_refused() -> None:
    with pytest.raises(CapacityError, match="room for 6 uplinks, not 7"):
        allocate("abcdefg", {}, SMALL)


@pytest.mark.parametrize(
    ("mask", "number", "mark"),
    [
        (0x3F00, 1, 0x100),
        (0x3F00, 53, 0x3500),
        (0xFF00, 200, 0xC800),
        (0x00FF0000, 53, 0x350000),
        (0xAA, 5, 0x22),
    ],
)
def test_numbers_are_spread_over_the_bits_of_the_mask(mask: int, number: int, mark: int) -> None:
    assert MarkLayout(mask).mark(number) == mark


def test_mark_table_and_priority_follow_from_the_number() -> None:
    one = numbers(3, MarkLayout(0x3F00), table_base=6000, priority=6000)
    assert (one.mark, one.table, one.priority(300)) == (0x300, 6003, 6303)
