"""Which destinations a policy rule of others decides, by what its table knows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Final, TypeAlias

from polywan.core.identity import Same
from polywan.core.net import TABLE_MAIN, Family, IPNetwork, TableId
from polywan.core.packet import Packet
from polywan.core.world.foreign_routing import TABLE_LOCAL, Destination, ForeignRule

Tables: TypeAlias = Mapping[TableId, tuple[Destination, ...]]
Spans: TypeAlias = tuple[tuple[int, int], ...]
"""Ranges of addresses as numbers, first and last of each."""

REFUSALS: Final = ("blackhole", "unreachable", "prohibit")
"""What rules and routes do that end a packet's way."""


def destination(rule: ForeignRule, tables: Tables, packet: Packet) -> Destination | None:
    """Return what the table of a rule that decides knows about a packet's destination: its longest prefix."""
    known = tables.get(rule.table, ()) if rule.table is not None else ()
    fitting = [
        d
        for d in known
        if d.kind != "large" and packet.destination in d.prefix and (d.from_ is None or packet.source in d.from_)
    ]
    return max(fitting, key=lambda d: d.prefix.prefixlen, default=None)


def everything(rule: ForeignRule, tables: Tables) -> tuple[str, ...]:
    """Return the links by which a rule sends every destination; nothing when its table does not decide them all."""
    if rule.action != "table" or whole(rule.family) not in [s for sender, s in decided(rule, tables) if sender is None]:
        return ()
    known = tables.get(rule.table, ()) if rule.table is not None else ()
    wide = [d for d in known if d.prefix.version == rule.family and d.prefix.prefixlen <= 1 and d.from_ is None]
    return tuple(dict.fromkeys(d.link for d in wide if d.link is not None))


def whole(family: Family) -> Spans:
    """Return every address of a family."""
    return ((0, (1 << family.host_length) - 1),)


def decided(rule: ForeignRule, tables: Tables) -> tuple[tuple[IPNetwork | None, Spans], ...]:
    """Return the addresses that a rule's table decides, for every sender (None) and for some."""
    if rule.table is None or rule.table in (TABLE_MAIN, TABLE_LOCAL):
        return ()  # local addresses and main's specific routes are left alone elsewhere
    return _of_table(Same(tables.get(rule.table, ())), rule.family, rule.suppress_prefixlength)


@lru_cache(maxsize=64)
def _of_table(
    routes: Same[tuple[Destination, ...]], family: Family, suppressed: int | None
) -> tuple[tuple[IPNetwork | None, Spans], ...]:
    mine = [d for d in routes.value if d.prefix.version == family and d.kind != "large"]
    senders = dict.fromkeys([None, *(d.from_ for d in mine)])
    found = ((sender, _spans((d for d in mine if d.from_ == sender), suppressed)) for sender in senders)
    return tuple((sender, spans) for sender, spans in found if spans)


def decides_for(rule: ForeignRule, tables: Tables, packet: Packet) -> bool:
    """Tell whether a rule's table decides where a packet goes: its longest prefix is no `throw`, nor suppressed."""
    if rule.table is None or rule.table in (TABLE_MAIN, TABLE_LOCAL):
        return False
    found = destination(rule, tables, packet)
    return found is not None and _decides(found, rule.suppress_prefixlength)


def _decides(found: Destination, suppressed: int | None) -> bool:
    # A refusal is no route that could be suppressed.
    longer = suppressed is None or found.prefix.prefixlen > suppressed
    return found.kind in REFUSALS or (found.kind != "throw" and longer)


def _spans(known: Iterable[Destination], suppressed: int | None) -> Spans:
    """Return the addresses, first and last of each range, whose longest prefix is a route that decides."""
    found: list[tuple[int, int]] = []
    around: list[tuple[int, bool]] = []
    at = 0

    def until(end: int, *, decided: bool) -> None:
        nonlocal at
        if decided and end >= at:
            if found and found[-1][1] == at - 1:
                found[-1] = (found[-1][0], end)
            else:
                found.append((at, end))
        at = max(at, end + 1)

    def close() -> None:
        last, decided = around.pop()
        until(last, decided=decided)

    for first, _, last, decided in sorted(_extents(known, suppressed)):
        while around and around[-1][0] < first:
            close()
        until(first - 1, decided=bool(around) and around[-1][1])
        around.append((last, decided))
    while around:
        close()
    return tuple(found)


def _extents(known: Iterable[Destination], suppressed: int | None) -> Iterator[tuple[int, int, int, bool]]:
    for d in known:
        length, first = d.prefix.prefixlen, int(d.prefix.network_address)
        yield first, length, first + (1 << d.prefix.max_prefixlen - length) - 1, _decides(d, suppressed)
