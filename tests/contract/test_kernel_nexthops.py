"""What every kernel keeps of nexthops and groups, and what it deletes by itself."""

from __future__ import annotations

import errno
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address

import pytest

from contract.kernels import World, apply, events_of, nexthops, refusals, routes
from contract.values import TABLE, gateway
from polywan.core.net import FAMILIES, WORST_METRIC, Family
from polywan.core.plan.plan import DelNexthop, DelRoute, Plan, PutNexthop, PutRoute, removal
from polywan.core.routing.nexthops import BUCKETS, Nexthop, NexthopGroup, NexthopId, group_id, nexthop_id
from polywan.core.routing.routes import Route
from polywan.core.state.events import ForeignStateChanged, KernelEvent, OwnStateChanged

STRANGER = NexthopId(7)


def hop(family: Family, uplink: int = 1) -> Nexthop:
    return Nexthop(id=nexthop_id(uplink, family), family=family, link=f"up{uplink}", via=gateway(family, uplink))


def group(family: Family, *weights: int) -> NexthopGroup:
    members = tuple((nexthop_id(n, family), weight) for n, weight in enumerate(weights, 1) if weight)
    return NexthopGroup(id=group_id(3, family), members=members)


def route(family: Family) -> Route:
    return Route(family=family, table=TABLE, metric=1, link=None, nexthop=group_id(3, family))


def stand(world: World, family: Family) -> None:
    """Two nexthops, a group of them and a route by it."""
    apply(
        world,
        PutNexthop(hop(family, 1)),
        PutNexthop(hop(family, 2)),
        PutNexthop(group(family, 3, 1)),
        PutRoute(route(family)),
    )


def ours(events: list[KernelEvent]) -> list[KernelEvent]:
    return [event for event in events if isinstance(event, OwnStateChanged)]


NEXTHOPS = [
    *(hop(family) for family in FAMILIES),
    *(replace(hop(family), via=None) for family in FAMILIES),
    replace(hop(Family.V4), via=IPv4Address("198.51.100.1"), onlink=True),
    replace(hop(Family.V6), via=IPv6Address("fe80::1")),
    replace(hop(Family.V4), family=Family.V6, via=IPv6Address("fe80::1")),
]


@pytest.mark.parametrize("nexthop", NEXTHOPS, ids=str)
def test_a_nexthop_is_read_back_as_it_was_put(world: World, nexthop: Nexthop) -> None:
    apply(world, PutNexthop(nexthop))
    assert nexthops(world) == {nexthop}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_group_and_a_route_by_it_are_read_back_as_they_were_put(world: World, family: Family) -> None:
    stand(world, family)
    assert nexthops(world) == {hop(family, 1), hop(family, 2), group(family, 3, 1)}
    assert routes(world) == {route(family)}


def test_an_ipv4_group_may_leave_by_an_ipv6_neighbour(world: World) -> None:
    neighbour = replace(hop(Family.V4), family=Family.V6, via=IPv6Address("fe80::1"))
    apply(world, PutNexthop(neighbour), PutNexthop(group(Family.V4, 1)), PutRoute(route(Family.V4)))
    assert routes(world) == {route(Family.V4)}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_group_is_replaced_in_place_and_its_route_stays(world: World, family: Family) -> None:
    stand(world, family)
    apply(world, PutNexthop(group(family, 0, 255)), DelNexthop(hop(family, 1)))
    assert nexthops(world) == {hop(family, 2), group(family, 0, 255)}
    assert routes(world) == {route(family)}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_nexthop_is_replaced_in_place_and_its_groups_stay(world: World, family: Family) -> None:
    stand(world, family)
    moved = replace(hop(family, 1), via=gateway(family, 2, 9), link="up2")
    apply(world, PutNexthop(moved))
    assert nexthops(world) == {moved, hop(family, 2), group(family, 3, 1)}
    assert routes(world) == {route(family)}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_group_goes_after_its_route_and_before_its_members(world: World, family: Family) -> None:
    stand(world, family)
    apply(world, DelRoute(route(family)), DelNexthop(group(family, 3, 1)))
    apply(world, DelNexthop(hop(family, 1)), DelNexthop(hop(family, 2)))
    assert (nexthops(world), routes(world)) == (frozenset(), frozenset())


def test_the_removal_of_what_is_not_there_counts_as_done(world: World) -> None:
    apply(world, DelNexthop(hop(Family.V4)), DelNexthop(group(Family.V6, 1)), DelRoute(route(Family.V6)))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_route_by_a_group_and_one_by_a_device_take_each_others_place(world: World, family: Family) -> None:
    by_device = Route(family=family, table=TABLE, metric=1, link="up1", via=gateway(family))
    apply(world, PutRoute(by_device))
    stand(world, family)
    assert routes(world) == {route(family)}
    apply(world, PutRoute(by_device))
    assert routes(world) == {by_device}


