"""Questions and their answers: what `polywan why` understands, decides and says."""

from __future__ import annotations

import json
from dataclasses import replace
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from polywan.cli import group
from polywan.config import Match
from polywan.core.net import TABLE_MAIN, Family, RulePriority, TableId, family_of
from polywan.core.packet import Packet
from polywan.core.routing.routes import first_table
from polywan.core.state.events import ReadDone
from polywan.core.trace import explain
from polywan.core.trace.model import Trace, TraceInput
from polywan.core.trace.question import Question, QuestionError, parse
from polywan.core.trace.route_query import RouteAnswer, RouteQuery
from polywan.core.trace.walk import trace
from polywan.core.world.foreign_chains import ForwardChain
from polywan.core.world.foreign_routing import Destination, ForeignRule
from polywan.core.world.lookups import ControlGroup, Lookups
from polywan.daemon.api.why import live, recorded, trace_input_of
from polywan.kernel.fake.kernel import FakeKernel
from support.engine_world import Engine, config, link, world

CASES = Path(__file__).parents[3] / "golden/cases"
MAIN = RouteAnswer(kind="unicast", link="wan1", via=ip_address("100.64.1.1"), table=TABLE_MAIN, prefix=0)
FIRST = replace(MAIN, table=first_table(TableId(6000)))
"""What the box's own packets meet in place of main's default."""


def trace_input(count: int = 2, **more: Any) -> TraceInput:
    return trace_input_of(Engine(config(count, **more), world(count)).state)


def packet(**more: Any) -> Packet:
    fields: dict[str, Any] = {
        "family": Family.V4,
        "source": ip_address("192.168.15.10"),
        "destination": ip_address("203.0.113.10"),
        "protocol": 6,
        "port": 443,
        "in_interface": "lan0",
    }
    return Packet(**(fields | more))


def own(**more: Any) -> Packet:
    return packet(**({"source": ip_address("100.64.1.2"), "in_interface": None} | more))


def lines(traced: Trace) -> str:
    return "\n".join(explain.describe(traced))


# ---- the question


@pytest.mark.parametrize(
    ("target", "address", "port"),
    [
        ("203.0.113.10", "203.0.113.10", None),
        ("203.0.113.10:443", "203.0.113.10", 443),
        ("2001:db8::1", "2001:db8::1", None),
        ("[2001:db8::1]", "2001:db8::1", None),
        ("[2001:db8::1]:443", "2001:db8::1", 443),
    ],
)
def test_a_destination_may_carry_a_port(target: str, address: str, port: int | None) -> None:
    asked = parse({"to": target})
    assert (str(asked.destination), asked.port) == (address, port)


def test_everything_that_rules_look_at_can_be_said() -> None:
    asked = parse(
        {
            "from": "192.168.15.10",
            "to": "203.0.113.10:53",
            "protocol": "udp",
            "source_port": "40000",
            "in_interface": "lan0",
            "mac": "02-00-00-00-00-0A",
            "dscp": "ef",
            "mark": "0x10",
            "cgroup": "/system.slice/a.service/",
            "user": "7",
            "group": "8",
            "at": "2026-03-01T08:00+01:00",
        }
    )
    assert asked == Question(
        source=ip_address("192.168.15.10"),
        destination=ip_address("203.0.113.10"),
        protocol=17,
        source_port=40000,
        port=53,
        in_interface="lan0",
        user=7,
        group=8,
        cgroup="system.slice/a.service",
        mac="02:00:00:00:00:0a",
        dscp=46,
        mark=0x10,
        at=1772348400,
    )


