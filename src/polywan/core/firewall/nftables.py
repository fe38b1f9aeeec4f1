"""Read what ``nft --json list ruleset`` prints (libnftables-json(5)); what is not known of it is said to be so."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any, Final

from polywan.core.firewall.iptables import HOOKS, PRIORITIES
from polywan.core.firewall.model import (
    Action,
    ActionOther,
    Chain,
    Flowtable,
    Match,
    Offload,
    Other,
    Rule,
    Table,
    Translate,
    Verdict,
)
from polywan.core.firewall.nft_actions import compact, written
from polywan.core.firewall.nft_matches import known

Texts = Mapping[tuple[str, str, int], str]
"""Rules as ``nft --handle list ruleset`` prints them, by family, table and handle."""

_VERDICTS: Final[dict[str, Verdict]] = {
    "accept": "accept",
    "drop": "drop",
    "reject": "reject",
    "return": "return",
    "jump": "jump",
    "goto": "goto",
    "queue": "queue",
}
_TRANSLATIONS: Final = ("masquerade", "snat", "dnat", "redirect", "tproxy")
_TABLE_LINE: Final = re.compile(r"table (\S+) (\S+) \{")
_RULE_LINE: Final = re.compile(r"\s*(.*?) # handle (\d+)")
_COUNTER: Final = re.compile(r"counter packets \d+ bytes \d+ ?")
_MOST: Final = 4096
"""Elements of a set that are looked at; a larger one is not known."""


def texts(listing: str) -> Texts:
    """Return the rules of ``nft --handle list ruleset`` as they are printed, without counters."""
    found: dict[tuple[str, str, int], str] = {}
    family, table = "", ""
    for line in listing.splitlines():
        if match := _TABLE_LINE.match(line):
            family, table = match[1], match[2]
        elif match := _RULE_LINE.fullmatch(line):
            found[family, table, int(match[2])] = _COUNTER.sub("", match[1]).strip()
    return found


def parse(listing: object, printed: Texts | None = None) -> tuple[Table, ...]:
    """Return the tables of a listing; what makes no sense is compared out.

    Args:
        listing: the JSON.
        printed: the rules as people know them.
    """
    items = listing.get("nftables") if isinstance(listing, Mapping) else None
    entries = [entry for entry in items if isinstance(entry, Mapping)] if isinstance(items, list) else []
    reader = _Reader(entries, printed or {})
    return tuple(reader.table(entry["table"]) for entry in entries if isinstance(entry.get("table"), Mapping))


def replaced(tables: Iterable[Table], known: Iterable[Table]) -> tuple[Table, ...]:
    """Return the tables, with those of iptables as iptables-save(8) shows them, where it does."""
    better = {(table.family, table.name): table for table in known}
    return tuple(
        better.get((table.family, table.name), table) if table.opaque or of_iptables(table) else table
        for table in tables
    )


def of_iptables(table: Table) -> bool:
    """Tell whether iptables has made a table, by the names of its chains."""
    named = {chain.name for chain in table.chains if chain.hook}
    return table.family in ("ip", "ip6") and table.name in PRIORITIES and bool(named) and named <= HOOKS.keys()


class _Reader:
    """Knows the sets that rules refer to."""

    def __init__(self, entries: list[Mapping[str, Any]], printed: Texts) -> None:
        self._entries = entries
        self._printed = printed
        self._sets: dict[tuple[str, str, str], Any] = {}
        for kind in ("set", "map"):
            for each in self._of(kind):
                key = (str(each.get("family")), str(each.get("table")), str(each.get("name")))
                self._sets[key] = each.get("elem", [])

    def _of(self, kind: str) -> Iterator[Mapping[str, Any]]:
        return (entry[kind] for entry in self._entries if isinstance(entry.get(kind), Mapping))

    def table(self, about: Mapping[str, Any]) -> Table:
        family, name = str(about.get("family")), str(about.get("name"))
        mine = [each for each in self._of("rule") if (each.get("family"), each.get("table")) == (family, name)]
        chains = tuple(
            self._chain(each, [rule for rule in mine if rule.get("chain") == each.get("name")])
            for each in self._of("chain")
            if (each.get("family"), each.get("table")) == (family, name)
        )
        tables = tuple(
            Flowtable(str(each.get("name")), tuple(map(str, _listed(each.get("dev")))))
            for each in self._of("flowtable")
            if (each.get("family"), each.get("table")) == (family, name)
        )
        opaque = any("xt" in part for rule in mine for part in _expressions(rule))
        return Table("nftables", family, name, chains, tables, opaque)  # type: ignore[arg-type]  # as the kernel has it

    def _chain(self, about: Mapping[str, Any], rules: list[Mapping[str, Any]]) -> Chain:
        name = str(about.get("name"))
        made = tuple(rule for each in rules for rule in self._rules(each))
        if "hook" not in about:
            return Chain(name, rules=made)
        policy, priority = about.get("policy", "accept"), about.get("prio", 0)
        return Chain(
            name,
            about.get("type", "filter"),
            about["hook"],
            priority if isinstance(priority, int) else 0,
            "drop" if policy == "drop" else "accept",
            made,
            tuple(map(str, _listed(about.get("dev")))),
        )

    def _rules(self, about: Mapping[str, Any]) -> Iterator[Rule]:
        """Yield a rule, or one for each verdict of a map."""
        key = (str(about.get("family")), str(about.get("table")), about.get("handle", 0))
        text = self._printed.get(key) or _shown(about)
        place = (key[0], key[1])
        rule = Rule(text)
        for part in _expressions(about):
            for name, value in part.items():
                if name == "vmap" and isinstance(value, Mapping):
                    branches = list(self._branches(value, place))
                    yield from (_continued(rule, match, verdict) for match, verdict in branches)
                    return
                rule = self._with(rule, name, value, place)
        yield rule

    def _with(self, rule: Rule, name: str, value: Any, place: tuple[str, str]) -> Rule:
        if name == "match" and isinstance(value, Mapping):
            return replace(rule, matches=(*rule.matches, self._match(value, place)))
        if name == "counter":
            count = value if isinstance(value, Mapping) else {}
            return replace(rule, packets=_count(count, "packets"), bytes=_count(count, "bytes"))
        if name in _VERDICTS:
            target = str(value.get("target", "")) if isinstance(value, Mapping) and name in ("jump", "goto") else ""
            return replace(rule, verdict=_VERDICTS[name], target=target)
        if name in ("limit", "xt", "quota", "connlimit", "ct count"):
            return replace(rule, matches=(*rule.matches, Other(name)))
        if name in _TRANSLATIONS:
            made: Action = Translate(name, compact({name: value}))  # type: ignore[arg-type]  # of `_TRANSLATIONS`
            return replace(rule, actions=(*rule.actions, made), verdict="" if name == "tproxy" else "accept")
        if name == "flow":
            table = str(value.get("flowtable", "")) if isinstance(value, Mapping) else ""
            return replace(rule, actions=(*rule.actions, Offload(table.removeprefix("@"))))
        if name == "mangle" and isinstance(value, Mapping):
            return replace(rule, actions=(*rule.actions, written(value)))
        return replace(rule, actions=(*rule.actions, ActionOther(name)))

    def _branches(self, about: Mapping[str, Any], place: tuple[str, str]) -> Iterator[tuple[Match, Mapping[str, Any]]]:
        pairs = self._resolved(about.get("data"), place)
        for pair in pairs if pairs is not None else ():
            if isinstance(pair, list) and len(pair) == 2 and isinstance(pair[1], Mapping):
                yield self._match({"op": "==", "left": about.get("key"), "right": pair[0]}, place), pair[1]
        if pairs is None:
            yield Other(compact(about.get("key"))), {"accept": None}

    def _match(self, about: Mapping[str, Any], place: tuple[str, str]) -> Match:
        invert = about.get("op") == "!="
        compared, right = about.get("left"), about.get("right")
        values = self._resolved(right, place)
        if about.get("op") not in ("==", "!=", "in", None) or values is None or not isinstance(compared, Mapping):
            return Other(compact(about))
        try:
            return known(compared, values, invert=invert) or Other(compact(about))
        except (ValueError, TypeError, KeyError, IndexError):
            return Other(compact(about))

    def _resolved(self, value: Any, place: tuple[str, str]) -> list[Any] | None:
        """Return the values that one stands for: a set's elements; None when they are not known."""
        if isinstance(value, str) and value.startswith("@"):
            value = {"set": self._sets.get((*place, value[1:]), [])}
        if isinstance(value, Mapping) and "set" in value:
            value = value["set"]
        found = [_element(each) for each in value] if isinstance(value, list) else [value]
        return found if len(found) <= _MOST else None


def _element(each: Any) -> Any:
    """Return an element without its time-out and counter."""
    if isinstance(each, Mapping) and isinstance(each.get("elem"), Mapping):
        return each["elem"].get("val")
    if isinstance(each, list) and len(each) == 2:
        return [_element(each[0]), each[1]]
    return each


def _continued(rule: Rule, match: Match, verdict: Mapping[str, Any]) -> Rule:
    name, value = next(iter(verdict.items()), ("", None))
    target = str(value.get("target", "")) if isinstance(value, Mapping) else ""
    return replace(rule, matches=(*rule.matches, match), verdict=_VERDICTS.get(name, ""), target=target)


def _expressions(about: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [part for part in _listed(about.get("expr")) if isinstance(part, Mapping)]


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


def _count(about: Mapping[str, Any], name: str) -> int:
    value = about.get(name, 0)
    return value if isinstance(value, int) else 0


def _shown(about: Mapping[str, Any]) -> str:
    return f"rule {about.get('handle', '?')}: {compact(_expressions(about))}"
