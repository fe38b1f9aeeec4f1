"""Marks of other programs share bits with polywan's, or with each other's where marks choose the line."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import combinations
from typing import Final, NamedTuple

from polywan.api.doctor import Finding, Fix
from polywan.core.plan.conflicts import free_mask, rule_conflicts
from polywan.core.resolved import resolve
from polywan.core.world.foreign_routing import WHOLE, ForeignRule
from polywan.doctor.box import Box
from polywan.doctor.checks.neighbours.lines import is_multi_wan
from polywan.doctor.facts.programs import MarkUse, maker_of_rule, mark_uses

_MOST: Final = 4
"""Rules of one program that are shown."""

ANOTHER: Final = "another program"


def check(box: Box) -> Iterator[Finding]:
    """Find who uses bits of polywan's mask; without polywan, which two programs use the same mark."""
    if box.config is not None:
        yield from _with_ours(box)
        yield from _compared(box)
    elif is_multi_wan(box):
        yield from _among_others(box)


class _Overlap(NamedTuple):
    """A rule of another program with bits of ours; `taken`: its value is that of an uplink."""

    program: str
    evidence: str
    taken: bool


def _with_ours(box: Box) -> Iterator[Finding]:
    found: dict[str, list[_Overlap]] = {}
    for overlap in _overlaps(box):
        found.setdefault(overlap.program, []).append(overlap)
    for program, overlaps in found.items():
        yield Finding(
            check="mark-overlap",
            severity="fault" if any(overlap.taken for overlap in overlaps) else "warning",
            what=f"{program} uses mark bits of polywan ({_mask(box):#x})",
            evidence=tuple(dict.fromkeys(overlap.evidence for overlap in overlaps))[:_MOST],
            consequence="what it marks counts as a connection that has an uplink: polywan does not balance it, or it "
            "leaves by the wrong line; and connections of polywan can match that program's rules",
            fix=Fix(how=_how(box)),
        )


def _mask(box: Box) -> int:
    return box.config.global_.mark_mask if box.config is not None else 0


def _overlaps(box: Box) -> Iterator[_Overlap]:
    config = box.config
    if config is None:
        return
    mask, resolved = config.global_.mark_mask, resolve(config, {})
    running = box.status.uplinks if box.status is not None else ()
    marks = {uplink.mark for uplink in running if uplink.mark} or set(resolved.marks)
    for conflict in rule_conflicts(resolved, box.observed, marks):
        if conflict.kind == "mark" and conflict.rule.mark is not None:
            value = conflict.rule.mark[0] & conflict.rule.mark[1] & mask
            program = maker_of_rule(conflict.rule) or ANOTHER
            yield _Overlap(program, f"ip rule: {conflict.rule.text()}", value in marks)
    words = {rule.mark[0] for rule in box.observed.rules if rule.mark is not None and rule.mark[1] == WHOLE}
    for use in mark_uses(box.firewall):
        # polywan knows whole words from the policy rules, and keeps clear of them.
        known = use.of == "packet" and use.mask == WHOLE and use.value in words and use.value not in marks
        if use.writes and use.value & mask and not known:
            yield _Overlap(use.program or ANOTHER, use.where, use.value & mask in marks)


def _how(box: Box) -> str:
    # Chains that compare packets' marks see none of our bits.
    uses = (use for use in mark_uses(box.firewall) if use.writes or use.of == "connection")
    others = [(use.value, use.mask) for use in uses]
    free = free_mask([*others, *(rule.mark for rule in box.observed.rules if rule.mark is not None)])
    if free is None:
        return "no common mask is free: set global.mark_mask to bits that none of these rules has"
    return (
        f"run `polywan down`, write `mark_mask = {free:#x}` below [global] in {box.config_path}, and start polywan: "
        "connections carry the old marks"
    )


def _compared(box: Box) -> Iterator[Finding]:
    """Find rules that compare marks of connections together with our bits; ours are on them all the time."""
    mask = _mask(box)
    found: dict[str, list[MarkUse]] = {}
    for use in mark_uses(box.firewall):
        if use.of == "connection" and not use.writes and not use.invert and use.mask & mask and use.value & use.mask:
            found.setdefault(use.program or ANOTHER, []).append(use)
    for program, uses in found.items():
        first, kept = uses[0], ~mask & WHOLE
        yield Finding(
            check="mark-overlap",
            severity="warning",
            what=f"{program} compares marks of connections with the bits of polywan in them ({mask:#x})",
            evidence=tuple(use.where for use in uses)[:_MOST],
            consequence="once a connection has an uplink its mark has polywan's bits too, and that rule does not match",
            fix=Fix(
                how="let that rule compare its own bits only: "
                f"`--mark {first.value:#x}/{first.mask & kept:#x}`, in nft "
                f"`ct mark & {first.mask & kept:#x} == {first.value & kept:#x}`"
            ),
        )


class _Mark(NamedTuple):
    """A mark of which some bits count, and whose it is."""

    program: str
    value: int
    mask: int
    evidence: str


def _among_others(box: Box) -> Iterator[Finding]:
    marks = [*_of_rules(box.observed.rules), *_of_firewall(mark_uses(box.firewall))]
    named: set[frozenset[str]] = set()
    for one, other in combinations(marks, 2):
        common = one.mask & other.mask
        same = common and one.value & common == other.value & common != 0
        programs = frozenset((one.program, other.program))
        if not same or len(programs) == 1 or programs in named:
            continue
        named.add(programs)
        yield Finding(
            check="mark-overlap",
            severity="warning",
            what=f"{one.program} and {other.program} use the same mark, {one.value & common:#x} of {common:#x}",
            evidence=(one.evidence, other.evidence),
            consequence="what one of them marks is routed or let in by the rules of the other",
            fix=Fix(how="give one of them other bits, in its own settings (mwan3: mmx_mask; pbr: fw_mask)"),
        )


def _of_rules(rules: Iterable[ForeignRule]) -> Iterator[_Mark]:
    for rule in rules:
        if rule.mark is not None and rule.mark[1] != WHOLE and not rule.invert and (maker := maker_of_rule(rule)):
            yield _Mark(maker, *rule.mark, f"ip rule: {rule.text()}")


def _of_firewall(uses: Iterable[MarkUse]) -> Iterator[_Mark]:
    for use in uses:
        if use.writes and use.of == "packet" and use.mask != WHOLE and use.program:
            yield _Mark(use.program, use.value, use.mask, use.where)
