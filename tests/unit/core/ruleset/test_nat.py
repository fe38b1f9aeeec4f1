"""IPv6 sources: whose they are, by which uplink they leave, and what the server sees."""

from __future__ import annotations

import struct
from ipaddress import IPv6Address, IPv6Network, ip_address, ip_interface, ip_network
from itertools import combinations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polywan.config import Config
from polywan.core.net import TABLE_MAIN, Family, TableId
from polywan.core.policy.selection import Choice
from polywan.core.resolved import resolve
from polywan.core.routing.routes import IpRule
from polywan.core.ruleset.nat import native_members
from polywan.core.state.events import LinkChanged, ReadDone
from polywan.core.status import document as status
from polywan.core.world.observed import Address, DefaultRoute, Link, Observed
from polywan.core.world.paths import Path, unbound_links
from polywan.core.world.prefixes6 import exchanges, inside_of, prefixes_of, side_of, sides, translated
from polywan.kernel.netlink import rtnetlink as rt
from polywan.kernel.netlink.socket import attribute, number
from support.engine_world import Engine, link, world

A, B = "2001:db8:a::/56", "2001:db8:b::/56"
ULA = "fd00:1:2:3::"
LAN = Link(index=5, name="lan0", up=True, carrier=True)


def default(uplink: int, source: str | None, *, metric: int = 512, table: int = TABLE_MAIN) -> DefaultRoute:
    return DefaultRoute(
        family=Family.V6,
        link=f"wan{uplink}",
        via=ip_address(f"2001:db8:64:{uplink}::1"),
        metric=metric,
        table=TableId(table),
        source=ip_network(source) if source else None,
    )


def seen(*defaults: DefaultRoute, lan: tuple[str, ...] = (), count: int = 2) -> Observed:
    """A world of uplinks with further default routes, and a LAN with these addresses."""
    base = world(count)
    addresses = (*base.addresses, *(Address("lan0", ip_interface(address)) for address in lan))
    return Observed(links={**base.links, "lan0": LAN}, addresses=addresses, defaults=(*base.defaults, *defaults))


def conf(*uplinks: dict[str, Any]) -> Config:
    """Configure u1, u2 … on wan1, wan2 … with these keys."""
    return Config.model_validate(
        {"uplinks": {f"u{n}": {"interface": f"wan{n}", **keys} for n, keys in enumerate(uplinks, start=1)}}
    )


BOTH = seen(default(1, A), default(2, B), lan=("2001:db8:a:1::1/64", "2001:db8:b:1::1/64", f"{ULA}1/64"))


def rules(daemon: Engine, chain: str) -> list[str]:
    assert daemon.state.decision.desired is not None
    return [rule.text for rule in daemon.state.decision.desired.nft.chains[chain].rules]


def leaves(config: Config, observed: Observed, uplink: str, source: str) -> str:
    return str(translated(resolve(config, {}), observed, uplink, IPv6Address(source)))


def choice(*members: str) -> Choice:
    return Choice(members=tuple((name, 1) for name in members), tier=0, reason="")


def carriers(config: Config, observed: Observed, source: str, *members: str) -> tuple[str, ...] | None:
    found = native_members(resolve(config, {}), observed, choice(*members), IPv6Address(source))
    return None if found is None else tuple(name for name, _ in found)


# Which prefixes are an uplink's.


def test_prefixes_are_the_sources_of_source_specific_defaults_best_metric_first() -> None:
    observed = seen(default(1, B, metric=900), default(1, A), default(1, "2001:db8:f::/48", table=77))
    assert list(map(str, prefixes_of(conf({}).uplinks["u1"], observed))) == [A, B, "2001:db8:f::/48"]


def test_prefixes_of_the_file_take_the_place_of_what_is_seen() -> None:
    uplink = conf({"prefix6": [B]}).uplinks["u1"]
    assert list(map(str, prefixes_of(uplink, seen(default(1, A))))) == [B]


def test_a_source_on_the_uplinks_own_link_is_no_delegated_prefix() -> None:
    observed = seen(default(1, "2001:db8:64:1::/64"), default(1, "2001:db8:64:1::2/128"))
    assert prefixes_of(conf({}).uplinks["u1"], observed) == ()


