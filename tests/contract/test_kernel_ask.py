"""What every kernel answers when it is asked for a route."""

from __future__ import annotations

import errno
from dataclasses import replace
from ipaddress import ip_address

import pytest

from contract.kernels import World, apply
from contract.values import TABLE, default, gateway, rule
from polywan.core.errors import KernelError
from polywan.core.net import FAMILIES, TABLE_MAIN, WORST_METRIC, Family
from polywan.core.plan.plan import AddRule, PutRoute
from polywan.core.trace.route_query import RouteAnswer, RouteQuery
from polywan.core.world.observed import DefaultRoute

FAR = {Family.V4: ip_address("203.0.113.9"), Family.V6: ip_address("2001:db8:9::9")}
INSIDE = {Family.V4: ip_address("192.168.1.50"), Family.V6: ip_address("2001:db8:aa::50")}


def query(family: Family, mark: int = 0) -> RouteQuery:
    return RouteQuery(family=family, destination=FAR[family], mark=mark)


def with_default(world: World, family: Family) -> None:
    world.add_default(DefaultRoute(family=family, link="up2", via=gateway(family, 2), metric=50))


def with_mark(world: World, family: Family) -> None:
    apply(
        world,
        PutRoute(default(family)),
        PutRoute(replace(default(family), link=None, via=None, metric=WORST_METRIC)),
        AddRule(replace(rule(family), mark=(0x100, 0x3F00))),
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_nobody_knows_a_way(world: World, family: Family) -> None:
    assert world.kernel.ask(query(family)) == RouteAnswer(kind="none")


@pytest.mark.parametrize("family", FAMILIES)
def test_the_boxs_own_packet_without_a_mark_takes_mains_default(world: World, family: Family) -> None:
    with_default(world, family)
    assert world.kernel.ask(query(family)) == RouteAnswer(
        kind="unicast",
        link="up2",
        via=gateway(family, 2),
        source=gateway(family, 2, 2),
        table=TABLE_MAIN,
        prefix=0,
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_a_neighbour_is_reached_without_a_gateway(world: World, family: Family) -> None:
    answer = world.kernel.ask(replace(query(family), destination=gateway(family, 1, 77)))
    length = 24 if family is Family.V4 else 64
    assert (answer.kind, answer.link, answer.via, answer.prefix) == ("unicast", "up1", None, length)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_mark_leads_to_its_table(world: World, family: Family) -> None:
    with_default(world, family)
    with_mark(world, family)
    answer = world.kernel.ask(query(family, 0xFF0100))
    assert (answer.link, answer.via, answer.table) == ("up1", gateway(family), TABLE)
    assert world.kernel.ask(query(family, 0x200)).link == "up2"


@pytest.mark.parametrize("family", FAMILIES)
def test_the_source_of_the_boxs_own_packet_is_the_one_that_was_asked_with(world: World, family: Family) -> None:
    with_default(world, family)
    answer = world.kernel.ask(replace(query(family), source=gateway(family, 1, 2)))
    assert (answer.link, answer.source) == ("up2", gateway(family, 1, 2))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("protocol", [1, 6, 17, 58, 132, 47, None])
def test_a_forwarded_packet_takes_the_table_of_its_mark(world: World, family: Family, protocol: int | None) -> None:
    world.forward()
    with_default(world, family)
    with_mark(world, family)
    forwarded = replace(
        query(family, 0x100),
        source=INSIDE[family],
        in_interface="up2",
        protocol=protocol,
        source_port=40000,
        port=443,
    )
    answer = world.kernel.ask(forwarded)
    assert (answer.kind, answer.link, answer.via) == ("unicast", "up1", gateway(family))
    assert (answer.source, answer.table, answer.prefix) == (None, TABLE, 0)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_user_can_be_asked_for(world: World, family: Family) -> None:
    with_default(world, family)
    assert world.kernel.ask(replace(query(family), uid=65534, protocol=6, port=443)).link == "up2"


@pytest.mark.parametrize("family", FAMILIES)
def test_a_mark_whose_route_is_gone_is_dropped_silently(world: World, family: Family) -> None:
    with_default(world, family)
    apply(
        world,
        PutRoute(replace(default(family), link=None, via=None)),
        AddRule(replace(rule(family), mark=(0x100, 0x3F00))),
    )
    assert world.kernel.ask(query(family, 0x100)) == RouteAnswer(kind="blackhole")


@pytest.mark.parametrize("family", FAMILIES)
def test_an_address_of_this_box_stays_here(world: World, family: Family) -> None:
    answer = world.kernel.ask(replace(query(family), destination=gateway(family, 1, 2)))
    assert (answer.kind, answer.link) == ("local", "lo")


@pytest.mark.parametrize("family", FAMILIES)
def test_a_device_that_is_not_there_is_refused(world: World, family: Family) -> None:
    with pytest.raises(KernelError) as refused:
        world.kernel.ask(replace(query(family), source=INSIDE[family], in_interface="nowhere0"))
    assert refused.value.errno == errno.ENODEV
