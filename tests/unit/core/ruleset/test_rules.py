"""Chains of the rules: which line leads where, and where the kill switch lets packets leave."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address
from typing import Any

from polywan.core.net import Family
from polywan.core.ruleset.model import NftTable
from polywan.core.ruleset.rules import MOST_INSIDE
from polywan.core.state.events import LookupsChanged
from polywan.core.world.lookups import ControlGroup, Lookups, PrefixList
from polywan.core.world.observed import DefaultRoute, Link
from support.engine_world import Engine, config, world


def table(rules: list[dict[str, Any]], lookups: Lookups | None = None, extra: tuple[str, ...] = ()) -> NftTable:
    """The table of three uplinks u1 to u3 and the links `extra`."""
    seen = world(3)
    links = {name: Link(index=50 + i, name=name, up=True, carrier=True) for i, name in enumerate(extra)}
    daemon = Engine(config(3, rules=rules), replace(seen, links={**seen.links, **links}))
    if lookups is not None:
        daemon.feed(LookupsChanged(lookups))
    assert daemon.state.decision.desired is not None
    return daemon.state.decision.desired.nft


def texts(table: NftTable, chain: str) -> list[str]:
    """Return a chain's rules, but for the one that no rule of the file has made."""
    return [rule.text for rule in table.chains[chain].rules if "@kept" not in rule.text]


def whys(table: NftTable, chain: str) -> list[str]:
    return [rule.why for rule in table.chains[chain].rules]


def test_rules_are_tried_in_order_and_the_default_policy_is_last() -> None:
    steer = texts(
        table(
            [
                {"to": "198.51.100.0/24", "uplink": "u2"},
                {"protocol": "tcp", "port": 25, "action": "block"},
                {"in_interface": "lan0", "action": "bypass"},
            ]
        ),
        "steering_rules",
    )
    assert steer == [
        "meta nfproto ipv4 ip daddr { 198.51.100.0/24 } goto policy_uplink_u2",
        "meta l4proto tcp tcp dport { 25 } reject with icmpx type admin-prohibited",
        'iifname { "lan0" } goto unmarked',
        "goto policy_default",
    ]


def test_what_must_not_hold_is_asked_in_a_chain_that_returns() -> None:
    nft_table = table(
        [{"protocol": "tcp", "not": {"to": ["10.0.0.0/8", "fd00::/8"], "user": 0, "port": 22}, "uplink": "u1"}]
    )
    assert texts(nft_table, "steering_rules") == ["meta l4proto tcp jump rule_1", "goto policy_default"]
    assert texts(nft_table, "rule_1") == [
        "meta nfproto ipv4 ip daddr { 10.0.0.0/8 } return",
        "meta nfproto ipv6 ip6 daddr { fd00::/8 } return",
        "tcp dport { 22 } return",
        "meta skuid { 0 } return",
        "goto policy_uplink_u1",
    ]
    assert whys(nft_table, "rule_1")[3] == "rule 1: not user"


def test_a_rule_that_only_excludes_is_jumped_to_by_everything() -> None:
    nft_table = table([{"not": {"family": "ipv6"}, "action": "block"}])
    assert texts(nft_table, "steering_rules")[0] == "jump rule_1"
    assert texts(nft_table, "rule_1") == ["meta nfproto ipv6 return", "reject with icmpx type admin-prohibited"]


def test_what_is_not_known_never_matches_and_never_excludes() -> None:
    nft_table = table([{"list": "/a", "uplink": "u1"}, {"not": {"list": "/a"}, "uplink": "u2"}])
    assert texts(nft_table, "steering_rules") == ["jump rule_2", "goto policy_default"]
    assert texts(nft_table, "rule_2") == ["goto policy_uplink_u2"]


def test_rules_with_the_same_list_share_its_set() -> None:
    lookups = Lookups(lists={"/a": PrefixList("0a0b0c0d", v4=("10.0.0.0/8",), v6=("2001:db8::/32",))})
    nft_table = table([{"list": "/a", "uplink": "u1"}, {"not": {"list": "/a"}, "uplink": "u2"}], lookups)
    lists = {name: nftset for name, nftset in nft_table.sets.items() if name.startswith("list_")}
    assert lists.keys() == {"list_4_0a0b0c0d", "list_6_0a0b0c0d"}
    assert lists["list_4_0a0b0c0d"].type == "type ipv4_addr; flags interval;"
    assert lists["list_6_0a0b0c0d"].elements == {"2001:db8::/32"}
    assert texts(nft_table, "rule_2")[0] == "meta nfproto ipv4 ip daddr @list_4_0a0b0c0d return"


def test_domains_have_a_set_of_ours_and_one_for_dnsmasq_in_each_family() -> None:
    lookups = Lookups(domains={"a.example": (ip_address("203.0.113.10"), ip_address("2001:db8::1"))})
    nft_table = table([{"domains": "a.example", "uplink": "u1"}], lookups)
    ours = {name: nftset.elements for name, nftset in nft_table.sets.items() if name.startswith("domains_")}
    assert sorted(ours.values(), key=str) == [{"2001:db8::1"}, {"203.0.113.10"}]
    theirs = {name: nftset for name, nftset in nft_table.sets.items() if name.startswith("dns_")}
    assert [nftset.elements for nftset in theirs.values()] == [frozenset(), frozenset()]
    assert all("flags timeout" in nftset.type for nftset in theirs.values())
    assert len(texts(nft_table, "steering_rules")) == 5


