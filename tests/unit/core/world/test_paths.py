"""How an uplink can be used: by a router or straight, with an address of its own or a lent one, or why not at all."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_interface, ip_network
from typing import Any

import pytest

from polywan.config import Config
from polywan.core.net import Family, TableId
from polywan.core.resolved import resolve
from polywan.core.state.effects import StartProbe
from polywan.core.state.events import Tick
from polywan.core.world.observed import Address, DefaultRoute, Link, Observed
from polywan.core.world.paths import NoPath, Path, Reach, UplinkFamily, reach
from support.engine_world import Engine, config, world

OWN = {Family.V4: "198.51.100.2", Family.V6: "2001:db8:1::2"}
VIA = {Family.V4: "198.51.100.1", Family.V6: "2001:db8:1::1"}
OTHER = {Family.V4: "198.51.100.3", Family.V6: "2001:db8:1::3"}
LENGTH = {Family.V4: 26, Family.V6: 64}
both = pytest.mark.parametrize("family", Family)


def seen(
    *,
    addresses: tuple[tuple[str, str], ...] = (),
    defaults: tuple[DefaultRoute, ...] = (),
    wan: Link | None = None,
    others: tuple[Link, ...] = (),
) -> Observed:
    links = (
        Link(index=1, name="lo", up=True, carrier=True),
        wan or Link(index=2, name="wan0", up=True, carrier=True),
        *others,
    )
    return Observed(
        links={link.name: link for link in links},
        addresses=tuple(Address(link, ip_interface(ip)) for link, ip in addresses),
        defaults=defaults,
    )


def route(family: Family, via: str | None = None, **more: Any) -> DefaultRoute:
    fields = {"family": family, "link": "wan0", "via": None if via is None else ip_address(via), **more}
    return DefaultRoute(**fields)


def judged(observed: Observed, remembered: dict[UplinkFamily, Any] | None = None, **uplink: Any) -> dict[Any, Reach]:
    config = Config.model_validate({"uplinks": {"w0": {"interface": "wan0", **uplink}}})
    return {family: found for (_, family), found in reach(resolve(config, {}), observed, remembered or {}).items()}


def own(family: Family, link: str = "wan0") -> tuple[str, str]:
    return link, f"{OWN[family]}/{LENGTH[family]}"


def single(family: Family, link: str = "lo") -> tuple[str, str]:
    return link, f"{OWN[family]}/{family.host_length}"


@both
def test_a_default_route_that_names_the_device_alone_is_a_path(family: Family) -> None:
    found = judged(seen(addresses=(own(family),), defaults=(route(family),)))[family]
    assert found == Path(link="wan0", via=None, onlink=False, addresses=(ip_address(OWN[family]),))


@both
def test_so_is_one_in_a_table_of_its_own(family: Family) -> None:
    found = judged(seen(addresses=(own(family),), defaults=(route(family, table=TableId(201)),)))[family]
    assert isinstance(found, Path)


@both
def test_a_router_goes_before_a_route_without_one(family: Family) -> None:
    routes = (route(family, metric=1), route(family, VIA[family], metric=100))
    found = judged(seen(addresses=(own(family),), defaults=routes))[family]
    assert isinstance(found, Path)
    assert str(found.via) == VIA[family]


@both
def test_of_several_routers_on_one_link_the_first_is_taken(family: Family) -> None:
    routes = (route(family, VIA[family]), route(family, OTHER[family]))
    found = judged(seen(addresses=(own(family),), defaults=routes))[family]
    assert isinstance(found, Path)
    assert str(found.via) == VIA[family]


@both
def test_a_route_without_a_router_is_remembered_over_a_flap(family: Family) -> None:
    daemon = Engine(
        Config.model_validate({"uplinks": {"w0": {"interface": "wan0"}}}),
        seen(addresses=(own(family),), defaults=(route(family),)),
    )
    after = judged(seen(addresses=(own(family),)), dict(daemon.state.known.memory.gateways))[family]
    assert after == Path(link="wan0", via=None, onlink=False, addresses=(ip_address(OWN[family]),))


def test_a_point_to_point_link_remembers_no_router() -> None:
    wan = Link(index=2, name="wan0", up=True, carrier=True, point_to_point=True)
    observed = seen(addresses=(own(Family.V4),), defaults=(route(Family.V4),), wan=wan)
    daemon = Engine(Config.model_validate({"uplinks": {"w0": {"interface": "wan0"}}}), observed)
    assert daemon.state.known.memory.gateways == {}


@both
@pytest.mark.parametrize("home", ["lo", "lan0"])
def test_the_source_of_the_file_may_be_an_address_of_another_link(family: Family, home: str) -> None:
    lan = Link(index=3, name="lan0", up=True, carrier=True)
    gateway: dict[str, Any] = {"gateway" if family is Family.V4 else "gateway6": VIA[family]}
    observed = seen(addresses=(single(family, home),), others=(lan,))
    found = judged(observed, source=OWN[family], **gateway)[family]
    address = ip_address(OWN[family])
    assert found == Path(link="wan0", via=ip_address(VIA[family]), onlink=True, addresses=(address,), source=address)


@both
def test_a_fixed_address_of_its_translation_may_be_on_another_link(family: Family) -> None:
    observed = seen(addresses=(single(family),), defaults=(route(family, VIA[family]),))
    found = judged(observed, nat={"snat": OWN[family]})[family]
    assert isinstance(found, Path)
    assert found.source == ip_address(OWN[family])


@both
def test_the_source_that_its_default_route_asks_for_is_taken(family: Family) -> None:
    lan = Link(index=3, name="lan0", up=True, carrier=True)
    asked = route(family, VIA[family], preferred=ip_address(OWN[family]))
    found = judged(seen(addresses=(single(family, "lan0"),), defaults=(asked,), others=(lan,)))[family]
    assert isinstance(found, Path)
    assert found.source == ip_address(OWN[family])


@both
@pytest.mark.parametrize("home", ["lo", "box0"])
def test_an_unnumbered_link_with_a_default_route_speaks_by_the_loopbacks_address(family: Family, home: str) -> None:
    dummy = Link(index=9, name="box0", up=True, carrier=True, kind="dummy")
    observed = seen(addresses=(single(family, home),), defaults=(route(family),), others=(dummy,))
    found = judged(observed)[family]
    assert found == Path(
        link="wan0", via=None, onlink=False, addresses=(ip_address(OWN[family]),), source=ip_address(OWN[family])
    )


def test_an_unnumbered_ipv4_link_may_speak_by_the_address_that_the_kernel_chooses() -> None:
    lan = Link(index=3, name="lan0", up=True, carrier=True)
    observed = seen(addresses=(("lan0", "192.0.2.1/25"),), defaults=(route(Family.V4, VIA[Family.V4]),), others=(lan,))
    assert judged(observed)[Family.V4] == Path(link="wan0", via=ip_address(VIA[Family.V4]), onlink=True, addresses=())


def test_a_router_that_tells_no_prefix_gives_no_ipv6() -> None:
    lan = Link(index=3, name="lan0", up=True, carrier=True)
    observed = seen(
        addresses=(own(Family.V4), ("lan0", "2001:db8:9::1/64")), defaults=(route(Family.V6, "fe80::1"),), others=(lan,)
    )
    assert Family.V6 not in judged(observed)


def test_zeroconf_alone_is_no_path() -> None:
    observed = seen(addresses=(("wan0", "169.254.7.7/16"), ("lo", "192.0.2.1/32")), defaults=())
    assert judged(observed)[Family.V4] == NoPath(reason="no IPv4 address yet")


@both
def test_a_source_that_nobody_has_is_named(family: Family) -> None:
    gateway: dict[str, Any] = {"gateway" if family is Family.V4 else "gateway6": VIA[family]}
    found = judged(seen(), source=OWN[family], families=[family.nfproto], **gateway)[family]
    assert isinstance(found, NoPath)
    assert f"source {OWN[family]} is on no link of this box" in found.reason


def test_a_probe_waits_for_who_answers_in_the_name_of_its_target() -> None:
    observed = seen(addresses=(own(Family.V4),), defaults=(route(Family.V4),))
    probes = {"targets": ["203.0.113.11"], "interval": "300ms", "timeout": "300ms"}
    daemon = Engine(Config.model_validate({"uplinks": {"w0": {"interface": "wan0"}}, "health": probes}), observed)
    daemon.now = 1.0
    probed = daemon.feed(Tick())
    assert {e.order.timeout for e in probed if isinstance(e, StartProbe)} == {1.0}


def test_without_any_route_the_reason_says_so() -> None:
    found = judged(seen(addresses=(own(Family.V4),)))[Family.V4]
    assert found == NoPath(reason="IPv4 gateway not known yet: no default route through wan0 in any table")


def member(kind: str) -> Link:
    return Link(index=2, name="wan0", up=True, carrier=True, master=7, member_of=kind)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("bridge", "wan0 is a port of bridge top0: name top0 as the interface"),
        ("bond", "wan0 is a member of bond top0: name top0 as the interface"),
        ("team", "wan0 is a port of team top0: name top0 as the interface"),
        ("hsr", "wan0 belongs to top0: name top0 as the interface"),
        ("", "wan0 belongs to top0: name top0 as the interface"),
        ("openvswitch", "wan0 is a port of Open vSwitch: name the bridge that has the address as the interface"),
        ("vrf", "wan0 belongs to VRF top0: links in a VRF are not supported; ip link set wan0 nomaster"),
    ],
)
def test_a_link_that_another_one_speaks_for_is_no_uplink_and_the_other_one_is_named(kind: str, words: str) -> None:
    top = Link(index=7, name="top0", up=True, carrier=True, kind=kind)
    observed = seen(
        addresses=(own(Family.V4),), defaults=(route(Family.V4, VIA[Family.V4]),), wan=member(kind), others=(top,)
    )
    assert judged(observed)[Family.V4] == NoPath(reason=words)


def test_the_one_to_name_is_the_topmost() -> None:
    bond = Link(index=7, name="bond0", up=True, carrier=True, kind="bond", master=8, member_of="bridge")
    bridge = Link(index=8, name="br0", up=True, carrier=True, kind="bridge")
    found = judged(seen(wan=member("bond"), others=(bond, bridge)))[Family.V4]
    assert found == NoPath(reason="wan0 is a member of bond bond0: name br0 as the interface")


def test_the_member_of_a_bond_in_a_vrf_is_not_served_either() -> None:
    bond = Link(index=7, name="bond0", up=True, carrier=True, kind="bond", master=8, member_of="vrf")
    vrf = Link(index=8, name="blue", up=True, carrier=True, kind="vrf")
    found = judged(seen(wan=member("bond"), others=(bond, vrf)))[Family.V4]
    assert found == NoPath(
        reason="bond0 belongs to VRF blue: links in a VRF are not supported; ip link set bond0 nomaster"
    )


def test_a_vrf_itself_is_no_uplink() -> None:
    wan = Link(index=2, name="wan0", up=True, carrier=True, kind="vrf", point_to_point=True)
    assert judged(seen(addresses=(own(Family.V4),), wan=wan))[Family.V4] == NoPath(
        reason="wan0 is a VRF, not a link; VRFs are not supported"
    )


def test_masters_that_turn_in_a_circle_come_to_an_end() -> None:
    wan = Link(index=2, name="wan0", up=True, carrier=True, master=3, member_of="bridge")
    other = Link(index=3, name="br0", up=True, carrier=True, master=2, member_of="bridge")
    assert isinstance(judged(seen(wan=wan, others=(other,)))[Family.V4], NoPath)


def test_connections_are_shared_with_an_uplink_whose_route_names_no_router() -> None:
    two = world(2, [Family.V4])
    straight = DefaultRoute(family=Family.V4, link="wan1", via=None, metric=101)
    observed = Observed(links=two.links, addresses=two.addresses, defaults=(straight, two.defaults[1]))
    daemon = Engine(config(2), observed)
    assert daemon.state.decision.desired is not None
    assert {(r.link, r.via) for r in daemon.state.decision.desired.routes if r.metric == 1} == {
        ("wan1", None),
        ("wan2", ip_address("100.64.2.1")),
    }
    assert ip_network("100.64.1.2/32") in {rule.from_ for rule in daemon.state.decision.desired.rules}


@both
def test_each_uplink_translates_by_the_address_that_it_is_lent(family: Family) -> None:
    observed = world(2, [family])
    homes = tuple(Address("lo", ip_interface(f"{a.ip.ip}/{family.host_length}")) for a in observed.addresses)
    asked = tuple(replace(d, preferred=home.ip.ip) for d, home in zip(observed.defaults, homes, strict=True))
    links = {**observed.links, "lo": Link(index=1, name="lo", up=True, carrier=True)}
    daemon = Engine(config(2), Observed(links=links, addresses=homes, defaults=asked))
    assert daemon.state.decision.desired is not None
    rules = [rule.text for rule in daemon.state.decision.desired.nft.chains["nat"].rules]
    word = "ip" if family is Family.V4 else "ip6"
    own = [f'oifname "wan{n}" meta nfproto {family.nfproto} snat {word} to {homes[n - 1].ip.ip}' for n in (1, 2)]
    assert [rule for rule in rules if " snat " in rule] == own
    assert rules.index(own[1]) < rules.index("oifname @masqueraded masquerade")


@both
def test_a_link_with_an_address_of_its_own_masquerades_as_ever(family: Family) -> None:
    daemon = Engine(config(2), world(2, [family]))
    assert daemon.state.decision.desired is not None
    assert not any(" snat " in rule.text for rule in daemon.state.decision.desired.nft.chains["nat"].rules)
