"""What ``nft -j list ruleset`` prints (libnftables-json(5)), as tables."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Final, Literal, NamedTuple, get_args

from polywan.core.firewall.model import Chain, Flowtable, Hook, Rule, Table, TableFamily
from polywan.core.firewall.nftables_match import Elements
from polywan.core.firewall.nftables_rule import rules_of

_Key = tuple[str, str]

_FAMILIES: Final[Mapping[str, TableFamily]] = {family: family for family in get_args(TableFamily)}
_HOOKS: Final[Mapping[str, Hook]] = {hook: hook for hook in get_args(Hook)}
_KINDS: Final[Mapping[str, Literal["filter", "nat", "route"]]] = {"filter": "filter", "nat": "nat", "route": "route"}
_MOST_NESTED: Final = 50
"""Levels of an expression; a rule of nft has a few."""


class _Parts(NamedTuple):
    """What belongs to one table."""

    chains: dict[str, Chain]
    rules: dict[str, list[Mapping[str, object]]]
    sets: dict[str, list[object]]
    flowtables: list[Flowtable]


def parse(listing: Mapping[str, object]) -> tuple[Table, ...]:
    """Parse the JSON of ``list ruleset`` of nft 1.0.6 or newer.

    Never raises. What makes no sense is left out, or is a rule with `Other` as its condition.
    """
    tables: dict[_Key, _Parts] = {}
    for kind, item in _items(listing.get("nftables")):
        family, name = str(item.get("family")), item.get("name")
        if not isinstance(name, str) and kind != "rule":
            continue
        table = str(name if kind == "table" else item.get("table"))
        if family in _FAMILIES and kind in ("table", "chain", "rule", "set", "map", "flowtable"):
            _add(tables.setdefault((family, table), _Parts({}, {}, {}, [])), kind, str(name), item)
    return tuple(_table(*key, parts) for key, parts in tables.items())


def replaced(tables: Iterable[Table], of_iptables: Iterable[Table]) -> tuple[Table, ...]:
    """Return the tables of nft, those that it cannot show as iptables-save(8) does.

    An opaque table that iptables-save has not shown stays: its rules have conditions that are not known.
    """
    known = {(table.family, table.name): table for table in of_iptables}
    return tuple(known.get((table.family, table.name), table) if table.opaque else table for table in tables)


def _items(listing: object) -> Iterator[tuple[str, Mapping[str, object]]]:
    for entry in listing if isinstance(listing, list) else ():
        if isinstance(entry, dict):
            for kind, item in entry.items():
                if isinstance(item, dict):
                    yield str(kind), item


def _add(parts: _Parts, kind: str, name: str, item: Mapping[str, object]) -> None:
    elements = item.get("elem")
    devices = _names(item.get("dev"))
    if kind == "chain":
        parts.chains[name] = _chain(name, item, devices)
    elif kind == "rule":
        parts.rules.setdefault(str(item.get("chain")), []).append(item)
    elif kind in ("set", "map"):
        parts.sets[name] = elements if isinstance(elements, list) else []
    elif kind == "flowtable":
        parts.flowtables.append(Flowtable(name, devices))


def _names(value: object) -> tuple[str, ...]:
    return tuple(map(str, value)) if isinstance(value, list) else (value,) if isinstance(value, str) else ()


def _chain(name: str, item: Mapping[str, object], devices: tuple[str, ...]) -> Chain:
    hook, priority, policy = _HOOKS.get(str(item.get("hook"))), item.get("prio"), item.get("policy")
    if hook is None:
        return Chain(name)
    kind = _KINDS.get(str(item.get("type")), "filter")
    number = priority if isinstance(priority, int) else 0
    return Chain(name, kind, hook, number, "drop" if policy == "drop" else "accept", (), devices)


def _table(family: str, name: str, parts: _Parts) -> Table:
    filled = {text for rules in parts.rules.values() for rule in rules for text in _filled(rule.get("expr"))}
    known: Elements = {name: elements for name, elements in parts.sets.items() if name not in filled}
    opaque = False
    chains = []
    for chain in parts.chains.values():
        rules: list[Rule] = []
        for item in parts.rules.get(chain.name, ()):
            expressions, comment = item.get("expr"), item.get("comment")
            expressions = expressions if isinstance(expressions, list) else []
            opaque = opaque or any(isinstance(e, dict) and "xt" in e for e in expressions)
            if any(_too_deep(e) for e in expressions):
                expressions = ["..."]
            rules += rules_of(expressions, known, comment if isinstance(comment, str) else "")
        chains.append(replace(chain, rules=tuple(rules)))
    return Table("nftables", _FAMILIES[family], name, tuple(chains), tuple(parts.flowtables), opaque)


def _filled(expressions: object) -> Iterator[str]:
    """Yield the sets that packets fill: what is in them changes all the time."""
    for expression in expressions if isinstance(expressions, list) else ():
        match expression:
            case {"set": {"set": str(name)}} | {"map": {"map": str(name)}}:
                yield name.removeprefix("@")


def _too_deep(value: object, level: int = 0) -> bool:
    if level > _MOST_NESTED:
        return True
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return any(_too_deep(item, level + 1) for item in inner)