@pytest.mark.parametrize(("family", "number"), [("203.0.113.10", 1), ("2001:db8::1", 58)])
def test_icmp_is_the_familys_own(family: str, number: int) -> None:
    assert parse({"to": family, "protocol": "icmp"}).protocol == number


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({}, "a destination is needed"),
        ({"to": "example.com"}, "names are not looked up"),
        ({"to": "203.0.113.10:99999"}, "from 0 to 65535"),
        ({"to": "203.0.113.10:1_0"}, "expected a number"),
        ({"to": "203.0.113.10:" + "9" * 5000}, "from 0 to 65535"),
        ({"to": "fe80::1%eth0"}, "remove the % part"),
        ({"to": "203.0.113.10", "from": "2001:db8::1"}, "different address families"),
        ({"to": "203.0.113.10:1", "protocol": "gre"}, "has no ports"),
        ({"to": "203.0.113.10", "protocol": "smoke"}, "another name or a number"),
        ({"to": "203.0.113.10", "from": "-", "in_interface": "lan0"}, "do not apply to the box's own connections"),
        ({"to": "203.0.113.10", "in_interface": "a/b", "from": "10.0.0.1"}, "expected a network device"),
        ({"to": "203.0.113.10", "mac": "nonsense", "from": "10.0.0.1"}, "expected a MAC address"),
        ({"to": "203.0.113.10", "dscp": "64"}, "from 0 to 63"),
        ({"to": "203.0.113.10", "at": "2026-03-01T08:00"}, "with its offset"),
        ({"to": "203.0.113.10", "colour": "red"}, "unknown: colour"),
    ],
)
def test_what_makes_no_sense_is_refused_with_what_was_expected(words: dict[str, str], message: str) -> None:
    with pytest.raises(QuestionError, match=message):
        parse(words)


# ---- before the rules


def seen(there: TraceInput, **more: Any) -> TraceInput:
    """The scene with more in the world."""
    return replace(there, observed=replace(there.observed, **more))


def by_others(link: str = "tun0", **selectors: Any) -> dict[str, Any]:
    """A world in which another program's rule leads to a default by a link."""
    fields: dict[str, Any] = {"family": Family.V4, "priority": RulePriority(100), "table": TableId(77)}
    to = Destination(prefix=ip_network("0.0.0.0/0"), link=link)
    return {"rules": (ForeignRule(**(fields | selectors)),), "tables": {TableId(77): (to,)}}


def test_where_main_leads_by_no_uplink_it_is_not_ours() -> None:
    there = trace_input()
    main = [replace(d, link="tun0") for d in there.observed.defaults]
    links = {**there.observed.links, "tun0": replace(there.observed.links["wan1"], name="tun0", index=9)}
    elsewhere = replace(seen(there, defaults=tuple(main), links=links), without_us=replace(MAIN, link="tun0"))
    traced = trace(elsewhere, packet())
    assert (traced.outcome, traced.link) == ("main", "tun0")
    assert "which is not an uplink" in traced.reason


@pytest.mark.parametrize("link", ["tun0", "wan2"])
@pytest.mark.parametrize("asked", [True, False])
@pytest.mark.parametrize("packet", [packet(), own(mark=0x40000)])
def test_what_a_rule_of_others_decides_is_left_alone_and_the_rule_is_named(
    packet: Packet, link: str, asked: bool
) -> None:
    there = seen(trace_input(), **by_others(link))
    if asked:
        there = replace(there, without_us=replace(MAIN, link=link, table=TableId(77)))
    traced = trace(there, packet)
    assert (traced.outcome, traced.link, traced.specific, traced.egresses) == ("main", link, False, ())
    assert "rule of another program: 100: from all lookup 77" in lines(traced)
    assert lines(traced).endswith(f"leaves by {link}, as without polywan")


def test_a_rule_of_others_that_does_not_match_changes_nothing() -> None:
    there = seen(trace_input(), **by_others(ipproto=17))
    assert trace(there, packet()).candidates == {"u1", "u2"}
    assert trace(there, packet(protocol=17)).outcome == "main"


@pytest.mark.parametrize(("action", "outcome"), [("unreachable", "refused"), ("blackhole", "dropped")])
def test_what_a_rule_of_others_refuses_is_refused_by_it(action: str, outcome: str) -> None:
    there = seen(trace_input(), **by_others(action=action, table=None))
    traced = trace(there, packet())
    assert traced.outcome == outcome
    assert f"rule of another program: 100: from all {action}" in lines(traced)


def test_another_programs_mark_with_bits_of_ours_is_left_alone_unless_a_rule_names_it() -> None:
    first_packet = packet(mark=0xCA6C)
    traced = trace(replace(trace_input(), without_us=MAIN), first_packet)
    assert (traced.outcome, traced.link) == ("main", "wan1")
    assert "0xca6c of another program" in traced.reason
    named = seen(trace_input(), **by_others(mark=(0xCA6C, 0xFFFF_FFFF), invert=True))
    assert trace(replace(named, without_us=MAIN), first_packet).candidates == {"u1", "u2"}
    assert explain.queries(named, trace(replace(named, without_us=MAIN), first_packet))["u2"].mark == 0xC26C