def test_a_link_local_source_is_no_prefix() -> None:
    assert prefixes_of(conf({}).uplinks["u1"], seen(default(1, "fe80::/64"))) == ()


def test_an_uplink_without_ipv6_has_no_prefix() -> None:
    assert prefixes_of(conf({"families": "ipv4"}).uplinks["u1"], seen(default(1, A))) == ()


@pytest.mark.parametrize(
    ("keys", "mode"),
    [
        ({}, "prefix"),
        ({"nat6": "native"}, "native"),
        ({"nat6": "masquerade"}, "masquerade"),
        ({"nat6": "prefix"}, "prefix"),
        ({"nat": "none"}, "none"),
        ({"nat": "none", "nat6": "masquerade"}, "none"),
        ({"nat": {"snat": "192.0.2.1"}}, "none"),
        ({"nat": {"snat": "2001:db8::1"}}, "snat"),
    ],
)
def test_what_becomes_of_sources_follows_nat_before_nat6(keys: dict[str, Any], mode: str) -> None:
    assert side_of("u1", resolve(conf(keys), {}), BOTH).mode == mode


@pytest.mark.parametrize("nat6", ["auto", "prefix"])
def test_without_a_prefix_there_is_nothing_to_exchange(nat6: str) -> None:
    assert side_of("u1", resolve(conf({"nat6": nat6}), {}), seen()).mode == "masquerade"


# What the server sees.


def test_the_prefix_is_exchanged_and_all_bits_below_it_are_kept() -> None:
    assert leaves(conf({}, {}), BOTH, "u2", "2001:db8:a:1::abcd") == "2001:db8:b:1::abcd"
    assert leaves(conf({}, {}), BOTH, "u2", f"{ULA}abcd") == "2001:db8:b:3::abcd"


def test_an_own_source_is_untouched() -> None:
    assert leaves(conf({}, {}), BOTH, "u1", "2001:db8:a:1::abcd") == "2001:db8:a:1::abcd"
    assert leaves(conf({}, {}), BOTH, "u1", "2001:db8:64:1::2") == "2001:db8:64:1::2"


def test_an_unknown_source_is_masqueraded() -> None:
    assert leaves(conf({}, {}), BOTH, "u1", "2001:db8:dead::1") == "None"


def test_a_link_local_source_is_never_translated() -> None:
    assert leaves(conf({}, {}), BOTH, "u1", "fe80::1") == "fe80::1"
    translating = rules(Engine(conf({}, {}), seen()), "nat")[2:]
    assert translating[0] == "ip6 saddr { fe80::/10, ff00::/8 } accept"


def test_a_prefix_that_is_larger_than_the_uplinks_has_no_room_there() -> None:
    observed = seen(default(1, "2001:db8:a::/48"), default(2, B), lan=("2001:db8:a:1::1/64",))
    assert leaves(conf({}, {}), observed, "u2", "2001:db8:a:1::5") == "2001:db8:b:1::5"
    assert leaves(conf({}, {}), observed, "u2", "2001:db8:a:2::5") == "None"


def test_every_network_fits_into_a_single_network_with_its_host_bits() -> None:
    observed = seen(default(1, "2001:db8:a:7::/64"), lan=(f"{ULA}1/64", "fd00:1:2:4::1/64"))
    assert leaves(conf({}), observed, "u1", f"{ULA}9") == "2001:db8:a:7::9"
    assert leaves(conf({}), observed, "u1", "fd00:1:2:4::9") == "2001:db8:a:7::9"


def test_no_host_is_put_on_the_uplinks_own_link() -> None:
    # The link's own network is taken from the delegated prefix (RFC 6603).
    observed = seen(default(1, "2001:db8:64::/48"), lan=("fd00:1:2:1::1/64", "fd00:1:2:2::1/64"))
    assert leaves(conf({}), observed, "u1", "fd00:1:2:1::9") == "None"
    assert leaves(conf({}), observed, "u1", "fd00:1:2:2::9") == "2001:db8:64:2::9"


def test_the_second_prefix_serves_what_does_not_fit_into_the_first() -> None:
    observed = seen(lan=("fd00:1:2:300::1/56",))
    config = conf({"prefix6": ["2001:db8:a::/60", "2001:db8:b::/48"]})
    assert leaves(config, observed, "u1", "fd00:1:2:301::9") == "2001:db8:b:301::9"


