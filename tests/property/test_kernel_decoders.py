"""Whatever bytes arrive, decoders return; whatever is encoded decodes to itself."""

from __future__ import annotations

import struct
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from ipaddress import IPv4Address, IPv4Network, IPv6Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polywan.core.errors import KernelError
from polywan.core.net import FAMILIES, Family, IPAddress, RulePriority, TableId
from polywan.core.routing.nexthops import MOST_WEIGHT, Nexthop, NexthopGroup, NexthopId, NexthopObject
from polywan.core.routing.routes import IpRule, Route
from polywan.core.ruleset.model import (
    Chain,
    Hook,
    NftMap,
    NftRule,
    NftSet,
    NftTable,
    change_text,
    replace_text,
    state_of,
)
from polywan.core.trace.route_query import RouteQuery
from polywan.kernel.conntrack import local_sockets
from polywan.kernel.conntrack import table as conntrack
from polywan.kernel.conntrack.decode import layout_of
from polywan.kernel.fake.nft import transact
from polywan.kernel.netlink import foreign_routing as foreign
from polywan.kernel.netlink import neighbours, route_query
from polywan.kernel.netlink import nexthops as nh
from polywan.kernel.netlink import policy_rules as rules
from polywan.kernel.netlink import rtnetlink as rt
from polywan.kernel.netlink.socket import Message, attribute, messages, refusal
from polywan.kernel.nft import affinity_maps, elements, established, filter_rules, libnftables
from polywan.kernel.notifications import Translator
from polywan.kernel.tc import messages as tc
from polywan.kernel.tc import options

NAMES = {index: f"wan{index}" for index in range(256)}
u32s = st.integers(1, 2**32 - 2)
families = st.sampled_from(FAMILIES)


def addresses(family: Family) -> st.SearchStrategy[IPAddress]:
    return st.ip_addresses(v=family.value)


@st.composite
def routes(draw: st.DrawFn) -> Route:
    family = draw(families)
    link = draw(st.none() | st.sampled_from(sorted(NAMES.values())))
    plain = Route(family=family, table=TableId(draw(u32s)), metric=draw(u32s), link=link)
    if link is None:
        return replace(plain, nexthop=draw(st.none() | u32s.map(NexthopId)))
    via = draw(st.none() | st.sampled_from(FAMILIES if family is Family.V4 else [family]).flatmap(addresses))
    source = draw(st.none() | addresses(family))
    return replace(plain, via=via, onlink=draw(st.booleans()), source=source)


@st.composite
def policy_rules(draw: st.DrawFn) -> IpRule:
    family = draw(families)
    network = IPv4Network if family is Family.V4 else IPv6Network
    prefix = st.tuples(addresses(family), st.integers(1, family.host_length))
    table, goto = draw(st.sampled_from([(6001, None), (200, None), (None, 7000), (2**32 - 1, None)]))
    names = st.none() | st.from_regex(r"[a-z0-9_.:@-]{1,15}", fullmatch=True)
    return IpRule(
        family=family,
        priority=RulePriority(draw(u32s)),
        table=None if table is None else TableId(table),
        goto=None if goto is None else RulePriority(goto),
        mark=draw(st.none() | st.tuples(u32s, u32s)),
        from_=draw(st.none() | prefix.map(lambda p: network(p, strict=False))),
        oif=draw(names),
        iif=draw(names),
        invert=draw(st.booleans()),
        suppress_prefixlength=draw(st.none() | st.integers(0, 128)),
    )


@given(routes())
def test_a_route_decodes_to_itself(route: Route) -> None:
    index = next((i for i, name in NAMES.items() if name == route.link), 0)
    assert rt.decode_routes(rt.put_route(route, index).body, NAMES) == [route]


@st.composite
def nexthops(draw: st.DrawFn) -> NexthopObject:
    ident, family = NexthopId(draw(u32s)), draw(families)
    if draw(st.booleans()):
        members = draw(st.dictionaries(u32s.map(NexthopId), st.integers(1, MOST_WEIGHT), min_size=1, max_size=5))
        return NexthopGroup(id=ident, members=tuple(members.items()), idle=draw(u32s))
    link, via = draw(st.sampled_from(sorted(NAMES.values()))), draw(st.none() | addresses(family))
    return Nexthop(id=ident, family=family, link=link, via=via, onlink=draw(st.booleans()))


