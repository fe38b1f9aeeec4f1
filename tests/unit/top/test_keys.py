"""Keys from what a terminal sends, in whichever pieces."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polywan.top.keys import KeyReader

SENT = ["q", "/", "é", "电", "\x1b[A", "\x1bOB", "\x1b[5~", "\x1b[H", "\r", "\x7f", "\t", "\x1b[200~", "\x1b[1;5C"]


def read(*pieces: bytes) -> list[str]:
    reader = KeyReader()
    return [key for piece in pieces for key in reader.feed(piece)] + reader.flush()


@pytest.mark.parametrize(
    ("sent", "key"),
    [
        ("\x1b[A", "up"), ("\x1bOA", "up"), ("\x1b[B", "down"), ("\x1b[6~", "page down"), ("\x1b[1~", "home"),
        ("\x1b[F", "end"), ("\r", "enter"), ("\n", "enter"), ("\t", "tab"), ("\x7f", "backspace"),
        ("q", "q"), ("é", "é"),
    ],
)  # fmt: skip
def test_special_keys_have_names_and_others_are_their_character(sent: str, key: str) -> None:
    assert read(sent.encode()) == [key]


@given(st.lists(st.sampled_from(SENT), max_size=8), st.data())
def test_it_does_not_matter_in_which_pieces_keys_come(sent: list[str], data: st.DataObject) -> None:
    whole = "".join(sent).encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=5)))
    pieces = [whole[start:end] for start, end in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    assert read(*pieces) == read(whole)


def test_an_escape_that_nothing_follows_is_the_escape_key() -> None:
    reader = KeyReader()
    assert reader.feed(b"\x1b") == []
    assert reader.waits
    assert reader.flush() == ["escape"]
    assert not reader.waits


def test_sequences_that_mean_nothing_here_are_passed_over() -> None:
    assert read(b"\x1b[1;5C\x1b[200~q") == ["q"]


@given(st.binary(max_size=200))
def test_no_bytes_make_a_key_that_is_not_printable(data: bytes) -> None:
    assert all(key.isprintable() for key in read(data))


def test_a_sequence_without_end_is_not_kept() -> None:
    reader = KeyReader()
    reader.feed(b"\x1b[" + b"1" * 1000)
    reader.flush()
    assert reader.feed(b"q")[-1:] == ["q"]
