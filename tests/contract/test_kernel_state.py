"""What every kernel keeps: routes, rules, the table and settings are read back as written, or refused."""

from __future__ import annotations

import errno
from dataclasses import replace
from ipaddress import ip_interface, ip_network

import pytest

from contract.kernels import RP_FILTER, World, apply, refusals, routes, rules, settings
from contract.values import (
    FOREIGN_DEFAULTS,
    FOREIGN_RULES,
    ROUTES,
    RULES,
    TABLE,
    default,
    desired,
    gateway,
    rule,
    sample,
)
from polywan.core.net import FAMILIES, TABLE_MAIN, Family, RulePriority
from polywan.core.plan.plan import AddRule, DelRoute, DelRule, NftBatch, Plan, PutRoute, SetSysctl, diff, removal
from polywan.core.routing.routes import IpRule, Route
from polywan.core.routing.sysctls import Sysctl
from polywan.core.ruleset.model import Chain, Hook, NftRule, NftTable, delete_text, replace_text, state_of
from polywan.core.ruleset.second_table import KEEP_TABLE
from polywan.core.world.observed import Address

NO_WAY_THERE = [(Family.V4, errno.ENETUNREACH), (Family.V6, errno.EHOSTUNREACH)]


@pytest.mark.parametrize("route", ROUTES, ids=str)
def test_a_route_is_read_back_as_it_was_put(world: World, route: Route) -> None:
    apply(world, PutRoute(route))
    assert routes(world) == {route}


@pytest.mark.parametrize("route", ROUTES, ids=str)
def test_a_route_can_be_deleted(world: World, route: Route) -> None:
    apply(world, PutRoute(route), DelRoute(route))
    assert routes(world) == frozenset()


@pytest.mark.parametrize("wanted", RULES, ids=str)
def test_a_rule_is_read_back_as_it_was_added(world: World, wanted: IpRule) -> None:
    apply(world, AddRule(wanted))
    assert rules(world) == {wanted}


@pytest.mark.parametrize("wanted", RULES, ids=str)
def test_a_rule_can_be_deleted(world: World, wanted: IpRule) -> None:
    apply(world, AddRule(wanted), DelRule(wanted))
    assert rules(world) == frozenset()


def test_rules_of_one_priority_are_told_apart(world: World) -> None:
    first, second = (replace(rule(Family.V4), from_=ip_network(f"100.64.1.{n}/32")) for n in (2, 3))
    apply(world, AddRule(first), AddRule(second), DelRule(first))
    assert rules(world) == {second}


def test_a_rule_that_goes_elsewhere_comes_only_after_the_old_one_has_left(world: World) -> None:
    target, other = (replace(rule(Family.V4), priority=RulePriority(n)) for n in (6100, 6200))
    old, new = (
        IpRule(family=Family.V4, priority=RulePriority(6000), goto=t.priority, iif="lo") for t in (target, other)
    )
    apply(world, AddRule(target), AddRule(other), AddRule(old))
    apply(world, DelRule(old, early=True), AddRule(new))
    assert rules(world) == {target, other, new}
    apply(world, AddRule(old))
    assert rules(world) == {target, other, new}


def test_a_table_is_read_back_as_it_was_written(world: World) -> None:
    apply(world, NftBatch(replace_text(sample())))
    assert world.kernel.read(()).nft == state_of(sample())


def test_no_table_is_read_as_none(world: World) -> None:
    assert world.kernel.read(()).nft is None


def test_a_table_is_replaced_whole(world: World) -> None:
    small = NftTable(chains={"kill_switch": Chain((NftRule("accept", "all there is"),))})
    apply(world, NftBatch(replace_text(sample())), NftBatch(replace_text(small)))
    assert world.kernel.read(()).nft == state_of(small)


def test_deleting_an_absent_table_is_no_failure(world: World) -> None:
    apply(world, NftBatch(delete_text()))
    assert world.kernel.read(()).nft is None


