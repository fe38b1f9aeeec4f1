"""What the page is made of: files of others as they were published, every word in every language, few bytes."""

from __future__ import annotations

import gzip
import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from supply.licences import COMPATIBLE

STATIC = Path(__file__).parents[3] / "src/polywan/web/static"
VENDOR = STATIC / "vendor"
VENDORED = json.loads((VENDOR / "vendored.json").read_text("utf-8"))["files"]
OWN = sorted(STATIC.glob("*.js"))
LANGUAGES = {"en": {"one", "other"}, "pl": {"one", "few", "many", "other"}, "zh": {"other"}}
CATALOGUES: dict[str, dict[str, Any]] = {
    code: json.loads((STATIC / f"lang/{code}.json").read_text("utf-8")) for code in LANGUAGES
}
HOLE = re.compile(r"\{(\w+)\}")
MOST_BYTES = 120_000
"""Of the whole page, compressed, with the largest catalogue: a second on a slow line."""

by_file = pytest.mark.parametrize("path", OWN, ids=lambda path: path.name)
by_language = pytest.mark.parametrize("code", LANGUAGES)


@pytest.mark.parametrize("entry", VENDORED, ids=lambda entry: entry["file"])
def test_a_vendored_file_is_the_published_one_but_for_what_is_listed(entry: dict[str, Any]) -> None:
    text = (VENDOR / entry["file"]).read_text("utf-8")
    for theirs, ours in entry["replaced"].items():
        assert text.count(ours) == 1
        text = text.replace(ours, theirs)
    assert hashlib.sha256(text.encode()).hexdigest() == entry["sha256"]


def test_every_vendored_file_is_listed_with_a_licence_that_goes_with_libnftables() -> None:
    listed = {entry["file"] for entry in VENDORED} | {entry["licence_file"] for entry in VENDORED} | {"vendored.json"}
    assert {path.name for path in VENDOR.iterdir()} == listed
    assert {entry["licence"] for entry in VENDORED} <= set(COMPATIBLE)


@by_language
def test_every_language_has_every_sentence_with_the_same_values(code: str) -> None:
    def values(said: str | dict[str, str]) -> list[set[str]]:
        return [set(HOLE.findall(form)) for form in ([said] if isinstance(said, str) else said.values())]

    assert list(CATALOGUES[code]) == list(CATALOGUES["en"])
    for key, said in CATALOGUES[code].items():
        expected = set.union(*values(CATALOGUES["en"][key]))
        assert all(found <= expected for found in values(said)), key
        assert set.union(*values(said)) == expected, key
        assert isinstance(said, str) or set(said) == LANGUAGES[code], key
        assert isinstance(said, str) == isinstance(CATALOGUES["en"][key], str), key


def test_every_sentence_that_the_page_asks_for_is_there_and_is_asked_for() -> None:
    text = "\n".join(_without_comments(path) for path in OWN)
    exact = set(re.findall(r"\"([a-z]\w*(?:\.[\w-]+)+)\"", text)) & set(CATALOGUES["en"])
    asked = set(re.findall(r"\bt(?:\.rich|\.has)?\(\s*\"([^\"]+)\"", text))
    begins = tuple(re.findall(r"`([a-z]\w*\.(?:[\w-]+\.)*)\$\{", text))
    assert asked <= set(CATALOGUES["en"])
    assert [key for key in CATALOGUES["en"] if key not in exact | asked and not key.startswith(begins)] == []


@by_file
def test_a_module_has_no_words_of_its_own(path: Path) -> None:
    for markup in _templates(_without_comments(path)):
        words = re.sub(r"<[^>]*>", " ", markup)
        assert not re.search(r"[^\W\d_]", words), words.strip()
        assert re.findall(r"\b(?:aria-label|title|placeholder|alt)=[\"'][^\"'\x00]*[^\W\d_\x00]", markup) == []


@by_file
def test_a_module_makes_no_markup_of_texts(path: Path) -> None:
    text = path.read_text("utf-8")
    risky = r"innerHTML|outerHTML|insertAdjacent|document\.write|\beval\(|new Function|javascript:"
    assert re.findall(risky, text) == []


@by_file
def test_a_module_is_no_longer_than_one_can_look_over(path: Path) -> None:
    assert len(path.read_text("utf-8").splitlines()) <= 400


def test_the_page_is_small() -> None:
    served = [path for path in STATIC.rglob("*") if path.suffix in {".html", ".js", ".css", ".svg"}]
    sizes = {path.name: _compressed(path) for path in served}
    words = max(_compressed(STATIC / f"lang/{code}.json") for code in LANGUAGES)
    assert sum(sizes.values()) + words <= MOST_BYTES, sizes


def _compressed(path: Path) -> int:
    return len(gzip.compress(path.read_bytes(), 9))


def _without_comments(path: Path) -> str:
    return re.sub(r"^\s*//.*$", "", path.read_text("utf-8"), flags=re.MULTILINE)


def _templates(text: str) -> Iterator[str]:
    """Yield the markup of each template, with NUL for each value; those inside of values for themselves."""
    for found in re.finditer(r"\bhtml`", text):
        markup, at = "", found.end()
        while text[at] != "`":
            if text.startswith("${", at):
                at = _end_of_value(text, at + 2)
                markup += "\0"
            else:
                markup += text[at]
                at += 1
        yield markup


def _end_of_value(text: str, at: int) -> int:
    """Return where a value ends that begins at `at`; templates and texts inside of it may have braces."""
    depth = 1
    while depth:
        sign = text[at]
        if sign in "\"'":
            at = text.index(sign, at + 1)
        elif sign == "`":
            at += 1
            while text[at] != "`":
                at = _end_of_value(text, at + 2) if text.startswith("${", at) else at + 1
        depth += (sign == "{") - (sign == "}")
        at += 1
    return at
