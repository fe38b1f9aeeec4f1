"""An nftables table as a value: built by `ruleset`, written as text, compared with what the kernel holds.

Rules are recognised by their comment, which ends in a digest of the rule's own text: reading a ruleset
back changes its spelling (``& 0xffffc0ff | 0x100`` returns as ``& 0xffffc1ff | 0x00000100``), never its comments.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from hashlib import blake2s
from typing import Final, TypeAlias

TABLE: Final = "inet polywan"
"""Family and name of our main table (nft(8))."""

HELD: Final = "flags owner"
"""What the declaration of a table begins with that others cannot flush, and that goes with the daemon (Linux 5.12)."""

UNREAD: Final = ("list_", "theirs_", "affinity_", "dns_", "asked_", "specific_")
"""Beginnings of the names of sets and maps whose elements are never compared: prefix lists and destinations of others,
whose names say what is in them, and those that packets or a resolver fill."""

QUOTABLE: Final = re.compile(r"[A-Za-z0-9_.@+-]{1,15}")
"""Names of devices that mean themselves in quotes: the kernel takes names that would end the text or stand for many."""

PART: Final = "part_"
"""Beginning of the name of a set that stands beside a list as long as that is not whole."""

PIECE: Final = 2000
"""Elements that are declared at a time: libnftables and the kernel take 20 ms for them, and keep others waiting."""

Key: TypeAlias = int | str
"""Key of a map or member of a set: a number (mark, slot) or a name (interface)."""


@lru_cache(maxsize=8192)  # more rules than the largest table has; with each new address come new texts
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
    """Where a base chain is attached: ``type TYPE hook HOOK priority PRIORITY; policy POLICY``."""

    type: str
    hook: str
    priority: int
    policy: str = "accept"

    def render(self) -> str:
        """The chain's declaration as nft reads it."""
        return f"type {self.type} hook {self.hook} priority {self.priority}; policy {self.policy};"


@dataclass(frozen=True)
class Chain:
    """A chain: attached to a hook, or reached by jumps only; most are the same objects in every decision."""

    rules: tuple[NftRule, ...]
    hook: Hook | None = None

    @cached_property
    def state(self) -> ChainState:
        """What the kernel should show of it."""
        return ChainState(tuple(rule.comment for rule in self.rules), self.hook)


@dataclass(frozen=True, slots=True)
class NftSet:
    """A named set; `type` is its declaration, as ``type ifname``."""

    type: str
    elements: frozenset[Key] = frozenset()


@dataclass(frozen=True, slots=True)
class NftMap:
    """A named map; values are nft text.

    Attributes:
        type: its declaration, as ``type ifname : verdict``.
        swapped: libnftables stores its numbers in the other byte order, so they are written in that order, too.
    """

    type: str
    elements: Mapping[Key, str] = field(default_factory=dict)
    swapped: bool = False


@dataclass(frozen=True, slots=True)
class NftFlowtable:
    """A flowtable: the devices by which connections in it come and leave, and where in the hook ingress it stands."""

    devices: tuple[str, ...]
    priority: int

    def render(self) -> str:
        """The flowtable's declaration as nft reads it; bytes count for connection tracking, too (Linux 5.7)."""
        devices = ", ".join(f'"{device}"' for device in self.devices)
        return f"hook ingress priority {self.priority}; devices = {{ {devices} }}; counter;"


@dataclass(frozen=True, slots=True, kw_only=True)
class NftTable:
    """The whole of a table of polywan. Names must not be nft keywords: prefix every generated one."""

    chains: Mapping[str, Chain]
    sets: Mapping[str, NftSet] = field(default_factory=dict)
    maps: Mapping[str, NftMap] = field(default_factory=dict)
    flowtables: Mapping[str, NftFlowtable] = field(default_factory=dict)

    def render(self, name: str = TABLE, flags: str = "") -> str:
        """The table's declaration as nft reads it: it declares all chains of a block before anything refers to one."""
        lines = [f"table {name} {{", *([f"\t{flags}"] if flags else [])]
        lines += [f"\tflowtable {name} {{\n\t\t{flows.render()}\n\t}}" for name, flows in self.flowtables.items()]
        lines += _filled(self.sets, self.maps)
        for name, chain in self.chains.items():
            lines += _written(name, chain)
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