def test_another_programs_mark_with_bits_of_ours_is_refused_where_a_rule_refuses_it() -> None:
    there = seen(trace_input(), **by_others(action="prohibit", table=None, ipproto=6))
    traced = trace(replace(there, without_us=RouteAnswer(kind="prohibit")), packet(mark=0xCA6C))
    assert (traced.outcome, traced.reason) == ("refused", "rule of another program: 100: from all ipproto tcp prohibit")


def test_a_dhcp_client_is_left_alone() -> None:
    asks = own(protocol=17, source_port=68, port=67)
    traced = trace(replace(trace_input(), without_us=FIRST), asks)
    assert (traced.outcome, traced.link) == ("main", "wan1")


def test_the_first_route_of_the_box_is_asked_for_without_the_source_that_it_will_get() -> None:
    there = trace_input()
    assert explain.first_query(own(), there).source is None
    assert explain.first_query(own(bound=True), there).source == own().source
    assert explain.first_query(packet(), there).source == packet().source


def test_tcp_over_ipv4_asks_again_with_its_source() -> None:
    there = trace_input()
    again = explain.second_query(own(), there)
    assert again is not None
    assert again.source == own().source
    assert explain.second_query(own(protocol=17), there) is None
    assert explain.second_query(own(bound=True), there) is None
    assert explain.second_query(packet(), there) is None


BOUND_1 = replace(MAIN, table=TableId(6001))


def test_udp_that_may_be_bound_to_mains_uplink_stays_there_unless_a_rule_matches() -> None:
    asks = own(protocol=17, port=53, bound=True)
    traced = trace(replace(trace_input(), without_us=BOUND_1), asks)
    assert (traced.outcome, set(traced.candidates)) == ("bound", {"u1"})
    assert "it stays there while that uplink works" in traced.reason
    by_rule = replace(trace_input(rules=[{"protocol": "udp", "uplink": "u2"}]), without_us=BOUND_1)
    assert trace(by_rule, asks).candidates == {"u2"}


def test_udp_that_is_bound_to_nothing_cannot_be_told_apart_and_moves_when_that_uplink_dies() -> None:
    asks = own(protocol=17, port=53)
    there = replace(trace_input(), without_us=MAIN)
    assert (trace(there, asks).outcome, set(trace(there, asks).candidates)) == ("bound", {"u1"})
    lost = replace(there, selection=replace(there.selection, down=frozenset({("u1", Family.V4)})))
    assert trace(lost, asks).outcome == "uplink"


def test_tcp_that_is_bound_to_mains_uplink_stays_there_where_unbound_tcp_has_a_source_of_its_own() -> None:
    asks = own(bound=True)
    assert trace(replace(trace_input(), without_us=BOUND_1), asks).outcome == "bound"
    uplinks = {"u1": {"interface": "wan1", "nat": "none"}, "u2": {"interface": "wan2"}}
    doubtful = replace(trace_input(uplinks=uplinks), without_us=BOUND_1)
    assert trace(doubtful, asks).candidates == {"u1", "u2"}


def test_a_rule_from_an_address_does_not_match_before_there_is_one() -> None:
    there = seen(trace_input(), **by_others(from_=ip_network("100.64.1.2/32")))
    assert trace(there, own(protocol=17, port=53)).outcome == "bound"
    assert trace(there, own(protocol=17, port=53, bound=True)).outcome == "main"


def test_an_ipv6_socket_that_is_bound_to_another_uplink_than_mains_is_told_as_such() -> None:
    bound = RouteAnswer(kind="unicast", link="wan2", table=TableId(6002), prefix=0)
    ends = {"source": ip_address("2001:db8:64:2::2"), "destination": ip_address("2001:db8:203::10")}
    traced = trace(replace(trace_input(), without_us=bound), own(family=Family.V6, bound=True, **ends))
    assert (traced.outcome, set(traced.candidates)) == ("bound", {"u2"})


def test_without_any_way_an_uplink_may_know_one() -> None:
    traced = trace(replace(trace_input(), without_us=RouteAnswer(kind="none")), packet())
    assert traced.candidates == {"u1", "u2"}


def test_the_box_cannot_even_begin_without_a_route() -> None:
    traced = trace(replace(trace_input(), without_us=RouteAnswer(kind="none")), own())
    assert traced.outcome == "refused"


def test_a_first_route_beside_mains_default_shows_a_bound_socket() -> None:
    bound = RouteAnswer(kind="unicast", link="wan2", table=TableId(6002), prefix=0)
    traced = trace(replace(trace_input(), without_us=bound), own())
    assert (traced.outcome, set(traced.candidates), traced.specific) == ("bound", {"u2"}, False)


