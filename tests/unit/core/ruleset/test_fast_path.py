"""Which connections may take the fast path, between which devices, and what keeps them off it."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_interface
from typing import Any

import pytest

from polywan.config import Config
from polywan.core.net import FAMILIES, Family
from polywan.core.policy.operator import Verb
from polywan.core.resolved import Resolved, resolve
from polywan.core.ruleset.fast_path import FAST_TABLE, LACKING, fast_path, obstacle
from polywan.core.ruleset.model import HELD, Hook, NftTable
from polywan.core.state.effects import Apply, Effect, Hold, Log
from polywan.core.state.events import (
    AddressLost,
    ConfigLoaded,
    EventsLost,
    ForeignStateChanged,
    LinkRemoved,
    OperatorCommand,
    OwnStateChanged,
    ReadDone,
    Tick,
)
from polywan.core.state.rerouting import GATHER_TIME
from polywan.core.world.foreign_routing import Destination
from polywan.core.world.observed import Address, Link, Observed
from polywan.core.world.paths import reach
from polywan.core.world.world import World
from support.engine_world import Engine, config, world

IDS = {"u1": 1, "u2": 2}
LAN = Link(index=90, name="lan0", up=True, carrier=True)


def place(**more: Any) -> Observed:
    """Two uplinks and a network inside, on a kernel that has flowtables."""
    bare = world(2)
    lan = Address("lan0", ip_interface("192.168.15.1/24"))
    return replace(
        bare,
        links={**bare.links, "lan0": LAN, **more.pop("links", {})},
        addresses=(*bare.addresses, lan, *more.pop("addresses", ())),
        **{"flowtable": True, **more},
    )


def resolved(**more: Any) -> Resolved:
    return resolve(config(2, **more), IDS)


def table_of(observed: Observed, known: Resolved | None = None, serving: Any = None) -> NftTable | None:
    known = known or resolved()
    found = World(observed=observed, reach=reach(known, observed, {}), sysctls={})
    return fast_path(known, found, [(n, f) for n in IDS for f in FAMILIES] if serving is None else serving)


def devices(table: NftTable | None) -> tuple[str, ...]:
    assert table is not None
    return table.flowtables["fast"].devices


def texts(table: NftTable | None) -> list[str]:
    assert table is not None
    return [rule.text for rule in table.chains["forward"].rules]


def test_it_leads_between_the_uplinks_and_the_devices_inside() -> None:
    assert devices(table_of(place())) == ("wan1", "wan2", "lan0")


def test_a_connection_takes_it_where_its_mark_and_its_device_agree() -> None:
    rules = [text for text in texts(table_of(place())) if "flow add" in text]
    assert len(rules) == 4
    outgoing = next(text for text in rules if "ipv4" in text and "oifname . ct mark" in text)
    assert '{ "wan1" . 0x00000100, "wan2" . 0x00000200 }' in outgoing
    assert outgoing.endswith("meta mark set meta mark & 0xffffc0ff flow add @fast")


def test_a_connection_takes_it_once_a_packet_has_left_in_each_direction() -> None:
    table = table_of(place())
    assert table is not None
    assert all("ct id @asked ct id @answered" in text for text in texts(table) if "flow add" in text)
    first, *passed = [rule.text for rule in table.chains["postrouting"].rules]
    assert first == "ct state != established accept"
    assert len(passed) == 8
    assert [text for text in passed if "reply" in text] == [text for text in passed if "update @answered" in text]
    hooks = {name: chain.hook for name, chain in table.chains.items()}
    assert hooks == {"forward": Hook("filter", "forward", 300), "postrouting": Hook("filter", "postrouting", 2**31 - 1)}


def test_first_packets_and_answers_pass_it_over() -> None:
    assert texts(table_of(place()))[:2] == ["ct state != established accept", "ct direction reply accept"]


def test_an_uplink_that_does_not_serve_in_a_family_is_no_part_of_it_there() -> None:
    rules = texts(table_of(place(), serving=[("u1", Family.V4)]))
    assert not [text for text in rules if "ipv6" in text]
    assert not [text for text in rules if "wan2" in text]
    assert table_of(place(), serving=[]) is None


def test_nothing_is_made_where_the_kernel_cannot_or_nobody_wants_it() -> None:
    without = place(flowtable=False)
    assert table_of(without) is None
    assert obstacle(resolved(), without) == LACKING
    off = resolved(**{"global": {"fastpath": False}})
    assert table_of(place(), off) is None
    assert obstacle(off, place()) == ""


def test_nothing_is_made_where_another_program_has_to_see_every_packet() -> None:
    seen = place(watching="somebody has to see every packet")
    assert table_of(seen) is None
    assert obstacle(resolved(), seen) == "somebody has to see every packet"


@pytest.mark.parametrize(
    ("rule", "passed_over"),
    [
        ({"from": "192.168.1.0/24"}, ["ip saddr { 192.168.1.0/24 }", "ip daddr { 192.168.1.0/24 }"]),
        ({"to": "198.51.100.0/24"}, ["ip daddr { 198.51.100.0/24 }", "ip saddr { 198.51.100.0/24 }"]),
        ({"in_interface": "guest0"}, ['iifname { "guest0" }', 'oifname { "guest0" }']),
        (
            {"protocol": "tcp", "port": 25, "domains": "mail.example"},
            ["meta l4proto tcp tcp dport { 25 }", "meta l4proto tcp tcp sport { 25 }"],
        ),
    ],
)
def test_what_a_kill_switch_may_drop_is_judged_packet_by_packet(rule: dict[str, Any], passed_over: list[str]) -> None:
    known = resolved(rules=[{**rule, "only": ["u1"]}])
    found = [text for text in texts(table_of(place(), known)) if "flow add" not in text][2:]
    assert [text.removeprefix("meta nfproto ipv4 ") for text in found] == [f"{text} accept" for text in passed_over]


@pytest.mark.parametrize("rule", [{"time": "22:00-06:00"}, {"domains": "example.org"}, {"not": {"to": "10.0.0.0/8"}}])
def test_a_kill_switch_for_nearly_everything_leaves_nothing(rule: dict[str, Any]) -> None:
    known = resolved(rules=[{**rule, "only": ["u1"]}])
    assert table_of(place(), known) is None
    assert obstacle(known, place()) == "rule 1 has `only`, and may concern any packet"


def test_a_kill_switch_for_programs_of_the_box_concerns_no_forwarded_packet() -> None:
    known = resolved(rules=[{"user": 1000, "only": ["u1"]}])
    assert len([text for text in texts(table_of(place(), known)) if "flow add" not in text]) == 2


def test_a_device_that_carries_another_one_is_no_part_of_it() -> None:
    vlan = Link(index=91, name="lan0.10", up=True, carrier=True, kind="vlan", parent=LAN.index)
    inside = (Address("lan0.10", ip_interface("192.168.16.1/24")),)
    assert devices(table_of(place(links={"lan0.10": vlan}, addresses=inside))) == ("wan1", "wan2", "lan0.10")
    assert devices(table_of(place(sessions=frozenset({"lan0"})))) == ("wan1", "wan2")


@pytest.mark.parametrize("inner", [{"master": 5}, {}], ids=["a port of a bridge", "without an address"])
def test_a_device_that_carries_another_one_is_no_part_of_it_whatever_that_is_for(inner: dict[str, Any]) -> None:
    vlan = Link(index=91, name="lan0.10", up=True, carrier=True, kind="vlan", parent=LAN.index, **inner)
    assert devices(table_of(place(links={"lan0.10": vlan}))) == ("wan1", "wan2")
    assert devices(table_of(place(links={"lan0.10": replace(vlan, up=False)}))) == ("wan1", "wan2", "lan0")


def test_ports_and_devices_without_an_address_or_with_an_odd_name_are_no_part_of_it() -> None:
    port = Link(index=92, name="port0", up=True, carrier=True, master=5)
    odd = Link(index=93, name='x"y', up=True, carrier=True)
    bare = Link(index=94, name="bare0", up=True, carrier=True)
    down = Link(index=95, name="down0", up=False, carrier=False)
    links = {link.name: link for link in (port, odd, bare, down)}
    addresses = tuple(Address(name, ip_interface("10.9.0.1/24")) for name in ("port0", 'x"y', "down0"))
    assert devices(table_of(place(links=links, addresses=addresses))) == ("wan1", "wan2", "lan0")


def test_uplinks_come_first_where_there_are_more_devices_than_a_flowtable_takes() -> None:
    links = {f"x{n}": Link(index=1000 + n if n else 1, name=f"x{n}", up=True, carrier=True) for n in range(300)}
    addresses = tuple(Address(name, ip_interface("10.9.0.1/24")) for name in links)
    found = devices(table_of(place(links=links, addresses=addresses)))
    assert len(found) == 255
    assert found[:3] == ("wan1", "wan2", "x0")


def test_a_device_that_is_made_anew_makes_another_table() -> None:
    assert table_of(place()) == table_of(place())
    assert table_of(place()) != table_of(place(links={"lan0": replace(LAN, index=190)}))


def test_ipv6_stays_off_it_where_routes_may_change_unheard() -> None:
    large = {254: (Destination(prefix=Family.V6.default, kind="large"),)}
    rules = texts(table_of(place(tables=large)))
    assert not [text for text in rules if "ipv6" in text]
    assert [text for text in rules if "ipv4" in text and "flow add" in text]


def test_its_text_says_whose_it_is_and_how_far_it_reaches() -> None:
    table = table_of(place())
    assert table is not None
    text = table.render(FAST_TABLE, HELD)
    flows = 'hook ingress priority 2147483647; devices = { "wan1", "wan2", "lan0" }; counter;'
    assert f"\tflowtable fast {{\n\t\t{flows}\n\t}}\n" in text
    assert text.index("flags owner") < text.index("flowtable fast") < text.index("flow add @fast")


def held(effects: list[Effect]) -> list[NftTable | None]:
    return [effect.table for effect in effects if isinstance(effect, Hold) and effect.name == FAST_TABLE]


def soon(daemon: Engine, event: Any) -> list[Effect]:
    """Give the engine an event, and the time that its neighbours have to be told."""
    first = daemon.feed(event)
    daemon.now += GATHER_TIME
    return first + daemon.feed(Tick())


def engine(**more: Any) -> Engine:
    return Engine(Config.model_validate(config(2, **more)), place())


def test_a_lost_uplink_leaves_it_in_the_decision_that_finds_it_lost() -> None:
    daemon = engine()
    assert FAST_TABLE in daemon.state.decision.held
    (table,) = held(daemon.carrier(1, carrier=False))
    assert not [
        text for text in texts(table) if "wan1" in text and "oifname . ct mark" in text and "0x00000100" in text
    ]


def test_an_uplink_that_is_left_is_no_part_of_it() -> None:
    daemon = engine()
    (table,) = held(daemon.feed(OperatorCommand("u1", Verb.DRAIN, 600.0)))
    assert "0x00000100" not in "".join(texts(table))


@pytest.mark.parametrize("what", ["route", "rule", "nexthop", "filter", "elements", "chain"])
def test_every_connection_is_judged_anew_when_another_program_changes_what_decides(what: str) -> None:
    daemon = engine()
    before = daemon.state.decision.held[FAST_TABLE]
    assert held(soon(daemon, ForeignStateChanged(what, "lan0"))) == [before]


@pytest.mark.parametrize("what", ["address", "setting"])
def test_what_decides_nothing_leaves_connections_where_they_are(what: str) -> None:
    assert held(soon(engine(), ForeignStateChanged(what, "lan0"))) == []


def test_what_another_program_puts_into_our_main_table_leaves_them_as_well() -> None:
    assert held(soon(engine(), OwnStateChanged("table", "dnsmasq (pid 7)"))) == []
    assert len(held(soon(engine(), OwnStateChanged("rule", "ip (pid 7)")))) == 1


def test_many_changes_within_a_moment_are_two_for_connections() -> None:
    daemon = engine()
    assert len([t for _ in range(20) for t in held(soon(daemon, ForeignStateChanged("route")))]) == 1
    daemon.now += 0.3
    assert len(held(soon(daemon, ForeignStateChanged("route")))) == 1


def test_a_device_that_goes_has_the_table_written_once_and_after_the_plan() -> None:
    """Its routes and addresses are told first, each by itself."""
    daemon = engine()
    events = [ForeignStateChanged("route", "wan1"), AddressLost("wan1", Family.V4), LinkRemoved("wan1")]
    effects = [effect for event in events for effect in daemon.feed(event)]
    daemon.now += 0.01
    effects += daemon.feed(Tick())
    kinds = [
        type(e).__name__ for e in effects if isinstance(e, Apply) or (isinstance(e, Hold) and e.name == FAST_TABLE)
    ]
    assert kinds == ["Apply", "Hold"]


def test_routes_and_rules_of_ours_that_are_written_again_have_connections_judged_anew() -> None:
    daemon = engine()
    actual = daemon.state.known.actual
    assert actual is not None
    kinds = [type(e).__name__ for e in daemon.feed(ReadDone(place(), replace(actual, rules=frozenset())))]
    assert kinds.index("Apply") < kinds.index("Hold")


def test_a_file_that_asks_for_none_says_nothing_of_it() -> None:
    more: dict[str, Any] = {"global": {"fastpath": False}}
    off = config(2, **more)
    for before in (place(), place(flowtable=False)):
        daemon = Engine(config(2), before)
        effects = daemon.feed(ConfigLoaded(off))
        assert not [e for e in effects if isinstance(e, Log) and e.event.startswith("fastpath.")]


@pytest.mark.parametrize("event", [AddressLost("lan0", Family.V6), EventsLost()], ids=["an address", "anything"])
def test_what_was_lost_has_connections_judged_anew(event: Any) -> None:
    assert len(held(soon(engine(), event))) == 1


@pytest.mark.parametrize("what", ["route", "nexthop"])
def test_what_another_program_changes_of_our_routing_has_connections_judged_anew(what: str) -> None:
    assert len(held(soon(engine(), OwnStateChanged(what, "ip (pid 7)")))) == 1


def test_changes_that_go_on_put_off_nothing() -> None:
    daemon = engine()
    began, found = daemon.now, list[NftTable | None]()
    while not found:
        found = held(daemon.feed(ForeignStateChanged("route"))) + held(daemon.feed(Tick()))
        daemon.now += 0.001
    assert daemon.now - began < 2 * GATHER_TIME + 0.001


def test_a_read_that_finds_nothing_changed_leaves_connections_where_they_are() -> None:
    daemon = engine()
    actual = daemon.state.known.actual
    assert actual is not None
    assert held(daemon.feed(ReadDone(place(), actual))) == []
