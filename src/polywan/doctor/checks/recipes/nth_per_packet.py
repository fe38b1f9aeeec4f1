"""A hand-made choice is made again for a later packet of the same connection.

A retransmitted SYN and every datagram before the first answer are NEW as well. When the rule does not ask whether the
connection has a mark already, they leave by another line than the first packet, and masquerading drops them there.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from polywan.api.doctor import Finding, Fix, Step
from polywan.core.firewall.model import SetMark, Statistic
from polywan.core.firewall.passing import Passing
from polywan.core.words import counted
from polywan.doctor.box import Box
from polywan.doctor.facts.clients import Client, connections
from polywan.doctor.facts.mark_rules import led, program_of, written_anew
from polywan.doctor.facts.marking import Marked, Place, Turns, again, marked, writes_marks

_TRIES: Final = 64
"""Connections that are thought through: with only two lines, one in two hits the other line."""


class _Changing(NamedTuple):
    client: Client
    new: bool
    before: int
    after: int
    places: tuple[Place, ...]


def check(box: Box) -> Iterator[Finding]:
    """Find rules that give two packets of one connection different marks."""
    if not writes_marks(box.firewall):
        return
    seen: set[tuple[str, ...]] = set()
    for client, packet in connections(box):
        found = _changing(box, client, packet)
        if found is not None and (texts := tuple(place.rule.text for place in found.places)) not in seen:
            seen.add(texts)
            yield _finding(box, found)


def _changing(box: Box, client: Client, packet: Passing) -> _Changing | None:
    turns = Turns()
    places: dict[tuple[str, int], Place] = {}
    worst: tuple[bool, int, int] | None = None
    for _ in range(_TRIES):
        first = marked(box.firewall, packet, client.hooks, turns)
        if first is None:
            return None
        if not first.draws or not led(box, client.family, first.mark):
            continue
        places |= {(draw.place.chain.name, draw.place.number): draw.place for draw in first.draws}
        for established in (True, False):
            other = marked(box.firewall, again(packet, first, established=established), client.hooks, turns)
            if other is None:
                return None
            if other.mark != first.mark and _meant(box, client, other) and (worst is None or worst[0]):
                worst = (not established, first.mark, other.mark)
    return _Changing(client, *worst, tuple(places[key] for key in sorted(places))) if worst is not None else None


def _meant(box: Box, client: Client, other: Marked) -> bool:
    """Tell whether the other mark is a line's, or none: what has no mark uses main."""
    return other.mark == 0 or led(box, client.family, other.mark)


def _finding(box: Box, found: _Changing) -> Finding:
    evidence = [str(place) for place in found.places]
    evidence.append(
        f"a packet from {found.client} gets mark {found.before:#x}, and the next one of the same connection "
        f"{f'mark {found.after:#x}' if found.after else 'no mark'}"
    )
    if (more := _more_packets(box, found.places)) is not None:
        evidence.append(more)
    if found.new:
        severity, what = "warning", "rules choose a line for every packet that is still NEW, not for every connection"
        consequence = (
            "a repeated SYN and each UDP packet before the first answer may leave by another line, "
            "where they are dropped: some connections take seconds to open, some never do"
        )
    else:
        severity, what = (
            "fault",
            "rules choose a line for single packets, and later packets of the connection leave by another",
        )
        consequence = "connections break, or never open: the server sees packets from several addresses"
    return Finding(
        check="nth-per-packet",
        severity=severity,
        what=f"{what} (chain {found.places[0].chain.name} of {found.places[0].table})",
        evidence=tuple(evidence),
        consequence=consequence,
        fix=_fix(found),
    )


def _more_packets(box: Box, places: tuple[Place, ...]) -> str | None:
    """Compare with the rules that translate: these see the first packet of a connection only."""
    chosen = sum(place.rule.packets or 0 for place in places)
    opened = sum(
        rule.packets or 0
        for table in box.firewall.tables
        for chain in table.chains
        if chain.kind == "nat" and chain.hook == "postrouting"
        for rule in chain.rules
        if rule.actions
    )
    if 0 < opened < chosen:
        return f"{counted(chosen, 'packet')} chosen for, {counted(opened, 'connection')} translated"
    return None


def _fix(found: _Changing) -> Fix:
    writes_ct = all(isinstance(a, SetMark) and a.of == "connection" for p in found.places for a in p.rule.actions)
    steps: tuple[Step, ...] = written_anew(found.places) if found.new and writes_ct and _whole(found.places) else ()
    if steps:
        return Fix(
            how="choose only while the connection has no mark (`-m connmark --mark 0`); each rule then sees "
            "what those before it left over: one of all, one of the rest, and the rest; change the script, too",
            steps=steps,
        )
    if not program_of(found.places[0].table):
        return Fix(how="put `ct mark 0` before `numgen`, save the mark (`ct mark set meta mark`), and restore it first")
    if writes_ct and found.new:
        return Fix(
            how="put `-m connmark --mark 0` before `-m statistic` in each of these rules; "
            "the last one needs no `-m statistic`: it takes what the others left over"
        )
    return Fix(
        how="let the chain begin with `-j CONNMARK --restore-mark` and `-m mark ! --mark 0 -j RETURN`, "
        "and end with `-j CONNMARK --save-mark`"
    )


def _whole(places: tuple[Place, ...]) -> bool:
    """Tell whether the rules share everything out equally among themselves."""
    drawn = [match for place in places for match in place.rule.matches if isinstance(match, Statistic)]
    turns = {each.packet for each in drawn if each.mode == "nth" and each.every == len(places) and not each.invert}
    return len(turns) == len(drawn) == len(places)
