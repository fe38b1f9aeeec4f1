"""Policy rules: which way a packet takes through polywan's band of priorities, and around it.

The lookup of a packet, by priority within the band (default 6000)::

    ahead  while rules of others stand before the band: marked packets go straight into it (`ahead.py`)
    +0     not from this box: straight to +266
    +1,+2  the question of chain classify, "does main know more than a default?": main's specific routes, or none
    +3     main without its defaults, as +268, before sockets that are bound to a device
    +9     bound to a device that several uplinks have, without a mark: main says by which router
    +10…   bound to a device: its uplink's table; where several have it, that of the uplink's mark
    +265   of this box, without a mark: on to +609
    +266   forwarded, without a mark: past all our rules, as if they were not there
    +267   whole-word marks of others that have bits of ours: past all our rules, too
    +268   main without its defaults: specific routes win, no table is ever copied
    +270…  packet mark: its uplink's table, or the table of a multipath policy (`nexthops.py`)
    +600   a mark of ours that found no way there: `blackhole`, so that marked traffic never leaks to main
    +610…  from an uplink's address, or by this box from its prefix: its table; behind the marks, because a
           packet of this box has its source before its mark
    …      the rules of others
    32764  TCP of this box: main without its defaults, then, without a source, copies of its defaults (`first_route.py`)
    …      main
    32800  behind main and default: any uplink, so that the box always has a first route
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network, IPv6Network
from typing import Final

from polywan.core.identity import remembered
from polywan.core.marks import (
    BOUND,
    BY_ANY_ROUTER,
    END,
    ENTRY,
    FALLBACK,
    FIRST_SPECIFIC,
    FIRST_TCP,
    FORWARDED,
    FROM,
    FWMARK,
    LOCK,
    OIF,
    PAST,
    QUESTION,
    SOURCE,
    SPECIFIC,
    UNMARKED,
    WORDS,
)
from polywan.core.net import (
    TABLE_MAIN,
    UNBOUND_SOURCE,
    Family,
    IPAddress,
    IPNetwork,
    MarkLayout,
    RulePriority,
    TableId,
)
from polywan.core.routing.ahead import Ahead, blocks
from polywan.core.routing.nexthops import PolicyRouting
from polywan.core.routing.routes import IpRule, UplinkRouting, first_table, stop_table
from polywan.core.routing.second_lock import Locked
from polywan.core.world.observed import WIDE

_TCP: Final = 6

LEAF_BITS: Final = 3
"""Uplinks are told apart one by one in blocks of 2^LEAF_BITS; a rule that does not match costs 2.6 ns."""


# Most decisions change who is chosen, not how it is routed: the last few results are kept, as the same objects,
# so that comparing them with what the kernel holds costs nothing.
@remembered
def build_rules(
    uplinks: tuple[UplinkRouting, ...],
    policies: tuple[PolicyRouting, ...],
    families: tuple[Family, ...],
    layout: MarkLayout,
    base: int,
    fallback: TableId,
    ahead: Ahead,
    locked: tuple[tuple[Family, tuple[Locked, ...]], ...] = (),
) -> frozenset[IpRule]:
    """Return the policy rules of every active family."""
    held = dict(locked)
    numbers = [*(uplink.numbers for uplink in uplinks), *(policy.numbers for policy in policies)]
    tables = {number.id: number.table for number in numbers}
    return frozenset(
        rule
        for family in families
        for rule in (
            *_passing(family, layout, base, fallback, ahead.words(family), locked=bool(held.get(family))),
            *_lock_rules(family, held.get(family, ()), uplinks, base, fallback),
            *mark_tree(family, tables, layout, base),
            *_stops(family, tables, layout, base, fallback),
            *_uplink_rules(family, uplinks, layout, base),
            *_behind(family, fallback),
            *_before(family, tables, layout, base, ahead),
        )
    )


def _passing(
    family: Family, layout: MarkLayout, base: int, fallback: TableId, words: tuple[int, ...], *, locked: bool
) -> Iterator[IpRule]:
    """Who passes our rules by, and the question of chain classify."""

    def at(offset: int) -> RulePriority:
        return RulePriority(base + offset)

    asked, unmarked = (layout.reserved, layout.mask), (0, layout.mask)
    main = TABLE_MAIN
    yield IpRule(family=family, priority=at(FORWARDED), goto=at(ENTRY), iif="lo", invert=True)
    # Newer kernels' nft passes over `suppress_prefixlength` in IPv6, so there it is not asked for
    # (`core/ruleset/neighbours/specific_routes.py`).
    only_specific = 0 if family is Family.V4 else None
    yield IpRule(family=family, priority=at(QUESTION), table=main, mark=asked, suppress_prefixlength=only_specific)
    yield IpRule(family=family, priority=at(QUESTION + 1), table=stop_table(fallback), mark=asked)
    yield IpRule(family=family, priority=at(BOUND), table=main, suppress_prefixlength=0)
    yield IpRule(family=family, priority=at(UNMARKED), goto=at(SOURCE), mark=unmarked)
    yield IpRule(family=family, priority=at(ENTRY), goto=at(LOCK + 1 if locked else PAST), mark=unmarked)
    for word in words:
        yield IpRule(family=family, priority=at(WORDS), goto=at(PAST), mark=(word, 0xFFFF_FFFF))
    yield IpRule(family=family, priority=at(SPECIFIC), table=main, suppress_prefixlength=0)
    # They decide nothing: a `goto` needs a rule to arrive at. No packet that comes here has this mark.
    for anchor in (SOURCE, PAST):
        yield IpRule(family=family, priority=at(anchor), table=main, mark=asked, suppress_prefixlength=0)


def _stops(
    family: Family, tables: Mapping[int, TableId], layout: MarkLayout, base: int, fallback: TableId
) -> Iterator[IpRule]:
    """Where marks of ours end whose own table knows no way.

    Behind the tree and not in each table: a packet of this box has its first route before its mark, and with the
    source of an uplink that is cut off it goes on to main from that uplink's table. Marks that are nobody's here are
    another program's, and go on.
    """
    for mark in blocks(tables, layout):
        yield IpRule(family=family, priority=RulePriority(base + END), table=stop_table(fallback), mark=mark)


def _uplink_rules(
    family: Family, uplinks: tuple[UplinkRouting, ...], layout: MarkLayout, base: int
) -> Iterator[IpRule]:
    last = {u.device: u.numbers.id for u in sorted(uplinks, key=lambda u: u.numbers.id)}
    # Where several uplinks have a device, a socket that is bound to it and no more goes by the router that main says.
    for device in sorted({uplink.device for uplink in uplinks if not uplink.alone}):
        place, unmarked = RulePriority(base + BY_ANY_ROUTER), (0, layout.mask)
        yield IpRule(family=family, priority=place, table=TABLE_MAIN, oif=device, mark=unmarked)
    for uplink in uplinks:
        number, priority = uplink.numbers, uplink.numbers.priority
        table = number.table
        # The last of them takes what is bound to the device and has the mark of another device's uplink.
        mark = None if uplink.alone or number.id == last[uplink.device] else (int(number.mark), layout.mask)
        yield IpRule(family=family, priority=priority(OIF), table=table, oif=uplink.device, mark=mark)
        path = uplink.path(family)
        for address in dict.fromkeys(path.addresses) if path else ():
            yield IpRule(family=family, priority=priority(FROM), table=table, from_=_alone(address))
        # What others route for the inside (a VPN's rules) must not be caught by its source: the box's own only.
        for prefix in path.prefixes if path else ():
            yield IpRule(family=family, priority=priority(FROM), table=table, from_=prefix, iif="lo")


def _alone(address: IPAddress) -> IPNetwork:
    """The network that holds one address; from bytes, since the constructors would write out and read anything else."""
    return (IPv4Network if isinstance(address, IPv4Address) else IPv6Network)(address.packed)


def _lock_rules(
    family: Family, locked: tuple[Locked, ...], uplinks: tuple[UplinkRouting, ...], base: int, fallback: TableId
) -> Iterator[IpRule]:
    """The second lock of the kill switch, for packets that are forwarded: see `second_lock.py`."""
    if not locked:
        return

    def at(offset: int) -> RulePriority:
        return RulePriority(base + LOCK + offset)

    past = RulePriority(base + PAST)
    yield IpRule(family=family, priority=at(0), goto=past, iif="lo")
    # A `goto` needs a rule to arrive at, and the file's first rule may be for the other family.
    yield IpRule(family=family, priority=at(1), goto=past, iif="lo")
    end = 2 + len(locked)
    blocks_of = {only: end + 1 + 3 * n for n, only in enumerate(dict.fromkeys(x.only for x in locked if x.only))}
    for number, rule in enumerate(locked):
        target = at(blocks_of[rule.only]) if rule.only else past
        for s in rule.selectors:
            yield IpRule(family=family, priority=at(2 + number), goto=target, from_=s.from_, to=s.to, iif=s.iif)
    yield IpRule(family=family, priority=at(end), goto=past)
    for only, place in blocks_of.items():
        # Pieces of a default route lead elsewhere just as a default does.
        yield IpRule(family=family, priority=at(place), table=TABLE_MAIN, suppress_prefixlength=WIDE[family])
        for uplink in uplinks:
            if uplink.name in only:
                yield IpRule(family=family, priority=at(place + 1), table=uplink.numbers.table)
        yield IpRule(family=family, priority=at(place + 2), table=stop_table(fallback))


def _behind(family: Family, fallback: TableId) -> Iterator[IpRule]:
    yield IpRule(family=family, priority=FALLBACK, table=fallback)
    own = IpRule(family=family, priority=FIRST_SPECIFIC, table=TABLE_MAIN, iif="lo", ipproto=_TCP)
    yield replace(own, suppress_prefixlength=0)
    # A source of its own is no matter of the first route: not even while a dead daemon's copies are incomplete.
    for source in (family.default.network_address, UNBOUND_SOURCE):
        if source.version == family:
            yield replace(own, priority=FIRST_TCP, table=first_table(fallback), from_=_alone(source))


def _before(
    family: Family, tables: Mapping[int, TableId], layout: MarkLayout, base: int, ahead: Ahead
) -> Iterator[IpRule]:
    """Lead marked packets past the rules of others that stand before the band."""
    place = ahead.place(family)
    if place is None:
        return
    for word in ahead.words(family):
        yield IpRule(
            family=family,
            priority=RulePriority(place.priority - 1),
            goto=RulePriority(place.foreign),
            mark=(word, 0xFFFF_FFFF),
        )
    for mark in (*blocks(tables, layout), (layout.reserved, layout.mask)):
        yield IpRule(family=family, priority=RulePriority(place.priority), goto=RulePriority(base), mark=mark)


def mark_tree(family: Family, tables: Mapping[int, TableId], layout: MarkLayout, base: int) -> list[IpRule]:
    """Return the rules, by priority, that lead a mark to its uplink's or policy's table in steps that grow with log N.

    Ids are kept in blocks of 2^LEAF_BITS. Above the blocks, each rule tests one bit of the id and goes to the
    upper half when it is set; what falls through is the lower half. A block ends in a `goto` past the tree, so
    that no packet falls into its neighbour. A rule keeps its priority as long as the tree keeps its height.
    """
    end = RulePriority(base + END)

    def leaf(low: int, at: int) -> list[IpRule]:
        rules = [
            IpRule(
                family=family,
                priority=RulePriority(at + ident - low),
                table=tables[ident],
                mark=(layout.mark(ident), layout.mask),
            )
            for ident in range(low, low + (1 << LEAF_BITS))
            if ident in tables
        ]
        return [*rules, IpRule(family=family, priority=RulePriority(at + (1 << LEAF_BITS)), goto=end)] if rules else []

    def subtree(low: int, bits: int, at: int) -> list[IpRule]:
        if bits <= LEAF_BITS:
            return leaf(low, at)
        half = 1 << (bits - 1)
        lower = subtree(low, bits - 1, at + 1)
        upper = subtree(low + half, bits - 1, at + 1 + _size(bits - 1))
        if not upper:
            return lower
        bit = layout.mark(half)
        return [
            IpRule(family=family, priority=RulePriority(at), goto=upper[0].priority, mark=(bit, bit)),
            *lower,
            *upper,
        ]

    return subtree(0, max(LEAF_BITS, max(tables).bit_length()), base + FWMARK)


def _size(bits: int) -> int:
    """Priorities that a subtree over 2^bits ids takes."""
    return (1 << bits) + 1 if bits <= LEAF_BITS else 1 + 2 * _size(bits - 1)