def test_after_an_apply_nothing_is_left_to_do(world: World) -> None:
    state = desired(sample())
    apply(world, *diff(state, world.kernel.read(settings(state))).ops)
    assert not diff(state, world.kernel.read(settings(state)))


def test_after_a_change_nothing_is_left_to_do(world: World) -> None:
    for state in (desired(sample()), desired(sample(slots=("lte", "lte", "fibre"), extra="drop"))):
        apply(world, *diff(state, world.kernel.read(settings(state))).ops)
        assert not diff(state, world.kernel.read(settings(state)))


def test_removal_leaves_nothing(world: World) -> None:
    state = desired(sample())
    apply(world, *diff(state, world.kernel.read(settings(state))).ops)
    apply(world, *removal(world.kernel.read(settings(state)), [Sysctl(RP_FILTER, "0")]).ops)
    remaining = world.kernel.read([RP_FILTER])
    assert (remaining.routes, remaining.rules, remaining.nft, remaining.sysctls) == (
        frozenset(),
        frozenset(),
        None,
        {RP_FILTER: "0"},
    )


def test_a_setting_is_written_and_an_absent_one_is_refused(world: World) -> None:
    absent = "net/ipv4/conf/absent0/rp_filter"
    ops = SetSysctl(Sysctl(absent, "2"), "0"), SetSysctl(Sysctl(RP_FILTER, "2"), "0")
    assert refusals(world, *ops) == [errno.ENOENT]
    assert world.kernel.read([RP_FILTER, absent]).sysctls == {RP_FILTER: "2"}


@pytest.mark.parametrize(
    "text",
    [
        "delete map inet polywan nothing\n",
        ("table inet polywan {\n\tmap slots_default_4 {\n\t\ttypeof numgen inc mod 2 : verdict;\n"
        "\t\telements = { 0 : goto to_lte }\n\t}\n}\n"),
        ('table inet polywan {\n\tmap arrival {\n\t\ttype ifname : verdict;\n'
        '\t\telements = { "up3" : goto to_nobody }\n\t}\n}\n'),
        "flush chain inet polywan steering_rules\nadd rule inet polywan steer numgen inc mod 3 vmap @nothing\n",
        "flush chain inet polywan steering_rules\nflush chain inet polywan nothing\n",
        "flush set inet polywan dead\nnonsense\n",
        "table inet polywan {\n\tchain steer {\n",
    ],
)  # fmt: skip
def test_a_refused_transaction_changes_nothing(world: World, text: str) -> None:
    apply(world, NftBatch(replace_text(sample())))
    (failure,) = world.kernel.apply(Plan((NftBatch(text),))).failures
    assert failure.message
    assert world.kernel.read(()).nft == state_of(sample())


def test_a_refused_operation_does_not_stop_the_others(world: World) -> None:
    lost = replace(default(Family.V4), link="absent0")
    ops = (
        PutRoute(default(Family.V4)),
        PutRoute(lost),
        NftBatch("nonsense\n"),
        AddRule(rule(Family.V6)),
        NftBatch(replace_text(sample())),
    )
    report = world.kernel.apply(Plan(ops))
    assert [failure.op for failure in report.failures] == [ops[1], ops[2]]
    assert report.done == 3
    actual = world.kernel.read(())
    assert actual.routes == {default(Family.V4)}
    assert actual.rules == {rule(Family.V6)}
    assert actual.nft == state_of(sample())


@pytest.mark.parametrize("family", FAMILIES)
def test_a_route_by_an_absent_link_is_refused(world: World, family: Family) -> None:
    assert refusals(world, PutRoute(replace(default(family), link="absent0"))) == [errno.ENODEV]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_route_by_a_link_that_is_down_is_refused(world: World, family: Family) -> None:
    world.set_up("up1", up=False)
    assert refusals(world, PutRoute(replace(default(family), via=None))) == [errno.ENETDOWN]


@pytest.mark.parametrize(("family", "number"), NO_WAY_THERE)
def test_a_gateway_off_the_link_is_refused(world: World, family: Family, number: int) -> None:
    assert refusals(world, PutRoute(replace(default(family), via=gateway(family, 9)))) == [number]


