"""Marks are put back on answers, too, whose way to the client is not in the link's own table.

`CONNMARK --restore-mark` without a direction or a device marks what comes back. Routing then looks in the table of the
link, which has a default by that link: unless a script copied the inside networks into it, the answer leaves again
where it came from.
"""

from __future__ import annotations

from collections.abc import Iterator

from polywan.api.doctor import Finding, Fix, Step
from polywan.core.firewall.model import Restore, Rule
from polywan.core.plan.lans import Lan
from polywan.core.trace.route_query import RouteQuery
from polywan.doctor.box import REMOTE, Box
from polywan.doctor.checks.recipes.choices import by_hand, meets_answers
from polywan.doctor.facts.egress import Egress


def questions(box: Box) -> Iterator[RouteQuery]:
    """Ask where answers to the first host of each network would go."""
    for egress in by_hand(box):
        for lan in box.inside(egress.family):
            yield from filter(None, [_question(egress, lan)])


def _question(egress: Egress, lan: Lan) -> RouteQuery | None:
    client = next((host for host in lan.network.hosts() if host != lan.own.ip), None)
    if client is None:
        return None
    return RouteQuery(
        family=egress.family,
        destination=client,
        source=REMOTE[egress.family],
        mark=egress.mark,
        in_interface=egress.device,
    )


def check(box: Box) -> Iterator[Finding]:
    """Find marks that lead answers away from the network that they are for."""
    for egress in by_hand(box):
        rule = _restoring(box, egress)
        if rule is None:
            continue
        for lan in box.inside(egress.family):
            query = _question(egress, lan)
            answer = box.answers.get(query) if query is not None else None
            # "blackhole" may be the filter of sources, which has a check of its own.
            if query is None or answer is None or answer.kind == "blackhole" or answer.link == lan.device:
                continue
            goes = f"leaves by {answer.link}" if answer.link else f"is {answer.kind}"
            asked = f"ip route get {query.destination} from {query.source} iif {egress.device} mark {egress.mark:#x}"
            yield Finding(
                check="restore-without-direction",
                severity="fault",
                what=f"answers by {egress.device} get mark {egress.mark:#x}, and table {egress.table} does not lead "
                f"to {lan}",
                evidence=(rule.text, f"{asked}: the packet {goes}"),
                consequence=f"clients in {lan.network} get no answers by {egress.device}",
                fix=_fix(box, egress),
            )


def _restoring(box: Box, egress: Egress) -> Rule | None:
    """Return a rule before routing that puts marks back on answers."""
    for table in box.firewall.tables:
        if not table.meets(egress.family):
            continue
        for chain in table.chains:
            if chain.hook not in ("prerouting", ""):
                continue
            for rule in chain.rules:
                if any(isinstance(action, Restore) for action in rule.actions) and meets_answers(rule, egress):
                    return rule
    return None


def _fix(box: Box, egress: Egress) -> Fix:
    priorities = [rule.priority for rule in box.observed.rules if rule.table == egress.table and rule.mark]
    before = max(1, min(priorities, default=32766) - 1)
    words = ("rule", "add", "priority", str(before), "lookup", "main", "suppress_prefixlength", "0")
    return Fix(
        how="let main's specific routes win before the mark is looked at; then no table needs copies of them",
        steps=(Step(command=("ip", f"-{egress.family}", *words)),),
    )