@given(nexthops())
def test_a_nexthop_decodes_to_itself(nexthop: NexthopObject) -> None:
    index = next((i for i, name in NAMES.items() if isinstance(nexthop, Nexthop) and name == nexthop.link), 0)
    body = nh.put_nexthop(nexthop, index).body
    assert nh.decode_nexthop(body, NAMES) == nexthop
    assert nh.touched_nexthop(body)


@given(policy_rules())
def test_a_rule_decodes_to_itself(rule: IpRule) -> None:
    assert rules.decode_rule(rules.add_rule(rule).body) == (rule, True)


@st.composite
def plausible(draw: st.DrawFn) -> bytes:
    """A header of the right length and attributes of every kind with contents of every length."""
    header = draw(st.binary(min_size=0, max_size=17))
    if draw(st.booleans()):
        rest = draw(st.binary(min_size=7, max_size=7))
        header = struct.pack("=BBBBBBBBI", draw(st.sampled_from([0, 2, 10])), *rest, 0)
    kinds = st.integers(0, 40) | st.sampled_from([0x8001, 0x8002, 0x8004, 0x8012])
    inner = st.binary(max_size=20) | st.builds(attribute, kinds, st.binary(max_size=12))
    parts = draw(st.lists(st.builds(attribute, kinds, inner), max_size=6))
    return header + b"".join(parts) + draw(st.binary(max_size=5))


def answered(body: bytes) -> None:
    query = RouteQuery(family=Family.V4, destination=IPv4Address(0))
    with suppress(KernelError):
        route_query.answer(query, Message(rt.NEWROUTE, 0, 0, 0, body), NAMES.get)
    route_query.prefix_of(Message(rt.NEWROUTE, 0, 0, 0, body))


def elements_of(kind: int, body: bytes) -> object:
    return dict(elements.decode(body, kind))


def shaped(body: bytes) -> None:
    if (shown := tc.decode(body)) is not None:
        for kind in ("cake", "htb", "u32", "matchall"):
            tc.part_of(shown._replace(kind=kind))
            tc.redirected_to(shown._replace(kind=kind))


DECODERS: list[Callable[[bytes], object]] = [
    rt.decode_link,
    lambda body: list(filter_rules.elements_in(body)),
    rules.decode_rule,
    rt.touched_route,
    rt.family_of,
    lambda body: rt.decode_address(body, NAMES),
    lambda body: rt.decode_defaults(body, NAMES),
    lambda body: rt.decode_wide(body, NAMES),
    lambda body: rt.decode_routes(body, NAMES),
    lambda body: nh.decode_nexthop(body, NAMES),
    nh.touched_nexthop,
    partial(neighbours.decode_neighbour, neighbours.NEWNEIGH),
    foreign.decode_rule,
    foreign.table_of,
    lambda body: foreign.decode_route(body, NAMES),
    lambda body: conntrack.cuttable(layout_of(body).read(body)),
    lambda body: conntrack.inside_of(*conntrack.ends_of(layout_of(body).read(body))),
    local_sockets.identity,
    conntrack.deletion,
    *(partial(elements_of, kind) for kind in elements.KEY_TYPES),
    elements.verdict,
    lambda body: list(affinity_maps.decode(body, "affinity_4_default", Family.V4, "default")),
    answered,
    lambda body: refusal(Message(2, 0x300, 0, 0, body)),
    tc.decode_link,
    shaped,
    *(partial(options.decode, kind) for kind in ("cake", "htb", "class", "fq_codel", "prio", "u32", "netem")),
]


@pytest.mark.parametrize("decode", DECODERS)
@given(plausible())
def test_no_message_makes_a_decoder_raise(decode: Callable[[bytes], object], body: bytes) -> None:
    decode(body)


expressions = st.lists(
    st.tuples(
        st.sampled_from(
            [*sorted(established._SPECIAL), *sorted(established._PLAIN), "counter", "limit", "take", "known"]
        ),
        st.lists(st.tuples(st.integers(1, 8), st.binary(max_size=20)), max_size=6),
    ),
    max_size=5,
)