@pytest.mark.parametrize(("family", "number"), NO_WAY_THERE)
def test_a_gateway_by_a_link_that_is_down_is_refused(world: World, family: Family, number: int) -> None:
    world.set_up("up1", up=False)
    assert refusals(world, PutRoute(default(family))) == [number]


def test_the_boxs_own_ipv6_address_is_refused_as_gateway(world: World) -> None:
    assert refusals(world, PutRoute(default(Family.V6, host=2))) == [errno.EINVAL]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_source_the_box_does_not_have_is_refused(world: World, family: Family) -> None:
    assert refusals(world, PutRoute(replace(default(family), source=gateway(family, 9, 9)))) == [errno.EINVAL]


def test_a_goto_backwards_is_refused(world: World) -> None:
    wrong = replace(rule(Family.V4), table=None, goto=RulePriority(10))
    assert refusals(world, AddRule(wrong)) == [errno.EINVAL]


@pytest.mark.parametrize("family", FAMILIES)
def test_putting_a_route_replaces_the_one_of_its_key(world: World, family: Family) -> None:
    versions = [
        default(family),
        default(family, host=3),
        replace(default(family), via=None),
        replace(default(family, host=4), source=gateway(family, 1, 2)),
    ]
    for version in versions:
        apply(world, PutRoute(version))
        assert routes(world) == {version}


@pytest.mark.parametrize("family", FAMILIES)
def test_an_uplink_that_moves_to_another_device_keeps_one_route(world: World, family: Family) -> None:
    old, new = default(family), replace(default(family, 2), table=TABLE)
    apply(world, PutRoute(old))
    apply(world, PutRoute(new), DelRoute(old))
    assert routes(world) == {new}


@pytest.mark.parametrize("family", FAMILIES)
def test_putting_a_route_twice_is_no_failure(world: World, family: Family) -> None:
    apply(world, PutRoute(default(family)), PutRoute(default(family)))
    assert routes(world) == {default(family)}


def test_adding_a_rule_twice_leaves_one(world: World) -> None:
    apply(world, AddRule(rule(Family.V4)), AddRule(rule(Family.V4)))
    apply(world, DelRule(rule(Family.V4)))
    assert rules(world) == frozenset()


@pytest.mark.parametrize("family", FAMILIES)
def test_deleting_what_is_gone_is_no_failure(world: World, family: Family) -> None:
    lost = replace(default(family), link="absent0")
    apply(world, DelRoute(default(family)), DelRoute(lost), DelRule(rule(family)))


def test_what_belongs_to_others_is_seen_and_left_alone(world: World) -> None:
    for other in FOREIGN_DEFAULTS:
        world.add_default(other)
    for another in FOREIGN_RULES:
        world.add_foreign_rule(another)
    state = desired(sample())
    apply(world, *diff(state, world.kernel.read(settings(state))).ops)
    apply(world, *removal(world.kernel.read(()), ()).ops)
    assert set(world.kernel.observe().defaults) == set(FOREIGN_DEFAULTS)
    assert set(world.kernel.observe().rules) == set(FOREIGN_RULES)


@pytest.mark.parametrize("to", ["0.0.0.0/1", "128.0.0.0/1", "8.0.0.0/7", "2000::/3", "::/1", "8000::/1"])
@pytest.mark.parametrize("table", [TABLE_MAIN, 77])
def test_a_device_with_a_piece_of_a_default_route_is_seen(world: World, to: str, table: int) -> None:
    world.add_foreign_route(ip_network(to), "up2", table)
    assert world.kernel.observe().wide == {"up2"}
    assert world.kernel.observe().defaults == ()
    assert routes(world) == frozenset()


@pytest.mark.parametrize("to", ["10.0.0.0/8", "224.0.0.0/4", "fc00::/7", "2001:db8::/32"])
def test_a_network_of_the_inside_and_multicast_are_no_piece_of_a_default_route(world: World, to: str) -> None:
    world.add_foreign_route(ip_network(to), "up2")
    assert world.kernel.observe().wide == frozenset()


