"""Sets of addresses have room for all of them."""

from __future__ import annotations

import re
from dataclasses import replace
from ipaddress import ip_address, ip_interface

import pytest

from polywan.core.ruleset.inputs import room_for
from polywan.core.world.observed import Address
from support.engine_world import Engine, config, world


@pytest.mark.parametrize("count", [0, 1, 4096, 4097, 8192, 8193, 100_000])
def test_there_is_room_for_every_address(count: int) -> None:
    size = int(re.findall(r"\d+", room_for(count))[0])
    assert size >= max(count, 4096)
    assert size <= max(2 * count, 4096)


def test_the_own_addresses_of_a_box_with_thousands_have_room() -> None:
    first = int(ip_address("10.77.0.1"))
    many = tuple(Address("lo", ip_interface(f"{ip_address(first + n)}/32")) for n in range(4200))
    small = world(2)
    daemon = Engine(config(2), replace(small, addresses=(*small.addresses, *many)))
    assert daemon.state.decision.desired is not None
    own = daemon.state.decision.desired.nft.sets["own"]
    assert len(own.elements) >= 4200
    assert own.type == "type ipv4_addr; size 8192;"
