"""Ways out of a box: link, table and mark, whoever made them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from polywan.api.status import Status
from polywan.config import Config
from polywan.core.net import TABLE_MAIN, Family, IPAddress
from polywan.core.world.observed import Observed


class Egress(NamedTuple):
    """One way out.

    Attributes:
        name: the uplink's name in the file; without a file the device's.
        mark: packets with it go this way; 0 when none is needed, or none leads there.
        via: the router; None on point-to-point links, or when it is not known.
        ours: polywan made it.
    """

    name: str
    device: str
    family: Family
    table: int
    mark: int = 0
    via: IPAddress | None = None
    ours: bool = False


def egresses(observed: Observed, config: Config | None, status: Status | None) -> tuple[Egress, ...]:
    """Return those of a running polywan, and those of others: by main's defaults, or by tables and rules."""
    names = {uplink.interface: name for name, uplink in config.uplinks.items()} if config is not None else {}
    found = [*_of_daemon(status), *_of_others(observed, names)]
    taken: dict[tuple[str, Family, int], Egress] = {}
    for egress in found:
        taken.setdefault((egress.device, egress.family, egress.mark), egress)
    marked = {(egress.device, egress.family) for egress in taken.values() if egress.mark}
    # One that a mark leads to is asked about with it; main's default by the same device is the same one.
    return tuple(egress for egress in taken.values() if egress.mark or (egress.device, egress.family) not in marked)


def _of_daemon(status: Status | None) -> Iterator[Egress]:
    for uplink in status.uplinks if status is not None else ():
        for family in (Family.V4, Family.V6):
            if uplink.mark and family.nfproto in uplink.families:
                yield Egress(uplink.name, uplink.interface, family, uplink.table, uplink.mark, None, ours=True)


def _of_others(observed: Observed, names: dict[str, str]) -> Iterator[Egress]:
    marks: dict[tuple[Family, int], int] = {}
    for rule in observed.rules:
        # Main is where packets go that have no mark.
        if rule.mark is not None and rule.table not in (None, TABLE_MAIN) and not rule.invert:
            value, mask = rule.mark
            marks.setdefault((rule.family, rule.table), value & mask)
    for default in observed.defaults:
        if default.source is not None or not _carries(observed, default.link):
            continue
        mark = marks.get((default.family, default.table), 0)
        if default.table == TABLE_MAIN or mark or _led_to(observed, default.family, default.table):
            name = names.get(default.link, default.link)
            yield Egress(name, default.link, default.family, default.table, mark, default.via)


def _carries(observed: Observed, name: str) -> bool:
    link = observed.links.get(name)
    return link is not None and link.usable


def _led_to(observed: Observed, family: Family, table: int) -> bool:
    return any(rule.family is family and rule.table == table for rule in observed.rules)
