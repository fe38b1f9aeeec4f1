"""The JSON of nft: a rule set as nft 1.0.6 listed it, and listings that make no sense."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from ipaddress import ip_network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polywan.core.firewall.iptables import parse as parse_iptables
from polywan.core.firewall.model import (
    Action,
    ActionOther,
    Chain,
    Choose,
    Device,
    Direction,
    Firewall,
    Flowtable,
    MarkIs,
    Match,
    Offload,
    Other,
    Port,
    Prefix,
    Protocol,
    Restore,
    Rule,
    Save,
    SetMark,
    State,
    Statistic,
    Table,
    TcpFlags,
    Translate,
)
from polywan.core.firewall.nftables import parse, replaced
from polywan.core.firewall.passing import Passing
from polywan.core.firewall.walk import outcome
from polywan.core.net import Family

HERE = Path(__file__).parent
LISTED = json.loads((HERE / "ruleset.json").read_text())
PRINTED = (HERE / "ruleset.nft").read_text()

FORWARD, OF_MARK = {"family": "inet", "table": "t", "chain": "f"}, {"meta": {"key": "mark"}}
OF_CONNECTION = {"ct": {"key": "mark"}}


def rules_of(name: str) -> tuple[Rule, ...]:
    return next(c.rules for t in parse(LISTED) for c in t.chains if c.name == name)


def named(text: str) -> list[Rule]:
    return [rule for table in parse(LISTED) for chain in table.chains for rule in chain.rules if rule.text == text]


def listing(*expressions: object, **more: object) -> dict[str, object]:
    base = {"family": "inet", "table": "t", "name": "f", "type": "filter", "hook": "forward", "prio": 0}
    items: list[object] = [{"chain": base}, {"rule": {**FORWARD, "expr": list(expressions)}}]
    return {"nftables": [*items, *({kind: value} for kind, value in more.items())]}


def parsed(*expressions: object, **more: object) -> tuple[Rule, ...]:
    return parse(listing(*expressions, **more))[0].chains[0].rules


def test_tables_and_chains() -> None:
    inet, netdev = parse(LISTED)
    assert (str(inet), str(netdev)) == ("table inet t", "table netdev nd")
    assert [(c.name, c.kind, c.hook, c.priority, c.policy) for c in inet.chains] == [
        ("x", "", "", 0, ""),
        ("f", "filter", "forward", 5, "drop"),
        ("n", "nat", "postrouting", 100, "accept"),
        ("r", "route", "output", -150, "accept"),
        ("d", "nat", "prerouting", -100, "accept"),
    ]
    assert not inet.opaque


def test_the_text_of_a_rule_is_that_of_nft() -> None:
    lines = {re.sub(r"counter packets \d+ bytes \d+ ?", "", line.strip()) for line in PRINTED.splitlines()}
    texts = {rule.text for table in parse(LISTED) for chain in table.chains for rule in chain.rules}
    # Names in a concatenation have no quotes here.
    assert texts - lines == {"iifname . oifname { a . b } accept"}
    assert len(texts) > 50


@pytest.mark.parametrize(
    ("text", "matches"),
    [
        ("ct state != established accept", (State(frozenset({"established"}), invert=True),)),
        ("ct state new,untracked accept", (State(frozenset({"new", "untracked"})),)),
        ("ct direction reply accept", (Direction("reply"),)),
        ("iifname @ifs accept", (Device("in", ("lan0", "lan1")),)),
        ('iif "lo" oif != "lo" accept', (Device("in", ("lo",)), Device("out", ("lo",), invert=True))),
        (
            'iifname { "a", "b*" } oifname != "lo" accept',
            (Device("in", ("a", "b*")), Device("out", ("lo",), invert=True)),
        ),
        ("ip6 saddr fe80::/10 accept", (Prefix("source", (ip_network("fe80::/10"),)),)),
        ("meta mark & 0x000000ff != 0x00000000 accept", (MarkIs("packet", 0, 0xFF, invert=True),)),
        ("ct mark & 0x0000ff00 == 0x00000100 accept", (MarkIs("connection", 0x100, 0xFF00),)),
        ("meta l4proto { tcp, udp } th dport 53 accept", (Protocol(("tcp", "udp")), Port("destination", ((53, 53),)))),
        ("tcp dport { 22, 80-90 } accept", (Protocol(("tcp",)), Port("destination", ((22, 22), (80, 90))))),
        ("meta nfproto ipv6 drop", (Prefix("source", (ip_network("::/0"),)),)),
        ("ip protocol icmp accept", (Prefix("source", (ip_network("0.0.0.0/0"),)), Protocol(("icmp",)))),
        ("icmp type echo-request accept", (Protocol(("icmp",)), Other("icmp type echo-request"))),
        ("numgen inc mod 2 0 accept", (Statistic("nth", 2, 0, 0.5),)),
        ("numgen random mod 100 < 30 accept", (Statistic("random", probability=0.3),)),
        (
            "tcp flags syn / fin,syn,rst,ack accept",
            (Protocol(("tcp",)), TcpFlags(frozenset({"fin", "syn", "rst", "ack"}), frozenset({"syn"}))),
        ),
        ("fib daddr type local accept", (Other("fib daddr type local"),)),
    ],
)
def test_a_condition_is_known_or_kept_as_its_text(text: str, matches: tuple[Match, ...]) -> None:
    assert named(text)[0].matches == matches


@pytest.mark.parametrize(
    ("text", "action"),
    [
        ("meta mark set ct mark", Restore()),
        ("meta mark set ct mark & 0x000000ff", Restore(0xFF)),
        ("ct mark set meta mark", Save()),
        ("meta mark set meta mark & 0x000001ff | 0x00000100", SetMark("packet", 0x100, 0xFFFFFF00)),
        ("meta mark set meta mark | 0x00000004", SetMark("packet", 4, 4)),
        ("meta mark set meta mark ^ 0x00000004", SetMark("packet", 4, 0)),
        (
            "meta mark set numgen random mod 4 map { 0-2 : 0x00000001, 3 : 0x00000002 }",
            Choose("packet", "random", 4, ((1, 3), (2, 1))),
        ),
        (
            "ct mark set jhash ip saddr mod 2 map { 0 : 0x00000001, 1 : 0x00000002 }",
            Choose("connection", "hash", 2, ((1, 1), (2, 1))),
        ),
        ("meta mark set meta mark map @m", ActionOther("meta mark set meta mark map @m", harmless=False)),
        ("tcp option maxseg size set rt mtu", ActionOther("tcp option maxseg size set rt mtu")),
    ],
)
def test_an_action(text: str, action: Action) -> None:
    assert named(text) == [Rule(text, (), (action,))]


def test_a_verdict_that_is_looked_up_becomes_a_rule_for_each() -> None:
    text = "ct state vmap { invalid : drop, established : accept, related : accept }"
    invalid, established, related = named(text)
    assert (invalid.matches, invalid.verdict) == ((State(frozenset({"invalid"})),), "drop")
    assert (established.matches, established.verdict) == ((State(frozenset({"established"})),), "accept")
    assert (related.matches, related.verdict) == ((State(frozenset({"related"})),), "accept")
    zones = [(rule.matches, rule.verdict, rule.target) for rule in named("iifname vmap @zones")]
    assert zones == [((Device("in", ("lan0",)),), "jump", "x"), ((Device("in", ("wan0",)),), "drop", "")]


def test_a_set_that_packets_fill_is_not_looked_into() -> None:
    (rule,) = named("ip saddr @dyn drop")
    assert Other("ip saddr @dyn") in rule.matches


def test_a_rule_keeps_its_counters_and_its_comment() -> None:
    (rule,) = named('goto x comment "hello"')
    assert (rule.verdict, rule.target, rule.packets, rule.bytes) == ("goto", "x", 4, 99)


def test_a_translation_ends_its_chain() -> None:
    (rule,) = named('oifname "wan0" masquerade')
    assert (rule.actions, rule.verdict) == ((Translate("masquerade", "masquerade"),), "accept")


def test_an_action_is_done_also_where_a_later_condition_does_not_match() -> None:
    marks = {"match": {"op": "==", "left": OF_MARK, "right": 1}}
    sets = {"mangle": {"key": OF_MARK, "value": 2}}
    tcp = {"match": {"op": "==", "left": {"meta": {"key": "l4proto"}}, "right": "tcp"}}
    first, second = parsed(marks, sets, tcp, {"drop": None})
    assert (first.matches, first.actions, first.verdict) == ((MarkIs("packet", 1),), (SetMark("packet", 2),), "")
    assert (second.matches[1:], second.actions, second.verdict) == ((Protocol(("tcp",)),), (), "drop")
    assert isinstance(second.matches[0], Other)


def test_newer_versions_join_both_marks() -> None:
    joined = {"|": [{"&": [OF_MARK, 0xFF00]}, {"&": [OF_CONNECTION, 0xFF]}]}
    assert parsed({"mangle": {"key": OF_MARK, "value": joined}})[0].actions == (Restore(0xFF, 0xFF00),)
    assert parsed({"mangle": {"key": OF_CONNECTION, "value": joined}})[0].actions == (Save(0xFF00, 0xFF),)


def test_a_connection_moves_to_a_flowtable() -> None:
    flow = {"flow": {"op": "add", "flowtable": "@fast"}}
    flowtable = {"family": "inet", "name": "fast", "table": "t", "hook": "ingress", "prio": 0, "dev": ["eth0", "eth1"]}
    (table,) = parse(listing(flow, flowtable=flowtable))
    assert table.flowtables == (Flowtable("fast", ("eth0", "eth1")),)
    assert table.chains[0].rules[0].actions == (Offload("fast"),)


def test_extensions_of_iptables_are_unknown_and_iptables_save_replaces_them() -> None:
    match, target = {"xt": {"type": "match", "name": "statistic"}}, {"xt": {"type": "target", "name": "MARK"}}
    rule = {"family": "ip", "table": "filter", "chain": "FORWARD", "expr": [match, target]}
    chain = {"family": "ip", "table": "filter", "name": "FORWARD", "type": "filter", "hook": "forward", "prio": 0}
    (opaque,) = parse({"nftables": [{"chain": chain}, {"rule": rule}]})
    assert opaque.opaque
    unknown = opaque.chains[0].rules[0]
    assert unknown.matches == (Other("xt statistic"),)
    assert unknown.actions == (ActionOther("xt MARK", harmless=False),)
    saved = parse_iptables("*filter\n:FORWARD DROP [0:0]\nCOMMIT\n", Family.V4, "iptables")
    other = Table("nftables", "inet", "filter")
    assert replaced((opaque, other), saved) == (*saved, other)
    assert replaced((opaque, other), ()) == (opaque, other)


def firewalld(zones: Sequence[object]) -> Firewall:
    """The chains of firewalld 1.x for forwarded packets: the zone of the device by which one came in decides."""
    names = {"filter_FORWARD": "hook", "policies": "", "internal": "", "public": ""}
    about = {"family": "inet", "table": "firewalld"}
    base = {"type": "filter", "hook": "forward", "prio": 10, "policy": "accept"}
    chains = [{"chain": {**about, "name": name, **(base if hook else {})}} for name, hook in names.items()]
    state = {"ct": {"key": "state"}}
    both = {"set": [["established", {"accept": None}], ["related", {"accept": None}]]}
    device = {"meta": {"key": "iifname"}}
    invalid = {"match": {"op": "in", "left": state, "right": "invalid"}}
    reject = {"reject": {"type": "icmpx", "expr": "admin-prohibited"}}
    rules: dict[str, list[list[object]]] = {
        "filter_FORWARD": [
            [{"vmap": {"key": state, "data": both}}],
            [{"match": {"op": "==", "left": device, "right": "lo"}}, {"accept": None}],
            [{"jump": {"target": "policies"}}],
            [invalid, {"drop": None}],
            [reject],
        ],
        "policies": [[{"vmap": {"key": device, "data": {"set": zones}}}]],
        "internal": [[{"accept": None}]],
        "public": [[reject]],
    }
    listed = [{"rule": {**about, "chain": name, "expr": expr}} for name, lines in rules.items() for expr in lines]
    return Firewall(parse({"nftables": [*chains, *listed]}))


@pytest.mark.parametrize(("device", "expected"), [("lan0", "accept"), ("wan0", "reject"), ("other0", "reject")])
def test_firewalld_decides_by_the_zone_of_a_device(device: str, expected: str) -> None:
    zones = [["lan0", {"goto": {"target": "internal"}}], ["wan0", {"goto": {"target": "public"}}]]
    packet = Passing(family=Family.V6, in_device=device, out_device="wan0", protocol="tcp", port=443)
    assert outcome(firewalld(zones), packet).verdict == expected


KEYS = re.findall(
    r"\S+",
    "match left right op meta ct key mark state iifname payload protocol field tcp ip dport saddr set prefix addr len"
    " range vmap data map numgen mode mod jump target mangle value & | elem val xt flow counter limit",
)
VALUES = st.integers(-1, 70000) | st.floats() | st.text(max_size=5) | st.sampled_from(["@s", "lan0", *KEYS])
JSON = st.recursive(
    st.none() | st.booleans() | VALUES,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(KEYS),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(st.lists(JSON, max_size=5), JSON)
def test_no_listing_is_refused(expressions: list[object], elements: object) -> None:
    filled = {"family": "inet", "table": "t", "name": "s", "elem": elements}
    for table in parse(listing(*expressions, set=filled)):
        assert isinstance(table, Table)


@given(st.recursive(JSON, st.lists), st.sampled_from(["table", "chain", "rule", "set", "flowtable", "odd"]))
def test_no_object_is_refused(value: object, kind: str) -> None:
    parse({"nftables": value})
    parse({"nftables": [{kind: value}]})
    if isinstance(value, dict):
        parse({"nftables": [{kind: {**FORWARD, "name": "f", **value}}]})


def test_deep_nesting_is_no_danger() -> None:
    deep: object = 1
    for _ in range(500):
        deep = {"&": [deep, 1]}
    (rule,) = parsed({"match": {"op": "==", "left": deep, "right": 1}})
    assert isinstance(rule.matches[0], Other)


def test_a_chain_without_rules_is_there() -> None:
    assert parse(listing())[0].chains == (Chain("f", "filter", "forward", 0, "accept", parsed()),)
