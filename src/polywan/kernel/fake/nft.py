"""The part of nft(8)'s grammar that `core.ruleset.model` writes, carried out on a value. Pure.

Like the kernel it takes a text as one transaction and refuses references to what does not exist.
"""

from __future__ import annotations

import errno
import os
import re
from dataclasses import dataclass, field
from typing import Any, Final, NoReturn

from polywan.core.errors import KernelError
from polywan.core.ruleset.model import TABLE, ChainState, Hook, Key, NftState, NftTable, unread

MAX_COMMENT: Final = 128
"""Bytes of the longest comment nft takes."""

_NAME: Final = r"[A-Za-z][\w./-]*"
_BLOCK: Final = re.compile(rf"(chain|set|map) ({_NAME}) \{{")
_HOOK: Final = re.compile(r"type (\w+) hook (\w+) priority (-?\d+); policy accept;")
_EMPTY: Final = re.compile(rf"(flush|delete) (chain|set|map) {TABLE} ({_NAME})")
_RULE: Final = re.compile(rf"add rule {TABLE} ({_NAME}) (.+)")
_COMMENT: Final = re.compile(r'(.+?)(?: comment "([^"]*)")?')
_JUMP: Final = re.compile(rf"\b(?:goto|jump) ({_NAME})")
_REFERENCE: Final = re.compile(rf"@({_NAME})")


class FakeHeld:
    """The tables that others cannot flush: see `Kernel.hold`."""

    def __init__(self) -> None:
        super().__init__()
        self.held: dict[str, NftTable] = {}

    def hold(self, name: str, table: NftTable | None) -> None:
        """Keep the table; see `Kernel.hold`."""
        if table is None:
            self.held.pop(name, None)
        else:
            self.held[name] = table


def transact(state: NftState | None, text: str) -> NftState | None:
    """Return the table after the transaction.

    Raises:
        KernelError: the text makes no sense, or not with this table; nothing changes.
    """
    transaction = _Transaction(None if state is None else _Table.of(state))
    lines = [line.strip() for line in text.splitlines()]
    while lines:
        transaction.statement(lines.pop(0), lines)
    return transaction.table.state() if transaction.table is not None else None


def _refuse(number: int, line: str) -> NoReturn:
    raise KernelError("nft", number, f"{os.strerror(number)} | {line}")


@dataclass(slots=True)
class _Table:
    rules: dict[str, list[str]] = field(default_factory=dict)
    hooks: dict[str, Hook | None] = field(default_factory=dict)
    sets: dict[str, set[Key]] = field(default_factory=dict)
    maps: dict[str, dict[Key, str]] = field(default_factory=dict)

    @classmethod
    def of(cls, state: NftState) -> _Table:
        return cls(
            rules={n: list(c.rules) for n, c in state.chains.items()},
            hooks={n: c.hook for n, c in state.chains.items()},
            sets={n: set(s) for n, s in state.sets.items()},
            maps={n: dict(m) for n, m in state.maps.items()},
        )

    def state(self) -> NftState:
        return NftState(
            chains={n: ChainState(tuple(r), self.hooks[n]) for n, r in self.rules.items()},
            sets={n: frozenset[Key]() if unread(n) else frozenset(s) for n, s in self.sets.items()},
            maps={n: {} if unread(n) else dict(m) for n, m in self.maps.items()},
        )

    def check(self, text: str) -> None:
        """Refuse jumps to chains that do not exist or hang on a hook, and lookups in sets that do not exist."""
        text = re.sub(r'"[^"]*"', "", text)
        for name in _JUMP.findall(text):
            if name not in self.rules:
                _refuse(errno.ENOENT, text)
            if self.hooks[name] is not None:
                _refuse(errno.EOPNOTSUPP, text)
        for name in _REFERENCE.findall(text):
            if name not in self.sets and name not in self.maps:
                _refuse(errno.ENOENT, text)