def test_networks_of_uplinks_are_not_inside_but_their_prefixes_are() -> None:
    config, observed = conf({}, {}), seen(default(1, A), default(2, B))
    assert inside_of(resolve(config, {}), observed) == ()
    assert leaves(config, observed, "u2", "2001:db8:a:9::1") == "2001:db8:b:9::1"
    assert leaves(config, observed, "u2", "2001:db8:64:1::2") == "None"


def test_addresses_without_a_network_are_not_inside() -> None:
    observed = seen(default(1, A), lan=(f"{ULA}1/128", "2001:db8:9::1/126"))
    assert inside_of(resolve(conf({}, {}), {}), observed) == ()


def test_a_fixed_address_and_no_translation_are_told_as_they_are() -> None:
    config = conf({"nat": {"snat": "2001:db8:5::5"}}, {"nat": "none"})
    assert leaves(config, BOTH, "u1", f"{ULA}9") == "2001:db8:5::5"
    assert leaves(config, BOTH, "u2", f"{ULA}9") == f"{ULA}9"


def test_without_any_prefix_translation_is_what_it_was() -> None:
    assert rules(Engine(conf({}, {}), seen()), "nat")[3:] == ["oifname @masqueraded masquerade"]


def test_the_rules_of_translation_do_not_grow_with_the_uplinks() -> None:
    count = 20
    prefixes = [default(n, f"2001:db8:{n:x}00::/56") for n in range(1, count + 1)]
    observed = seen(*prefixes, lan=(f"{ULA}1/64",), count=count)
    assert len(rules(Engine(conf(*[{}] * count), observed), "nat")) == 6


# By which uplink they leave.


def test_a_source_leaves_by_the_uplink_of_its_prefix_while_that_serves() -> None:
    config = conf({}, {})
    assert carriers(config, BOTH, "2001:db8:a:1::1", "u1", "u2") == ("u1",)
    assert carriers(config, BOTH, "2001:db8:a:1::1", "u2") is None


def test_a_source_without_an_owner_is_left_to_the_algorithm() -> None:
    assert carriers(conf({}, {}), BOTH, f"{ULA}1", "u1", "u2") is None


@pytest.mark.parametrize("keys", [{"nat6": "prefix"}, {"nat6": "masquerade"}, {"nat": {"snat": "2001:db8::1"}}])
def test_who_translates_by_name_takes_no_native_sources(keys: dict[str, Any]) -> None:
    assert carriers(conf(keys, {}), BOTH, "2001:db8:a:1::1", "u1", "u2") is None


def test_an_uplink_without_translation_still_takes_its_own() -> None:
    assert carriers(conf({"nat": "none"}, {}), BOTH, "2001:db8:a:1::1", "u1", "u2") == ("u1",)


def test_the_longer_of_nested_prefixes_holds() -> None:
    observed = seen(default(1, "2001:db8:a::/48"), default(2, "2001:db8:a:100::/56"))
    config = conf({}, {})
    assert carriers(config, observed, "2001:db8:a:101::1", "u1", "u2") == ("u2",)
    assert carriers(config, observed, "2001:db8:a:201::1", "u1", "u2") == ("u1",)


def test_a_prefix_that_several_uplinks_have_is_shared_among_them() -> None:
    observed = seen(default(1, A), default(2, A), default(3, B), count=3)
    config = conf({}, {}, {})
    assert carriers(config, observed, "2001:db8:a::1", "u1", "u2", "u3") == ("u1", "u2")
    text = rules(Engine(config, observed), "policy_default")
    assert f"ip6 saddr {{ {A} }} numgen inc mod 2 vmap {{ 0 : goto to_u1, 1 : goto to_u2 }}" in text


def test_a_prefix_that_every_uplink_has_is_left_to_the_algorithm() -> None:
    observed = seen(default(1, A), default(2, A))
    assert carriers(conf({}, {}), observed, "2001:db8:a::1", "u1", "u2") is None