@pytest.mark.parametrize("packet", [packet(), own()])
def test_a_specific_route_of_main_is_left_alone(packet: Packet) -> None:
    traced = trace(replace(trace_input(), without_us=replace(MAIN, prefix=24)), packet)
    assert (traced.outcome, traced.specific, traced.link, traced.egresses) == ("main", True, "wan1", ())
    assert "specific route by wan1" in lines(traced)


def test_a_specific_route_of_somebody_elses_table_counts_only_where_a_rule_leads_there() -> None:
    there = replace(trace_input(), without_us=replace(MAIN, table=TableId(77), prefix=24))
    assert trace(there, packet()).candidates == {"u1", "u2"}
    assert trace(seen(there, **by_others("wan1")), packet()).outcome == "main"


def test_programs_of_exec_leave_by_their_uplink_or_not_at_all() -> None:
    groups = {name: ControlGroup(name, 1, 1) for name in ("polywan", "polywan/u2")}
    there = replace(trace_input(), lookups=Lookups(cgroups=groups), without_us=FIRST)
    assert trace(there, own(cgroup="polywan/u2/shell")).candidates == {"u2"}
    assert trace(there, own(cgroup="polywan/u1")).outcome == "refused"
    assert trace(there, own(cgroup="elsewhere")).candidates == {"u1", "u2"}


# ---- rules and policies


def test_each_rule_is_told_with_the_condition_that_failed_and_what_was_there() -> None:
    rules = [
        {"protocol": "udp", "action": "block"},
        {"dscp": "ef", "not": {"to": "203.0.113.0/24"}, "action": "block"},
        {"uplink": "u2"},
    ]
    text = lines(trace(trace_input(rules=rules), packet(dscp=46)))
    assert "rule 1: no, protocol = udp is needed (here: tcp)" in text
    assert "rule 2: no, to = 203.0.113.0/24 is excluded (here: 203.0.113.10)" in text
    assert "rule 3: matches\n  u2, or policy default without it (weighted)" in text


@pytest.mark.parametrize(
    ("resort", "outcome"),
    [("unreachable", "refused"), ("prohibit", "refused"), ("blackhole", "dropped"), ("main", "main")],
)
def test_with_nobody_left_the_last_resort_is_told(resort: str, outcome: str) -> None:
    policies = {"default": {"tiers": [["u1", "u2"]], "last_resort": resort}}
    daemon = Engine(config(2, policies=policies), world(2))
    daemon.carrier(1, carrier=False)
    daemon.carrier(2, carrier=False)
    traced = trace(replace(trace_input_of(daemon.state), without_us=MAIN), packet())
    assert traced.outcome == outcome
    assert resort in traced.reason


def test_a_kept_client_stays_while_its_uplink_serves() -> None:
    policies = {"default": {"tiers": [["u1", "u2"]], "affinity": {}}}
    there = replace(trace_input(policies=policies), affinity={"default": "u2"})
    traced = trace(there, packet())
    assert (traced.affinity, set(traced.candidates)) == (True, {"u2"})
    gone = replace(there, affinity={"default": "u9"})
    assert trace(gone, packet()).candidates == {"u1", "u2"}


def test_a_hash_that_needs_ports_says_so_without_them() -> None:
    policies = {"default": {"tiers": [["u1", "u2"]], "algorithm": "connection"}}
    traced = trace(trace_input(policies=policies), packet())
    assert len(traced.egresses) == 2
    assert "--source-port" in traced.notes[0]
    assert len(trace(trace_input(policies=policies), packet(source_port=40000)).egresses) == 1
    assert "cannot be known" in trace(trace_input(policies=policies), packet(protocol=1, port=None)).notes[0]


@pytest.mark.parametrize(("source", "uplink"), [("192.168.15.10", "u2"), ("192.168.15.11", "u1")])
def test_even_and_odd_sources_follow_the_order_of_the_tier(source: str, uplink: str) -> None:
    policies = {"default": {"tiers": [["u2", "u1"]], "algorithm": "source-parity"}}
    assert trace(trace_input(policies=policies), packet(source=ip_address(source))).candidates == {uplink}


