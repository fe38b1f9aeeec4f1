"""The sentences that users read, collected from the source: reasons, log lines, errors, and help of the command."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

ROOT = next(p for p in Path(__file__).resolve().parents if (p / "pyproject.toml").is_file())
SOURCE = ROOT / "src/polywan"

ELSEWHERE = ("core/ruleset/", "kernel/fake/", "lab/recipe.py", "lab/network.py")
"""Modules whose texts are rule sets and commands rather than sentences."""

_WORDS = re.compile(r"[A-Za-z]{2,}\W* (\W*[A-Za-z]{2}|\{\})")
"""What makes a text a sentence, or a part of one: two words, or a word and something that is filled in."""


def messages(code: str) -> list[str]:
    """Return the sentences of a module in alphabetical order: `{}` stands for what is filled in.

    Docstrings are none, but for those of verbs, which are what `--help` prints. Descriptions of configuration keys
    are left out: docs/config.md has them.
    """
    tree = ast.parse(code)
    inside = set(map(id, _inside(tree)))
    found = {_text(node) for node in ast.walk(tree) if id(node) not in inside}
    return sorted({*filter(_WORDS.search, found), *_helps(tree)})


def document(paths: Iterable[Path]) -> str:
    """Return the sentences of modules below `SOURCE`, as the golden file has them."""
    parts = []
    for path in sorted(paths):
        name = path.relative_to(SOURCE).as_posix()
        if not name.startswith(ELSEWHERE) and (found := messages(path.read_text(encoding="utf-8"))):
            parts.append("\n".join([f"# {name}", *map(_entry, found), ""]))
    return "\n".join(parts)


def _entry(text: str) -> str:
    """Return a text with its further lines indented, and without the sign by which click is told not to wrap."""
    lines = text.replace("\b\n", "").strip("\n").splitlines()
    return "\n".join([lines[0], *(f"    {line}" if line else "" for line in lines[1:])])


def _text(node: ast.AST) -> str:
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=values):
            return "".join(_text(value) if isinstance(value, ast.Constant) else "{}" for value in values)
        case _:
            return ""


def _inside(tree: ast.Module) -> Iterator[ast.AST]:
    """Yield the texts that are no sentences by themselves: parts of others, docstrings, descriptions of keys."""
    for node in ast.walk(tree):
        match node:
            case ast.JoinedStr(values=values):
                yield from (value for value in values if isinstance(value, ast.Constant))
            case ast.FormattedValue(format_spec=ast.JoinedStr() as spec):
                yield spec
                yield from spec.values
            case ast.Expr(value=ast.Constant() as text):
                yield text
            case ast.keyword(arg="description", value=text):
                yield from ast.walk(text)


def _helps(tree: ast.Module) -> Iterator[str]:
    """Yield the docstrings that click prints."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and any(map(_makes_verb, node.decorator_list)):
            yield inspect.cleandoc(ast.get_docstring(node) or "")


def _makes_verb(decorator: ast.expr) -> bool:
    match decorator:
        case ast.Call(func=ast.Attribute(attr="command" | "group")):
            return True
        case _:
            return False
