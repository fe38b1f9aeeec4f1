"""The table as libnftables lists it, and its complaints."""

from __future__ import annotations

import errno
from typing import Any

import pytest

from polywan.core.errors import KernelError
from polywan.core.ruleset.model import NftState
from polywan.kernel.nft import libnftables
from polywan.kernel.nft.libnftables import Nftables, decode, refusal
from polywan.kernel.nft.reader import TableSummary, comment_in


def listing(*items: dict[str, Any]) -> dict[str, Any]:
    return {"nftables": [{"metainfo": {"version": "1.0.6"}}, {"table": {"name": "polywan"}}, *items]}


def one_map(*elements: object) -> object:
    return decode(listing({"map": {"name": "m", "elem": list(elements)}})).maps["m"]


def test_an_empty_table_has_nothing() -> None:
    assert decode(listing()) == NftState(chains={})


def test_a_rules_comment_is_found_among_its_user_data() -> None:
    other = b"\x07\x02xy"
    assert comment_in(other + b"\x00\x04why\x00") == "why"
    assert comment_in(other) == ""
    assert comment_in(b"\x00") == ""


def test_a_set_without_elements_is_there() -> None:
    assert decode(listing({"set": {"name": "dead"}})).sets == {"dead": frozenset()}


def test_numbers_stay_numbers_and_names_stay_names() -> None:
    found = decode(listing({"set": {"name": "s", "elem": [256, "eth1", {"elem": {"val": 7, "timeout": 60}}]}}))
    assert found.sets["s"] == {256, "eth1", 7}


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"goto": {"target": "to_fibre"}}, "goto to_fibre"),
        ({"jump": {"target": "x"}}, "jump x"),
        ({"accept": None}, "accept"),
        ({"drop": None}, "drop"),
        ("plain", "plain"),
        (5, "5"),
        ({"queue": {"num": 1, "flags": "bypass"}}, '{"queue": {"flags": "bypass", "num": 1}}'),
    ],
)
def test_values_of_a_map_become_text(value: object, words: str) -> None:
    assert one_map([0, value]) == {0: words}


def test_a_key_that_is_no_plain_value_becomes_stable_text() -> None:
    assert one_map([{"range": [1, 2]}, {"drop": None}]) == {'{"range": [1, 2]}': "drop"}


@pytest.mark.parametrize("nonsense", [{}, {"nftables": 3}, {"nftables": [3, {"map": []}, {"rule": None}]}])
def test_a_listing_that_makes_no_sense_is_an_empty_table(nonsense: dict[str, Any]) -> None:
    assert decode(nonsense) == NftState(chains={})


def test_a_complaint_keeps_its_words_and_finds_its_number() -> None:
    error = refusal("Error: Could not process rule: No such file or directory\ndelete x\n       ^\n")
    assert isinstance(error, KernelError)
    assert error.errno == errno.ENOENT
    assert str(error) == "nft: Could not process rule: No such file or directory | delete x"


def test_a_syntax_error_has_no_number() -> None:
    assert refusal("<cmdline>:1:1-8: Error: syntax error, unexpected string\nnonsense\n^^^^^^^^\n").errno == 0


def test_silence_is_a_refusal_too() -> None:
    assert str(refusal("")) == "nft: refused without a message"


def test_memory_is_given_back_after_large_transactions_only(monkeypatch: pytest.MonkeyPatch) -> None:
    given_back: list[str] = []
    monkeypatch.setattr(libnftables, "trim", lambda: given_back.append("all"))
    monkeypatch.setattr(libnftables, "read_outline", lambda: TableSummary({}, (), (), {}))
    monkeypatch.setattr(Nftables, "_command", lambda *_: "")
    nft = Nftables()
    nft.run("add rule inet polywan output accept\n")
    nft.list_table()
    assert given_back == []
    nft.run("#" * libnftables.TRIMMED)
    nft.list_table()
    nft.list_table()
    assert given_back == ["all"]
