"""Translation without a device: packets between networks behind this box get its address, too."""

from __future__ import annotations

from collections.abc import Iterator

from polywan.api.doctor import Finding, Fix
from polywan.core.firewall.model import Chain, Device, MarkIs, Prefix, Rule, Table, Translate
from polywan.core.net import FAMILIES
from polywan.core.plan.lans import Lan
from polywan.doctor.box import Box
from polywan.doctor.checks.recipes.choices import by_hand, tool


def check(box: Box) -> Iterator[Finding]:
    """Find such rules where marks choose a link and there are two networks behind this box."""
    for family in FAMILIES:
        inside = box.inside(family)
        if len({lan.device for lan in inside}) < 2 or not any(egress.family is family for egress in by_hand(box)):
            continue
        for table in box.firewall.tables:
            for chain in table.chains if table.meets(family) else ():
                for rule in chain.rules if chain.hook == "postrouting" and chain.kind == "nat" else ():
                    if taken := _taken(rule, inside):
                        yield _finding(table, chain, rule, taken)


def _taken(rule: Rule, inside: tuple[Lan, ...]) -> tuple[Lan, Lan] | None:
    """Return two networks between which a rule translates."""
    if not any(isinstance(action, Translate) and action.kind == "masquerade" for action in rule.actions):
        return None
    if any(isinstance(match, Device | MarkIs) for match in rule.matches):
        return None
    ends = {match.end: match for match in rule.matches if isinstance(match, Prefix)}
    if len(rule.matches) > len(ends):  # it has a condition that may spare the inside
        return None
    for source in inside:
        for to in inside:
            if source.device != to.device and _fits(ends.get("source"), source) and _fits(ends.get("destination"), to):
                return source, to
    return None


def _fits(match: Prefix | None, lan: Lan) -> bool:
    if match is None:
        return True
    within = any(n.version == lan.network.version and lan.own.ip in n for n in match.networks)
    return within is not match.invert


def _finding(table: Table, chain: Chain, rule: Rule, between: tuple[Lan, Lan]) -> Finding:
    source, to = between
    return Finding(
        check="bare-masquerade",
        severity="warning",
        what=f"packets from {source} to {to} are translated as if they left for the Internet",
        evidence=(f"{tool(table)}, {table.name} {chain.name}: {rule.text}",),
        consequence=f"hosts in {to.network} see this box instead of the client: access rules and logs are wrong",
        fix=Fix(how='name the link in the rule (`-o ppp0`, or `oifname "ppp0"`), one rule for each link'),
    )
