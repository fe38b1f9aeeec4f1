"""Which links are uplinks, which are not, and why."""

from __future__ import annotations

from typing import Any

import pytest

from support.detected import Machine, gateway


@pytest.fixture
def machine() -> Machine:
    return Machine()


def test_a_gateway_has_two_uplinks_and_a_lan() -> None:
    found = gateway().survey()
    assert [(seen.link, seen.verdict) for seen in found.seen] == [
        ("eth1", "uplink"),
        ("eth2", "uplink"),
        ("lan0", "not"),
    ]
    assert found.seen[0].why == "IPv4 default route by 100.64.1.1"
    assert found.lans == ("lan0 (192.168.15.0/24)",)
    assert found.passed_over == ("lo",)


def test_a_default_route_in_a_table_of_a_script_is_enough(machine: Machine) -> None:
    machine.link("eth1", "100.64.1.2/24")
    machine.default("eth1", "100.64.1.1", table=101)
    assert machine.seen("eth1").why == "IPv4 default route by 100.64.1.1 in table 101"


def test_an_uplink_may_have_ipv6_alone_by_an_advertisement(machine: Machine) -> None:
    machine.link("eth1", "2001:db8:1::2/64")
    machine.default("eth1", "fe80::1", advertised=True)
    assert machine.verdicts == {"eth1": "uplink"}
    assert machine.seen("eth1").why == "IPv6 default route by fe80::1, advertised"


def test_a_lease_without_a_default_route_is_enough(machine: Machine) -> None:
    machine.link("eth2", "100.64.2.50/24")
    machine.lease("eth2", "100.64.2.50", "100.64.2.1")
    assert machine.verdicts == {"eth2": "uplink"}
    assert machine.seen("eth2").why == "dhclient got the router 100.64.2.1, and no default route, which is enough"
    assert "metric" in machine.seen("eth2").note


@pytest.mark.parametrize("kind", ["bridge", "bond", "team", "vrf"])
def test_a_member_is_none_whatever_routes_it_has(machine: Machine, kind: str) -> None:
    master = machine.link("up0", "100.64.1.2/24", kind=kind)
    machine.link("eth1", master=master, member_of=kind)
    machine.default("eth1", "100.64.1.1")
    assert machine.seen("eth1").verdict == "not"
    assert "up0" in machine.seen("eth1").why


def test_the_bridge_that_has_the_address_is_one_in_place_of_its_port(machine: Machine) -> None:
    master = machine.link("br0", "100.64.1.2/24", kind="bridge")
    machine.link("eth1", master=master, member_of="bridge")
    machine.default("br0", "100.64.1.1")
    assert machine.verdicts == {"br0": "uplink", "eth1": "not"}
    assert machine.seen("eth1").why == "is a port of bridge br0, which counts in its place"


@pytest.mark.parametrize("name", ["docker0", "br-0123456789ab", "virbr0", "cni0", "podman1", "lxdbr0", "cni-podman0"])
def test_bridges_of_containers_are_neither_uplinks_nor_lans(machine: Machine, name: str) -> None:
    master = machine.link(name, "172.17.0.1/16", kind="bridge")
    machine.link("veth1", kind="veth", master=master, member_of="bridge")
    assert machine.verdicts == {name: "not"}
    assert machine.survey().lans == ()
    assert machine.survey().passed_over == ("veth1",)


@pytest.mark.parametrize("kind", ["wireguard", "tun", "ipip", "gre", "vti", "xfrm", "vxlan"])
def test_what_needs_an_uplink_itself_is_none_although_it_took_the_default_route(machine: Machine, kind: str) -> None:
    machine.link("vpn0", "10.8.0.2/24", kind=kind, point_to_point=kind != "vxlan")
    machine.default("vpn0", None)
    assert machine.seen("vpn0").verdict == "not"
    assert "needs an uplink itself; it has taken the default route of main" in machine.seen("vpn0").why
    assert machine.survey().lans == ()


def test_a_vpn_that_took_the_default_route_by_halves_is_named_with_them(machine: Machine) -> None:
    machine.link("tun0", "10.8.0.2/24", kind="tun", point_to_point=True)
    machine.part("tun0", "0.0.0.0/1")
    machine.part("tun0", "128.0.0.0/1")
    assert "it has taken 0.0.0.0/1 and 128.0.0.0/1 of main" in machine.seen("tun0").why


def test_how_to_use_a_vpn_all_the_same_is_said(machine: Machine) -> None:
    machine.link("wg0", "10.8.0.2/24", kind="wireguard", point_to_point=True)
    assert 'add an uplink with interface = "wg0"' in machine.seen("wg0").note


