"""The hardware addresses of routers, which tell whose a packet is where several uplinks share a device."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from contract.kernels import World, events_of
from polywan.core.state.events import ForeignStateChanged
from polywan.core.world.observed import Router
from polywan.core.world.shared_device import NextHop

FIRST, SECOND = "02:00:00:00:00:01", "02:00:00:00:00:02"
TOLD = ForeignStateChanged("neighbour", "up1")

each = pytest.mark.parametrize("via", ["100.64.1.1", "2001:db8:1::1", "fe80::1"])


@each
def test_only_the_routers_that_matter_are_shown(world: World, via: str) -> None:
    hop = NextHop("up1", ip_address(via))
    world.set_router("up1", via, FIRST)
    world.set_router("up2", "100.64.2.1", SECOND)
    assert world.kernel.observe({hop}).routers == (Router(hop.link, hop.via, FIRST),)
    assert world.kernel.observe().routers == ()


@each
def test_a_router_that_nobody_has_heard_of_is_not_shown(world: World, via: str) -> None:
    assert world.kernel.observe({NextHop("up1", ip_address(via)), NextHop("gone0", ip_address(via))}).routers == ()


@each
def test_another_hardware_address_is_told_and_the_same_one_is_not(world: World, via: str) -> None:
    hop = NextHop("up1", ip_address(via))

    def change() -> None:
        world.kernel.observe({hop})
        world.set_router("up1", via, FIRST)
        world.set_router("up1", via, FIRST)
        world.set_router("up1", via, SECOND)
        world.set_router("up1", via, "")

    # What is read at once counts as one.
    assert 1 <= events_of(world, change).count(TOLD) <= 3
    assert world.kernel.observe({hop}).routers == ()


def test_neighbours_are_not_told_of_while_no_router_matters(world: World) -> None:
    assert TOLD not in events_of(world, lambda: world.set_router("up1", "100.64.1.1", FIRST))
