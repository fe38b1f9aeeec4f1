"""Every line of the threat model in SECURITY.md names tests, and these exist."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
THREATS = PAGE.partition("\n## Threats\n")[2].partition("\n## ")[0]
HEAD = ["must not", "what prevents it", "tests"]


def rows(text: str) -> list[list[str]]:
    """The cells of each row of its tables, without heads."""
    lines = [line for line in text.splitlines() if line.startswith("|") and not set(line) <= set("|-")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


LINES = [row for row in rows(THREATS) if row != HEAD]


@cache
def names_in(file: str) -> frozenset[str]:
    """Names of the tests in a file that are not always skipped."""
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    found = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")]
    return frozenset(f.name for f in found if not any("mark.skip(" in ast.unparse(d) for d in f.decorator_list))


@pytest.mark.parametrize("line", LINES, ids=lambda line: line[0][:60])
def test_every_threat_names_what_prevents_it_and_tests_that_exist(line: list[str]) -> None:
    assert len(line) == len(HEAD)
    assert all(line)
    named = re.findall(r"`([^`]+)`", line[2])
    assert named
    assert re.sub(r"`[^`]+`|[, ]", "", line[2]) == ""
    for test in named:
        file, _, name = test.partition("::")
        assert re.fullmatch(r"tests/(?:\w+/)+test_\w+\.py", file), test
        assert (ROOT / file).is_file(), test
        assert name in names_in(file), test


def test_everybody_who_is_named_has_threats_and_everybody_with_threats_is_named() -> None:
    who = PAGE.partition("\n## Who is who\n")[2].partition("\n## ")[0]
    linked = re.findall(r"^\| \[[^]]+\]\(#([^)]+)\)", who, re.MULTILINE)
    titles = re.findall(r"^### (.*)$", THREATS, re.MULTILINE)
    assert linked == [re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles]
    for title in titles:
        assert rows(THREATS.partition(f"### {title}\n")[2].partition("\n### ")[0])[1:], title


def test_a_threat_is_a_line_of_a_table_and_nothing_is_left_out() -> None:
    assert len(LINES) > 50
    heads = [row for row in rows(THREATS) if row == HEAD]
    assert len(heads) == len(re.findall(r"^### ", THREATS, re.MULTILINE))
