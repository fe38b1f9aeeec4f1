"""The rules of the house hold: sizes, the tree of errors, and what documents say of the code."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import re
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from functools import cached_property
from pathlib import Path

import polywan
from polywan.core import errors
from polywan.core.errors import PolywanError

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted((ROOT / "src").rglob("*.py"))
TOOLS = [*sorted((ROOT / "bench").glob("*.py")), *sorted((ROOT / "scripts").rglob("*.py"))]

MODULE, FUNCTION = 400, 40
"""Lines from which on a module, and a function without its docstring, asks to be split."""

LONG = {
    "_hooked": "the base chains of the table, one after the other",
    "_shared": "the chains that all uplinks share, one after the other",
    "uplink_status": "every field of an uplink's document",
    "_counts": "one line for each budget",
}
"""Functions that may be longer, and why."""


def functions() -> Iterator[tuple[Path, ast.FunctionDef | ast.AsyncFunctionDef]]:
    for path in [*SOURCES, *TOOLS]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield path, node


def length(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function without those of its docstring."""
    first = function.body[0]
    text = ast.get_docstring(function, clean=False)
    document = 0 if text is None else (first.end_lineno or first.lineno) - first.lineno + 1
    return (function.end_lineno or function.lineno) - function.lineno + 1 - document


def test_no_module_is_too_long() -> None:
    lengths = {str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines()) for path in SOURCES}
    assert {path: lines for path, lines in lengths.items() if lines > MODULE} == {}


def test_no_function_is_too_long_but_those_that_are_named_here() -> None:
    long = {f"{path.relative_to(ROOT)}:{f.name}": f.name for path, f in functions() if length(f) > FUNCTION}
    assert [place for place, name in long.items() if name not in LONG] == []
    assert sorted(LONG) == sorted(set(long.values()))


def subclasses(of: type[PolywanError]) -> set[str]:
    found = {of.__name__}
    for sub in of.__subclasses__():
        found |= subclasses(sub)
    return found


def test_the_tree_of_errors_names_every_error() -> None:
    for module in pkgutil.walk_packages(polywan.__path__, "polywan."):
        importlib.import_module(module.name)
    drawn = set(re.findall(r"(?:── |^    )([A-Z][A-Za-z]+)", errors.__doc__ or "", re.MULTILINE))
    assert drawn == subclasses(PolywanError)


def copied() -> Iterator[type]:
    """Classes that `evolve.replace` may meet: dataclasses of the core with a `__dict__`."""
    for module in pkgutil.walk_packages(polywan.__path__, "polywan."):
        if module.name.startswith("polywan.core"):
            for found in vars(importlib.import_module(module.name)).values():
                if not isinstance(found, type) or found.__module__ != module.name or hasattr(found, "__slots__"):
                    continue
                if is_dataclass(found):
                    yield found


def test_what_is_copied_without_its_constructor_has_nothing_that_only_a_constructor_makes() -> None:
    odd = {
        found.__name__
        for found in copied()
        if hasattr(found, "__post_init__") or any(not f.init for f in fields(found))
    }
    assert odd == set()


def test_what_is_copied_keeps_nothing_that_was_derived_from_the_original() -> None:
    users = [path.read_text(encoding="utf-8") for path in SOURCES if "evolve import replace" in path.read_text("utf-8")]
    derived = [
        found.__name__ for found in copied() if any(isinstance(v, cached_property) for v in vars(found).values())
    ]
    for name in derived:
        assert not any(re.search(rf"\b{name}\b", text) for text in users), name
