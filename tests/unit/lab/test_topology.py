from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any

import pytest

from polywan.core.net import Family
from polywan.lab import recipe
from polywan.lab.sandbox import LabError, refusal
from polywan.lab.topology import describe


def test_every_uplink_has_the_addresses_of_its_number() -> None:
    third = describe(3).uplink(3)
    assert str(third.addresses[Family.V4].own) == "100.64.3.2/24"
    assert third.addresses[Family.V4].gateway == IPv4Address("100.64.3.1")
    assert str(third.addresses[Family.V6].own) == "2001:db8:64:3::2/64"
    assert third.addresses[Family.V6].gateway == IPv6Address("2001:db8:64:3::1")


def test_an_address_tells_its_uplink() -> None:
    topology = describe(3)
    assert topology.number_of(ip_address("100.64.2.2")) == 2
    assert topology.number_of(ip_address("2001:db8:64:3::2")) == 3
    assert topology.number_of(ip_address("192.168.15.10")) is None


def test_up_to_eight_uplinks_have_a_provider_each_and_more_share_one_cable() -> None:
    assert describe(8).providers == tuple(f"isp{n}" for n in range(1, 9))
    assert describe(9).providers == ("access",)
    assert describe(2, trunk=True).providers == ("access",)


def test_twins_differ_in_nothing_but_their_own_address() -> None:
    first, second = (uplink.addresses[Family.V4] for uplink in describe(2, twins=True).uplinks)
    assert (first.gateway, first.own.network) == (second.gateway, second.own.network)
    assert first.own != second.own
    assert first.allowed != second.allowed


def test_every_subnet_of_53_uplinks_is_a_different_one() -> None:
    topology = describe(53)
    for family in topology.families:
        assert len({uplink.addresses[family].own.network for uplink in topology.uplinks}) == 53


@pytest.mark.parametrize(
    ("uplinks", "options"),
    [(0, {}), (63, {}), (1, {"twins": True}), (9, {"trunk": False}), (9, {"point_to_point": (1,)})],
)
def test_impossible_networks_are_refused(uplinks: int, options: dict[str, Any]) -> None:
    with pytest.raises(LabError):
        describe(uplinks, **options)


def test_an_uplink_that_does_not_exist_is_refused() -> None:
    with pytest.raises(LabError, match="no uplink 4, only 1 to 3"):
        describe(3).uplink(4)


def test_main_gets_one_default_per_uplink_and_family_with_rising_metrics() -> None:
    defaults = [line for line in recipe.router(describe(2)) if "route replace" in line]
    assert defaults == [
        "route replace 0.0.0.0/0 via 100.64.1.1 dev wan1 metric 101",
        "route replace ::/0 via 2001:db8:64:1::1 dev wan1 metric 1025",
        "route replace 0.0.0.0/0 via 100.64.2.1 dev wan2 metric 102",
        "route replace ::/0 via 2001:db8:64:2::1 dev wan2 metric 1026",
    ]


def test_a_point_to_point_uplink_has_a_default_without_a_gateway() -> None:
    lines = list(recipe.bring_up(describe(1, point_to_point=(1,)).uplink(1)))
    assert "route replace 0.0.0.0/0 dev wan1 metric 101" in lines
    assert "address replace 100.64.1.2 peer 100.64.1.1 dev wan1" in lines


def test_no_two_devices_of_a_cable_have_the_same_index() -> None:
    for line in recipe.links(describe(8)):
        words = line.split()
        near, far = (words[place + 1] for place, word in enumerate(words) if word == "index")
        assert near != far


def test_without_ipv6_no_ipv6_address_is_set() -> None:
    topology = describe(2, families=(Family.V4,))
    lines = [
        *recipe.router(topology),
        *recipe.client(topology),
        *recipe.server(topology),
        *recipe.provider(topology, "isp1"),
    ]
    assert not [line for line in lines if "fe80" in line or "2001:" in line]


def test_who_may_not_make_namespaces_is_told_the_one_setting_that_helps() -> None:
    assert refusal({"user.max_user_namespaces": "0"}, is_root=False).endswith(
        "sudo sysctl -w user.max_user_namespaces=15000"
    )
    assert refusal({"kernel.unprivileged_userns_clone": "0"}, is_root=False).endswith(
        "kernel.unprivileged_userns_clone=1"
    )
    assert refusal({"kernel.unprivileged_userns_clone": "1"}, is_root=False).endswith("run as root")
    assert "CAP_SYS_ADMIN" in refusal({}, is_root=True)
    assert "\n" not in refusal({}, is_root=True)
