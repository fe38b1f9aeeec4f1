"""Policy rules of other programs take traffic before polywan's, or are in the place of those."""

from __future__ import annotations

from collections.abc import Iterator
from shlex import join
from typing import Final

from polywan.api.doctor import Finding, Fix, Step
from polywan.core.plan.conflicts import PRIORITY_BAND, RuleConflict, rule_conflicts
from polywan.core.resolved import resolve
from polywan.doctor.box import Box
from polywan.doctor.checks.neighbours.vpn_takes_default import is_full_tunnel
from polywan.doctor.facts.programs import addition, removal

_STARTS: Final = range(6000, 32000, 1000)
"""Where to look for a free band of priorities."""

_SEVERITIES: Final = {"pinned": "warning", "elsewhere": "note", "among": "warning", "first": "fault"}

_CONSEQUENCES: Final = {
    "pinned": "these connections do not move to another line when that one fails",
    "elsewhere": "none of it is balanced, nor moved when an uplink fails",
    "among": "packets of connections that have an uplink can meet that rule first",
    "first": "these connections leave by another line than the one that was chosen for them",
}


def check(box: Box) -> Iterator[Finding]:
    """Find the rules that the daemon warns of, too."""
    if box.config is None:
        return
    resolved = resolve(box.config, {})
    for conflict in rule_conflicts(resolved, box.observed, resolved.marks):
        kind = conflict.kind
        if kind == "mark" or (kind == "elsewhere" and is_full_tunnel(conflict.rule)):
            continue
        yield Finding(
            check="rules-before-ours",
            severity=_SEVERITIES[kind],
            what=conflict.text,
            evidence=(f"ip rule: {conflict.rule.text()}",),
            consequence=_CONSEQUENCES[kind],
            fix=_fix(box, conflict),
        )


def _fix(box: Box, conflict: RuleConflict) -> Fix | None:
    remove = removal(conflict.rule)
    by_hand = f" (`{join(remove)}`)" if remove else ""
    if conflict.priority:
        return _moved(conflict)
    if conflict.kind == "pinned":
        return Fix(how=f"{conflict.advice}{by_hand}, and take it out of the file that adds it")
    if conflict.kind == "among":
        return Fix(how=_band(box))
    return Fix(how=f"nothing, if that is meant; otherwise change the program that adds the rule{by_hand}")


def _moved(conflict: RuleConflict) -> Fix:
    """Give the rule another priority: first the new one, so that no packet is without it."""
    how = f"give it priority {conflict.priority}, and do so where it is set up, so that it stays"
    commands = (addition(conflict.rule, conflict.priority), removal(conflict.rule))
    return Fix(how=how, steps=tuple(Step(command=command) for command in commands if command))


def _band(box: Box) -> str:
    priorities = {rule.priority for rule in box.observed.rules}
    free = (start for start in _STARTS if priorities.isdisjoint(range(start, start + PRIORITY_BAND + 1)))
    return (
        f"run `polywan down`, write `priority = {next(free, _STARTS[0])}` below [global] in {box.config_path}, and "
        "start polywan; or give that rule another priority"
    )
