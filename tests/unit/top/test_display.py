"""How things are written for a terminal: characters, units, hidden addresses."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polywan.top.display import Display, evenly, speaks_utf8
from support.documents import family, status, uplink
from support.screens import text, view

RATES = st.lists(st.none() | st.integers(0, 10**12), max_size=60)


@pytest.mark.parametrize(
    ("environ", "yes"),
    [
        ({"LANG": "en_US.UTF-8"}, True),
        ({"LANG": "de_DE.utf8"}, True),
        ({"LANG": "en_US.ISO-8859-1"}, False),
        ({"LANG": "en_US"}, False),
        ({"LANG": "en_US.UTF-8", "LC_ALL": "C"}, False),
        ({"LANG": "C", "LC_CTYPE": "zh_CN.UTF-8"}, True),
        ({"LC_ALL": "C.UTF-8"}, True),
        ({"LANG": "C.UTF-8"}, True),
        ({}, False),
    ],
)
def test_the_locale_says_whether_there_is_more_than_ascii(environ: dict[str, str], yes: bool) -> None:
    assert speaks_utf8(environ) is yes


@pytest.mark.parametrize("language", ["C", "POSIX", ""])
def test_what_python_says_instead_of_a_plain_locale_counts_for_nothing(language: str) -> None:
    assert not speaks_utf8({"LANG": language, "LC_CTYPE": "C.UTF-8"})


@given(RATES, st.integers(1, 60), st.booleans())
def test_a_spark_has_as_many_cells_as_were_asked_for(values: list[int | None], cells: int, utf8: bool) -> None:
    assert len(Display(utf8=utf8).spark(values, cells)) == cells


@given(RATES, st.integers(1, 60))
def test_cells_that_are_filled_evenly_are_all_filled(values: list[int | None], cells: int) -> None:
    used = evenly(len(values), cells)
    known = [0 if value is None else value for value in values]
    assert " " not in Display().spark(known, used)


def test_a_spark_shows_the_highest_of_several_and_nothing_where_nobody_knows() -> None:
    assert Display().spark([0, 7, 0, 0, None, None], 3) == "█▁ "
    assert Display().spark([7], 3) == "  █"
    assert Display(utf8=False).spark([0, 7], 2) == "_#"


@given(st.floats(0, 1), st.integers(0, 40))
def test_a_bar_is_as_long_as_it_should_and_grows(part: float, cells: int) -> None:
    bar = Display(utf8=False).bar(part, cells)
    assert len(bar) == cells
    assert bar == "#" * bar.count("#") + "." * bar.count(".")
    assert Display(utf8=False).bar(part / 2, cells).count("#") <= bar.count("#")


def test_a_little_is_not_nothing() -> None:
    assert Display().bar(0.0001, 4) == "█░░░"
    assert Display().bar(0.0, 4) == "░░░░"


def test_rates_are_in_bits_or_in_bytes() -> None:
    assert Display().rate(8_000_000) == "8.0 Mb/s"
    assert Display(in_bytes=True).rate(8_000_000) == "1.0 MB/s"
    assert Display().rate(None) == "-"


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("93.184.216.34 at 00:1b:44:11:3a:b7", "x.x.x.x at xx:xx:xx:xx:xx:xx"),
        ("[2a00:1450::8]:443", "[x::x]:443"),
        ("192.168.1.7 100.64.1.2 fd00::7", "192.168.1.7 100.64.1.2 fd00::7"),
        ("fibre is up for 12:34:56", "fibre is up for 12:34:56"),
    ],
)
def test_hidden_addresses_are_those_of_the_public(said: str, shown: str) -> None:
    assert Display(private=True).text(said) == shown
    assert Display().text(said) == said


def test_an_address_is_hidden_before_a_sentence_is_cut_within_it() -> None:
    lost = "the answers come from another router than the one in use, which is not to be trusted: 93.184.216.34"
    document = status(uplink("fibre", "down", families={"ipv4": family("down", lost)}), warnings=(lost,))
    for columns in range(40, 140):
        assert "93." not in "\n".join(text(view(document, display=Display(private=True), minute=False), columns))


@given(st.text())
def test_whatever_others_say_is_printable_and_where_it_must_be_ascii(said: str) -> None:
    assert Display().text(said).isprintable()
    assert Display(utf8=False).text(said).isascii()
