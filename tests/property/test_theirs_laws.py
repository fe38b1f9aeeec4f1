"""For every table and address: what is compiled is what a lookup by the longest prefix finds."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, ip_network

from hypothesis import given
from hypothesis import strategies as st

from polywan.core.net import Family, RulePriority, TableId
from polywan.core.packet import Packet
from polywan.core.ruleset.neighbours.foreign_rules import decides, theirs_chains
from polywan.core.world.destinations import decided
from polywan.core.world.foreign_routing import Destination, ForeignRule

KINDS = ("unicast", "local", "throw", "blackhole", "unreachable", "prohibit")
REFUSALS = ("blackhole", "unreachable", "prohibit")


@st.composite
def destinations(draw: st.DrawFn) -> tuple[Destination, ...]:
    """Prefixes of 0 to 8 bits and some hosts, so that many lie within each other."""
    found: dict[IPv4Network, Destination] = {}
    for _ in range(draw(st.integers(0, 12))):
        length = draw(st.integers(0, 8) | st.just(32))
        prefix = IPv4Network((draw(st.integers(0, 255)) << 24, length), strict=False)
        found[prefix] = Destination(prefix=prefix, kind=draw(st.sampled_from(KINDS)))
    return tuple(found.values())


def looked_up(known: tuple[Destination, ...], address: IPv4Address, suppressed: int | None) -> bool:
    matching = [d for d in known if address in d.prefix]
    best = max(matching, key=lambda d: d.prefix.prefixlen, default=None)
    if best is None or best.kind == "throw":
        return False
    return best.kind in REFUSALS or suppressed is None or best.prefix.prefixlen > suppressed


@given(destinations(), st.integers(0, 255), st.integers(0, 1), st.none() | st.integers(0, 32))
def test_a_table_decides_what_its_longest_prefix_decides(
    known: tuple[Destination, ...], first: int, last: int, suppressed: int | None
) -> None:
    address = IPv4Address(first << 24 | last)
    rule = ForeignRule(family=Family.V4, priority=RulePriority(1), table=TableId(7), suppress_prefixlength=suppressed)
    packet = Packet(
        family=Family.V4, source=IPv4Address("192.0.2.1"), destination=address, protocol=1, in_interface="lan0"
    )
    found = decides((rule,), {TableId(7): known}, packet)
    assert (found == rule) is looked_up(known, address, suppressed)
    spans = [spans for _, spans in decided(rule, {TableId(7): known})]
    assert any(low <= int(address) <= high for s in spans for low, high in s) is looked_up(known, address, suppressed)


@given(destinations(), st.none() | st.integers(0, 32))
def test_there_is_a_chain_when_anything_is_decided_and_only_then(
    known: tuple[Destination, ...], suppressed: int | None
) -> None:
    rule = ForeignRule(family=Family.V4, priority=RulePriority(1), table=TableId(7), suppress_prefixlength=suppressed)
    edges = {int(end) for d in known for end in (d.prefix[0], d.prefix[-1])}
    near = [IPv4Address(e + by) for e in edges for by in (-1, 0, 1) if 0 <= e + by < 2**32]
    any_of_them = any(looked_up(known, address, suppressed) for address in near)
    assert bool(theirs_chains((rule,), {TableId(7): known})) is any_of_them


def test_the_whole_internet_in_two_halves_needs_no_address() -> None:
    halves = tuple(Destination(prefix=ip_network(p)) for p in ("0.0.0.0/1", "128.0.0.0/1"))
    rule = ForeignRule(family=Family.V4, priority=RulePriority(1), table=TableId(7))
    assert [line.text for line in theirs_chains((rule,), {TableId(7): halves})["theirs_4"].rules] == ["accept"]
