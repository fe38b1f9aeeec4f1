"""The first route of the box's own packets, and the place of our rules before those of others."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address
from typing import Any

import pytest

from polywan.core.net import TABLE_LOCAL, UNBOUND_SOURCE, Family, MarkLayout, RulePriority, TableId
from polywan.core.plan.plan import describe, describe_route, describe_rule, diff
from polywan.core.resolved import resolve
from polywan.core.routing.ahead import Place, ahead_of
from polywan.core.routing.first_route import has_source, ours_to_balance
from polywan.core.world.foreign_routing import ForeignRule
from polywan.core.world.observed import DefaultRoute, Observed
from support.engine_world import Engine, config, link, world

LAYOUT = MarkLayout(0x3F00)


def routes(observed: Observed, table: int, **more: Any) -> list[str]:
    desired = Engine(config(2, **more), observed).state.decision.desired
    assert desired is not None
    return [describe_route(r) for r in desired.routes if r.table == table and r.family is Family.V4]


def foreign(priority: int, **more: Any) -> ForeignRule:
    return ForeignRule(family=Family.V4, priority=RulePriority(priority), table=TableId(77), **more)


def with_default(link_name: str, metric: int) -> Observed:
    observed = world(2)
    other = DefaultRoute(family=Family.V4, link=link_name, via=ip_address("192.0.2.1"), metric=metric)
    return replace(
        observed,
        links={**observed.links, link_name: replace(link(9), name=link_name)},
        defaults=(*observed.defaults, other),
    )


def test_tcp_gets_a_source_that_no_uplink_has_and_that_is_this_boxs() -> None:
    copies = [
        "-4 default via 100.64.1.1 dev wan1 src 192.0.0.8 table 6256 metric 1",
        "-4 default via 100.64.2.1 dev wan2 src 192.0.0.8 table 6256 metric 2",
    ]
    assert sorted(routes(world(2), 6256)) == copies
    assert routes(world(2), TABLE_LOCAL) == ["-4 local 192.0.0.8 dev lo table 255 metric 0"]


@pytest.mark.parametrize("dark", ["wan1", "wan2"])
def test_a_lost_carrier_writes_no_first_route(dark: str) -> None:
    observed = world(2)
    lost = observed.with_link(replace(observed.links[dark], carrier=False))
    assert sorted(routes(lost, 6256)) == sorted(routes(observed, 6256))


def test_nothing_is_copied_while_mains_default_leaves_by_no_uplink() -> None:
    observed = with_default("mgmt0", 50)
    assert routes(observed, 6256) == []
    assert not ours_to_balance(observed, {"wan1", "wan2"}, Family.V4)
    assert ours_to_balance(observed, {"wan1", "wan2"}, Family.V6)


def test_defaults_behind_one_that_leaves_elsewhere_are_not_copied_while_it_has_a_carrier() -> None:
    observed = with_default("mgmt0", 101)
    moved = (replace(d, metric={"wan1": 100, "wan2": 102}.get(d.link, d.metric)) for d in observed.defaults)
    observed = replace(observed, defaults=tuple(moved))
    assert [line.split()[5] for line in routes(observed, 6256)] == ["wan1"]
    dark = observed.with_link(replace(observed.links["mgmt0"], carrier=False))
    assert sorted(line.split()[5] for line in routes(dark, 6256)) == ["wan1", "wan2"]


def test_without_a_default_in_main_tcp_begins_as_by_the_fallback_table() -> None:
    observed = replace(world(2), defaults=())
    gateways = {f"u{n}": {"interface": f"wan{n}", "gateway": f"100.64.{n}.1"} for n in (1, 2)}
    assert sorted(line.split()[5] for line in routes(observed, 6256, uplinks=gateways)) == ["wan1", "wan2"]


@pytest.mark.parametrize(
    ("observed", "more"),
    [
        (replace(world(2), ipsec=True), {}),
        (world(2), {"uplinks": {"u1": {"interface": "wan1", "nat": "none"}, "u2": {"interface": "wan2"}}}),
        (world(2), {"rules": [{"from": "100.64.1.2", "uplink": "u2"}]}),
        (world(2), {"rules": [{"not": {"from": "100.64.0.0/16"}, "uplink": "u2"}]}),
    ],
    ids=["IPsec", "an uplink that translates nothing", "a rule by address", "a rule by network"],
)
def test_tcp_keeps_its_own_source_where_somebody_relies_on_it(observed: Observed, more: dict[str, Any]) -> None:
    assert not has_source(resolve(config(2, **more), {}), observed)
    assert not [line for line in routes(observed, 6256, **more) if str(UNBOUND_SOURCE) in line]


def test_a_rule_for_the_lan_says_nothing_about_the_box() -> None:
    assert has_source(resolve(config(2, rules=[{"from": "192.168.15.0/24", "uplink": "u2"}]), {}), world(2))


# ---- before others


def test_our_rules_stand_ahead_of_the_first_rule_of_others_before_the_band() -> None:
    found = ahead_of([foreign(5200), foreign(100), foreign(32000)], LAYOUT, {0x100}, 6000)
    assert found.place(Family.V4) == Place(99, 100)
    assert found.place(Family.V6) is None


def test_rules_behind_the_band_need_none_ahead() -> None:
    assert ahead_of([foreign(30000)], LAYOUT, {0x100}, 6000).places == ()


@pytest.mark.parametrize("priority", [0, 1])
def test_nobody_gets_ahead_of_the_first_priorities(priority: int) -> None:
    assert ahead_of([foreign(priority)], LAYOUT, {0x100}, 6000).places == ()


def test_nobody_gets_ahead_of_the_addresses_of_this_box() -> None:
    local = ForeignRule(family=Family.V4, priority=RulePriority(1000), table=TableId(255))
    assert ahead_of([local, foreign(500)], LAYOUT, {0x100}, 6000).places == ()
    assert ahead_of([local, foreign(2000)], LAYOUT, {0x100}, 6000).place(Family.V4) == Place(1999, 2000)


def test_whole_words_of_others_with_bits_of_ours_are_known_but_for_our_own_numbers() -> None:
    rules = [foreign(5000 + n, mark=(mark, 0xFFFF_FFFF)) for n, mark in enumerate((0xCA6C, 0x100, 0x1, 0x162))]
    rules.append(foreign(5009, mark=(0x300, 0xF00)))
    assert ahead_of(rules, LAYOUT, {0x100, 0x200}, 6000).words(Family.V4) == (0x162, 0xCA6C)


def test_what_is_marked_goes_past_others_and_their_own_words_do_not() -> None:
    observed = replace(world(2), rules=(foreign(5999, invert=True, mark=(0x162, 0xFFFF_FFFF)),))
    desired = Engine(config(2), observed).state.decision.desired
    assert desired is not None
    before = sorted(describe_rule(r) for r in desired.rules if r.priority < 6000)
    assert before == [
        "-4 5997: from all fwmark 0x162/0xffffffff goto 5999",
        "-4 5998: from all fwmark 0x100/0x3f00 goto 6000",
        "-4 5998: from all fwmark 0x200/0x3f00 goto 6000",
        "-4 5998: from all fwmark 0x3f00/0x3f00 goto 6000",
    ]
    assert [describe_rule(r) for r in desired.rules if r.priority == 6267] == [
        "-4 6267: from all fwmark 0x162/0xffffffff goto 6899"
    ]


def test_a_rule_that_only_goes_elsewhere_makes_room_for_its_successor_just_before() -> None:
    plain, locked = (
        Engine(config(2, rules=rules), world(2)).state for rules in ([], [{"from": "192.168.15.40", "only": ["u2"]}])
    )
    assert locked.decision.desired is not None
    assert plain.known.actual is not None
    ops = [describe(op) for op in diff(locked.decision.desired, plain.known.actual).ops]
    gone, come = (
        ops.index(f"{sign} rule  -4 6266: from all fwmark 0x0/0x3f00 goto {at}")
        for sign, at in (("-", 6899), ("+", 6867))
    )
    assert come == gone + 1
    assert [op for op in ops if op.startswith("- rule")] == [ops[gone], ops[gone].replace("-4", "-6")]
