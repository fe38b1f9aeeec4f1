"""Policy rules of others and the tables that they name, as every kernel shows and reports them."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_network

import pytest

from contract.kernels import LinuxWorld, World, events_of, linux_world
from polywan.core.net import FAMILIES, TABLE_MAIN, Family, RulePriority, TableId
from polywan.core.state.events import ForeignStateChanged
from polywan.core.world.foreign_routing import MOST_ROUTES, Destination, ForeignRule
from polywan.core.world.observed import Observed

SITE = {Family.V4: ip_network("192.0.2.0/24"), Family.V6: ip_network("2001:db8:77::/48")}
HOST = {Family.V4: ip_network("198.51.100.7/32"), Family.V6: ip_network("2001:db8:78::7/128")}


def named(observed: Observed) -> dict[TableId, tuple[Destination, ...]]:
    """Return what the tables know that rules name: main's IPv6 routes are read besides."""
    return {table: known for table, known in observed.tables.items() if table != TABLE_MAIN}


def plain(family: Family, table: int | None = 77, priority: int = 5000) -> ForeignRule:
    named = None if table is None else TableId(table)
    return ForeignRule(family=family, priority=RulePriority(priority), table=named)


def kinds(family: Family) -> list[ForeignRule]:
    rule = plain(family)
    nowhere = replace(rule, table=None)
    return [
        replace(rule, from_=SITE[family], to=HOST[family]),
        replace(rule, iif="up1", mark=(0x10, 0xFF)),
        replace(rule, mark=(0xCA6C, 0xFFFF_FFFF), invert=True),
        replace(rule, oif="absent0"),
        replace(rule, tos=0x10),
        replace(rule, ipproto=6, dport=(25, 25)),
        replace(rule, ipproto=17, sport=(1000, 2000), dport=(53, 53)),
        replace(rule, uidrange=(1000, 1999)),
        replace(rule, table=TableId(254), suppress_prefixlength=0),
        replace(rule, suppress_prefixlength=16, suppress_ifgroup=3),
        replace(nowhere, l3mdev=True),
        replace(nowhere, action="goto", goto=RulePriority(32766), from_=SITE[family]),
        replace(nowhere, action="goto", goto=RulePriority(9000), unresolved=True),
        replace(nowhere, action="nop", to=HOST[family]),
        replace(nowhere, action="blackhole", to=HOST[family]),
        replace(nowhere, action="unreachable", mark=(0x8_0000, 0xFF_0000)),
        replace(nowhere, action="prohibit", iif="up2"),
        replace(rule, table=TableId(2**32 - 2)),
        replace(rule, priority=RulePriority(0), from_=SITE[family]),
        replace(rule, table=TableId(254), priority=RulePriority(32766), ipproto=6),
    ]


KINDS = [rule for family in FAMILIES for rule in kinds(family)]


def to(prefix: str, kind: str = "unicast", link: str | None = "up1") -> Destination:
    return Destination(prefix=ip_network(prefix), kind=kind, link=link)  # type: ignore[arg-type]  # words of ip(8)


@pytest.mark.parametrize("rule", KINDS, ids=ForeignRule.text)
def test_a_rule_of_others_is_read_with_every_selector(world: World, rule: ForeignRule) -> None:
    world.add_foreign_rule(rule)
    assert world.kernel.observe().rules == (rule,)


def test_rules_are_read_in_the_order_in_which_they_are_tried(world: World) -> None:
    for priority in (300, 100, 200):
        world.add_foreign_rule(plain(Family.V4, priority=priority))
    assert [rule.priority for rule in world.kernel.observe().rules] == [100, 200, 300]


@pytest.mark.parametrize("family", FAMILIES)
def test_what_a_table_knows_is_read_when_a_rule_names_it(world: World, family: Family) -> None:
    site, host = str(SITE[family]), str(HOST[family])
    known = {to(site), to(str(family.default), link="up2"), to(host, "throw", None)}
    for destination in known:
        world.add_destination(77, destination)
    assert named(world.kernel.observe()) == {}
    world.add_foreign_rule(plain(family))
    tables = named(world.kernel.observe())
    assert set(tables[TableId(77)]) == known
    assert list(tables) == [77]