def in_force(state: NftState | None) -> bool:
    """True when packets meet the table: the second half of `new_texts` may never have come."""
    return state is not None and any(chain.hook is not None for chain in state.chains.values())


def state_of(table: NftTable) -> NftState:
    """Return what the kernel should show once `table` is in force."""
    return NftState(
        chains={name: chain.state for name, chain in table.chains.items()},
        sets={n: frozenset() if unread(n) else s.elements for n, s in table.sets.items()},
        maps={n: {} if unread(n) else m.elements for n, m in table.maps.items()},
    )


def unread(name: str) -> bool:
    """True for a set or map whose elements are neither read back nor compared."""
    return name.startswith(UNREAD)


def replace_text(table: NftTable) -> str:
    """One transaction that puts `table` in the place of whatever is there."""
    return "".join(new_texts(table))


def new_texts(table: NftTable) -> tuple[str, str]:
    """Return two transactions that make the table: all that no packet meets, then the chains that hang on hooks.

    Whatever is there is gone with the first one (the `add` makes `delete` safe).
    """
    inert = {name: chain for name, chain in table.chains.items() if chain.hook is None}
    hooked = {name: chain for name, chain in table.chains.items() if chain.hook is not None}
    first = NftTable(chains=inert, sets=table.sets, maps=table.maps).render()
    return f"add table {TABLE}\ndelete table {TABLE}\n{first}", NftTable(chains=hooked).render()


def held_texts(name: str, table: NftTable | None) -> tuple[str, str]:
    """Return the transaction that puts the table, or none, in place of ours or of nothing, and the one to try then.

    The second is for a table of that name which is nobody's, as a saved rule set brings it: it cannot become anybody's.

    Args:
        name: family and name of the table; others cannot flush it, and it goes with the socket that made it.
        table: what is to be there.
    """
    owned = f"{{ {HELD}; }}"
    text = "" if table is None else table.render(name, HELD)
    first = f"add table {name} {owned}\ndelete table {name}\n{text}"
    return first, first.replace(f" {owned}", "", 1)


def delete_text() -> str:
    """One transaction that removes our table, present or not."""
    return f"add table {TABLE}\ndelete table {TABLE}\n"


def declare_texts(name: str, nftset: NftSet, most: int = PIECE) -> Iterator[str]:
    """Yield transactions that declare a set piece by piece; whatever else the table holds stays.

    Nobody waits for more than one of them. A set of another name stands beside it until the last one (`partial`),
    and each but the first asks for it, so that nothing goes on after the table was lost in between.

    Args:
        name: the set's; it begins with ``list_``.
        nftset: the set.
        most: elements of a piece.
    """
    elements, mark = _ordered(nftset.elements), name.replace("list_", PART, 1)
    starts = range(0, max(len(elements), 1), most)
    for start in starts:
        first, last = start == starts[0], start == starts[-1]
        piece = {name: replace(nftset, elements=frozenset(elements[start : start + most]))}
        lines = [] if first else [f"flush set {TABLE} {mark}"]
        lines += [f"table {TABLE} {{", *_filled(piece | ({} if last else {mark: NftSet("type mark;")}), {}), "}"]
        lines += [f"delete set {TABLE} {mark}"] if last and not first else []
        yield "\n".join(lines) + "\n"


def partial(sets: Iterable[str]) -> frozenset[str]:
    """Return which sets are not whole: they are being declared, or whoever did that was interrupted."""
    return frozenset(name.replace(PART, "list_", 1) for name in sets if name.startswith(PART))


def change_text(desired: NftTable, actual: NftState | None) -> str:
    """Return the smallest transaction that leads from `actual` to `desired`; empty when nothing differs.

    A chain whose rules differ is refilled, and so is a set or map whose elements do, so that packets meet either the
    old contents or the new ones. What packets have written (clients and their uplinks) stays. Elements are never
    added or deleted by statements of their own: for those libnftables first reads every set of every table, which
    takes half a second beside a list of 50 000 prefixes.
    """
    if actual is None or any(c.hook != desired.chains[n].hook for n, c in actual.chains.items() if n in desired.chains):
        return replace_text(desired)
    return "".join(f"{line}\n" for line in _changes(desired, actual))