class TestMobile:
    @pytest.mark.parametrize("driver", ["qmi_wwan", "cdc_mbim", "rndis_host", "ipheth", "cdc_ncm", "cdc_ether"])
    def test_modems_and_tethering_are_metered(self, machine: Machine, driver: str) -> None:
        machine.link("wwan0", "100.64.3.2/24", driver=driver)
        machine.default("wwan0", "100.64.3.1")
        assert machine.seen("wwan0").verdict == "uplink"
        assert driver in machine.seen("wwan0").metered

    def test_a_modem_by_raw_ip_is_no_tunnel(self, machine: Machine) -> None:
        machine.link("wwan0", "10.20.30.40/30", devtype="wwan", point_to_point=True)
        assert machine.seen("wwan0").verdict == "uplink"
        assert machine.seen("wwan0").metered == "mobile modem"

    def test_a_modem_that_is_not_connected_is_none_yet(self, machine: Machine) -> None:
        machine.link("wwan0", driver="qmi_wwan", devtype="wwan")
        assert machine.seen("wwan0").why == "mobile modem (qmi_wwan), not connected: it has no address"

    def test_wifi_and_ethernet_are_not_metered(self, machine: Machine) -> None:
        machine.link("wlan0", "192.168.1.20/24", driver="iwlwifi", devtype="wlan")
        machine.default("wlan0", "192.168.1.1")
        assert machine.seen("wlan0").metered == ""
        assert machine.seen("wlan0").why == "IPv4 default route by 192.168.1.1, by Wi-Fi"


class TestPpp:
    def sessions(self, machine: Machine, *carriers: str) -> None:
        machine.hardware = type(machine.hardware)(devices=machine.hardware.devices, sessions=carriers)

    def test_a_pppoe_session_without_a_default_route_is_one(self, machine: Machine) -> None:
        machine.link("eth1")
        machine.ppp("ppp0", "100.64.1.10/32")
        self.sessions(machine, "eth1")
        assert machine.verdicts == {"eth1": "not", "ppp0": "uplink"}
        assert machine.seen("eth1").why == "carries a PPPoE session, which is the uplink"

    def test_the_modems_own_network_below_a_session_is_no_lan(self, machine: Machine) -> None:
        machine.link("eth1", "192.168.1.2/24")
        machine.ppp("ppp0", "100.64.1.10/32")
        self.sessions(machine, "eth1")
        assert machine.survey().lans == ()

    def test_a_session_with_a_default_route_in_a_table_of_a_script_is_one(self, machine: Machine) -> None:
        machine.ppp("ppp0", "100.64.1.10/32")
        machine.default("ppp0", None, table=200)
        self.sessions(machine, "eth1")
        assert machine.seen("ppp0").why == "PPPoE session over eth1, IPv4 default route in table 200"

    def test_an_l2tp_session_is_a_vpn(self, machine: Machine) -> None:
        machine.ppp("ppp0", "10.8.0.2/32")
        machine.default("ppp0", None)
        machine.hardware = type(machine.hardware)(l2tp=frozenset({"ppp0"}))
        assert machine.seen("ppp0").why.startswith("a VPN (L2TP)")

    def test_a_session_that_nothing_carries_is_a_vpn(self, machine: Machine) -> None:
        machine.ppp("ppp0", "10.8.0.2/32")
        assert machine.seen("ppp0").verdict == "not"
        assert "PPTP, SSTP" in machine.seen("ppp0").why

    def test_a_vpn_beside_a_pppoe_session_is_not_taken_for_the_session(self, machine: Machine) -> None:
        machine.ppp("ppp0", "100.64.1.10/32")
        machine.ppp("ppp1", "10.8.0.2/32")
        machine.default("ppp0", None)
        self.sessions(machine, "eth1")
        assert machine.verdicts == {"ppp0": "uplink", "ppp1": "not"}

    def test_a_likely_vpn_with_the_default_route_beside_another_uplink_is_asked_for(self, machine: Machine) -> None:
        machine.link("eth1", "100.64.1.2/24")
        machine.default("eth1", "100.64.1.1")
        machine.ppp("ppp0", "10.8.0.2/32")
        machine.default("ppp0", None)
        assert machine.verdicts == {"eth1": "uplink", "ppp0": "ask"}
        assert not machine.seen("ppp0").presumed

    def test_a_session_by_a_program_with_nothing_beside_it_is_one(self, machine: Machine) -> None:
        machine.ppp("ppp0", "100.64.1.10/32")
        machine.default("ppp0", None)
        assert machine.verdicts == {"ppp0": "uplink"}

    def test_dial_up_by_a_modem_is_metered(self, machine: Machine) -> None:
        machine.ppp("ppp0", "100.64.1.10/32")
        machine.hardware = type(machine.hardware)(serial=("ttyUSB2",))
        assert machine.seen("ppp0").verdict == "uplink"
        assert machine.seen("ppp0").metered == "dial-up by a modem (ttyUSB2)"

    def test_clients_that_dial_in_are_a_lan(self, machine: Machine) -> None:
        for number in range(3):
            machine.ppp(f"ppp{number}", "10.0.0.1/32")
        self.sessions(machine, "lan0", "lan0", "lan0")
        assert set(machine.verdicts.values()) == {"not"}
        assert len(machine.survey().lans) == 3

    def test_a_single_session_with_a_private_address_may_be_a_client(self, machine: Machine) -> None:
        machine.ppp("ppp0", "10.0.0.1/32")
        self.sessions(machine, "lan0")
        assert (machine.seen("ppp0").verdict, machine.seen("ppp0").presumed) == ("ask", True)

    def test_a_session_that_is_being_dialled_is_none_yet(self, machine: Machine) -> None:
        machine.ppp("ppp0")
        self.sessions(machine, "eth1")
        assert machine.seen("ppp0").verdict == "not"
        assert "run init again" in machine.seen("ppp0").note