@given(expressions)
def test_no_rule_of_others_makes_its_reader_raise(found: list[tuple[str, list[tuple[int, bytes]]]]) -> None:
    body = b"".join(
        attribute(
            1,
            attribute(1, name.encode() + b"\0") + attribute(2, b"".join(attribute(kind, data) for kind, data in parts)),
        )
        for name, parts in found
    )
    sets = established.SetFacts(lambda: {b"": "accept", b"\2\0\0\0": "jump far"}, expires=True)
    rule = established.decode_rule(body, lambda _: sets)
    assert rule.watches or not any(name in ("limit", "take", "known") for name, _ in found) or not rule.met


@given(st.binary(max_size=200))
def test_any_bytes_split_into_messages(data: bytes) -> None:
    assert sum(16 + len(message.body) for message in messages(data)) <= len(data)


@given(
    st.lists(
        st.tuples(st.integers(14, 40) | st.integers(104, 106) | st.integers(0x0A00, 0x0A20), plausible()), max_size=5
    )
)
def test_no_notification_makes_the_translator_raise(notifications: list[tuple[int, bytes]]) -> None:
    translator = Translator(1, lambda port: port == 1, [])
    for kind, body in notifications:
        message = Message(kind, 0, 0, 7, body)
        translator.route(message)
        translator.nftables(message)


json_keys = st.sampled_from(["elem", "val", "name", "chain", "goto", "prio", "hook", "target"])
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["elem", "val", "name", "chain", "goto", "prio", "hook", "target"]), inner, max_size=3
        )
    ),
    max_leaves=10,
)


@given(st.lists(st.dictionaries(st.sampled_from(["chain", "rule", "set", "map", "table"]), json_values, max_size=2)))
def test_no_listing_makes_the_decoder_raise(items: list[object]) -> None:
    libnftables.decode({"nftables": items})


names = st.sampled_from(["alpha", "beta", "gamma"])
numbers = st.integers(0, 9)
devices = st.sampled_from(["eth1", "wwan0"])
verdicts = st.sampled_from(["accept", "drop", "goto alpha", "jump gamma"])
rule_texts = st.sampled_from(["accept", 'oifname "eth1" drop', "ct mark & 0x3f00 @s0 goto alpha", "iifname vmap @m0"])


@st.composite
def tables(draw: st.DrawFn) -> NftTable:
    outline = {"alpha": None, "beta": Hook("filter", "forward", -150), "gamma": None}
    some_rules = st.lists(st.builds(NftRule, rule_texts, st.sampled_from(["why", "because"])), max_size=3).map(tuple)
    chains = {name: Chain(draw(some_rules), hook) for name, hook in outline.items()}
    if draw(st.booleans()):
        chains["delta"] = Chain(())
    sets = {"s0": NftSet("type mark", draw(st.frozensets(numbers, max_size=4)))}
    maps = {"m0": NftMap("type ifname : verdict", draw(st.dictionaries(devices, verdicts, max_size=4)))}
    if draw(st.booleans()):
        sets["list_0"] = NftSet("type ipv4_addr; flags interval;", frozenset({"192.0.2.0/24"}))
    if "delta" in chains:
        maps["m1"] = NftMap("type ifname : verdict", {"eth9": "goto delta"})
        maps["affinity_4_x"] = NftMap("typeof ip saddr : ct mark; flags dynamic,timeout; size 65536;")
    return NftTable(chains=chains, sets=sets, maps=maps)


@given(tables(), tables())
def test_the_smallest_change_leads_to_the_same_table_as_a_replacement(old: NftTable, new: NftTable) -> None:
    before = transact(None, replace_text(old))
    assert before == state_of(old)
    assert transact(before, change_text(new, before)) == state_of(new)


@given(tables(), st.text(max_size=60))
def test_no_text_makes_the_stand_in_raise_anything_but_a_refusal(table: NftTable, text: str) -> None:
    state = state_of(table)
    try:
        transact(state, text)
    except KernelError:
        assert state == state_of(table)