def test_the_kill_switch_also_meets_what_main_sends_elsewhere() -> None:
    there = trace_input(rules=[{"only": ["u2"]}])
    assert trace(there, packet()).candidates == {"u2"}
    assert trace(replace(there, without_us=replace(MAIN, prefix=24)), packet()).outcome == "dropped"
    inside = RouteAnswer(kind="unicast", link="lan1", table=TABLE_MAIN, prefix=24)
    assert trace(replace(there, without_us=inside), packet()).outcome == "main"


# ---- the kernel's word


def proof(traced: Trace, there: TraceInput, answer: RouteAnswer) -> explain.Proof:
    return explain.compare(there, traced, dict.fromkeys(explain.queries(there, traced), answer))[0]


def test_the_question_without_us_carries_the_marks_of_others_as_they_are_and_none_of_ours() -> None:
    there = trace_input()
    assert explain.first_query(packet(mark=0x10000), there).mark == 0x10000
    assert explain.first_query(packet(mark=0xCA6C), there).mark == 0xCA6C
    assert explain.first_query(own(mark=0x100), there).mark == 0


def test_each_way_is_asked_for_with_its_mark() -> None:
    there = trace_input()
    asked = explain.queries(there, trace(there, packet(mark=0x10000)))
    assert {name: query.mark for name, query in asked.items()} == {"u1": 0x10100, "u2": 0x10200}


@pytest.mark.parametrize(
    ("answer", "trouble"),
    [
        (RouteAnswer(kind="unicast", link="wan1", table=TableId(6001)), ""),
        (RouteAnswer(kind="unicast", link="wan2", table=TableId(6001)), "it would send it by wan2"),
        (RouteAnswer(kind="unicast", link="wan1", table=TABLE_MAIN), "by table 254, not 6001"),
        (RouteAnswer(kind="blackhole"), "it would not forward it (blackhole)"),
    ],
)
def test_the_kernel_is_held_against_the_trace(answer: RouteAnswer, trouble: str) -> None:
    there = trace_input(1)
    found = proof(trace(there, packet()), there, answer)
    assert trouble in found.trouble
    assert found.agrees is (not trouble)


def test_a_link_without_a_path_is_expected_to_lead_nowhere() -> None:
    daemon = Engine(config(1), world(1))
    daemon.carrier(1, carrier=False)
    there = replace(trace_input_of(daemon.state), without_us=MAIN)
    traced = trace(there, own(mark=0x100))
    assert traced.candidates == {"u1"}
    assert proof(traced, there, RouteAnswer(kind="blackhole")).agrees


def test_a_disagreement_stands_out() -> None:
    there = trace_input(1)
    traced = trace(there, packet())
    found = proof(traced, there, RouteAnswer(kind="unicast", link="eth7", table=TABLE_MAIN))
    assert "  THE KERNEL DISAGREES about u1: it would send it by eth7" in "\n".join(explain.describe(traced, (found,)))
    assert explain.document(traced, (found,)).agrees is False
    assert explain.document(traced).agrees is None


# ---- the whole


def machine() -> tuple[Engine, FakeKernel]:
    observed = world(2)
    kernel = FakeKernel(links=observed.links.values(), addresses=observed.addresses, defaults=observed.defaults)
    daemon = Engine(config(2), observed)
    for plan in daemon.plans():
        kernel.apply(plan.plan)
    return daemon, kernel


@pytest.mark.parametrize("target", ["203.0.113.10", "2001:db8:203::10"])
def test_the_source_of_the_box_is_the_one_that_routing_takes(target: str) -> None:
    daemon, kernel = machine()
    traced = live(daemon.state, kernel, {"to": target}, now=0)
    assert traced.source in ("192.0.0.8", "2001:db8:64:1::2")
    assert traced.agrees is True
    assert [uplink.name for uplink in traced.uplinks] == ["u1", "u2"]


@pytest.mark.parametrize("target", ["192.0.2.10", "2001:db8:192::10"])
@pytest.mark.parametrize("device", [None, "lan0"])
@pytest.mark.parametrize("mark", [0, 0x0700, 0x8000])
def test_a_packet_without_a_mark_of_ours_passes_all_our_rules(target: str, device: str | None, mark: int) -> None:
    observed = world(2)
    kernel = FakeKernel(
        links=[*observed.links.values(), replace(observed.links["wan1"], name="lan0", index=9)],
        addresses=observed.addresses,
        defaults=observed.defaults,
    )
    daemon = Engine(config(2), observed)
    for plan in daemon.plans():
        kernel.apply(plan.plan)
    to = ip_address(target)
    asked = kernel.ask(RouteQuery(family=family_of(to), destination=to, mark=mark, in_interface=device))
    assert (asked.kind, asked.link, asked.table) == ("unicast", "wan1", TABLE_MAIN)


