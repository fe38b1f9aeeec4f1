"""A mark leads to a table without a default route: a session that was dialled again has taken it away.

The kernel removes the routes of a device that goes, in every table, and pppd puts back one in main at most. The rule
stays; its packets find nothing in the table, and go on to main.
"""

from __future__ import annotations

from collections.abc import Iterator

from polywan.api.doctor import Finding, Fix
from polywan.core.firewall.model import Choose, SetMark
from polywan.core.net import TABLE_MAIN, Family
from polywan.core.world.foreign_routing import TABLE_LOCAL, ForeignRule
from polywan.doctor.box import Box


def check(box: Box) -> Iterator[Finding]:
    """Find rules for marks that somebody gives, whose table leads nowhere."""
    chosen = _chosen(box)
    for rule in box.observed.rules:
        if rule.mark is None or rule.invert or rule.action != "table" or rule.table in (None, TABLE_MAIN, TABLE_LOCAL):
            continue
        value, mask = rule.mark
        if any(mark & mask == value & mask for mark in chosen) and not _leads(box, rule):
            yield _finding(box, rule)


def _chosen(box: Box) -> set[int]:
    """Return the marks that rules of others choose."""
    rules = (rule for table in box.firewall.tables for chain in table.chains for rule in chain.rules)
    actions = [action for rule in rules for action in rule.actions]
    fixed = {action.value for action in actions if isinstance(action, SetMark) and action.value}
    return fixed | {mark for action in actions if isinstance(action, Choose) for mark, _ in action.shares}


def _leads(box: Box, rule: ForeignRule) -> bool:
    """True when the table has a default of any kind, also one that refuses."""
    known = box.observed.tables.get(rule.table, ()) if rule.table is not None else ()
    wide = any(d.prefix.version == rule.family and (d.prefix.prefixlen <= 1 or d.kind == "large") for d in known)
    return wide or any(d.family is rule.family and d.table == rule.table for d in box.observed.defaults)


def _finding(box: Box, rule: ForeignRule) -> Finding:
    option = "" if rule.family is Family.V4 else "-6 "
    routes = box.observed.tables.get(rule.table, ()) if rule.table is not None else ()
    known = [d for d in routes if d.prefix.version == rule.family]
    shown = f"has {', '.join(str(d.prefix) for d in known)} and no default" if known else "is empty"
    mark = rule.mark[0] if rule.mark else 0
    return Finding(
        check="emptied-table",
        severity="fault",
        what=f"packets with mark {mark:#x} are sent to table {rule.table}, which has no default route",
        evidence=(f"ip {option}rule: {rule.text()}", f"ip {option}route show table {rule.table}: it {shown}"),
        consequence="connections that were given this mark leave by main's default instead, with its address, or not "
        "at all",
        fix=Fix(
            how=f"`ip {option}route add default dev DEVICE table {rule.table}`, with `via GATEWAY` where the link has "
            "one; have it run whenever the link comes up (/etc/ppp/ip-up.d), and add `ip "
            f"{option}route add unreachable default metric 4278198272 table {rule.table}`, so that its traffic never "
            "leaves elsewhere"
        ),
    )
