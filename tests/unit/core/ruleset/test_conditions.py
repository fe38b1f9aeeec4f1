"""Conditions of rules: the text for nft, and the answer for one packet."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

import pytest

from polywan.config import Match, SteeringRule
from polywan.config.loading.shadowed_rules import covers
from polywan.core.net import Family
from polywan.core.packet import Packet
from polywan.core.resolved import resolve
from polywan.core.ruleset.conditions import Condition, addresses_of, conditions, dnsmasq_lines, domain_sets, match_lines
from polywan.core.world.lookups import NOTHING, ControlGroup, Lookups, PrefixList
from support.engine_world import config

V4, V6 = Family.V4, Family.V6
KEEP = 0xFFFF_C0FF


def packet(source: str = "192.168.15.10", destination: str = "203.0.113.10", **more: Any) -> Packet:
    to = ip_address(destination)
    return Packet(
        **{"family": Family(to.version), "source": ip_address(source), "destination": to, "protocol": 6, **more}
    )


def packet6(**more: Any) -> Packet:
    return packet("2001:db8:15::10", "2001:db8:203::10", **more)


def only(lookups: Lookups = NOTHING, ports_of: str | None = None, **match: Any) -> Condition:
    """The one condition of a match."""
    (found,) = conditions(Match.model_validate(match), ports_of, lookups, KEEP)
    return found


def lines(lookups: Lookups = NOTHING, **match: Any) -> tuple[str, ...]:
    conditions_of_rule = Match.model_validate(match)
    return match_lines(conditions(conditions_of_rule, conditions_of_rule.protocol, lookups, KEEP))


def test_a_match_without_conditions_matches_everything_in_one_line() -> None:
    assert conditions(Match(), None, NOTHING) == ()
    assert match_lines(()) == ("",)


EVERY: dict[str, Any] = {
    "from": "10.0.0.0/8",
    "to": "203.0.113.0/24",
    "in_interface": "lan0",
    "protocol": "tcp",
    "source_port": 53,
    "port": 443,
    "dscp": "ef",
    "mac": "02:00:00:00:00:01",
    "fwmark": "0x1/0xff",
    "user": 1000,
    "group": 1000,
    "cgroup": "a.slice",
    "domains": "example.com",
    "list": "/etc/list",
    "time": "mon-fri 08:00-18:00",
    "family": "ipv4",
}
"""A value for each field of a match, by its name in the file."""


def test_every_field_of_a_match_becomes_a_condition() -> None:
    match = Match.model_validate(EVERY)
    assert [c.key for c in conditions(match, "tcp", NOTHING)] == list(EVERY)
    assert {f.alias or name for name, f in Match.model_fields.items()} == set(EVERY)


@pytest.mark.parametrize("field", EVERY)
def test_a_rule_with_any_one_condition_does_not_cover_a_rule_without(field: str) -> None:
    ports = {"protocol": "tcp"} if field in {"port", "source_port"} else {}
    one, every = {field: EVERY[field], "uplink": "u1", **ports}, {"uplink": "u1", **ports}
    assert not covers(SteeringRule.model_validate(one), SteeringRule.model_validate(every))


def test_addresses_of_both_families_make_a_line_for_each() -> None:
    fields: dict[str, Any] = {"from": ["10.0.0.0/9", "10.128.0.0/9", "2001:db8::/32"]}
    found = only(**fields)
    assert found.words == "from = 10.0.0.0/9, 10.128.0.0/9, 2001:db8::/32"
    assert match_lines((found,)) == (
        "meta nfproto ipv4 ip saddr { 10.0.0.0/8 }",
        "meta nfproto ipv6 ip6 saddr { 2001:db8::/32 }",
    )
    assert found.holds(packet("10.200.0.1"))
    assert not found.holds(packet("11.0.0.1"))
    assert found.holds(packet6())


def test_addresses_of_one_family_never_match_the_other() -> None:
    found = only(to="0.0.0.0/0")
    assert match_lines((found,)) == ("meta nfproto ipv4",)
    assert found.holds(packet())
    assert found.texts(V6) == ()
    assert not found.holds(packet6())


def test_conditions_without_a_common_family_have_no_line() -> None:
    fields: dict[str, Any] = {"from": "10.0.0.0/8", "to": "2001:db8::/32"}
    assert lines(**fields) == ()


def test_what_does_not_depend_on_the_family_is_one_line() -> None:
    assert lines(in_interface=["lan0", "lan1"], protocol="tcp", port="80,443,8000-8100") == (
        'iifname { "lan0", "lan1" } meta l4proto tcp tcp dport { 80, 443, 8000-8100 }',
    )


def test_a_family_alone_names_the_family() -> None:
    assert lines(family="ipv6") == ("meta nfproto ipv6",)
    assert lines(family="ipv6", protocol="udp") == ("meta nfproto ipv6 meta l4proto udp",)
    assert only(family="ipv6").holds(packet6())
    assert not only(family="ipv6").holds(packet())


@pytest.mark.parametrize(
    ("name", "number"), [("tcp", 6), ("udp", 17), ("icmp", 1), ("icmp", 58), ("sctp", 132), ("gre", 47), ("esp", 50)]
)
def test_a_protocol_is_its_number(name: str, number: int) -> None:
    assert only(protocol=name).holds(packet(protocol=number))
    assert not only(protocol=name).holds(packet(protocol=99))


def test_ports_are_those_of_the_rules_protocol() -> None:
    found = only(ports_of="udp", port="53,1000-2000")
    assert found.texts(V4) == found.texts(V6) == ("udp dport { 53, 1000-2000 }",)
    assert found.holds(packet(protocol=17, port=1500))
    assert not found.holds(packet(protocol=17, port=999))
    assert not found.holds(packet(protocol=6, port=53))
    assert not found.holds(packet(protocol=17))


def test_ports_of_a_protocol_without_ports_never_match() -> None:
    found = only(ports_of="gre", port=53)
    assert found.texts(V4) == ()
    assert not found.holds(packet(protocol=47, port=53))


def test_source_ports_are_the_senders() -> None:
    found = only(ports_of="tcp", source_port=5060)
    assert found.texts(V6) == ("tcp sport { 5060 }",)
    assert found.holds(packet(source_port=5060, port=1))
    assert not found.holds(packet(source_port=1, port=5060))


def test_the_boxs_own_packets_arrive_by_no_interface() -> None:
    found = only(in_interface="lan0")
    assert found.holds(packet(in_interface="lan0"))
    assert not found.holds(packet())


def test_a_dscp_is_read_where_each_family_has_it() -> None:
    found = only(dscp=["ef", "cs0", 11])
    assert found.words == "dscp = ef, cs0, 11"
    assert (found.texts(V4), found.texts(V6)) == (("ip dscp { 0, 11, 46 }",), ("ip6 dscp { 0, 11, 46 }",))
    assert found.holds(packet6(dscp=46))
    assert not found.holds(packet(dscp=8))


def test_a_mac_is_that_of_the_neighbour() -> None:
    found = only(mac=["02-00-00-00-00-0A", "02:00:00:00:00:0b"])
    assert found.texts(V4) == ("ether saddr { 02:00:00:00:00:0a, 02:00:00:00:00:0b }",)
    assert found.holds(packet(mac="02:00:00:00:00:0a"))
    assert not found.holds(packet())


def test_a_mark_is_compared_in_the_bits_of_others_only() -> None:
    found = only(fwmark="0x10")
    assert found.words == "fwmark = 0x10"
    assert found.texts(V4) == ("meta mark & 0xffffc0ff == 0x00000010",)
    assert found.holds(packet(mark=0x10))
    assert not found.holds(packet(mark=0x11))


def test_a_mark_with_a_mask_leaves_the_other_bits_alone() -> None:
    found = only(fwmark="0x10/0xf0")
    assert found.words == "fwmark = 0x10/0xf0"
    assert found.texts(V6) == ("meta mark & 0x000000f0 == 0x00000010",)
    assert found.holds(packet(mark=0x4000_0011))


@pytest.mark.parametrize("ours", ["0x100", "0x100/0x3f00", "0x0/0x3f00"])
def test_a_mark_of_our_own_bits_never_matches(ours: str) -> None:
    assert only(fwmark=ours).texts(V4) == ()


def test_a_forwarded_packet_has_no_user_and_no_group() -> None:
    user, group = only(user=[1000, 0]), only(group=100)
    assert user.texts(V4) == ("meta skuid { 0, 1000 }",)
    assert group.texts(V4) == ("meta skgid { 100 }",)
    assert user.holds(packet(user=0))
    assert group.holds(packet(group=100))
    assert not user.holds(packet(in_interface="lan0"))
    assert not group.holds(packet(user=100, group=0))


def known_group(inode: int = 7) -> Lookups:
    return Lookups(cgroups={"a.slice/b": ControlGroup("unified/a.slice/b", 2, inode)})


def test_a_control_group_holds_what_is_below_it() -> None:
    found = only(known_group(), cgroup=["a.slice/b", "gone"])
    assert found.texts(V4) == ('iif 0 socket cgroupv2 level 2 "unified/a.slice/b"',)
    assert [found.holds(packet(cgroup=g)) for g in ("a.slice/b", "a.slice/b/c", "a.slice/bb", "a.slice", None)] == [
        True,
        True,
        False,
        False,
        False,
    ]


def test_a_control_group_made_anew_is_another_version_of_the_same_text() -> None:
    old, new = only(known_group(7), cgroup="a.slice/b"), only(known_group(8), cgroup="a.slice/b")
    assert old.texts(V4) == new.texts(V4)
    assert old.version != new.version


def test_a_control_group_that_does_not_exist_never_matches() -> None:
    found = only(cgroup="gone")
    assert (found.texts(V4), found.version) == ((), "")
    assert not found.holds(packet(cgroup="gone"))


def test_domains_match_what_was_resolved_or_what_dnsmasq_has_seen() -> None:
    lookups = Lookups(domains={"a.example": (ip_address("203.0.113.10"), ip_address("2001:db8:203::10"))})
    found = only(lookups, domains=["b.example", "a.example"])
    resolved, seen = found.texts(V4)
    assert resolved.startswith("ip daddr @domains_4_")
    assert seen.startswith("ip daddr @dns_4_")
    assert found.texts(V4) == only(domains=["a.example", "b.example"]).texts(V4)
    assert found.holds(packet())
    assert found.holds(packet6())
    assert not found.holds(packet(destination="203.0.113.11"))


def test_addresses_that_nobody_can_have_are_left_out_of_domains() -> None:
    """nft prints them in a form of its own: the set would seem changed by somebody else forever."""
    addresses = ("::ffff:203.0.113.10", "::203.0.113.10", "2001:db8::1")
    lookups = Lookups(domains={"a.example": tuple(map(ip_address, addresses))})
    assert addresses_of(["a.example"], lookups, V6) == {"2001:db8::1"}


def test_a_list_matches_by_the_set_of_its_contents() -> None:
    lookups = Lookups(lists={"/a": PrefixList("0a0b0c0d", v4=("10.0.0.0/8", "192.0.2.1", "198.51.100.0/24"))})
    found = only(lookups, list=["/a", "/missing"])
    assert found.texts(V4) == ("ip daddr @list_4_0a0b0c0d",)
    assert found.texts(V6) == ()
    assert [found.holds(packet(destination=d)) for d in ("10.9.9.9", "192.0.2.1", "192.0.2.2", "2001:db8::1")] == [
        True,
        True,
        False,
        False,
    ]


def test_two_names_of_the_same_contents_are_one_set() -> None:
    same = PrefixList("0a0b0c0d", v6=("2001:db8::/32",))
    assert only(Lookups(lists={"/a": same, "/b": same}), list=["/a", "/b"]).texts(V6) == ("ip6 daddr @list_6_0a0b0c0d",)


def test_a_time_is_asked_in_seconds_of_the_utc_day() -> None:
    found = only(Lookups(utc_offset=7200), time="mon-fri 08:00-18:00")
    assert found.words == "time = mon,tue,wed,thu,fri 08:00-18:00"
    assert found.texts(V4) == ("meta day { 1, 2, 3, 4, 5 } meta hour { 21600-57599 }",)
    monday = 4 * 86400
    assert found.holds(packet(at=monday + 21600))
    assert not found.holds(packet(at=monday + 57600))


def test_a_daily_time_asks_for_no_day_and_always_for_nothing() -> None:
    assert only(time="22:00-06:00").texts(V4) == ("meta hour { 0-21599, 79200-86399 }",)
    assert only(time="mon-sun").texts(V4) == ("",)
    assert only(time="sat,sun").texts(V4) == ("meta day { 0, 6 }",)


def test_alternatives_of_several_conditions_are_multiplied() -> None:
    lookups = Lookups(lists={p: PrefixList(p.strip("/") * 8, v4=("10.0.0.0/8",)) for p in ("/a", "/b")})
    found = lines(lookups, list=["/a", "/b"], domains="example.com", protocol="tcp")
    assert len(found) == 4
    assert len(set(found)) == 4


def test_dnsmasq_is_told_every_set_that_a_name_belongs_to() -> None:
    rules = [
        {"domains": ["example.com", "other.example"], "action": "bypass"},
        {"not": {"domains": "www.example.com"}, "action": "bypass"},
    ]
    configuration = config(1, rules=rules)
    wide, narrow = domain_sets(configuration.rules[0]), domain_sets(configuration.rules[1].not_)
    assert domain_sets(configuration.rules[1]) == ()
    both = f"4#inet#polywan#{wide[0]},6#inet#polywan#{wide[1]}"
    assert dnsmasq_lines(resolve(configuration, {})) == [
        f"nftset=/example.com/{both}",
        f"nftset=/other.example/{both}",
        f"nftset=/www.example.com/{both},4#inet#polywan#{narrow[0]},6#inet#polywan#{narrow[1]}",
    ]
