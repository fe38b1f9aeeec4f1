"""Answers that arrive by one link are dropped, because the kernel looks for the way back without their mark.

With rp_filter = 1 the kernel drops a packet unless the route back to its source leads by the device that it arrived by
(ip-sysctl, RFC 3704). That lookup leaves the mark out unless src_valid_mark is 1, so it ends in table main, whose
default is another link. The server sees SYN_RECV, and the client nothing. `ip route get CLIENT from REMOTE iif DEV
mark M` makes the same check: it fails with EXDEV, or since Linux 7 with EINVAL.
"""

from __future__ import annotations

from collections.abc import Iterator
from shlex import quote
from typing import NamedTuple

from polywan.api.doctor import Finding, Fix
from polywan.core.net import TABLE_MAIN, Family, IPAddress
from polywan.core.trace.route_query import RouteQuery
from polywan.core.words import counted, listed
from polywan.doctor.box import REMOTE, Box
from polywan.doctor.checks.keep import name_of, set_and_keep
from polywan.doctor.facts.clients import host_of
from polywan.doctor.facts.egress import Egress

COUNTER = "TcpExtIPReversePathFilter"


class _Asked(NamedTuple):
    """A packet that arrives there: from the Internet, and the same one from the next hop, which always passes."""

    egress: Egress
    inside: str
    far: RouteQuery
    near: RouteQuery | None


def questions(box: Box) -> Iterator[RouteQuery]:
    """Ask whether answers get in by each of them."""
    for asked in _asked(box):
        yield asked.far
        yield from filter(None, [asked.near])
        yield RouteQuery(family=Family.V4, destination=REMOTE[Family.V4])


def _asked(box: Box) -> Iterator[_Asked]:
    for egress in box.in_use(Family.V4):
        lan = next(iter(box.inside(Family.V4)), None)
        if lan is not None:
            client = host_of(lan)
            if client is not None:
                yield _question(box, egress, client, f"{client} ({lan.device})", egress.mark)
        for own in box.observed.addresses_of(egress.device, Family.V4)[:1]:
            yield _question(box, egress, own.ip, f"{own.ip} (this box)", egress.mark)


def _question(box: Box, egress: Egress, to: IPAddress, inside: str, mark: int) -> _Asked:
    def query(source: IPAddress) -> RouteQuery:
        return RouteQuery(family=Family.V4, destination=to, source=source, mark=mark, in_interface=egress.device)

    near = egress.via or _peer(box, egress)
    return _Asked(egress, inside, query(REMOTE[Family.V4]), query(near) if near is not None else None)


def _peer(box: Box, egress: Egress) -> IPAddress | None:
    """Return the other end of a point-to-point link: it is connected, whatever else is routed."""
    for route in box.routes:
        peer = route.family is Family.V4 and route.table == "main" and route.to.prefixlen == Family.V4.host_length
        if peer and [hop.device for hop in route.hops] == [egress.device]:
            return route.to.network_address
    return None


def check(box: Box) -> Iterator[Finding]:
    """Find the links whose answers are dropped."""
    dropped: dict[str, list[_Asked]] = {}
    for asked in _asked(box):
        refused = box.answers.get(asked.far)
        passes = box.answers.get(asked.near) if asked.near is not None else None
        strict = _effective(box, asked.egress.device) == 1
        if refused is None or refused.kind != "blackhole" or not strict:
            continue
        if asked.near is None or (passes is not None and passes.kind != "blackhole"):
            dropped.setdefault(asked.egress.device, []).append(asked)
    if dropped:
        yield _finding(box, dropped)


def _effective(box: Box, device: str) -> int:
    return max(box.setting(_path(name)) or 0 for name in ("all", device))


def _path(device: str) -> str:
    return f"net/ipv4/conf/{device}/rp_filter"


def _finding(box: Box, dropped: dict[str, list[_Asked]]) -> Finding:
    devices = list(dropped)
    evidence = [
        f"ip route get {a.far.destination} from {a.far.source} iif {quote(device)}"
        + (f" mark {a.far.mark:#x}" if a.far.mark else "")
        + f" fails: an answer to {a.inside} is dropped"
        for device, asked in dropped.items()
        for a in asked[:1]
    ]
    evidence += [
        f"{name_of(_path(device))} counts as 1 (all = {box.setting(_path('all'))}), "
        f"src_valid_mark = {max(box.setting(f'net/ipv4/conf/{n}/src_valid_mark') or 0 for n in ('all', device))}"
        for device in devices
    ]
    main = box.answers.get(RouteQuery(family=Family.V4, destination=REMOTE[Family.V4]))
    if main is not None:
        where = f"leads by {main.link}" if main.link else "does not exist"
        evidence.append(f"without a mark the route to the Internet {where}")
    if count := box.counters.get(COUNTER, 0):
        evidence.append(f"the kernel has dropped {counted(count, 'packet')} for this reason ({COUNTER}, nstat -az)")
    evidence += [
        f"{counted(half.connections, 'connection')} of mark {half.mark:#x} in SYN_RECV, such as {half.example}"
        for half in box.half_open
        if half.mark in {a.egress.mark for asked in dropped.values() for a in asked}
    ]
    return Finding(
        check="strict-rp-filter",
        severity="fault",
        what=f"strict reverse-path filtering drops what comes back by {listed(devices)}",
        evidence=tuple(evidence),
        consequence=f"connections by {listed(devices)} hang at the first answer: "
        "the server shows SYN_RECV and the client nothing",
        fix=_fix(box),
    )


def _fix(box: Box) -> Fix:
    wanted = {"net/ipv4/conf/all/src_valid_mark": "1", "net/ipv4/conf/all/rp_filter": "2"}
    how = (
        "let the filter look at marks (src_valid_mark = 1), and accept every source that has some route "
        "(rp_filter = 2): the highest of `all` and the device counts, so that it also holds for links that come later"
    )
    if not any(d.table == TABLE_MAIN and d.family is Family.V4 for d in box.observed.defaults):
        how += "; main also needs a default route, or loose filtering has no route to find"
    return Fix(how=how, steps=set_and_keep(wanted))