@pytest.mark.parametrize("to", ["0.0.0.0/1", "2000::/3"])
def test_a_link_that_is_removed_takes_its_pieces_along(world: World, to: str) -> None:
    world.add_foreign_route(ip_network(to), "up2")
    world.remove_link("up2")
    assert world.kernel.observe().wide == frozenset()


def test_the_kernels_own_rules_are_nobodys(world: World) -> None:
    assert world.kernel.observe().rules == ()


def test_links_are_seen_with_their_state(world: World) -> None:
    world.set_up("up2", up=False)
    links = world.kernel.observe().links
    seen = {name: (link.up, link.point_to_point, link.mtu, link.kind) for name, link in links.items()}
    assert (seen["up1"], seen["up2"]) == ((True, False, 1500, "veth"), (False, False, 1500, "veth"))
    assert (links["up1"].carrier, links["up2"].carrier) == (True, False)


def test_addresses_are_seen_with_their_link(world: World) -> None:
    found = {a for a in world.kernel.observe().addresses if a.link == "up1"}
    assert found == {Address("up1", ip_interface(a)) for a in ("100.64.1.2/24", "2001:db8:1::2/64")}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_link_that_goes_down_loses_its_routes(world: World, family: Family) -> None:
    apply(world, PutRoute(default(family)), PutRoute(default(family, 2)))
    world.set_up("up1", up=False)
    assert routes(world) == {default(family, 2)}
    world.set_up("up1", up=True)
    assert routes(world) == {default(family, 2)}


def test_the_last_ipv4_address_of_a_link_takes_its_ipv4_routes_along(world: World) -> None:
    apply(world, *(PutRoute(default(family, number)) for family in FAMILIES for number in (1, 2)))
    world.add_address("up1", "198.51.100.2/24")
    world.remove_address("up1", "100.64.1.2/24")
    assert default(Family.V4) in routes(world)
    world.remove_address("up1", "198.51.100.2/24")
    assert routes(world) == {default(Family.V4, 2), default(Family.V6), default(Family.V6, 2)}


def test_a_device_that_is_made_anew_is_another_and_begins_with_its_own_settings(world: World) -> None:
    setting = "net/ipv4/conf/new0/ignore_routes_with_linkdown"
    world.add_link("new0")
    before = world.kernel.read([setting])
    apply(world, SetSysctl(Sysctl(setting, "1"), "0"))
    written = world.kernel.read([setting])
    world.remove_link("new0")
    assert world.kernel.read([setting]).sysctls == {}
    world.add_link("new0")
    after = world.kernel.read([setting])
    assert [seen.sysctls for seen in (before, written, after)] == [{setting: "0"}, {setting: "1"}, {setting: "0"}]
    indexes = [seen.devices["new0"] for seen in (before, written, after)]
    assert indexes[0] == indexes[1] != indexes[2] == world.kernel.observe().links["new0"].index


def test_this_machine_lacks_nothing(world: World) -> None:
    assert world.kernel.missing() == []


def test_every_device_has_counters_by_its_name(world: World) -> None:
    found = world.kernel.counters()
    assert {"up1", "up2"} <= set(found)
    assert all(received >= 0 and sent >= 0 for received, sent in found.values())


HELD = NftTable(chains={"nat": Chain((NftRule("oifname up1 masquerade", "x"),), Hook("nat", "postrouting", 101))})


def test_a_held_table_outlasts_a_flush_and_its_next_version_and_goes_when_it_is_told(world: World) -> None:
    world.kernel.hold(KEEP_TABLE, HELD)
    world.flush_ruleset()
    assert world.held()
    world.kernel.hold(KEEP_TABLE, replace(HELD, chains={}))
    assert world.held()
    world.kernel.hold(KEEP_TABLE, None)
    assert not world.held()


def test_no_table_is_held_twice_nor_missed(world: World) -> None:
    world.kernel.hold(KEEP_TABLE, None)
    world.kernel.hold(KEEP_TABLE, HELD)
    world.kernel.hold(KEEP_TABLE, HELD)
    assert world.held()