@pytest.mark.parametrize("kind", ["blackhole", "unreachable", "prohibit"])
def test_a_refusal_in_a_table_of_others_is_read(world: World, kind: str) -> None:
    world.add_foreign_rule(plain(Family.V4))
    world.add_destination(77, to("192.0.2.0/24", kind, None))
    assert named(world.kernel.observe()) == {77: (to("192.0.2.0/24", kind, None),)}


def test_a_table_is_read_for_the_family_of_its_rule_only(world: World) -> None:
    world.add_foreign_rule(plain(Family.V6))
    world.add_destination(77, to("192.0.2.0/24"))
    assert named(world.kernel.observe()) == {}


def test_a_route_in_a_table_that_a_rule_names_is_reported(world: World) -> None:
    world.add_foreign_rule(plain(Family.V4))
    world.kernel.observe()
    assert ForeignStateChanged("route") in events_of(world, lambda: world.add_destination(77, to("192.0.2.0/24")))


def test_a_route_in_a_table_that_no_rule_names_is_not_reported(world: World) -> None:
    world.add_foreign_rule(plain(Family.V4))
    world.kernel.observe()
    assert events_of(world, lambda: world.add_destination(78, to("192.0.2.0/24"))) == []


@pytest.fixture
def linux() -> Iterator[LinuxWorld]:
    with linux_world() as world:
        yield world


def ip(words: str, stdin: str | None = None) -> None:
    subprocess.run(["ip", *words.split()], check=True, capture_output=True, input=stdin, text=True)


def reads(linux: LinuxWorld) -> Observed:
    return linux.kernel.observe()


@pytest.mark.netns
def test_of_several_routes_to_a_prefix_the_best_metric_counts(linux: LinuxWorld) -> None:
    linux.add_foreign_rule(plain(Family.V4))
    ip("route add unreachable default metric 9000 table 77")
    ip("route add default dev up2 metric 50 table 77")
    assert named(reads(linux)) == {77: (to("0.0.0.0/0", link="up2"),)}


@pytest.mark.netns
def test_a_route_that_the_kernel_passes_over_for_want_of_a_carrier_does_not_count(linux: LinuxWorld) -> None:
    linux.add_foreign_rule(plain(Family.V4))
    ip("route add default dev up2 table 77")
    subprocess.run(["sysctl", "-qw", "net.ipv4.conf.up2.ignore_routes_with_linkdown=1"], check=True)
    assert named(reads(linux)) != {}
    linux.set_carrier("up2", carrier=False)
    # The kernel tells its routes of a carrier in a while, from a queue of its own.
    until = time.monotonic() + 5.0
    while named(reads(linux)) and time.monotonic() < until:
        time.sleep(0.01)
    assert named(reads(linux)) == {}


@pytest.mark.netns
@pytest.mark.parametrize("family", FAMILIES)
def test_a_table_of_many_routes_is_read_up_to_a_limit_and_its_default_still_counts(
    linux: LinuxWorld, family: Family
) -> None:
    linux.add_foreign_rule(plain(family))
    prefix = "10.{}.{}.0/24" if family is Family.V4 else "2001:db8:{:x}:{:x}::/64"
    lines = [f"route add {prefix.format(n >> 8, n & 255)} dev up1 table 77" for n in range(MOST_ROUTES + 8)]
    ip(f"-{family} -batch -", "\n".join([*lines, f"route add {family.default} dev up2 table 77"]))
    large = Destination(prefix=family.default, kind="large")
    assert named(reads(linux)) == {77: (to(str(family.default), link="up2"), large)}
    another = "10.99.99.0/24" if family is Family.V4 else "2001:db8:99:99::/64"
    assert events_of(linux, lambda: ip(f"-{family} route add {another} dev up1 table 77")) == []


@pytest.mark.netns
def test_a_table_that_did_not_change_is_the_same_object(linux: LinuxWorld) -> None:
    linux.add_foreign_rule(plain(Family.V4))
    ip("route add 192.0.2.0/24 dev up2 table 77")
    before = reads(linux).tables[TableId(77)]
    assert reads(linux).tables[TableId(77)] is before
    ip("route add 198.51.100.0/24 dev up2 table 77")
    assert set(reads(linux).tables[TableId(77)]) == {*before, to("198.51.100.0/24", link="up2")}