def test_several_routers_of_one_device_are_several_uplinks(machine: Machine) -> None:
    machine.link("eth1", "192.168.0.2/24", "192.168.1.2/24")
    machine.default("eth1", "192.168.0.1", metric=1)
    machine.default("eth1", "192.168.1.1", metric=2)
    assert [str(gateway) for gateway in machine.seen("eth1").gateways] == ["192.168.0.1", "192.168.1.1"]


def test_one_router_in_several_tables_is_one(machine: Machine) -> None:
    machine.link("eth1", "192.168.0.2/24")
    machine.default("eth1", "192.168.0.1")
    machine.default("eth1", "192.168.0.1", table=101)
    assert machine.seen("eth1").gateways == ()
    assert machine.seen("eth1").why == "IPv4 default route by 192.168.0.1 and 1 more"


def test_an_uplink_without_carrier_is_one_and_said_to_have_none(machine: Machine) -> None:
    machine.link("eth1", "100.64.1.2/24", carrier=False)
    machine.default("eth1", "100.64.1.1")
    assert machine.seen("eth1").verdict == "uplink"
    assert machine.seen("eth1").note == "it has no carrier at present"


def test_a_slow_port_is_named_since_its_line_gets_no_more(machine: Machine) -> None:
    machine.link("eth1", "100.64.1.2/24", speed=100)
    machine.default("eth1", "100.64.1.1")
    assert machine.seen("eth1").note == "its port runs at 100 Mbit/s, so the line gets no more"


def test_a_providers_network_without_a_router_is_neither_uplink_nor_lan(machine: Machine) -> None:
    machine.link("eth1", "198.51.101.2/24")
    assert machine.seen("eth1").verdict == "not"
    assert "looks like a provider's" in machine.seen("eth1").why
    assert machine.survey().lans == ()


def test_a_link_local_address_with_zeroconfs_route_is_none(machine: Machine) -> None:
    machine.link("eth1", "169.254.7.7/16")
    machine.default("eth1", None, metric=1002)
    assert machine.seen("eth1").why == "has only the link-local address 169.254.7.7"


@pytest.mark.parametrize(
    ("link", "why"),
    [
        ({"up": False, "carrier": False}, "is down"),
        ({"carrier": False}, "has no carrier: is a cable plugged in?"),
        ({}, "has no address"),
    ],
)
def test_what_a_link_without_anything_lacks_is_said(machine: Machine, link: dict[str, Any], why: str) -> None:
    machine.link("eth1", **link)
    assert machine.seen("eth1").why == why


def test_a_link_that_carries_vlans_names_them(machine: Machine) -> None:
    parent = machine.link("eth1")
    machine.link("eth1.7", "100.64.7.2/24", kind="vlan", parent=parent)
    machine.default("eth1.7", "100.64.7.1")
    assert machine.verdicts == {"eth1": "not", "eth1.7": "uplink"}
    assert machine.seen("eth1").why == "carries eth1.7"


def test_a_macvlan_with_a_default_of_its_own_is_one(machine: Machine) -> None:
    for number in range(53):
        machine.link(f"vwan{number}", f"100.64.{number}.2/24", kind="macvlan")
        machine.default(f"vwan{number}", f"100.64.{number}.1", table=100 + number)
    assert set(machine.verdicts.values()) == {"uplink"}


def test_a_veth_with_a_default_route_is_one_as_in_a_container(machine: Machine) -> None:
    machine.link("eth0", "172.17.0.2/16", kind="veth")
    machine.default("eth0", "172.17.0.1")
    assert machine.verdicts == {"eth0": "uplink"}


def test_a_name_that_the_file_cannot_hold_is_said_and_escaped(machine: Machine) -> None:
    machine.link("\x1b[2Jé", "100.64.1.2/24")
    machine.default("\x1b[2Jé", "100.64.1.1")
    (seen,) = machine.survey().seen
    assert seen.verdict == "not"
    assert seen.link.isprintable()