class _Transaction:
    """Applies statements to a copy of the table, in order."""

    def __init__(self, table: _Table | None) -> None:
        self.table = table

    def statement(self, line: str, rest: list[str]) -> None:
        """Carry out one statement; a block takes its lines off `rest`."""
        if line == f"add table {TABLE}":
            self.table = self.table or _Table()
        elif line == f"delete table {TABLE}":
            self._present(line)
            self.table = None
        elif line == f"table {TABLE} {{":
            self.table = self.table or _Table()
            self._declarations(rest)
        elif line:
            self._change(line)

    def _present(self, line: str) -> _Table:
        return self.table if self.table is not None else _refuse(errno.ENOENT, line)

    def _declarations(self, lines: list[str]) -> None:
        """Take a block: nft declares all of its chains before it fills anything, in whatever order they are written."""
        found: list[tuple[str, str, list[str]]] = []
        while lines:
            line = lines.pop(0)
            if line == "}":
                self._carry_out(found)
                return
            block = _BLOCK.fullmatch(line) or _refuse(0, line)
            content: list[str] = []
            while lines and lines[0] != "}":
                content.append(lines.pop(0))
            if not lines:
                break
            lines.pop(0)
            found.append((block[1], block[2], content))
        _refuse(0, "the end of the table is missing")

    def _carry_out(self, found: list[tuple[str, str, list[str]]]) -> None:
        chains = [(name, content) for kind, name, content in found if kind == "chain"]
        for name, content in chains:
            self._declare(name, content)
        for kind, name, content in found:
            if kind != "chain":
                self._fill(kind, name, content)
        for name, content in chains:
            self._rules(name, content)

    def _fill(self, kind: str, name: str, content: list[str]) -> None:
        table = self._present(name)
        if not content or not content[0].startswith(("type ", "typeof ")):
            _refuse(0, name)
        target = table.sets.setdefault(name, set()) if kind == "set" else table.maps.setdefault(name, {})
        for line in content[1:]:
            inner = re.fullmatch(r"elements = \{ (.*) \}", line) or _refuse(0, line)
            self._add(target, inner[1])

    def _declare(self, name: str, content: list[str]) -> None:
        table = self._present(name)
        table.rules.setdefault(name, [])
        table.hooks.setdefault(name, None)
        if content and (hook := _HOOK.fullmatch(content[0])) is not None:
            table.hooks[name] = Hook(hook[1], hook[2], int(hook[3]))

    def _rules(self, name: str, content: list[str]) -> None:
        for line in content:
            if _HOOK.fullmatch(line) is None:
                self._rule(name, line)

    def _change(self, line: str) -> None:
        self._present(line)
        if empty := _EMPTY.fullmatch(line):
            self._empty(empty[1], empty[2], empty[3])
        elif rule := _RULE.fullmatch(line):
            self._rule(rule[1], rule[2])
        else:
            _refuse(0, line)

    def _empty(self, verb: str, kind: str, name: str) -> None:
        """Flush or delete; what is still referred to cannot be deleted."""
        table = self._present(name)
        homes: dict[str, dict[str, Any]] = {"chain": table.rules, "set": table.sets, "map": table.maps}
        home = homes[kind]
        if name not in home:
            _refuse(errno.ENOENT, name)
        if verb == "flush":
            home[name].clear()
            return
        verdicts = (verdict for elements in table.maps.values() for verdict in elements.values())
        if kind == "chain" and any(name in _JUMP.findall(verdict) for verdict in verdicts):
            _refuse(errno.EBUSY, name)
        del home[name]
        if kind == "chain":
            del table.hooks[name]

    def _rule(self, chain: str, line: str) -> None:
        table = self._present(line)
        parts = _COMMENT.fullmatch(line)
        if chain not in table.rules:
            _refuse(errno.ENOENT, line)
        if parts is None or len((parts[2] or "").encode()) > MAX_COMMENT:
            _refuse(0, line)
        table.check(parts[1])
        table.rules[chain].append(parts[2] or "")

    def _add(self, target: set[Key] | dict[Key, str], text: str) -> None:
        for item in text.split(", "):
            word, _, verdict = item.partition(" : ")
            key = _key(word)
            if isinstance(target, set):
                target.add(key)
                continue
            if not verdict or target.get(key, verdict) != verdict:
                _refuse(errno.EEXIST if verdict else 0, item)
            self._present(item).check(verdict)
            target[key] = verdict


def _key(word: str) -> Key:
    if quoted := re.fullmatch(r'"([^"]+)"', word):
        return quoted[1]
    if word.isdecimal():
        return int(word)
    return word if re.fullmatch(r"[0-9A-Fa-f:.]+(/[0-9]+)?", word) else _refuse(0, word)
