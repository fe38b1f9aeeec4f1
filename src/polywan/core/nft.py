"""An nftables table as a value: built by `ruleset`, written as text, compared with what the kernel holds.

Rules are recognised by their comment, which ends in a digest of the rule's own text: reading a ruleset
back changes its spelling (``& 0xffffc0ff | 0x100`` returns as ``& 0xffffc1ff | 0x00000100``), never its comments.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from hashlib import blake2s
from typing import Final, TypeAlias

TABLE: Final = "inet polywan"
"""Family and name of the one table that is ours (nft(8))."""

Key: TypeAlias = int | str
"""Key of a map or member of a set: a number (mark, slot) or a name (interface)."""


@cache
def _comment(text: str, why: str) -> str:
    return f"{why} #{blake2s(text.encode(), digest_size=4).hexdigest()}"


@dataclass(frozen=True, slots=True)
class NftRule:
    """One rule: its text in nft(8) grammar, and in a few words why it is there.

    The words become part of the rule's comment, so that ``nft list ruleset`` explains itself.
    """

    text: str
    why: str

    @property
    def comment(self) -> str:
        """The words and a digest of the text; equal comments mean equal rules."""
        return _comment(self.text, self.why)

    def render(self) -> str:
        """The rule as nft reads it."""
        return f'{self.text} comment "{self.comment}"'


@dataclass(frozen=True, slots=True)
class Hook:
    """Where a base chain is attached: ``type TYPE hook HOOK priority PRIORITY; policy accept``."""

    type: str
    hook: str
    priority: int

    def render(self) -> str:
        """The chain's declaration as nft reads it."""
        return f"type {self.type} hook {self.hook} priority {self.priority}; policy accept;"


@dataclass(frozen=True, slots=True)
class Chain:
    """A chain: attached to a hook, or reached by jumps only."""

    rules: tuple[NftRule, ...]
    hook: Hook | None = None


@dataclass(frozen=True, slots=True)
class NftSet:
    """A named set; `type` is its declaration, as ``type ifname``."""

    type: str
    elements: frozenset[Key] = frozenset()


@dataclass(frozen=True, slots=True)
class NftMap:
    """A named map; `type` is its declaration, as ``type ifname : verdict``; values are nft text."""

    type: str
    elements: Mapping[Key, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class NftTable:
    """The whole of polywan's table. Names must not be nft keywords: prefix every generated one."""

    chains: Mapping[str, Chain]
    sets: Mapping[str, NftSet] = field(default_factory=dict)
    maps: Mapping[str, NftMap] = field(default_factory=dict)

    def render(self) -> str:
        """The table's declaration as nft reads it; chains that others jump to come first."""
        lines = [f"table {TABLE} {{"]
        for name, chain in self.chains.items():
            if chain.hook is None:
                lines.append(f"\tchain {name} {{\n\t}}")
        for name, nftset in self.sets.items():
            lines += _block("set", name, nftset.type, ", ".join(sorted(map(render_key, nftset.elements))))
        for name, nftmap in self.maps.items():
            lines += _block("map", name, nftmap.type, _pairs(nftmap.elements))
        for name, chain in self.chains.items():
            lines.append(f"\tchain {name} {{")
            if chain.hook is not None:
                lines.append(f"\t\t{chain.hook.render()}")
            lines += [f"\t\t{rule.render()}" for rule in chain.rules]
            lines.append("\t}")
        lines.append("}")
        return "\n".join(lines) + "\n"


@dataclass(frozen=True, slots=True)
class ChainState:
    """A chain as the kernel holds it: its hook and its rules' comments, in order."""

    rules: tuple[str, ...]
    hook: Hook | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NftState:
    """Our table as the kernel holds it, reduced to what tells a difference."""

    chains: Mapping[str, ChainState]
    sets: Mapping[str, frozenset[Key]] = field(default_factory=dict)
    maps: Mapping[str, Mapping[Key, str]] = field(default_factory=dict)


def state_of(table: NftTable) -> NftState:
    """Return what the kernel should show once `table` is in force."""
    return NftState(
        chains={n: ChainState(tuple(r.comment for r in c.rules), c.hook) for n, c in table.chains.items()},
        sets={n: s.elements for n, s in table.sets.items()},
        maps={n: dict(m.elements) for n, m in table.maps.items()},
    )


def replace_text(table: NftTable) -> str:
    """One transaction that puts `table` in the place of whatever is there (the `add` makes `delete` safe)."""
    return f"add table {TABLE}\ndelete table {TABLE}\n{table.render()}"


def delete_text() -> str:
    """One transaction that removes our table, present or not."""
    return f"add table {TABLE}\ndelete table {TABLE}\n"


def change_text(desired: NftTable, actual: NftState | None) -> str:
    """Return the smallest transaction that leads from `actual` to `desired`; empty when nothing differs.

    Elements of sets and maps are added and deleted one by one and a chain whose rules differ is refilled,
    so that packets meet either the old rules or the new ones. A different outline (chains, hooks, sets)
    replaces the table, in one transaction as well.
    """
    if actual is None or not _same_outline(desired, actual):
        return replace_text(desired)
    return "".join(f"{line}\n" for line in _changes(desired, actual))


def _same_outline(desired: NftTable, actual: NftState) -> bool:
    return (
        {n: c.hook for n, c in desired.chains.items()} == {n: c.hook for n, c in actual.chains.items()}
        and desired.sets.keys() == actual.sets.keys()
        and desired.maps.keys() == actual.maps.keys()
    )


def _changes(desired: NftTable, actual: NftState) -> Iterator[str]:
    for name, nftset in desired.sets.items():
        have = actual.sets[name]
        yield from _elements("delete", name, [render_key(k) for k in _ordered(have - nftset.elements)])
        yield from _elements("add", name, [render_key(k) for k in _ordered(nftset.elements - have)])
    for name, nftmap in desired.maps.items():
        now = actual.maps[name]
        gone = [k for k in now if now[k] != nftmap.elements.get(k)]
        new = {k: v for k, v in nftmap.elements.items() if now.get(k) != v}
        yield from _elements("delete", name, [render_key(k) for k in _ordered(gone)])
        if new:
            yield f"add element {TABLE} {name} {{ {_pairs(new)} }}"
    for name, chain in desired.chains.items():
        if tuple(r.comment for r in chain.rules) != actual.chains[name].rules:
            yield f"flush chain {TABLE} {name}"
            for rule in chain.rules:
                yield f"add rule {TABLE} {name} {rule.render()}"


def _elements(verb: str, name: str, keys: list[str]) -> Iterator[str]:
    if keys:
        yield f"{verb} element {TABLE} {name} {{ {', '.join(keys)} }}"


def _ordered(keys: frozenset[Key] | list[Key]) -> list[Key]:
    return sorted(keys, key=lambda k: (isinstance(k, str), k))


def _pairs(elements: Mapping[Key, str]) -> str:
    return ", ".join(f"{render_key(k)} : {elements[k]}" for k in _ordered(list(elements)))


def _block(word: str, name: str, declaration: str, elements: str) -> list[str]:
    lines = [f"\t{word} {name} {{", f"\t\t{declaration}"]
    if elements:
        lines.append(f"\t\telements = {{ {elements} }}")
    return [*lines, "\t}"]


def render_key(key: Key) -> str:
    """An element as nft reads it: names are quoted, numbers are not."""
    return f'"{key}"' if isinstance(key, str) else str(key)
