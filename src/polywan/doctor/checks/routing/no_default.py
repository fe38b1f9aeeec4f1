"""Table main has no default route: what has no mark, and everything that asks for a way back, finds none."""

from __future__ import annotations

from collections.abc import Iterator

from polywan.api.doctor import Finding, Fix, Step
from polywan.core.net import FAMILIES, TABLE_MAIN, Family
from polywan.core.trace.route_query import RouteQuery
from polywan.doctor.box import REMOTE, Box
from polywan.doctor.facts.egress import Egress


def questions(_: Box) -> Iterator[RouteQuery]:
    """Ask where packets without a mark go."""
    return map(_question, FAMILIES)


def _question(family: Family) -> RouteQuery:
    return RouteQuery(family=family, destination=REMOTE[family])


def check(box: Box) -> Iterator[Finding]:
    """Find families that leave by some link, while main leads nowhere; or that nothing leaves at all."""
    up = [link.name for link in box.observed.links.values() if link.usable and link.name != "lo"]
    if not box.egresses and not box.observed.leading and not any(_reached(box, family) for family in FAMILIES):
        yield _nothing(up)
        return
    for family in FAMILIES:
        egresses = [egress for egress in box.sending(family) if egress.table != TABLE_MAIN]
        if _reached(box, family):  # some rule without a condition leads to a table
            continue
        if egresses and not box.observed.main_default_links(family) and not _parts(box, family):
            yield _finding(family, egresses)


def _reached(box: Box, family: Family) -> bool:
    answer = box.answers.get(_question(family))
    return answer is not None and answer.kind == "unicast"


def _nothing(up: list[str]) -> Finding:
    return Finding(
        check="no-default",
        severity="fault",
        what="no link of this box leads to the Internet",
        evidence=(
            "`ip route show default` and `ip -6 route show default` print nothing, and no rule leads to another table",
            f"links that are up: {', '.join(up) or 'none'}",
        ),
        consequence="nothing on the Internet can be reached",
        fix=Fix(how="bring up a link, and let its DHCP client, pppd or `ip route add default` give it a default route"),
    )


def _parts(box: Box, family: Family) -> bool:
    return any(part.table == TABLE_MAIN and part.to.version == family for part in box.observed.parts)


def _finding(family: Family, egresses: list[Egress]) -> Finding:
    option = () if family is Family.V4 else ("-6",)
    shown = " ".join(("ip", *option, "route show default"))
    others = ", ".join(dict.fromkeys(f"table {egress.table} by {egress.device}" for egress in egresses))
    return Finding(
        check="no-default",
        severity="fault",
        what=f"table main has no IPv{family} default route",
        evidence=(f"`{shown}` prints nothing", f"other tables have one: {others}"),
        consequence="connections that no rule marks fail with `Network is unreachable`, and loose reverse-path "
        "filtering drops every answer, since no route leads back",
        fix=_fix(egresses[0], option),
    )


def _fix(egress: Egress, option: tuple[str, ...]) -> Fix:
    via = () if egress.via is None else ("via", str(egress.via))
    command = ("ip", *option, "route", "add", "default", *via, "dev", egress.device, "metric", "1000")
    return Fix(
        how=f"add a default route by {egress.device} with a high metric, and have whatever sets up the link do so",
        steps=(Step(command=command),),
    )
