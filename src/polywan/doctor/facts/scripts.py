"""Scripts that set up networks: their commands, and what they say of routes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Final, NamedTuple

from polywan.core.net import Family

TABLE_NAMES: Final = ("etc/iproute2/rt_tables", "usr/share/iproute2/rt_tables", "usr/lib/iproute2/rt_tables")
"""Where names of tables are given (ip-route(8)), below the root."""

_LITERAL: Final = re.compile(r"[A-Za-z0-9_.:@-]{1,64}")
_ROUTE: Final = re.compile(r"\bip\s+(?:-\S+\s+)*(?:ro|route)\s+(add|replace|change|append|prepend)\s+(.*)")
_END: Final = re.compile(r"[;|&)`]|\s#|>")


class Line(NamedTuple):
    """A command of a script; continued lines are one, with the number of the first."""

    path: str
    number: int
    text: str

    def __str__(self) -> str:
        return f"{self.path}:{self.number}: {self.text}"


class ScriptHop(NamedTuple):
    """A next hop as a script writes it; empty where it is not said, or comes from a variable."""

    device: str
    via: str = ""


class ScriptRoute(NamedTuple):
    """A default route that a script adds; an empty table is main, "?" comes from a variable."""

    line: Line
    family: Family
    table: str
    hops: tuple[ScriptHop, ...]


def lines(scripts: Mapping[str, str]) -> Iterator[Line]:
    """Yield all lines but comments."""
    for path, text in scripts.items():
        number, begun, parts = 0, 0, list[str]()
        for raw in text.splitlines():
            number += 1
            stripped = raw.strip()
            if not parts and (not stripped or stripped.startswith("#")):
                continue
            begun = begun if parts else number
            parts.append(stripped.removesuffix("\\").strip())
            if not stripped.endswith("\\"):
                yield Line(path, begun, " ".join(parts))
                parts = []


def default_routes(scripts: Mapping[str, str]) -> Iterator[ScriptRoute]:
    """Yield the default routes that scripts add with ip(8)."""
    for line in lines(scripts):
        for found in _ROUTE.finditer(line.text):
            words = _END.split(found[2])[0].split()
            if "default" in words or "0.0.0.0/0" in words or "::/0" in words:
                six = "-6" in found[0].split() or "::/0" in words
                yield ScriptRoute(line, Family.V6 if six else Family.V4, _table(words), _hops(words))


def _table(words: list[str]) -> str:
    said = _behind(words, "table") or _behind(words, "tab")
    if said is None or said in ("main", "254"):
        return ""
    return said if _LITERAL.fullmatch(said) else "?"


def _hops(words: list[str]) -> tuple[ScriptHop, ...]:
    parts: list[list[str]] = [[]]
    for word in words:
        if word == "nexthop":
            parts.append([])
        parts[-1].append(word)
    if len(parts) > 1:
        del parts[0]
    return tuple(ScriptHop(_literal(_behind(part, "dev")), _literal(_behind(part, "via"))) for part in parts)


def _behind(words: list[str], key: str) -> str | None:
    return next((value for word, value in pairwise(words) if word == key), None)


def _literal(word: str | None) -> str:
    plain = (word or "").strip("\"'")
    return plain if _LITERAL.fullmatch(plain) else ""


def table_names(scripts: Mapping[str, str]) -> Mapping[str, int]:
    """Return the names of tables and their numbers, as rt_tables has them."""
    found: dict[str, int] = {}
    for path, text in scripts.items():
        if "/rt_tables" in path:
            pairs = (line.partition("#")[0].split() for line in text.splitlines())
            found.update({pair[1]: int(pair[0]) for pair in pairs if len(pair) == 2 and pair[0].isdecimal()})
    return found
