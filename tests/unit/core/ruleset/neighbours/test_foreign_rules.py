"""The chains of what policy rules of others decide, line by line."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest

from polywan.core.net import FAMILIES, Family, IPNetwork, RulePriority, TableId
from polywan.core.packet import Packet
from polywan.core.ruleset.model import UNREAD
from polywan.core.ruleset.neighbours.foreign_rules import (
    MOST_INLINE,
    MOST_TARGETS,
    decides,
    own_chains,
    theirs_chains,
    theirs_sets,
)
from polywan.core.world.destinations import Tables
from polywan.core.world.foreign_routing import Destination, ForeignRule

DEFAULT = {TableId(200): (Destination(prefix=ip_network("0.0.0.0/0"), link="wan1"),)}
SITE = ip_network("10.0.0.0/8")


def rule(priority: int = 100, table: int | None = 200, **fields: object) -> ForeignRule:
    values = {"family": Family.V4, "priority": RulePriority(priority), "table": table, **fields}
    if "action" in values or "goto" in values:
        values["table"] = None
    return ForeignRule(**values)  # type: ignore[arg-type]  # a table of fields


def goto(priority: int, target: int, **fields: object) -> ForeignRule:
    return rule(priority, **{**fields, "action": "goto", "goto": target})  # type: ignore[arg-type]  # a table of fields


def lines(*rules: ForeignRule, tables: Tables = DEFAULT, chain: str = "theirs_4") -> list[str]:
    return [line.text for line in theirs_chains(rules, tables)[chain].rules]


def knows(*known: tuple[str, str]) -> Tables:
    return {TableId(200): tuple(Destination(prefix=ip_network(p), kind=k) for p, k in known)}  # type: ignore[arg-type]  # words of ip(8)


def test_without_rules_of_others_there_is_nothing() -> None:
    assert theirs_chains((), {}) == {}


@pytest.mark.parametrize(
    "harmless",
    [
        rule(table=254),
        rule(table=254, mark=(0x80000, 0xFF0000)),
        rule(table=254, suppress_prefixlength=0),
        rule(table=255),
        rule(table=300),
        rule(iif="lo"),
        rule(oif="tun0"),
        rule(uidrange=(1000, 2000)),
        rule(suppress_prefixlength=0),
        rule(table=None, l3mdev=True),
        rule(action="nop"),
        rule(tun_id=7),
        rule(invert=True),
        rule(unknown=True),
        rule(iif='x" accept'),
        rule(iif="x*", invert=True),
        goto(100, 32766),
    ],
    ids=ForeignRule.text,
)
def test_rules_that_decide_no_forwarded_packet_leave_nothing(harmless: ForeignRule) -> None:
    assert theirs_chains((harmless,), DEFAULT) == {}


@pytest.mark.parametrize(
    ("deciding", "line"),
    [
        (rule(), "accept"),
        (rule(iif="lo", invert=True), "accept"),
        (rule(oif="tun0", invert=True), "accept"),
        (rule(uidrange=(0, 5)), "accept"),
        (rule(from_=ip_network("192.168.15.40/32")), "ip saddr 192.168.15.40/32 accept"),
        (rule(to=SITE, iif="lan0"), 'iifname "lan0" ip daddr 10.0.0.0/8 accept'),
        (rule(mark=(0xCA6C, 0xFFFF_FFFF)), "meta mark 0x0000ca6c accept"),
        (rule(mark=(0xF1, 0xF)), "meta mark & 0x0000000f == 0x00000001 accept"),
        (rule(mark=(1, 3), invert=True), "meta mark & 0x00000003 != 0x00000001 accept"),
        (rule(tos=0x10), "@nh,8,8 & 0x1c == 0x10 accept"),
        (rule(dscp=46), "ip dscp 0x2e accept"),
        (rule(ipproto=6), "meta l4proto 6 accept"),
        (rule(action="unreachable", mark=(1, 1)), "meta mark & 0x00000001 == 0x00000001 accept"),
        (rule(action="prohibit"), "accept"),
        (rule(action="blackhole"), "accept"),
    ],
    ids=lambda one: one.text() if isinstance(one, ForeignRule) else "",
)
def test_a_rule_becomes_one_line(deciding: ForeignRule, line: str) -> None:
    assert lines(deciding) == [line]


def test_ports_are_looked_for_where_a_protocol_has_them() -> None:
    assert lines(rule(dport=(25, 25))) == ["meta l4proto { 6, 17, 33, 132, 136 } th dport 25 accept"]
    assert lines(rule(sport=(1000, 2000), invert=True)) == [
        "meta l4proto != { 6, 17, 33, 132, 136 } accept",
        "meta l4proto { 6, 17, 33, 132, 136 } th sport != 1000-2000 accept",
    ]


def test_a_negated_rule_holds_when_any_selector_does_not() -> None:
    assert lines(rule(from_=SITE, ipproto=17, invert=True)) == [
        "ip saddr != 10.0.0.0/8 accept",
        "meta l4proto != 17 accept",
    ]


def test_what_leads_to_main_ends_the_chain_and_so_does_a_rule_that_takes_everything() -> None:
    later = rule(300, mark=(7, 0xFF))
    assert lines(rule(100, from_=SITE), rule(200, table=254), later) == ["ip saddr 10.0.0.0/8 accept"]
    marked = rule(50, table=254, mark=(0x80000, 0xFF0000))
    assert lines(marked, rule(100), later) == ["meta mark & 0x00ff0000 == 0x00080000 return", "accept"]


def test_rules_behind_mains_own_count_only_where_main_has_no_default() -> None:
    late = rule(33000)
    assert theirs_chains((late,), DEFAULT) == {}
    assert "theirs_4" in theirs_chains((late,), DEFAULT, main=frozenset({Family.V6}))


def test_a_table_decides_for_the_destinations_that_it_knows() -> None:
    tables = knows(("10.0.0.0/8", "unicast"), ("10.1.0.0/16", "throw"), ("10.1.2.0/24", "prohibit"))
    assert lines(rule(), tables=tables) == [
        "ip daddr { 10.0.0.0-10.0.255.255, 10.1.2.0-10.1.2.255, 10.2.0.0-10.255.255.255 } accept"
    ]


def test_what_a_rule_suppresses_does_not_count_but_refusals_do() -> None:
    tables = knows(("0.0.0.0/0", "unicast"), ("10.0.0.0/8", "unicast"), ("192.0.0.0/4", "prohibit"))
    assert lines(rule(suppress_prefixlength=7), tables=tables) == [
        "ip daddr { 10.0.0.0-10.255.255.255, 192.0.0.0-207.255.255.255 } accept"
    ]


def test_a_table_that_was_too_long_to_read_decides_by_its_default_alone() -> None:
    assert theirs_chains((rule(),), knows(("0.0.0.0/0", "large"))) == {}
    assert lines(rule(), tables=knows(("0.0.0.0/0", "unicast"), ("0.0.0.0/0", "large"))) == ["accept"]


def test_many_destinations_are_a_set_whose_name_says_what_is_in_it() -> None:
    many = knows(*((f"10.0.{n}.0/24", "unicast") for n in range(0, 4 * MOST_INLINE, 2)))
    (text,) = lines(rule(), tables=many)
    ((name, found),) = theirs_sets((rule(),), many).items()
    assert text == f"ip daddr @{name} accept"
    assert name.startswith(UNREAD)
    assert len(found.elements) == 2 * MOST_INLINE
    fewer = {TableId(200): many[TableId(200)][1:]}
    assert name not in theirs_sets((rule(),), fewer)


def test_a_sender_of_a_route_is_compared_too() -> None:
    sender = ip_network("2001:db8::/32")
    tables = {TableId(200): (Destination(prefix=ip_network("::/0"), from_=sender),)}
    assert lines(rule(family=Family.V6), tables=tables, chain="theirs_6") == ["ip6 saddr 2001:db8::/32 accept"]


def test_a_goto_leads_to_a_chain_of_its_own() -> None:
    first, last = rule(100, from_=SITE), rule(500, ipproto=6)
    chains = theirs_chains((first, goto(50, 500, iif="lan0"), rule(200, ipproto=17), last), DEFAULT)
    assert {name: [line.text for line in chain.rules] for name, chain in chains.items()} == {
        "theirs": ["meta nfproto ipv4 goto theirs_4"],
        "theirs_4": [
            'iifname "lan0" goto theirs_4_500',
            "ip saddr 10.0.0.0/8 accept",
            "meta l4proto 17 accept",
            "goto theirs_4_500",
        ],
        "theirs_4_500": ["meta l4proto 6 accept"],
    }


def test_a_goto_past_every_rule_of_others_is_the_end() -> None:
    assert lines(goto(50, 32766, iif="lan0"), rule(100)) == ['iifname "lan0" return', "accept"]


def test_a_goto_without_a_target_is_passed_over() -> None:
    assert lines(goto(50, 400, unresolved=True), rule(100), rule(500)) == ["accept"]


def test_no_more_chains_follow_each_other_than_the_kernel_takes() -> None:
    jumps = [goto(n, 1000 + n, mark=(n, 0xFF)) for n in range(1, 50)]
    targets = [rule(1000 + n, to=SITE) for n in range(1, 50)]
    assert len(theirs_chains((*jumps, *targets), DEFAULT)) == 2 + MOST_TARGETS


def test_each_family_has_its_own_chains_and_the_verdict_is_the_callers() -> None:
    table = {TableId(200): tuple(Destination(prefix=family.default) for family in FAMILIES)}
    chains = theirs_chains((rule(), rule(family=Family.V6, tos=0xB8)), table, verdict="goto aside")
    assert [line.text for line in chains["theirs_4"].rules] == ["goto aside"]
    assert [line.text for line in chains["theirs_6"].rules] == ["ip6 dscp 0x2e goto aside"]


def test_the_same_rules_make_the_same_chains() -> None:
    rules = (rule(100, from_=SITE), rule(200))
    assert theirs_chains(rules, DEFAULT) == theirs_chains(list(rules), dict(DEFAULT))


def own_lines(*rules: ForeignRule, tables: Tables = DEFAULT) -> list[str]:
    found = own_chains(rules, tables, frozenset({Family.V4}))
    return [line.text for line in found["theirs_own_4"].rules]


@pytest.mark.parametrize(
    ("deciding", "line"),
    [
        (rule(iif="lo"), "accept"),
        (rule(iif="lan0", invert=True), "accept"),
        (rule(uidrange=(1000, 2000)), "meta skuid 1000-2000 accept"),
        (rule(uidrange=(7, 7), invert=True), "meta skuid != 7 accept"),
        (rule(mark=(7, 0xFF)), "meta mark & 0x000000ff == 0x00000007 accept"),
    ],
)
def test_packets_of_the_box_are_told_by_user_and_come_by_loopback(deciding: ForeignRule, line: str) -> None:
    assert own_lines(deciding) == [line]


@pytest.mark.parametrize("harmless", [rule(iif="lan0"), rule(iif="lo", invert=True), rule(oif="tun0")])
def test_packets_of_the_box_come_by_no_other_device(harmless: ForeignRule) -> None:
    assert own_chains((harmless,), DEFAULT, frozenset(FAMILIES)) == {}


def test_chains_for_the_box_are_made_for_the_families_that_are_asked_for() -> None:
    table = {TableId(200): tuple(Destination(prefix=family.default) for family in FAMILIES)}
    rules = (rule(), rule(family=Family.V6, priority=300), goto(100, 300, family=Family.V6, iif="lo"))
    chains = own_chains(rules, table, frozenset({Family.V6}))
    assert list(chains) == ["theirs_own", "theirs_own_6", "theirs_own_6_300"]


def packet(source: str, destination: str, **fields: object) -> Packet:
    values = {
        "family": Family.V4,
        "source": ip_address(source),
        "destination": ip_address(destination),
        "protocol": 6,
        "source_port": 40000,
        "port": 443,
        "in_interface": "lan0",
        **fields,
    }
    return Packet(**values)  # type: ignore[arg-type]  # a table of fields


def network(text: str) -> IPNetwork:
    return ip_network(text)


def test_on_paper_the_first_rule_that_has_a_route_decides() -> None:
    narrow, wide = rule(100, from_=network("192.168.1.0/24")), rule(200, table=201)
    tables: Tables = {**knows(("10.0.0.0/8", "unicast")), TableId(201): DEFAULT[TableId(200)]}
    assert decides((wide, narrow), tables, packet("192.168.1.5", "10.1.1.1")) == narrow
    assert decides((wide, narrow), tables, packet("192.168.1.5", "11.1.1.1")) == wide
    assert decides((narrow,), tables, packet("192.168.1.5", "11.1.1.1")) is None
    assert decides((rule(50, table=254), wide), tables, packet("192.168.1.5", "11.1.1.1")) == "main"


def test_on_paper_a_forwarded_packet_is_looked_up_for_user_0_and_the_boxs_own_for_its_own() -> None:
    own, root = rule(uidrange=(1000, 1000)), rule(uidrange=(0, 0))
    assert decides((own,), DEFAULT, packet("192.168.1.5", "11.1.1.1")) is None
    assert decides((root,), DEFAULT, packet("192.168.1.5", "11.1.1.1")) == root
    assert decides((own,), DEFAULT, packet("192.168.1.5", "11.1.1.1", in_interface=None, user=1000)) == own


def test_on_paper_a_goto_passes_over_what_is_between() -> None:
    rules = (goto(50, 500, from_=network("192.168.1.0/24")), rule(100), rule(500, ipproto=17))
    assert decides(rules, DEFAULT, packet("192.168.1.5", "11.1.1.1")) is None
    assert decides(rules, DEFAULT, packet("192.168.2.5", "11.1.1.1")) == rules[1]
