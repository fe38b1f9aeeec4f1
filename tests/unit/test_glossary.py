"""The words of docs/design/words.md: what it retires is no identifier any more, and no constant has two meanings."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = next(p for p in Path(__file__).resolve().parents if (p / "pyproject.toml").is_file())
PAGE = ROOT / "docs/design/words.md"
FILES = sorted(p for folder in ("src", "tests", "bench", "scripts") for p in (ROOT / folder).rglob("*.py"))
OURS = {"polywan", *(p.stem for p in FILES), *(p.parent.name for p in FILES)}
SAME_EVERYWHERE = {"DAY", "HEADINGS", "TABLE_LOCAL", "WITH_PORTS"}
"""Constants that are written differently and mean the same."""


def table(heading: str) -> list[list[str]]:
    """The rows of the table below a heading of the page."""
    section = PAGE.read_text().split(f"## {heading}\n", 1)[1].split("\n## ", 1)[0]
    rows = [line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("| ")]
    return rows[1:]


@cache
def retired() -> dict[str, str]:
    return {word: row[1] for row in table("Retired identifiers") for word in re.findall(r"`(\w+)`", row[0])}


def identifiers(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """Every name that the code chose itself; not those of modules, nor of what it imports from elsewhere."""
    foreign: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            elsewhere = (node.module or "").split(".")[0] not in OURS
            foreign |= {a.asname or a.name for a in node.names if elsewhere or a.name in OURS}
        elif isinstance(node, ast.Import):
            foreign |= {a.asname or a.name for a in node.names}
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name) if name not in foreign:
                yield name, node.lineno
            case ast.Attribute(attr=name) | ast.arg(arg=name):
                yield name, node.lineno
            case ast.keyword(arg=str(name)):
                yield name, node.lineno
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                yield name, node.lineno
            case ast.ExceptHandler(name=str(name)) | ast.MatchAs(name=str(name)):
                yield name, node.lineno


def test_the_page_retires_words() -> None:
    assert retired()["Juror"] == "`Observer`, `observer`"
    assert len(retired()) > 50


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_no_retired_word_is_an_identifier(path: Path) -> None:
    used = {
        f"line {line}: {name}, use {retired()[name.lstrip('_')]}"
        for name, line in identifiers(ast.parse(path.read_text()))
        if name.lstrip("_") in retired()
    }
    assert used == set()


def test_no_retired_event_is_logged() -> None:
    events = {row[0].strip("`") for row in table("Retired names in texts") if row[2] == "event"}
    logged = set()
    for path in FILES:
        if path.is_relative_to(ROOT / "src"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    logged |= {event for event in events if re.match(rf"{re.escape(event)}(:|$)", node.value)}
    assert logged == set()


def constants() -> Iterator[tuple[str, str, str]]:
    """Public constants of src: name, value as written, module."""
    for path in FILES:
        if not path.is_relative_to(ROOT / "src"):
            continue
        for node in ast.parse(path.read_text()).body:
            target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
            value = getattr(node, "value", None)
            if isinstance(target, ast.Name) and target.id.isupper() and target.id[0] != "_" and value is not None:
                yield target.id, ast.unparse(value), path.stem


def test_a_constant_has_one_meaning() -> None:
    meanings: dict[str, dict[str, str]] = {}
    for name, value, module in constants():
        # What takes over another module's constant by name is that constant.
        if not value.endswith(f".{name}") and len(name) > 1:
            meanings.setdefault(name, {})[value] = module
    several = {name: places for name, places in meanings.items() if len(places) > 1 and name not in SAME_EVERYWHERE}
    assert several == {}
