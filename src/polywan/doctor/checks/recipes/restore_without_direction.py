"""Marks are restored on answers, too, and the table of the mark does not know the network that they are for.

The answer then leaves by the uplink that it came by. A table that has the network's own route saves it.
"""

from __future__ import annotations

from collections.abc import Iterator
from shlex import quote
from typing import Final, NamedTuple

from polywan.api.doctor import Finding, Fix, Step
from polywan.core.firewall.model import Restore
from polywan.core.firewall.passing import Passing
from polywan.core.net import TABLE_MAIN, Family
from polywan.core.plan.cautions import FORWARDING
from polywan.core.plan.lans import Lan
from polywan.core.trace.route_query import RouteAnswer, RouteQuery
from polywan.core.words import listed
from polywan.doctor.box import REMOTE, Box
from polywan.doctor.facts.clients import Client, host_of
from polywan.doctor.facts.egress import Egress
from polywan.doctor.facts.marking import FORWARD_HOOKS, Turns, marked, theirs

_CONNECTIONS: Final = 300
"""That are thought through: with many lines, each of them gets some."""


class _Lost(NamedTuple):
    egress: Egress
    lan: Lan
    query: RouteQuery
    answer: RouteAnswer


def questions(box: Box) -> Iterator[RouteQuery]:
    """Ask where an answer that has its connection's mark would go."""
    for egress in _hand_made(box):
        for lan in box.inside(egress.family):
            if (query := _query(egress, lan)) is not None:
                yield query


def _hand_made(box: Box) -> Iterator[Egress]:
    for egress in box.egresses:
        if egress.mark and not egress.ours and egress.table != TABLE_MAIN:
            yield egress


def _query(egress: Egress, lan: Lan) -> RouteQuery | None:
    host = host_of(lan)
    if host is None:
        return None
    source = REMOTE[egress.family]
    return RouteQuery(
        family=egress.family, destination=host, source=source, mark=egress.mark, in_interface=egress.device
    )


def check(box: Box) -> Iterator[Finding]:
    """Find networks that get no answers by an uplink, because the mark leads these back to it."""
    for lan in box.lans:
        family = Family(lan.network.version)
        # A kernel that does not forward calls every one of these unreachable.
        lost = list(_lost(box, lan, family)) if box.setting(FORWARDING[family]) == 1 else []
        if lost:
            yield _finding(box, lan, lost)


def _lost(box: Box, lan: Lan, family: Family) -> Iterator[_Lost]:
    marks = _marks_of(box, lan, family)
    for egress in _hand_made(box):
        query = _query(egress, lan) if egress.family is family and egress.mark in marks else None
        answer = box.answers.get(query) if query is not None else None
        # "blackhole" is what the reverse-path filter answers: strict-rp-filter reports that.
        if query is None or answer is None or answer.kind == "blackhole" or answer.link == lan.device:
            continue
        if _restored(box, egress):
            yield _Lost(egress, lan, query, answer)


def _restored(box: Box, egress: Egress) -> bool:
    """Tell whether an answer that comes in by the uplink gets the mark of its connection."""
    own = next(iter(box.observed.addresses_of(egress.device, egress.family)), None)
    packet = Passing(
        family=egress.family,
        in_device=egress.device,
        source=REMOTE[egress.family],
        destination=own.ip if own is not None else None,
        protocol="tcp",
        source_port=443,
        port=50000,
        ct_mark=egress.mark,
        state="established",
    )
    found = marked(box.firewall, packet, ("prerouting",), Turns(), reply=True)
    return found is not None and found.mark == egress.mark


def _marks_of(box: Box, lan: Lan, family: Family) -> frozenset[int]:
    """Return the marks that connections from the network get."""
    host = host_of(lan)
    if host is None:
        return frozenset()
    turns, marks = Turns(), set[int]()
    for protocol in ("tcp", "udp"):
        packet = Client(family, host, lan).first(protocol)
        for _ in range(_CONNECTIONS):
            found = marked(box.firewall, packet, FORWARD_HOOKS, turns)
            if found is None:
                break
            marks.add(found.ct_mark)
    return frozenset(marks)


def _finding(box: Box, lan: Lan, lost: list[_Lost]) -> Finding:
    devices = listed(list(dict.fromkeys(each.egress.device for each in lost)))
    evidence = [_asked(each) for each in lost]
    evidence += [
        rule.text
        for table in theirs(box.firewall, lost[0].egress.family)
        for chain in table.chains
        if chain.hook == "prerouting"
        for rule in chain.rules
        if any(isinstance(action, Restore) for action in rule.actions)
    ]
    option = () if lan.network.version == 4 else ("-6",)
    routes = dict.fromkeys(
        ("ip", *option, "route", "replace", str(lan.network), "dev", lan.device, "table", str(each.egress.table))
        for each in lost
    )
    return Finding(
        check="restore-without-direction",
        severity="fault",
        what=f"answers to {lan} that come in by {devices} are marked, and their table does not know that network",
        evidence=tuple(evidence),
        consequence=f"hosts in {lan.network} get no answer by {devices}: the kernel sends it back to the uplink, "
        "or refuses it",
        fix=Fix(
            how=f"add the network to the table of each mark, and have whatever sets up {lan.device} do so; "
            "or restore marks on what the network sends only (`-m conntrack --ctdir ORIGINAL`), with loose "
            "reverse-path filtering",
            steps=tuple(Step(command=route) for route in routes),
        ),
    )


def _asked(lost: _Lost) -> str:
    query, answer = lost.query, lost.answer
    where = f"leads by {answer.link}" if answer.link is not None else f"is {answer.kind}"
    return (
        f"ip route get {query.destination} from {query.source} iif {quote(query.in_interface or '')} "
        f"mark {query.mark:#x} {where}, not by {lost.lan.device}"
    )
