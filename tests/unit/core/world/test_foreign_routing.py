"""Policy rules of others as values: their words, and what becomes of their tables with a link."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from polywan.core.net import Family, RulePriority, TableId
from polywan.core.routing.routes import IpRule
from polywan.core.world.foreign_routing import Destination, ForeignRule
from polywan.core.world.observed import Link, Observed
from polywan.daemon.offline import Recording, dump, parse

RULE = ForeignRule(family=Family.V4, priority=RulePriority(100), table=TableId(200))


def rule(**fields: object) -> ForeignRule:
    values = {"family": Family.V4, "priority": RulePriority(100), "table": TableId(200), **fields}
    return ForeignRule(**values)  # type: ignore[arg-type]  # a table of fields


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({}, "100: from all lookup 200"),
        ({"from_": ip_network("192.168.15.40/32")}, "100: from 192.168.15.40 lookup 200"),
        ({"to": ip_network("10.0.0.0/8"), "invert": True}, "100: not from all to 10.0.0.0/8 lookup 200"),
        ({"mark": (0xCA6C, 0xFFFF_FFFF)}, "100: from all fwmark 0xca6c lookup 200"),
        ({"mark": (1, 3), "iif": "lan0", "oif": "tun0"}, "100: from all fwmark 0x1/0x3 iif lan0 oif tun0 lookup 200"),
        ({"tos": 16, "ipproto": 6, "dport": (25, 25)}, "100: from all tos 0x10 ipproto tcp dport 25 lookup 200"),
        ({"ipproto": 99, "sport": (1, 9)}, "100: from all ipproto 99 sport 1-9 lookup 200"),
        ({"uidrange": (0, 7)}, "100: from all uidrange 0-7 lookup 200"),
        ({"table": 254, "suppress_prefixlength": 0}, "100: from all lookup main suppress_prefixlength 0"),
        ({"table": None, "l3mdev": True}, "100: from all l3mdev lookup [l3mdev-table]"),
        ({"table": None, "action": "goto", "goto": 500}, "100: from all goto 500"),
        ({"table": None, "action": "goto", "goto": 500, "unresolved": True}, "100: from all goto 500 [unresolved]"),
        ({"table": None, "action": "unreachable"}, "100: from all unreachable"),
        ({"family": Family.V6}, "-6 100: from all lookup 200"),
        ({"unknown": True}, "100: from all … lookup 200"),
    ],
)
def test_a_rule_speaks_as_ip_rule_does(fields: dict[str, object], words: str) -> None:
    assert rule(**fields).text() == words


def test_a_link_that_goes_down_takes_its_destinations_along_and_leaves_other_tables_as_they_are() -> None:
    tun = Destination(prefix=ip_network("0.0.0.0/0"), link="tun0")
    lan = Destination(prefix=ip_network("10.0.0.0/8"), link="lan0")
    other = (lan,)
    link = Link(index=3, name="tun0", up=True, carrier=True)
    world = Observed(links={"tun0": link}, rules=(RULE,), tables={TableId(200): (tun, lan), TableId(300): other})
    for after in (
        world.without_link("tun0"),
        world.with_link(Link(index=3, name="tun0", up=False, carrier=False)),
    ):
        assert after.rules == (RULE,)
        assert after.tables == {200: (lan,), 300: (lan,)}
        assert after.tables[TableId(300)] is other


def test_a_recording_keeps_rules_and_tables_of_others() -> None:
    known = (Destination(prefix=ip_network("10.0.0.0/8"), kind="throw"), Destination(prefix=ip_network("::/0")))
    full = rule(from_=ip_network("10.0.0.0/8"), mark=(1, 3), dport=(1, 2), suppress_prefixlength=0)
    recording = Recording(observed=Observed(links={}, rules=(full,), tables={TableId(200): known}), sysctls={})
    read = parse(dump(recording), "test")
    assert read == recording
    assert read.world() == recording.observed


def test_an_old_recording_still_says_which_rules_others_had() -> None:
    mark, network = (1, 0xFF), ip_network("10.0.0.0/8")
    old = IpRule(family=Family.V4, priority=RulePriority(5), table=TableId(9), mark=mark, from_=network, invert=True)
    jump = IpRule(family=Family.V4, priority=RulePriority(6), goto=RulePriority(7))
    recording = Recording(observed=Observed(links={}), foreign_rules=(old, jump), sysctls={})
    first, second = parse(dump(recording), "test").world().rules
    assert first.text() == "5: not from 10.0.0.0/8 fwmark 0x1/0xff lookup 9"
    assert second.text() == "6: from all goto 7"