def test_a_control_group_made_anew_refills_the_chain() -> None:
    rule = {"cgroup": "a.slice", "uplink": "u1"}
    old, new = (
        table([rule], Lookups(cgroups={"a.slice": ControlGroup("a.slice", 1, inode)})).chains["steering_rules"]
        for inode in (7, 8)
    )
    assert [r.text for r in old.rules] == [r.text for r in new.rules]
    assert old.rules[0].comment != new.rules[0].comment


def test_comments_fit_whatever_the_user_wrote() -> None:
    names = [f"{'x' * 60}{i}.slice" for i in range(20)]
    groups = Lookups(cgroups={name: ControlGroup(name, 1, i) for i, name in enumerate(names)})
    nft_table = table([{"cgroup": names, "not": {"list": '/a"b', "cgroup": names}, "uplink": "u1"}], groups)
    for chain in nft_table.chains.values():
        assert all(len(rule.comment.encode()) <= 128 and '"' not in rule.comment for rule in chain.rules)


def test_without_only_there_is_no_kill_switch() -> None:
    nft_table = table([{"to": "10.0.0.0/8", "uplink": "u1"}])
    assert "kill_switch" not in nft_table.chains
    assert "inside" not in nft_table.sets


def kill_switch_texts(table: NftTable) -> list[str]:
    """Rules of chain `kill_switch` behind those for what is exempt."""
    return texts(table, "kill_switch")[5:]


def test_the_kill_switch_follows_the_rules_up_to_the_last_with_only() -> None:
    nft_table = table(
        [
            {"to": "198.51.100.0/24", "uplink": "u2"},
            {"in_interface": "lan0", "only": ["u1", "u3"]},
            {"protocol": "udp", "action": "block"},
        ]
    )
    hook = nft_table.chains["kill_switch"].hook
    assert hook is not None
    assert (hook.hook, hook.priority) == ("postrouting", -153)
    assert kill_switch_texts(nft_table) == [
        "meta nfproto ipv4 ip daddr { 198.51.100.0/24 } accept",
        'iifname { "lan0" } oifname { "wan1", "wan3" } accept',
        'iifname { "lan0" } counter drop',
    ]


def test_a_kill_switch_for_everything_has_no_conditions() -> None:
    assert kill_switch_texts(table([{"only": "u1"}])) == ['oifname { "wan1" } accept', "counter drop"]


def test_what_must_not_hold_is_asked_at_the_kill_switch_too() -> None:
    nft_table = table(
        [{"not": {"from": "10.0.0.0/8"}, "uplink": "u2"}, {"protocol": "tcp", "not": {"port": 22}, "only": "u1"}]
    )
    assert kill_switch_texts(nft_table) == ["jump kill_switch_1", "meta l4proto tcp jump kill_switch_2"]
    assert texts(nft_table, "kill_switch_1") == ["meta nfproto ipv4 ip saddr { 10.0.0.0/8 } return", "accept"]
    assert texts(nft_table, "kill_switch_2") == ["tcp dport { 22 } return", 'oifname { "wan1" } accept', "counter drop"]


def test_sixty_rules_with_not_do_not_nest() -> None:
    """The kernel refuses chains that lead to each other more than sixteen deep."""
    nft_table = table([{"not": {"port": 22}, "protocol": "tcp", "only": "u1"}] * 60)
    for name, chain in nft_table.chains.items():
        if name.startswith(("rule_", "only_")):
            assert not any("jump" in rule.text or "goto after" in rule.text for rule in chain.rules)


def test_inside_are_devices_that_no_default_route_uses() -> None:
    assert table([{"only": "u1"}], extra=("lan0", "tun0")).sets["inside"].elements == {"lo", "lan0", "tun0"}


def test_a_device_with_anybodys_default_route_is_not_inside() -> None:
    seen = world(2)
    tunnel = Link(index=60, name="tun0", up=True, carrier=True)
    route = DefaultRoute(family=Family.V4, link="tun0", via=None)
    observed = replace(seen, links={**seen.links, "tun0": tunnel}, defaults=(*seen.defaults, route))
    daemon = Engine(config(2, rules=[{"only": "u1"}]), observed)
    assert daemon.state.decision.desired is not None
    assert daemon.state.decision.desired.nft.sets["inside"].elements == {"lo"}


def test_a_device_with_pieces_of_a_default_route_is_not_inside() -> None:
    seen = world(2)
    tunnel = Link(index=60, name="tun0", up=True, carrier=True)
    observed = replace(seen, links={**seen.links, "tun0": tunnel}, wide=frozenset({"tun0"}))
    daemon = Engine(config(2, rules=[{"only": "u1"}]), observed)
    assert daemon.state.decision.desired is not None
    assert daemon.state.decision.desired.nft.sets["inside"].elements == {"lo"}


def test_a_device_whose_name_would_end_the_text_is_not_inside() -> None:
    assert table([{"only": "u1"}], extra=('a"b', "x*", "ok0")).sets["inside"].elements == {"lo", "ok0"}


def test_more_devices_than_there_is_room_for_are_elsewhere() -> None:
    many = tuple(f"veth{n}" for n in range(MOST_INSIDE + 10))
    assert len(table([{"only": "u1"}], extra=many).sets["inside"].elements) == MOST_INSIDE