def _changes(desired: NftTable, actual: NftState) -> Iterator[str]:
    """Declare what is new, fill what differs, then remove what nothing refers to any more."""
    torn = partial(actual.sets)
    sets = {
        n: s
        for n, s in desired.sets.items()
        if n not in actual.sets or n in torn or _differs(n, s.elements, actual.sets[n])
    }
    maps = {n: m for n, m in desired.maps.items() if n not in actual.maps or _differs(n, m.elements, actual.maps[n])}
    chains = [
        name
        for name, chain in desired.chains.items()
        if (known := actual.chains.get(name)) is None or (chain.state is not known and chain.state.rules != known.rules)
    ]
    yield from _declared(desired, [name for name in chains if name not in actual.chains])
    # Emptied all at once, before anything is filled: an element refers to a chain, and a rule to a set.
    yield from (f"flush set {TABLE} {name}" for name in sets if name in actual.sets)
    yield from (f"flush map {TABLE} {name}" for name in maps if name in actual.maps)
    yield from (f"flush chain {TABLE} {name}" for name in chains if name in actual.chains)
    if sets or maps:
        yield f"table {TABLE} {{"
        yield from _filled(sets, maps)
        yield "}"
    for name in chains:
        for rule in desired.chains[name].rules:
            yield f"add rule {TABLE} {name} {rule.render()}"
    gone = [name for name in actual.chains if name not in desired.chains]
    yield from (f"flush chain {TABLE} {name}" for name in gone)
    yield from (f"delete map {TABLE} {name}" for name in actual.maps if name not in desired.maps)
    yield from (f"delete set {TABLE} {name}" for name in actual.sets if name not in desired.sets)
    yield from (f"delete chain {TABLE} {name}" for name in gone)


def _differs(name: str, wanted: object, have: object) -> bool:
    return wanted is not have and not unread(name) and wanted != have


def _written(name: str, chain: Chain) -> Iterator[str]:
    yield f"\tchain {name} {{"
    if chain.hook is not None:
        yield f"\t\t{chain.hook.render()}"
    yield from (f"\t\t{rule.render()}" for rule in chain.rules)
    yield "\t}"


def _declared(table: NftTable, names: list[str]) -> Iterator[str]:
    """Declare chains without rules, hooked ones with their hook, so that elements and rules can refer to them."""
    if not names:
        return
    yield f"table {TABLE} {{"
    for name in names:
        hook = table.chains[name].hook
        yield from (f"\tchain {name} {{", *([f"\t\t{hook.render()}"] if hook is not None else []), "\t}")
    yield "}"


def _filled(sets: Mapping[str, NftSet], maps: Mapping[str, NftMap]) -> Iterator[str]:
    for name, nftset in sets.items():
        quote = '"' if "ifname" in nftset.type else ""
        elements = f"{quote}, {quote}".join(map(str, _ordered(nftset.elements)))
        yield from _block("set", name, nftset.type, f"{quote}{elements}{quote}" if elements else "")
    for name, nftmap in maps.items():
        yield from _block("map", name, nftmap.type, _pairs(nftmap))


def _ordered(keys: Iterable[Key]) -> list[Key]:
    names = sorted(key for key in keys if isinstance(key, str))
    return [*sorted(key for key in keys if isinstance(key, int)), *names]


def _pairs(nftmap: NftMap) -> str:
    written = {k: _swapped(k) if nftmap.swapped and isinstance(k, int) else k for k in _ordered(nftmap.elements)}
    return ", ".join(f"{render_key(text, nftmap.type)} : {nftmap.elements[k]}" for k, text in written.items())


def _swapped(number: int) -> int:
    return int.from_bytes(number.to_bytes(4, "little"), "big")


def _block(word: str, name: str, declaration: str, elements: str) -> list[str]:
    lines = [f"\t{word} {name} {{", f"\t\t{declaration}"]
    if elements:
        lines.append(f"\t\telements = {{ {elements} }}")
    return [*lines, "\t}"]


def render_key(key: Key, declaration: str) -> str:
    """An element as nft reads it: names of devices are quoted, numbers, addresses and prefixes are not."""
    return f'"{key}"' if "ifname" in declaration else str(key)
