"""Rules that choose stand one after the other and do not end the chain, so that shares are other than they look.

MARK and CONNMARK let the packet go on to the next rule, and each `statistic` counts by itself only what reaches it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from math import lcm
from typing import Final

from polywan.api.doctor import Finding, Fix
from polywan.core.firewall.model import MarkIs, SetMark, Statistic
from polywan.doctor.box import Box
from polywan.doctor.checks.recipes.choices import Choice, choices

_MOST: Final = 100_000
"""Connections that are played through at most."""

_NEAR: Final = 0.001


def check(box: Box) -> Iterator[Finding]:
    """Find chains whose shares differ from those that their rules speak of."""
    turns = [choice for choice in choices(box) if _turn(choice) is not None]
    for _, group in groupby(turns, key=lambda choice: (str(choice.table), choice.table.program, choice.chain.name)):
        rules = list(group)
        if len(rules) < 2:
            continue
        seen = shares(rules)
        marks = list(dict.fromkeys(_value(choice) for choice in rules))
        even = len({_turn_of(choice).every for choice in rules}) == 1 and _turn_of(rules[0]).every == len(rules)
        lost = [mark for mark in marks if seen.get(mark, 0.0) < _NEAR]
        uneven = even and any(abs(seen.get(mark, 0.0) - 1 / len(rules)) > _NEAR for mark in marks)
        if lost or uneven or (even and seen.get(0, 0.0) > _NEAR):
            yield _finding(rules, seen, marks)


def shares(rules: Sequence[Choice]) -> dict[int, float]:
    """Play new connections through the rules, and return what part of them has which mark in the end; 0: none.

    Of xt_statistic: a rule of every N takes the packet whose number, among those that reached it, is `packet` modulo N.
    """
    total = min(_MOST, 4 * lcm(*(_turn_of(choice).every for choice in rules)) * len(rules))
    reached = [0] * len(rules)
    count: dict[int, int] = {}
    for _ in range(total):
        mark = 0
        for number, choice in enumerate(rules):
            if _takes(choice, mark, reached, number):
                mark = _value(choice)
                if choice.rule.verdict in ("accept", "return", "drop"):
                    break
        count[mark] = count.get(mark, 0) + 1
    return {mark: number / total for mark, number in count.items()}


def _takes(choice: Choice, mark: int, reached: list[int], number: int) -> bool:
    """Ask the conditions in their order: a statistic counts what the ones before it let pass."""
    for match in choice.rule.matches:
        if isinstance(match, MarkIs) and not _holds(match, mark):
            return False
        if isinstance(match, Statistic):
            mine = reached[number] % match.every == match.packet
            reached[number] += 1
            if mine is match.invert:
                return False
    return True


def _holds(match: MarkIs, mark: int) -> bool:
    return (mark & match.mask == match.value) is not match.invert


def _turn(choice: Choice) -> Statistic | None:
    found = [match for match in choice.rule.matches if isinstance(match, Statistic)]
    plain = len(found) == 1 and found[0].mode == "nth" and found[0].every > 0
    return found[0] if plain and _value(choice) else None


def _turn_of(choice: Choice) -> Statistic:
    found = _turn(choice)
    return found if found is not None else Statistic("nth", 1)


def _value(choice: Choice) -> int:
    return next((action.value for action in choice.rule.actions if isinstance(action, SetMark)), 0)


def _finding(rules: list[Choice], seen: dict[int, float], marks: list[int]) -> Finding:
    listed = ", ".join(f"mark {mark:#x} {100 * seen.get(mark, 0.0):.0f} %" for mark in marks)
    none = f", no mark {100 * seen[0]:.0f} %" if seen.get(0, 0.0) > _NEAR else ""
    even = ", ".join(f"--every {len(rules) - number}" for number in range(len(rules)))
    return Finding(
        check="last-writer-wins",
        severity="warning",
        what=f"chain {rules[0].chain.name} gives other shares than its rules say",
        evidence=(*(choice.text for choice in rules), f"of new connections get: {listed}{none}"),
        consequence="a link carries more than its share, and another less or nothing",
        fix=Fix(
            how="each rule counts only what reaches it: choose only where the connection has no mark "
            f"(`-m connmark --mark 0`), with {even}, each with `--packet 0`; change the script that loads the rules"
        ),
    )
