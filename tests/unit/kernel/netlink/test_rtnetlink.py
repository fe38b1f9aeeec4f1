"""Links, addresses and rules as the kernel's messages tell them; what makes no sense is nothing."""

from __future__ import annotations

import struct
from ipaddress import IPv6Address, ip_interface

import pytest

from polywan.core.world.observed import Address, Link
from polywan.kernel.netlink import policy_rules
from polywan.kernel.netlink import rtnetlink as rt
from polywan.kernel.netlink.device_settings import DeviceSettings, decode_settings
from polywan.kernel.netlink.socket import attribute, attributes, first, number, text

LINK = struct.Struct("=BxHiII")
UP, POINTOPOINT, NOARP, LOOPBACK, LOWER_UP = 0x1, 0x10, 0x80, 0x8, 0x10000


def link_body(flags: int, *, family: int = 0, name: bytes = b"wan1\0", mtu: bool = True) -> bytes:
    kind = attribute(18 | 0x8000, attribute(1, b"ppp\0"))
    counters = attribute(23, struct.pack("=4Q", 1, 2, 3000, 4000))
    body = LINK.pack(family, 1, 7, flags, 0) + attribute(3, name) + kind + counters
    return body + (number(4, 1492) if mtu else b"")


def test_a_link_is_decoded_whole() -> None:
    link = rt.decode_link(link_body(UP | LOWER_UP | POINTOPOINT))
    assert link == Link(index=7, name="wan1", up=True, carrier=True, point_to_point=True, mtu=1492, kind="ppp")
    assert link is not None
    assert (link.rx_bytes, link.tx_bytes) == (3000, 4000)


@pytest.mark.parametrize(
    ("flags", "point_to_point"), [(NOARP, True), (POINTOPOINT, True), (NOARP | LOOPBACK, False), (0, False)]
)
def test_links_without_neighbours_are_point_to_point(flags: int, point_to_point: bool) -> None:
    link = rt.decode_link(link_body(flags))
    assert link is not None
    assert link.point_to_point is point_to_point


def test_the_link_that_another_one_belongs_to_is_decoded_with_its_kind() -> None:
    about = attribute(18 | 0x8000, attribute(1, b"veth\0") + attribute(4, b"bridge\0") + attribute(5, b"?"))
    body = LINK.pack(0, 1, 7, UP, 0) + attribute(3, b"wan1\0") + number(4, 1500) + number(10, 12) + about
    link = rt.decode_link(body)
    assert link is not None
    assert (link.kind, link.master, link.member_of) == ("veth", 12, "bridge")


def test_what_a_bridge_says_of_its_ports_is_no_link() -> None:
    assert rt.decode_link(link_body(UP, family=7)) is None


def test_a_wireless_scan_is_no_change_of_the_link() -> None:
    assert rt.decode_link(link_body(UP, mtu=False)) is None


def test_a_hostile_link_name_loses_its_teeth() -> None:
    link = rt.decode_link(link_body(UP, name=b"a\x1b[2J\xff\0"))
    assert link is not None
    assert link.name == "a\\x1b[2J\\xff"


def address_body(*parts: bytes, family: int = 2, length: int = 24, flags: int = 0) -> bytes:
    return struct.pack("=BBBBi", family, length, flags, 0, 7) + b"".join(parts)


def test_the_local_address_counts_where_there_is_a_peer() -> None:
    body = address_body(attribute(1, bytes((10, 0, 0, 2))), attribute(2, bytes((10, 0, 0, 1))), length=32)
    assert rt.decode_address(body, {7: "ppp0"}) == Address("ppp0", ip_interface("10.0.0.1/32"))


@pytest.mark.parametrize("flags", [0x40, 0x08], ids=["tentative", "duplicate"])
def test_an_address_that_cannot_be_used_is_none(flags: int) -> None:
    body = address_body(attribute(1, IPv6Address("2001:db8::1").packed), family=10, length=64, flags=flags)
    assert rt.decode_address(body, {7: "wan1"}) is None


@pytest.mark.parametrize(
    "body",
    [
        address_body(attribute(1, b"\1\2\3")),
        address_body(attribute(1, bytes(4)), length=33),
        address_body(attribute(1, bytes(4)), family=10),
        address_body(),
        b"",
    ],
    ids=["short", "prefix too long", "wrong family", "nothing", "empty"],
)
def test_an_address_that_makes_no_sense_is_none(body: bytes) -> None:
    assert rt.decode_address(body, {7: "wan1"}) is None


def test_an_address_of_an_unknown_link_is_none() -> None:
    assert rt.decode_address(address_body(attribute(1, bytes(4))), {}) is None


def test_the_kernels_own_rules_are_left_out() -> None:
    def builtin(table: int, priority: int) -> bytes:
        return struct.pack("=8BI", 2, 0, 0, 0, table, 0, 0, 1, 0) + number(6, priority) + number(15, table)

    assert [policy_rules.decode_rule(builtin(t, p)) for t, p in ((255, 0), (254, 32766), (253, 32767))] == [None] * 3
    assert policy_rules.decode_rule(builtin(254, 32765)) is not None


def test_a_rule_to_a_destination_is_never_the_kernels_own() -> None:
    body = struct.pack("=8BI", 2, 24, 0, 0, 254, 0, 0, 1, 0) + number(6, 32766) + number(15, 254)
    assert policy_rules.decode_rule(body) is not None


def test_a_blackhole_rule_of_others_has_neither_table_nor_goto() -> None:
    body = struct.pack("=8BI", 2, 0, 0, 0, 0, 0, 0, 6, 0) + number(6, 100)
    found = policy_rules.decode_rule(body)
    assert found is not None
    assert (found.rule.table, found.rule.goto, found.ours) == (None, None, False)


def test_attributes_after_a_broken_one_are_left_out() -> None:
    assert attributes(number(1, 5) + b"\xff\xff\2\0junk" + number(3, 6)) == {1: number(1, 5)[4:]}


def test_text_of_the_kernel_is_made_printable() -> None:
    assert text(b"Nexthop\n\x9b31m\0rest") == "Nexthop\\x0a\\x9b31m"


def test_the_first_attribute_of_a_type_is_found_without_the_others() -> None:
    body = number(1, 5) + attribute(2, b"abc") + attribute(2, b"later")
    assert first(body, 0, 2) == b"abc"
    assert first(body, 0, 3) == b""


def test_settings_that_are_not_whole_are_left_out() -> None:
    values = struct.pack("=8i", *range(8))
    spec = attribute(2 | 0x8000, attribute(1, values)) + attribute(10 | 0x8000, attribute(2, values))
    body = link_body(UP) + attribute(26 | 0x8000, spec)
    prefix = "net/{}/conf/wan1/{}".format
    assert decode_settings([body, b"", b"nonsense"]) == DeviceSettings(
        values={prefix("ipv4", "rp_filter"): "7", prefix("ipv6", "accept_ra"): "3"}, indexes={"wan1": 7}
    )
