"""Warnings about policy rules of others: each names the rule and what to change, and harmless ones are passed over."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Any

import pytest

from polywan.core.marks import FALLBACK, FIRST_SPECIFIC, FIRST_TCP
from polywan.core.net import Family, RulePriority, TableId
from polywan.core.plan.conflicts import conflicts
from polywan.core.plan.plan import ActualState
from polywan.core.resolved import resolve
from polywan.core.world.foreign_routing import Destination, ForeignRule
from polywan.core.world.observed import Observed
from support.engine_world import config, world

IPV4, IPV6 = ip_network("0.0.0.0/0"), ip_network("::/0")
BY_TUN = (Destination(prefix=IPV4, link="tun0"),)
BY_UPLINK = (Destination(prefix=IPV4, link="wan2"),)
SITES = (Destination(prefix=ip_network("10.0.0.0/8"), link="tun0"),)
HALVES = tuple(Destination(prefix=ip_network(p), link="tun0") for p in ("0.0.0.0/1", "128.0.0.0/1"))
TABLES = {TableId(200): BY_TUN, TableId(201): BY_UPLINK, TableId(202): SITES, TableId(203): HALVES}


def rule(priority: int = 100, table: int | None = 200, **fields: Any) -> ForeignRule:
    values: dict[str, Any] = {"family": Family.V4, "priority": RulePriority(priority), "table": table, **fields}
    return ForeignRule(**values)


def warnings(*rules: ForeignRule, marks: tuple[int, ...] = (0x100, 0x200), tables: Any = TABLES) -> list[str]:
    machine = world(2)
    observed = Observed(
        links=machine.links, addresses=machine.addresses, defaults=machine.defaults, rules=rules, tables=tables
    )
    return list(conflicts(resolve(config(2), {}), ActualState(), observed, marks))


LAN = ip_network("192.168.15.0/24")
HOST = ip_network("192.168.15.40/32")


@pytest.mark.parametrize(
    "harmless",
    [
        rule(table=202),
        rule(table=254, mark=(0x80000, 0xFF0000)),
        rule(table=254, suppress_prefixlength=0),
        rule(table=253, mark=(0x80000, 0xFF0000)),
        rule(table=None, action="unreachable", mark=(0x80000, 0xFF0000)),
        rule(to=ip_network("10.0.0.0/8")),
        rule(from_=HOST),
        rule(mark=(0x10000, 0xFFFF_FFFF)),
        rule(mark=(0xCA6C, 0xFFFF_FFFF), table=202),
        rule(mark=(0x10100, 0xFFFF_FFFF), table=202),
        rule(ipproto=6, dport=(25, 25)),
        rule(iif="lo"),
        rule(iif="wan1"),
        rule(suppress_prefixlength=0),
        rule(priority=33000),
        rule(FIRST_SPECIFIC, table=254, suppress_prefixlength=0),
        rule(priority=0, from_=HOST),
        rule(priority=0, table=255),
        rule(table=999),
    ],
    ids=ForeignRule.text,
)
def test_a_rule_that_leaves_polywan_its_work_is_not_warned_of(harmless: ForeignRule) -> None:
    assert warnings(harmless) == []


@pytest.mark.parametrize(
    ("taking", "words"),
    [
        (rule(), "`100: from all lookup 200` of another program sends everything by tun0"),
        (rule(table=203), "sends everything by tun0"),
        (rule(iif="lan0"), "sends everything from lan0 by tun0"),
        (rule(from_=LAN), "sends everything from 192.168.15.0/24 by tun0"),
        (rule(32764, mark=(0xCA6C, 0xFFFF_FFFF), invert=True), "sends everything without mark 0xca6c by tun0"),
    ],
)
def test_a_rule_that_sends_everything_elsewhere_is_named_once(taking: ForeignRule, words: str) -> None:
    (text,) = warnings(taking)
    assert words in text
    assert text.endswith("so polywan does not balance it")


@pytest.mark.parametrize(
    ("leading", "words"),
    [
        (rule(table=201, from_=HOST), "sends everything from 192.168.15.40/32 always by wan2, with no failover"),
        (rule(5209, table=201, mark=(51820, 0xFFFF_FFFF), invert=True), "always by wan2, with no failover"),
        (rule(table=201, iif="lo"), "everything of this box always by wan2"),
        (rule(table=201, ipproto=17), "everything that it matches always by wan2"),
    ],
)
def test_a_rule_that_leads_to_one_uplink_is_named_with_what_to_do_instead(leading: ForeignRule, words: str) -> None:
    (text,) = warnings(leading)
    assert words in text
    assert 'give polywan a rule with `uplink = "u2"`' in text


def test_a_rule_for_the_address_of_the_link_that_it_leads_to_is_not_warned_of() -> None:
    own, other = (world(2).addresses_of(link, Family.V4)[0].ip for link in ("wan2", "wan1"))
    assert warnings(rule(table=201, from_=ip_network(own))) == []
    (text,) = warnings(rule(table=201, from_=ip_network(other)))
    assert "always by wan2" in text


@pytest.mark.parametrize("priority", [6000, 6500, 6899, FIRST_SPECIFIC, FIRST_TCP, FALLBACK])
def test_a_rule_among_ours_is_named(priority: int) -> None:
    (text,) = warnings(rule(priority, table=202))
    assert f"is among those of polywan: {priority}: from all lookup 202; " in text
    assert ("global.priority" in text) is (priority < 7000)


@pytest.mark.parametrize("mark", [(0x100, 0xFFFF_FFFF), (0x3F00, 0xFFFF_FFFF), (0x100, 0xFF00), (0, 0x100)])
def test_a_mark_that_cannot_be_told_from_ours_is_named_with_a_free_mask(mark: tuple[int, int]) -> None:
    (text,) = warnings(rule(table=202, mark=mark))
    assert "uses mark bits of polywan (0x3f00)" in text
    assert text.endswith("set global.mark_mask = 0x3f000000")


def test_a_mask_is_proposed_that_nobody_uses() -> None:
    marks = [(0x100, 0xFF00), (0x1_0000, 0xFF_0000), (0x100_0000, 0xFFFF_FFFF)]
    texts = warnings(*(rule(100 + n, table=202, mark=mark) for n, mark in enumerate(marks)))
    assert texts[0].endswith("set global.mark_mask = 0x3f")


@pytest.mark.parametrize("priority", [0, 1])
@pytest.mark.parametrize(
    "taking",
    [{"table": 254}, {"table": 202, "mark": (0xCA6C, 0xFFFF_FFFF), "invert": True}],
)
def test_a_rule_that_nobody_can_get_ahead_of_is_named(priority: int, taking: dict[str, Any]) -> None:
    (text,) = warnings(rule(priority, **taking))
    assert text.endswith("give it a priority above 2")


def test_a_rule_before_the_boxs_addresses_is_named_where_others_have_moved_those() -> None:
    (text,) = warnings(rule(50, table=254), rule(100, table=255))
    assert text.endswith("give it a priority above 101")


@pytest.mark.parametrize("strange", [rule(unknown=True, table=202), rule(suppress_ifgroup=3, table=202)])
def test_a_rule_that_is_not_understood_is_named(strange: ForeignRule) -> None:
    (text,) = warnings(strange)
    assert text.startswith("polywan does not understand policy rule `100: from all ")


def test_a_table_too_long_to_read_is_named_when_it_has_no_default() -> None:
    large = Destination(prefix=IPV4, kind="large")
    (text,) = warnings(rule(), tables={TableId(200): (large,)})
    assert text.startswith("table 200 has more than 4096 routes and no default")
    (text,) = warnings(rule(), tables={TableId(200): (*BY_TUN, large)})
    assert "sends everything by tun0" in text


def test_each_family_is_looked_at_for_itself() -> None:
    tables = {TableId(200): (Destination(prefix=IPV6, link="tun0"),)}
    assert warnings(rule(), tables=tables) == []
    (text,) = warnings(rule(family=Family.V6), tables=tables)
    assert text.startswith("policy rule `-6 100: from all lookup 200` of another program sends everything by tun0")
