"""What holds for every trace, whatever the file, the world and the packet."""

from __future__ import annotations

import json
from dataclasses import replace
from ipaddress import ip_address
from typing import Any, get_args

from hypothesis import given
from hypothesis import strategies as st

from polywan.api.codec import decode, encode
from polywan.api.why import Explanation
from polywan.config.model.policy import Algorithm
from polywan.core.net import FAMILIES, Family, IPAddress, TableId
from polywan.core.packet import Packet
from polywan.core.ruleset.policies import slots_of
from polywan.core.trace import explain
from polywan.core.trace.route_query import RouteAnswer
from polywan.core.trace.walk import trace
from polywan.daemon.api.why import trace_input_of
from support.engine_world import Engine, config, world

_names = st.permutations(["u1", "u2", "u3"])
_ports = st.none() | st.integers(0, 65535)


@st.composite
def _policies(draw: st.DrawFn) -> dict[str, Any]:
    names, cut = draw(_names), draw(st.integers(1, 3))
    tiers = [tier for tier in (names[:cut], names[cut:]) if tier]
    affinity = draw(st.sampled_from([None, {"key": "source"}, {"key": "source-destination"}]))
    algorithm = draw(st.sampled_from(get_args(Algorithm)))
    last = draw(st.sampled_from(["unreachable", "prohibit", "blackhole", "main"]))
    return {"default": {"algorithm": algorithm, "tiers": tiers, "affinity": affinity, "last_resort": last}}


_rules = st.lists(
    st.sampled_from(
        [
            {"uplink": "u2", "protocol": "udp"},
            {"only": ["u3"], "dscp": "ef"},
            {"action": "block", "to": "203.0.113.0/24"},
            {"action": "bypass", "family": "ipv6", "not": {"protocol": "tcp"}},
            {"policy": "default", "in_interface": "lan0"},
        ]
    ),
    max_size=3,
)


@st.composite
def _packets(draw: st.DrawFn) -> Packet:
    family = draw(st.sampled_from(FAMILIES))
    addresses = st.ip_addresses(v=4) if family is Family.V4 else st.ip_addresses(v=6)
    return Packet(
        family=family,
        source=draw(addresses),
        destination=draw(addresses),
        protocol=draw(st.sampled_from([1, 6, 17, 47, 58, 132])),
        source_port=draw(_ports),
        port=draw(_ports),
        in_interface=draw(st.sampled_from([None, "lan0", "wan1", "lo"])),
        dscp=draw(st.sampled_from([0, 46])),
        mark=draw(st.sampled_from([0, 0x10000, 0x100, 0x3F00])),
        at=draw(st.integers(0, 1 << 33)),
    )


_answers = st.builds(
    RouteAnswer,
    kind=st.sampled_from(["unicast", "local", "broadcast", "multicast", "unreachable", "blackhole", "none"]),
    link=st.sampled_from([None, "wan1", "wan2", "lan0"]),
    table=st.sampled_from([TableId(0), TableId(254), TableId(6001)]),
    prefix=st.none() | st.integers(0, 128),
)


@given(
    policies=_policies(),
    rules=_rules,
    packet=_packets(),
    first=st.none() | _answers,
    second=_answers,
    dead=st.sets(st.sampled_from([1, 2, 3])),
)
def test_every_packet_has_a_story_that_can_be_told(
    policies: dict[str, Any],
    rules: list[dict[str, Any]],
    packet: Packet,
    first: RouteAnswer | None,
    second: RouteAnswer,
    dead: set[int],
) -> None:
    daemon = Engine(config(3, policies=policies, rules=rules), world(3))
    for number in dead:
        daemon.carrier(number, carrier=False)
    inputs = replace(trace_input_of(daemon.state), without_us=first)
    traced = trace(inputs, packet)
    assert traced == trace(inputs, packet)
    assert bool(traced.egresses) is (traced.outcome in ("uplink", "bound", "outside"))
    assert traced.candidates <= inputs.config.uplinks.keys()
    if traced.egresses:
        assert abs(sum(egress.share for egress in traced.egresses) - 1) < 1e-9
    if traced.pick is not None:
        assert len(traced.egresses) == 1
    if traced.outcome == "uplink" and not traced.specific:
        assert traced.candidates <= {
            name for name, _ in inputs.selection.choices[str(traced.policy), packet.family].members
        }
    proofs = explain.compare(inputs, traced, dict.fromkeys(explain.queries(inputs, traced), second))
    document = explain.document(traced, proofs)
    assert decode(Explanation, json.loads(json.dumps(encode(document)))) == document
    assert document.text[-1].startswith(explain.conclusion(traced))


@given(packet=_packets(), policies=_policies())
def test_what_may_be_chosen_is_what_the_table_holds(packet: Packet, policies: dict[str, Any]) -> None:
    daemon = Engine(config(3, [3, 2, 1], policies=policies), world(3))
    inputs = trace_input_of(daemon.state)
    mark = packet.mark & inputs.layout.keep
    asked = replace(packet, in_interface="lan0", mark=mark, destination=_far(packet.family), source=_near(packet))
    traced = trace(inputs, asked)
    choice = inputs.selection.choices["default", packet.family]
    policy = inputs.config.policies["default"]
    slots = {choice.members[i][0] for i in slots_of(policy, packet.family, choice)}
    assert traced.outcome == "uplink"
    assert traced.candidates <= {name for name, _ in choice.members}
    if traced.algorithm in ("weighted", "random"):
        assert traced.candidates == slots


def _far(family: Family) -> IPAddress:
    return ip_address("203.0.113.10" if family is Family.V4 else "2001:db8:203::10")


def _near(packet: Packet) -> IPAddress:
    return ip_address("192.168.15.10" if packet.family is Family.V4 else "2001:db8:15::10")


@given(rules=_rules, packet=_packets())
def test_rules_are_tried_in_order_and_the_first_match_ends_it(rules: list[dict[str, Any]], packet: Packet) -> None:
    traced = trace(trace_input_of(Engine(config(3, rules=rules), world(3)).state), packet)
    assert [tried.number for tried in traced.tried] == list(range(1, len(traced.tried) + 1))
    assert all(not tried.matched for tried in traced.tried[:-1])
    assert (traced.rule is not None) is any(tried.matched for tried in traced.tried)
