"""Why nothing works: one sentence for each cause in the world around, with the device and what to change."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_interface, ip_network
from typing import Any

import pytest

from polywan.config import Config
from polywan.core.engine import step as engine
from polywan.core.net import FAMILIES, Family, TableId
from polywan.core.plan.cautions import FORWARDING, TRACKING_COUNT, TRACKING_LIMIT, cautions, unusable
from polywan.core.plan.plan import ActualState
from polywan.core.resolved import resolve
from polywan.core.state.effects import Log
from polywan.core.state.events import ReadDone
from polywan.core.world.foreign_chains import ForwardChain, may_drop
from polywan.core.world.observed import Address, DefaultRoute, Link, Observed, WideRoute
from polywan.core.world.paths import reach
from support.engine_world import Engine, config, world

both = pytest.mark.parametrize("family", Family)
ON = dict.fromkeys(FORWARDING.values(), "1")
OFF = dict.fromkeys(FORWARDING.values(), "0")
LAN = {Family.V4: "192.168.15.1/24", Family.V6: "2001:db8:15::1/64"}


def with_link(observed: Observed, name: str, *addresses: str, **more: Any) -> Observed:
    fields = {"index": 70 + len(observed.links), "name": name, "up": True, "carrier": True, **more}
    return replace(
        observed,
        links={**observed.links, name: Link(**fields)},
        addresses=(*observed.addresses, *(Address(name, ip_interface(a)) for a in addresses)),
    )


def with_default(observed: Observed, link: str, family: Family, metric: int, **more: Any) -> Observed:
    route = DefaultRoute(family=family, link=link, via=None, metric=metric, **more)
    return replace(observed, defaults=(*observed.defaults, route))


def raised(observed: Observed, configuration: Config | None = None, actual: ActualState | None = None) -> list[str]:
    configuration = configuration or config(2)
    resolved = resolve(configuration, {})
    return list(cautions(resolved, observed, actual or ActualState(), reach(resolved, observed, {})))


def test_a_world_in_order_calls_for_no_caution() -> None:
    lan = with_link(world(2), "lan0", *LAN.values())
    actual = ActualState(sysctls={**ON, TRACKING_COUNT: "10", TRACKING_LIMIT: "100"})
    assert raised(lan, actual=actual) == []


@both
def test_a_better_default_by_an_unlisted_device_is_told_with_the_metric_that_ends_it(family: Family) -> None:
    observed = with_default(with_link(world(2), "mgmt0"), "mgmt0", family, 50)
    assert raised(observed) == [
        (
            f"nothing is balanced in IPv{family}: main's default route leaves by mgmt0, which is not an uplink; "
            "configure it as one, or give the route a metric above 101"
        )
    ]


@both
def test_a_worse_one_is_nobodys_business(family: Family) -> None:
    assert raised(with_default(with_link(world(2), "mgmt0"), "mgmt0", family, 500)) == []


@both
def test_one_in_another_table_or_for_some_sources_is_not_mains(family: Family) -> None:
    observed = with_link(world(2), "mgmt0")
    other = with_default(observed, "mgmt0", family, 5, table=TableId(7))
    assert raised(other) == []
    assert raised(with_default(observed, "mgmt0", Family.V6, 5, source=ip_network("2001:db8::/56"))) == []


@both
def test_one_that_shares_mains_metric_with_an_uplink_takes_a_part(family: Family) -> None:
    (line,) = raised(with_default(with_link(world(2), "mgmt0"), "mgmt0", family, 101))
    assert line.startswith(f"not everything is balanced in IPv{family}: main's default route leaves by mgmt0")


def test_where_no_uplink_has_a_route_in_main_the_other_one_has_to_go() -> None:
    observed = world(1, [Family.V4])
    moved = replace(observed, defaults=(replace(observed.defaults[0], table=TableId(7)),))
    (line,) = raised(with_default(with_link(moved, "mgmt0"), "mgmt0", Family.V4, 5), config(1))
    assert line.endswith("configure it as one, or remove the route")


@pytest.mark.parametrize(
    ("parts", "whole"),
    [
        (["0.0.0.0/1", "128.0.0.0/1"], True),
        (["0.0.0.0/2", "64.0.0.0/2", "128.0.0.0/1"], True),
        (["128.0.0.0/1"], False),
        (["::/1", "8000::/1"], True),
        (["2000::/3"], True),
        (["2000::/4", "3000::/4"], True),
        (["2000::/4"], False),
    ],
)
def test_a_default_taken_apart_is_told_whole_or_in_part(parts: list[str], whole: bool) -> None:
    observed = with_link(world(2), "tun0")
    observed = replace(observed, parts=tuple(WideRoute(ip_network(part), "tun0") for part in parts))
    (line,) = raised(observed)
    assert line.startswith("nothing is balanced" if whole else "not everything is balanced")
    assert "leave" in line
    assert "by tun0, which is not an uplink" in line
    assert all(part in line for part in parts)


def test_pieces_by_an_uplink_or_in_another_table_are_fine() -> None:
    observed = with_link(world(2), "tun0")
    elsewhere = WideRoute(ip_network("0.0.0.0/1"), "tun0", TableId(7))
    assert raised(replace(observed, parts=(WideRoute(ip_network("0.0.0.0/1"), "wan1"), elsewhere))) == []


def test_a_lan_behind_a_box_that_does_not_forward_is_told_once() -> None:
    observed = with_link(world(2), "lan0", *LAN.values())
    assert raised(observed, actual=ActualState(sysctls=OFF)) == [
        (
            "forwarding is off: packets from lan0 (192.168.15.0/24) cannot leave by the uplinks; "
            "set global.forwarding = true if this box routes for them, otherwise false"
        )
    ]


def test_ipv6_alone_may_be_off() -> None:
    observed = with_link(world(2), "lan0", *LAN.values())
    (line,) = raised(observed, actual=ActualState(sysctls={**ON, FORWARDING[Family.V6]: "0"}))
    assert line.startswith("IPv6 forwarding is off: packets from lan0 (2001:db8:15::/64)")


@pytest.mark.parametrize("asked", [True, False])
def test_who_has_said_what_is_wanted_is_not_told(asked: bool) -> None:
    uplinks = {n: {"interface": d} for n, d in (("u1", "wan1"), ("u2", "wan2"))}
    config = Config.model_validate({"uplinks": uplinks, "global": {"forwarding": asked}})
    assert raised(with_link(world(2), "lan0", *LAN.values()), config, ActualState(sysctls=OFF)) == []


@pytest.mark.parametrize(
    ("name", "address", "more"),
    [
        ("lo", "192.168.15.1/24", {}),
        ("lan0", "192.168.15.1/32", {}),
        ("lan0", "192.168.15.1/24", {"carrier": False}),
        ("lan0", "192.168.15.1/24", {"up": False, "carrier": False}),
        ("tun7", "192.168.15.1/24", {"point_to_point": True}),
        ("eth7", "192.168.15.1/24", {"master": 12}),
    ],
)
def test_what_has_no_hosts_behind_it_is_no_lan(name: str, address: str, more: dict[str, Any]) -> None:
    assert raised(with_link(world(2), name, address, **more), actual=ActualState(sysctls=OFF)) == []


@pytest.mark.parametrize("name", ["docker0", "br-0123456789ab", "virbr0", "lxcbr0", "podman1"])
def test_the_bridge_of_a_container_program_is_its_own_business(name: str) -> None:
    observed = with_link(world(2), name, "172.17.0.1/16", kind="bridge")
    chain = ForwardChain("ip", "filter", "FORWARD")
    assert raised(observed, actual=ActualState(sysctls=ON, chains=(chain,))) == []


def test_a_bridge_of_the_administrators_is_a_lan() -> None:
    observed = with_link(world(2), "br-lan", LAN[Family.V4], kind="bridge")
    assert len(raised(observed, actual=ActualState(sysctls=OFF))) == 1


def test_a_host_without_a_lan_is_left_in_peace() -> None:
    assert raised(world(2), actual=ActualState(sysctls=OFF)) == []


def test_a_chain_that_drops_by_policy_is_named_where_a_lan_is_behind() -> None:
    chain = ForwardChain("ip", "filter", "FORWARD")
    lan = with_link(world(2), "lan0", LAN[Family.V4])
    assert raised(lan, actual=ActualState(sysctls=ON, chains=(chain,))) == [
        (
            "chain FORWARD of table ip filter has policy drop and may drop packets that "
            "arrive on lan0 (192.168.15.0/24): make sure that it accepts them on every uplink"
        )
    ]
    assert raised(world(2), actual=ActualState(sysctls=ON, chains=(chain,))) == []


def test_a_chain_of_both_families_is_told_once() -> None:
    chain = ForwardChain("inet", "firewall", "forward")
    lan = with_link(world(2), "lan0", *LAN.values())
    assert len(raised(lan, actual=ActualState(sysctls=ON, chains=(chain,)))) == 1


@pytest.mark.parametrize(("family", "met"), [("ip", [4]), ("ip6", [6]), ("inet", [4, 6]), ("bridge", [])])
def test_a_chain_meets_the_packets_of_its_family(family: str, met: list[int]) -> None:
    chains = (ForwardChain(family, "filter", "forward"),)
    assert [f for f in FAMILIES if may_drop(chains, f)] == met


@pytest.mark.parametrize(
    ("count", "before", "after"), [(90, True, True), (89, False, True), (80, False, True), (79, False, False)]
)
def test_a_full_tracking_table_is_told_from_nine_tenths_until_below_eight(
    count: int, before: bool, after: bool
) -> None:
    configuration, observed = config(2), world(2)

    def at(number: int, known: tuple[str, ...] = ()) -> tuple[str, ...]:
        actual = ActualState(sysctls={TRACKING_COUNT: str(number), TRACKING_LIMIT: "100"})
        resolved = resolve(configuration, {})
        return tuple(cautions(resolved, observed, actual, reach(resolved, observed, {}), known))

    full = at(100)
    assert "the connection tracking table is nearly full" in full[0]
    assert (bool(at(count)), bool(at(count, full))) == (before, after)


@pytest.mark.parametrize("value", ["", "many", "-1"])
def test_settings_that_make_no_sense_say_nothing(value: str) -> None:
    assert raised(world(2), actual=ActualState(sysctls={TRACKING_COUNT: value, TRACKING_LIMIT: value})) == []


@pytest.mark.parametrize(("key", "via"), [("gateway", "10.1.1.1"), ("gateway6", "2001:db8:9::1")])
def test_a_router_outside_of_the_links_networks_is_doubted(key: str, via: str) -> None:
    config = Config.model_validate({"uplinks": {"u1": {"interface": "wan1", key: via}}})
    (line,) = raised(world(1), config)
    assert line.startswith(f"uplink u1: {key} {via} is outside wan1's network ")


def test_it_is_not_doubted_where_a_default_route_agrees() -> None:
    config = Config.model_validate({"uplinks": {"u1": {"interface": "wan1", "gateway": "10.1.1.1"}}})
    observed = world(1, [Family.V4])
    agreed = replace(observed, defaults=(replace(observed.defaults[0], via=ip_address("10.1.1.1")),))
    assert raised(agreed, config) == []


def test_a_lan_that_is_named_as_an_uplink_is_suspected_on_a_box_that_forwards() -> None:
    observed = with_link(world(1, [Family.V4]), "lan0", LAN[Family.V4])
    config = Config.model_validate({"uplinks": {"u1": {"interface": "wan1"}, "lan": {"interface": "lan0"}}})
    assert raised(observed, config, ActualState(sysctls=OFF)) == []
    assert raised(observed, config, ActualState(sysctls=ON)) == [
        (
            "uplink lan: lan0 has the address 192.168.15.1/24 and no known router: "
            "if it is the LAN, it is not an uplink; otherwise set the uplink's gateway"
        )
    ]


def test_a_tunnel_beside_its_carriers_is_pointed_out() -> None:
    observed = with_link(world(1, [Family.V4]), "tun0", "10.8.0.2/24", kind="tun", point_to_point=True)
    uplinks = {"u1": {"interface": "wan1"}, "vpn": {"interface": "tun0"}}
    assert raised(observed, Config.model_validate({"uplinks": uplinks})) == [
        (
            "uplink vpn: tun0 is a tunnel, and shares tier 1 of policy default with u1: its own packets may be sent "
            "into it; give it a tier or a policy of its own"
        )
    ]
    apart = {"policies": {"default": {"tiers": [["u1"], ["vpn"]]}}}
    assert raised(observed, Config.model_validate({"uplinks": uplinks, **apart})) == []


def test_a_modem_without_neighbours_is_no_tunnel() -> None:
    observed = with_link(world(1, [Family.V4]), "wwan0", "10.8.0.2/32", point_to_point=True)
    config = Config.model_validate({"uplinks": {"u1": {"interface": "wan1"}, "lte": {"interface": "wwan0"}}})
    assert raised(observed, config) == []


def test_devices_that_cannot_serve_are_named_before_the_daemon_runs() -> None:
    observed = with_link(with_link(world(1), "br0", kind="bridge"), "port0", master=75, member_of="bridge")
    observed = replace(observed, links={**observed.links, "br0": replace(observed.links["br0"], index=75)})
    uplinks = {n: {"interface": d} for n, d in {"u1": "wan1", "gone": "eth99", "port": "port0"}.items()}
    config = Config.model_validate({"uplinks": uplinks})
    assert list(unusable(resolve(config, {}), observed, reach(resolve(config, {}), observed, {}))) == [
        "uplink gone: interface eth99 does not exist",
        "uplink port: port0 is a port of bridge br0: name br0 as the interface",
    ]


def test_a_caution_is_in_status_while_it_holds_and_in_the_log_once() -> None:
    daemon = Engine(config(2), world(2))
    worse = with_default(with_link(world(2), "mgmt0"), "mgmt0", Family.V4, 50)
    notes = [e for _ in range(2) for e in daemon.feed(ReadDone(worse, daemon.state.known.actual or ActualState()))]
    said = [e.text for e in notes if isinstance(e, Log) and e.event == "caution"]
    assert said == [text for text in daemon.state.decision.warnings if "mgmt0" in text]
    assert len(said) == 1
    daemon.feed(ReadDone(world(2), daemon.state.known.actual or ActualState()))
    assert daemon.state.decision.warnings == ()


def test_what_is_told_of_is_read() -> None:
    daemon = Engine(config(1), world(1))
    assert {TRACKING_COUNT, TRACKING_LIMIT, *FORWARDING.values()} <= set(
        engine.sysctl_paths(daemon.state, daemon.state.known.observed)
    )