def test_native_takes_no_foreign_source_as_long_as_another_translates() -> None:
    config = conf({"nat6": "native"}, {})
    assert carriers(config, BOTH, f"{ULA}1", "u1", "u2") == ("u2",)
    assert carriers(config, BOTH, "2001:db8:64:1::2", "u1", "u2") == ("u1",)


def test_a_foreign_source_is_refused_where_nobody_translates() -> None:
    config = conf({"nat6": "native"}, {"nat6": "native"})
    assert carriers(config, BOTH, f"{ULA}1", "u1", "u2") == ()
    assert "meta nfproto ipv6 reject with icmpv6 type policy-fail" in rules(Engine(config, BOTH), "policy_default")


def test_native_without_a_known_prefix_takes_its_own_addresses_only() -> None:
    config = conf({"nat6": "native"}, {})
    assert carriers(config, seen(), "2001:db8:a::1", "u1", "u2") == ("u2",)
    assert carriers(config, seen(), "2001:db8:64:1::2", "u1", "u2") == ("u1",)


def test_a_prefix_shared_by_native_uplinks_is_no_foreign_source() -> None:
    config = conf({"nat6": "native"}, {"nat6": "native"})
    assert carriers(config, seen(default(1, A), default(2, A)), "2001:db8:a::1", "u1", "u2") == ("u1", "u2")


def test_when_its_uplink_loses_its_carrier_a_prefix_is_nobodys_at_once() -> None:
    daemon = Engine(conf({}, {}), BOTH)
    assert any(f"{A} : goto to_u1" in text for text in rules(daemon, "policy_default"))
    daemon.feed(LinkChanged(link(1, carrier=False)))
    assert not any("to_u1" in text for text in rules(daemon, "policy_default") if "ipv4" not in text)


def test_a_new_prefix_is_in_force_with_the_next_read_and_the_old_one_nowhere() -> None:
    daemon = Engine(conf({}, {}), BOTH)
    renewed = seen(default(1, "2001:db8:c::/56"), default(2, B), lan=("2001:db8:c:1::1/64", f"{ULA}1/64"))
    assert daemon.state.known.actual is not None
    (plan,) = daemon.plans(daemon.feed(ReadDone(renewed, daemon.state.known.actual)))
    assert daemon.state.decision.desired is not None
    after = daemon.state.decision.desired.nft.render() + str(daemon.state.decision.desired.rules)
    assert "2001:db8:a:" not in after
    assert "2001:db8:c::/56 : goto to_u1" in after
    assert "delete table" not in str(plan)


# Routing.


def from_rules(daemon: Engine, table: int) -> set[tuple[str, str | None]]:
    assert daemon.state.decision.desired is not None
    rules: frozenset[IpRule] = daemon.state.decision.desired.rules
    return {(str(r.from_), r.iif) for r in rules if r.from_ is not None and r.from_.version == 6 and r.table == table}


def test_the_boxs_own_sources_within_a_prefix_find_its_table() -> None:
    daemon = Engine(conf({}, {}), BOTH)
    assert from_rules(daemon, 6001) == {(A, "lo"), ("2001:db8:64:1::2/128", None)}


def bare() -> Observed:
    """Uplink 1 without an address of its own, and a delegated prefix of which the LAN has a part."""
    known = seen(default(1, A), lan=("2001:db8:a:1::1/64",))
    gone = ip_interface("2001:db8:64:1::2/64")
    return Observed(
        links=known.links,
        addresses=tuple(a for a in known.addresses if a.ip != gone),
        defaults=tuple(d for d in known.defaults if d.source is not None or d.link != "wan1" or d.family is Family.V4),
    )


def test_an_uplink_without_an_address_of_its_own_uses_the_boxs_in_its_prefix() -> None:
    daemon = Engine(conf({}, {}), bare())
    path = daemon.state.decision.reach["u1", Family.V6]
    assert isinstance(path, Path)
    assert (path.addresses, str(path.source)) == ((IPv6Address("2001:db8:a:1::1"),), "2001:db8:a:1::1")
    assert daemon.state.decision.desired is not None
    route = next(r for r in daemon.state.decision.desired.routes if r.link == "wan1" and r.family is Family.V6)
    assert str(route.source) == "2001:db8:a:1::1"