def test_an_unknown_device_is_named_beside_those_there_are() -> None:
    daemon, kernel = machine()
    with pytest.raises(QuestionError, match="there is no device lan7; devices: wan1, wan2"):
        live(daemon.state, kernel, {"from": "192.168.15.10", "to": "203.0.113.10", "in_interface": "lan7"}, now=0)


def test_a_chain_of_others_that_may_drop_is_named_since_routing_cannot_tell() -> None:
    daemon, kernel = machine()
    kernel.chains = [ForwardChain("ip", "filter", "FORWARD")]
    kernel.set_link(replace(link(9), name="lan0"))
    daemon.feed(ReadDone(kernel.observe(), kernel.read([])))
    words = {"to": "203.0.113.10", "from": "192.168.15.10", "in_interface": "lan0"}
    traced = live(daemon.state, kernel, words, now=0)
    assert any(note.startswith("chain FORWARD of table ip filter has policy drop") for note in traced.notes)
    assert not any("FORWARD" in note for note in live(daemon.state, kernel, {"to": "203.0.113.10"}, now=0).notes)


def test_before_the_first_decision_there_is_no_answer() -> None:
    daemon, kernel = machine()
    with pytest.raises(QuestionError, match="no decision yet"):
        live(
            replace(daemon.state, decision=replace(daemon.state.decision, selection=None)),
            kernel,
            {"to": "203.0.113.10"},
            now=0,
        )


def test_a_recording_has_no_live_connections() -> None:
    with pytest.raises(QuestionError, match="no live connections"):
        recorded(Engine(config(1), world(1)).state, {"to": "203.0.113.10", "flow": "1"}, now=0)


def ask(*argv: str) -> Any:
    case = CASES / "two_uplinks_share_by_weight"
    files = [
        "--config",
        str(case / "config.toml"),
        "--observed",
        str(case / "observed.json"),
        "--state-dir",
        "/nowhere",
    ]
    return CliRunner().invoke(group, ["why", *argv, *files])


def test_files_alone_are_enough() -> None:
    shown = ask("-", "203.0.113.10:443")
    assert shown.exit_code == 0, shown.output
    assert shown.output.splitlines()[-1] == "leaves by fibre (75 %) or lte (25 %)"


def test_json_has_the_facts_and_the_lines() -> None:
    traced = json.loads(ask("-", "203.0.113.10", "--json").output)
    assert (traced["schema"], traced["outcome"], traced["agrees"]) == (1, "uplink", None)
    assert [(uplink["name"], uplink["share"]) for uplink in traced["uplinks"]] == [("fibre", 0.75), ("lte", 0.25)]
    assert traced["text"][-1] == "leaves by fibre (75 %) or lte (25 %)"


@pytest.mark.parametrize(
    "argv",
    [("-", "example.com"), ("-", "203.0.113.10", "--at", "noon"), ("-", "203.0.113.10", "--user", "no such user")],
)
def test_a_bad_question_is_wrong_use(argv: tuple[str, ...]) -> None:
    assert ask(*argv).exit_code == 2


def test_a_condition_of_any_kind_that_does_not_hold_is_told_with_what_the_packet_has() -> None:
    fields = {
        "from": "10.0.0.0/8",
        "to": "198.51.100.0/24",
        "in_interface": "lan9",
        "protocol": "udp",
        "source_port": 53,
        "port": 80,
        "dscp": "ef",
        "mac": "02:00:00:00:00:01",
        "fwmark": "0x1/0xff",
        "user": 1000,
        "group": 1000,
        "cgroup": "a.slice",
        "domains": "example.com",
        "list": "/etc/list",
        "time": "mon 00:00-00:01",
        "family": "ipv6",
    }
    assert {f.alias or name for name, f in Match.model_fields.items()} == set(fields)
    needs = {"source_port": {"protocol": "tcp"}, "port": {"protocol": "tcp"}}
    rules = [{field: value, "uplink": "u1", **needs.get(field, {})} for field, value in fields.items()]
    tried = trace(trace_input(rules=rules), packet(source_port=1024, at=200_000.0)).tried
    assert [result.failed.split(" ")[0] for result in tried if result.failed] == list(fields)
