"""Masquerading without an output device also translates what networks behind the box send to each other."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import permutations
from typing import NamedTuple

from polywan.api.doctor import Finding, Fix
from polywan.core.firewall.model import Match, Prefix, Protocol, Rule, State, Translate
from polywan.core.net import FAMILIES, TABLE_MAIN, Family
from polywan.core.plan.lans import Lan
from polywan.doctor.box import Box
from polywan.doctor.facts.clients import Client, host_of
from polywan.doctor.facts.mark_rules import program_of
from polywan.doctor.facts.marking import FORWARD_HOOKS, Place, Turns, marked


class _Between(NamedTuple):
    """What one network sends to another meets this rule."""

    source: Lan
    to: Lan
    place: Place


def check(box: Box) -> Iterator[Finding]:
    """Find masquerading between networks behind the box; with one network it is worth a note beside policy rules."""
    for family in FAMILIES:
        between = [pair for a, b in permutations(box.inside(family), 2) if (pair := _masqueraded(box, family, a, b))]
        by_rule: dict[str, list[_Between]] = {}
        for pair in between:
            by_rule.setdefault(pair.place.rule.text, []).append(pair)
        for pairs in by_rule.values():
            yield _finding(pairs)
        if len(box.inside(family)) == 1 and _routed_by_policy(box, family):
            yield from (_note(place) for place in _everywhere(box, family))


def _masqueraded(box: Box, family: Family, source: Lan, to: Lan) -> _Between | None:
    client, server = host_of(source), host_of(to)
    if client is None or server is None:
        return None
    packet = replace(Client(family, client, source).first(), destination=server, out_device=to.device)
    found = marked(box.firewall, packet, FORWARD_HOOKS, Turns())
    place = found.translated if found is not None else None
    return _Between(source, to, place) if place is not None and _masquerades(place.rule) else None


def _masquerades(rule: Rule) -> bool:
    return any(isinstance(action, Translate) and action.kind == "masquerade" for action in rule.actions)


def _routed_by_policy(box: Box, family: Family) -> bool:
    return any(e.mark and not e.ours and e.table != TABLE_MAIN for e in box.sending(family))


def _everywhere(box: Box, family: Family) -> Iterator[Place]:
    """Yield rules that masquerade what a network behind the box sends, whatever the device that it leaves by."""
    for lan in box.inside(family):
        host = host_of(lan)
        if host is None:
            continue
        found = marked(box.firewall, Client(family, host, lan).first(out="by-any-device"), FORWARD_HOOKS, Turns())
        place = found.translated if found is not None else None
        if place is not None and _masquerades(place.rule) and all(_by_source(m) for m in place.rule.matches):
            yield place
            return


def _by_source(match: Match) -> bool:
    return isinstance(match, Protocol | State) or (isinstance(match, Prefix) and match.end == "source")


def _finding(pairs: list[_Between]) -> Finding:
    place = pairs[0].place
    shown = [f"{pair.source} to {pair.to}" for pair in pairs]
    commands = [" ".join(command) for command in _exemptions(pairs)]
    how = "name the uplink in the rule (`-o`, in nft `oifname`), one rule for each"
    if commands:
        how += f"; or exempt what is between your networks: {'; '.join(commands)}"
    return Finding(
        check="bare-masquerade",
        severity="warning",
        what=f"masquerading without an output device also translates {'; '.join(shown)}",
        evidence=(str(place),),
        consequence="hosts there see this box's address instead of the client's: logs, access lists and "
        "connections back to the client do not work",
        fix=Fix(how=how),
    )


def _exemptions(pairs: list[_Between]) -> Iterator[tuple[str, ...]]:
    place = pairs[0].place
    program = program_of(place.table)
    if program:
        start = (program, "-t", place.table.name, "-I", place.chain.name, str(place.number))
        for pair in pairs:
            yield (*start, "-s", str(pair.source.network), "-d", str(pair.to.network), "-j", "RETURN")


def _note(place: Place) -> Finding:
    return Finding(
        check="bare-masquerade",
        severity="note",
        what="masquerading has no output device: it translates whatever leaves, by any device",
        evidence=(str(place),),
        consequence="as soon as there is another network or a VPN, what is sent there is translated, too",
        fix=Fix(how="name the uplinks in the rule (`-o`, in nft `oifname`), one rule for each"),
    )
