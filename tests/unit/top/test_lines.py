"""Lines are measured in cells, and a terminal is sent only what changed."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from polywan.top.lines import Column, Span, changes, cursor, fitted, painted, table
from support.terminals import Picture

WORDS = st.text(st.sampled_from("ab 电é█…"), max_size=20)
SCREENS = st.lists(WORDS.map(lambda word: word.rstrip()), min_size=4, max_size=4)


@given(WORDS, st.integers(0, 30), st.booleans())
def test_a_fitted_text_has_exactly_the_cells_that_were_asked_for(text: str, cells: int, number: bool) -> None:
    assert cell_len(fitted(text, cells, cut="…", number=number)) == cells


def test_numbers_end_and_words_begin_under_each_other() -> None:
    assert fitted("7", 3, number=True) == "  7"
    assert fitted("up", 3) == "up "


def test_a_text_that_is_cut_says_so() -> None:
    assert fitted("fibre to the home", 8, cut="…") == "fibre t…"
    assert fitted("电信", 3, cut="…") == "电…"


@given(SCREENS, SCREENS)
def test_what_is_sent_turns_one_screen_into_the_other(before: list[str], after: list[str]) -> None:
    picture = Picture(40, 4)
    picture.write("\x1b[?7l" + changes((), before))
    assert picture.lines == before
    picture.write(changes(before, after))
    assert picture.lines == after
    assert not picture.overflows


def test_only_lines_that_changed_are_sent() -> None:
    assert changes(["one", "two"], ["one", "2"]) == "\x1b[2;1H\x1b[2K2"
    assert changes(["one"], ["one"]) == ""


@given(st.lists(WORDS, max_size=5), st.integers(0, 30))
def test_no_line_is_wider_than_the_screen(texts: list[str], cells: int) -> None:
    line = painted(tuple(Span(text, "red") for text in texts), cells, colours=True)
    assert cell_len(re.sub(r"\x1b\[\d*m", "", line)) <= cells


def test_without_colours_only_the_cursor_and_headings_stand_out() -> None:
    line = (Span("down", "red"), Span(" NAME", "bold"))
    assert painted(line, 80, colours=True) == "\x1b[31mdown\x1b[m\x1b[1m NAME\x1b[m"
    assert painted(line, 80, colours=False) == "down\x1b[1m NAME\x1b[m"
    assert painted(cursor(line), 80, colours=False) == "\x1b[7mdown\x1b[m\x1b[7m NAME\x1b[m"


def columns(*widths: int, expendable: tuple[int, ...] = ()) -> list[Column]:
    goes = dict(enumerate(expendable))
    return [Column("H", [Span("x" * width)], expendable=goes.get(at, 0)) for at, width in enumerate(widths)]


@pytest.mark.parametrize(("room", "kept"), [(26, [4, 8, 10]), (25, [4, 10]), (16, [4, 10]), (15, [4])])
def test_a_narrow_table_loses_columns_in_their_order(room: int, kept: list[int]) -> None:
    row = table(columns(4, 8, 10, expendable=(0, 2, 1)), room, "…")[1]
    assert [len(span.text) for span in row if span.text.strip()] == kept


def test_the_first_column_is_cut_when_nothing_else_helps() -> None:
    row = table(columns(20, 8), 18, "…")[1]
    assert [span.text for span in row] == ["xxxxxxx…", "  ", "xxxxxxxx"]


def test_a_column_of_numbers_keeps_its_width_while_they_change() -> None:
    heading, row = table([Column("N", [Span("7")], number=True, least=6)], 80, "…")
    assert [heading[0].text, row[0].text] == ["     N", "     7"]