def test_a_source_specific_default_is_not_mains_own() -> None:
    observed = seen(default(1, A, metric=1))
    assert observed.main_default_links(Family.V6) == {"wan1"}
    only = Observed(links=observed.links, addresses=observed.addresses, defaults=(default(1, A), default(2, B)))
    assert only.main_default_links(Family.V6) == frozenset()


def test_a_default_for_every_source_is_preferred_for_its_gateway() -> None:
    general = default(1, None, metric=9999)
    observed = Observed(links=world(1).links, defaults=(default(1, A, metric=1), general))
    assert observed.defaults_of("wan1", Family.V6)[0] is general


def test_mains_own_default_is_one_that_the_kernel_would_take() -> None:
    dead = world(2).with_link(link(1, carrier=False))
    assert dead.main_default_links(Family.V4) == {"wan2"}


def test_without_a_default_of_mains_the_box_leaves_by_the_fallback_table() -> None:
    observed = Observed(links=BOTH.links, addresses=BOTH.addresses, defaults=(default(1, A), default(2, B)))
    daemon = Engine(conf({}, {}), observed)
    state = daemon.state
    assert unbound_links(observed, state.decision.reach, state.known.numbers, Family.V6) == {"wan1"}
    assert state.decision.desired is not None
    assert set(state.decision.desired.nft.maps["bound_6"].elements) == {"wan2"}


# Shown, and read from the kernel.


def test_status_tells_prefixes_and_mode() -> None:
    daemon = Engine(conf({}, {}, {"families": "ipv4"}), seen(default(1, A), count=3))
    shown = status.document(daemon.state, "0", 0.0, 0.0, {}).uplinks
    assert [(u.prefixes6, u.nat6_mode) for u in shown] == [((A,), "prefix"), ((), "masquerade"), ((), None)]


def route_body(*parts: bytes, source: int = 0, family: int = 10) -> bytes:
    return struct.pack("=BBBBBBBBI", family, 0, source, 0, 254, 3, 0, 1, 0) + number(4, 7) + b"".join(parts)


def test_a_source_specific_default_is_decoded_with_its_source() -> None:
    body = route_body(attribute(2, IPv6Address("2001:db8:a::").packed), source=56)
    (found,) = rt.decode_defaults(body, {7: "wan1"})
    assert (found.source, found.link) == (IPv6Network(A), "wan1")
    assert rt.touched_route(body) is False


@pytest.mark.parametrize("source", [b"", attribute(2, b"\1\2\3\4"), attribute(2, b"\1")])
def test_a_source_that_makes_no_sense_makes_no_default(source: bytes) -> None:
    assert rt.decode_defaults(route_body(source, source=56), {7: "wan1"}) == []


def test_a_source_longer_than_an_address_makes_no_default() -> None:
    body = route_body(attribute(2, IPv6Address("2001:db8:a::").packed), source=200)
    assert rt.decode_defaults(body, {7: "wan1"}) == []


# Whatever the prefixes are.

NETWORKS = st.builds(
    lambda bits, length: IPv6Network((0x20010DB8 << 96 | bits << 60 & -1 << 128 - length & (1 << 96) - 1, length)),
    st.integers(0, 0xFFF),
    st.integers(56, 72),
)


@given(st.lists(st.lists(NETWORKS, max_size=3), min_size=2, max_size=3), st.lists(NETWORKS, max_size=3))
def test_no_two_elements_overlap_and_every_network_has_one_image(
    prefixes: list[list[IPv6Network]], lan: list[IPv6Network]
) -> None:
    config = conf(*({"prefix6": list(map(str, p))} if p else {} for p in prefixes))
    observed = seen(lan=tuple(f"{n[1]}/{n.prefixlen}" for n in lan), count=len(prefixes))
    known = sides(resolve(config, {}), observed)
    for device, images in exchanges(known, inside_of(resolve(config, {}), observed)).items():
        assert not any(a.overlaps(b) for a, b in combinations(images, 2)), device
        for network, image in images.items():
            assert IPv6Network(image).prefixlen == network.prefixlen
    for uplink in config.uplinks:
        for network in lan:
            seen_as = translated(resolve(config, {}), observed, uplink, network[5])
            assert seen_as is None or int(seen_as) & 0xFFFF == int(network[5]) & 0xFFFF
