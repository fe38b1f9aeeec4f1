"""Packets from an IPv6 address of one line leave by another, where nothing translates them.

A provider drops sources that it has not given out (BCP 38). Lines of which one only stands by are left alone: main's
default of a higher metric is for the time when the better one is gone.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv6Address, IPv6Network
from itertools import count
from typing import Final, NamedTuple

from polywan.api.doctor import Finding, Fix, Step
from polywan.core.firewall.model import Translate
from polywan.core.net import TABLE_MAIN, Family, IPInterface
from polywan.core.trace.route_query import RouteQuery
from polywan.doctor.box import REMOTE, Box
from polywan.doctor.facts.egress import Egress

_LOCAL: Final = IPv6Network("fc00::/7")
_REMOTES: Final = (
    REMOTE[Family.V6],
    *map(IPv6Address, ("2606:4700:4700::1001", "2001:4860:4860::8844", "2001:4860:4860::8888")),
    *map(IPv6Address, ("2620:fe::9", "2620:fe::fe", "2620:119:35::35", "2620:119:53::53")),
)
"""Addresses on the Internet for questions to routing: a multipath route sends some one way and some the other."""

_FIRST_TABLE: Final = 1000


class _Own(NamedTuple):
    """An address of an egress, and the questions where packets from it leave."""

    egress: Egress
    address: IPInterface

    @property
    def queries(self) -> tuple[RouteQuery, ...]:
        return tuple(RouteQuery(family=Family.V6, destination=to, source=self.address.ip) for to in _REMOTES)


def questions(box: Box) -> Iterator[RouteQuery]:
    """Ask where packets from each address leave."""
    for own in _own(box):
        yield from own.queries


def _own(box: Box) -> Iterator[_Own]:
    """Yield the addresses of lines that are in use at the same time."""
    if box.status is not None:
        return
    # What a mark leads to is left out: its answers may have the mark of their connection, which no question has.
    used = {egress.device: egress for egress in box.in_use(Family.V6) if not egress.mark}
    if len(used) < 2:
        return
    for device, egress in used.items():
        for address in box.observed.addresses_of(device, Family.V6):
            if address.ip not in _LOCAL:
                yield _Own(egress, address)


def check(box: Box) -> Iterator[Finding]:
    """Find addresses whose packets leave by another line."""
    if _translates(box):
        return
    devices = {egress.device for egress in box.sending(Family.V6)}
    for own in _own(box):
        device = own.egress.device
        elsewhere = {q: a.link for q in own.queries if (a := box.answers.get(q)) and a.link in devices - {device}}
        theirs = {link for link in elsewhere.values() if link and not _has_prefix(box, link, own.address)}
        if theirs:
            query = next(q for q, link in elsewhere.items() if link in theirs)
            yield _finding(box, own, query, str(elsewhere[query]))


def _translates(box: Box) -> bool:
    """Tell whether any rule rewrites sources of IPv6: which ones is for its administrator to know."""
    rules = (
        r for table in box.firewall.tables if table.meets(Family.V6) for chain in table.chains for r in chain.rules
    )
    return any(
        isinstance(a, Translate) and a.kind in ("masquerade", "snat", "netmap") for r in rules for a in r.actions
    )


def _has_prefix(box: Box, device: str, address: IPInterface) -> bool:
    return any(address.ip in other.network for other in box.observed.addresses_of(device, Family.V6))


def _finding(box: Box, own: _Own, query: RouteQuery, link: str) -> Finding:
    address, device = own.address.ip, own.egress.device
    return Finding(
        check="asymmetric-ipv6",
        severity="warning",
        what=f"packets from {address}, an IPv6 address of {device}, leave by {link}",
        evidence=(f"`ip -6 route get {query.destination} from {address}` leads by {link}",),
        consequence=f"the provider at {link} drops them: connections to and from this address hang, some or all",
        fix=_fix(box, own),
    )


def _fix(box: Box, own: _Own) -> Fix:
    egress, network = own.egress, own.address.network
    how = f"give sources of {network} a table of their own that leads by {egress.device}; polywan does this by itself, "
    how += "and follows when the prefix changes"
    table = str(egress.table)
    steps: list[Step] = []
    if egress.table == TABLE_MAIN:
        table = _free_table(box, egress.device)
        via = () if egress.via is None else ("via", str(egress.via))
        steps.append(Step(command=("ip", "-6", "route", "add", "default", *via, "dev", egress.device, "table", table)))
    steps.append(Step(command=("ip", "-6", "rule", "add", "from", str(network), "lookup", table)))
    return Fix(how=f"{how}; these commands last until the next restart", steps=tuple(steps))


def _free_table(box: Box, device: str) -> str:
    """Return the number of a table that nothing names, another one for each device."""
    taken = {route.table for route in box.routes} | {str(rule.table) for rule in box.observed.rules}
    free = (str(number) for number in count(_FIRST_TABLE) if str(number) not in taken)
    return dict(zip(dict.fromkeys(own.egress.device for own in _own(box)), free, strict=False))[device]