@pytest.mark.parametrize("family", FAMILIES)
def test_what_a_group_refers_to_has_to_be_there(world: World, family: Family) -> None:
    assert refusals(world, PutNexthop(group(family, 1)), PutRoute(route(family))) == [errno.EINVAL, errno.EINVAL]


def test_the_number_of_buckets_of_a_group_is_fixed(world: World) -> None:
    stand(world, Family.V4)
    assert refusals(world, PutNexthop(replace(group(Family.V4, 1, 1), buckets=2 * BUCKETS))) == [errno.EINVAL]


def test_a_nexthop_needs_its_device(world: World) -> None:
    assert refusals(world, PutNexthop(replace(hop(Family.V4), link="absent0"))) == [errno.ENODEV]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_nexthop_needs_a_carrier(world: World, family: Family) -> None:
    world.set_carrier("up1", carrier=False)
    assert refusals(world, PutNexthop(hop(family))) == [errno.ENETDOWN]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_link_without_carrier_loses_its_nexthops_for_good(world: World, family: Family) -> None:
    stand(world, family)
    events = events_of(world, lambda: world.set_carrier("up1", carrier=False))
    assert ours(events) == []
    world.set_carrier("up1", carrier=True)
    assert nexthops(world) == {hop(family, 2), group(family, 0, 1)}
    assert routes(world) == {route(family)}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_link_that_is_set_down_loses_its_nexthops_without_an_event(world: World, family: Family) -> None:
    stand(world, family)
    events = events_of(world, lambda: world.set_up("up1", up=False))
    assert ours(events) == []
    assert nexthops(world) == {hop(family, 2), group(family, 0, 1)}


def test_a_removed_link_takes_its_nexthops_along(world: World) -> None:
    stand(world, Family.V4)
    world.remove_link("up1")
    assert nexthops(world) == {hop(Family.V4, 2), group(Family.V4, 0, 1)}


@pytest.mark.parametrize(("family", "events"), [(Family.V4, []), (Family.V6, [OwnStateChanged("route")])])
def test_with_its_last_member_a_group_goes_and_the_routes_by_it(
    world: World, family: Family, events: list[KernelEvent]
) -> None:
    stand(world, family)

    def act() -> None:
        world.set_carrier("up1", carrier=False)
        world.set_carrier("up2", carrier=False)

    assert ours(events_of(world, act)) == events
    assert (nexthops(world), routes(world)) == (frozenset(), frozenset())


def test_a_deleted_nexthop_of_ours_is_reported(world: World) -> None:
    stand(world, Family.V4)
    assert ours(events_of(world, lambda: world.delete_nexthop(hop(Family.V4).id))) == [OwnStateChanged("nexthop")]
    assert nexthops(world) == {hop(Family.V4, 2), group(Family.V4, 0, 1)}


def test_our_own_nexthops_are_not_reported(world: World) -> None:
    def act() -> None:
        stand(world, Family.V4)
        stand(world, Family.V6)
        apply(world, *removal(world.kernel.read(()), ()).ops)

    assert ours(events_of(world, act)) == []


def test_nexthops_of_others_are_reported_and_left_alone(world: World) -> None:
    theirs = replace(hop(Family.V4), id=STRANGER)
    events = events_of(world, lambda: world.add_foreign_nexthop(theirs))
    assert (ours(events), ForeignStateChanged("nexthop") in events) == ([], True)
    stand(world, Family.V4)
    assert theirs not in nexthops(world)
    assert world.kernel.apply(removal(world.kernel.read(()), ())).failures == ()
    assert (nexthops(world), world.foreign_nexthops()) == (frozenset(), [STRANGER])


@pytest.mark.parametrize("family", FAMILIES)
def test_a_blackhole_stands_behind_the_route_by_a_group(world: World, family: Family) -> None:
    blackhole = Route(family=family, table=TABLE, metric=WORST_METRIC, link=None)
    apply(world, PutRoute(blackhole))
    stand(world, family)
    for link in ("up1", "up2"):
        world.set_carrier(link, carrier=False)
    assert routes(world) == {blackhole}


def test_a_whole_plan_of_both_families_is_carried_out(world: World) -> None:
    ops = [PutNexthop(hop(family, n)) for family in FAMILIES for n in (1, 2)]
    report = world.kernel.apply(Plan((*ops, *(PutNexthop(group(family, 255, 1)) for family in FAMILIES))))
    assert report.failures == ()
    assert len(nexthops(world)) == 6
