"""What iptables-save(8) prints, as tables."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Final, Literal, NamedTuple

from polywan.core.firewall.iptables_rule import Word, parse_rule
from polywan.core.firewall.model import Chain, Hook, Program, Rule, Table
from polywan.core.net import Family

_HOOKS: Final[Mapping[str, Hook]] = {
    "PREROUTING": "prerouting",
    "INPUT": "input",
    "FORWARD": "forward",
    "OUTPUT": "output",
    "POSTROUTING": "postrouting",
}
# linux/netfilter_ipv4.h; nat's depends on the hook.
_PRIORITIES: Final = {"raw": -300, "mangle": -150, "nat": 100, "filter": 0, "security": 50}
_COUNTERS: Final = re.compile(r"\[(\d{1,20}):(\d{1,20})\]\s*")
_DECLARED: Final = re.compile(r":(\S+)\s+(ACCEPT|DROP|-)(?:\s|$)")
_APPENDED: Final = re.compile(r"(?:-A|--append)\s+(?=\S)")


class _Parsed(NamedTuple):
    policies: dict[str, str]
    lines: list[tuple[str, int | None, int | None]]


def parse(text: str, family: Family, program: Program) -> tuple[Table, ...]:
    """Parse the output of iptables-save or ip6tables-save, with or without counters (``-c``).

    Never raises. A line that is no rule and no chain is left out; of a rule that makes no sense the text remains, with
    `Other` as its condition.
    """
    tables: dict[str, _Parsed] = {}
    current = _Parsed({}, [])
    for line in map(str.strip, text.split("\n")):
        if line.startswith("*") and len(line) > 1:
            current = tables.setdefault(line[1:].strip(), _Parsed({}, []))
        elif line == "COMMIT":
            current = _Parsed({}, [])
        elif declared := _DECLARED.match(line):
            current.policies[declared[1]] = declared[2]
        elif appended := _rule_line(line):
            current.lines.append(appended)
    return tuple(_table(name, parsed, family, program) for name, parsed in tables.items())


def split_words(line: str) -> Iterator[Word]:
    """Split a line into words as iptables-restore(8) does: in quotes, spaces and what is escaped are part of a word."""
    word, started, quoted, escaped = "", False, False, False
    was_quoted = False
    for character in line:
        if quoted:
            if escaped or character not in '"\\':
                word, escaped = word + character, False
            elif character == "\\":
                escaped = True
            else:
                quoted = False
        elif character == '"':
            quoted = started = was_quoted = True
        elif character.isspace():
            if started:
                yield Word(word, was_quoted)
            word, started, was_quoted = "", False, False
        else:
            word, started = word + character, True
    if started:
        yield Word(word, was_quoted)


def _rule_line(line: str) -> tuple[str, int | None, int | None] | None:
    """Return a rule's text without its counters, then packets and bytes."""
    counters = _COUNTERS.match(line)
    text = line[counters.end() :] if counters else line
    if not _APPENDED.match(text):
        return None
    return (text, int(counters[1]), int(counters[2])) if counters else (text, None, None)


def _table(name: str, parsed: _Parsed, family: Family, program: Program) -> Table:
    lines = []
    for text, packets, size in parsed.lines:
        _, chain, *words = split_words(text)
        parsed.policies.setdefault(chain.text, "-")
        lines.append((chain.text, words, text, packets, size))
    rules: dict[str, list[Rule]] = {chain: [] for chain in parsed.policies}
    for chain_name, words, text, packets, size in lines:
        rules[chain_name].append(
            parse_rule(words, family, parsed.policies, text=text, packets=packets, size=size),
        )
    chains = tuple(_chain(name, chain, policy, tuple(rules[chain])) for chain, policy in parsed.policies.items())
    return Table(program, "ip" if family is Family.V4 else "ip6", name, chains)


def _chain(table: str, name: str, policy: str, rules: tuple[Rule, ...]) -> Chain:
    hook = _HOOKS.get(name)
    if hook is None or table not in _PRIORITIES:
        return Chain(name, rules=rules)
    kind: Literal["nat", "route", "filter"] = "filter"
    priority = _PRIORITIES[table]
    if table == "nat":
        kind = "nat"
        priority = -100 if hook in ("prerouting", "output") else 100
    elif table == "mangle" and hook == "output":
        kind = "route"
    return Chain(name, kind, hook, priority, "drop" if policy == "DROP" else "accept", rules)
