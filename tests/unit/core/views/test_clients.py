"""Clients by what their connections add up to."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from polywan.api.views.clients import ClientTotal
from polywan.core.net import Family
from polywan.core.views.clients import clients
from polywan.core.world.conntrack import Flow

NAMES = {0x100: "fibre", 0x200: "lte"}


def flow(client: str, mark: int, size: int | None) -> Flow:
    up = None if size is None else size // 3
    down = None if size is None or up is None else size - up
    return Flow(Family.V4, 6, client, 1, "203.0.113.9", 443, mark=mark, bytes_up=up, bytes_down=down)


flows = st.builds(
    flow, st.sampled_from(["10.0.0.1", "10.0.0.2", "10.0.0.3"]), st.sampled_from([0, 0x100, 0x200, 0x300]),
    st.none() | st.integers(0, 100),
)  # fmt: skip


@given(st.lists(flows, max_size=30), st.integers(0, 4))
def test_all_connections_of_uplinks_are_counted_once(many: list[Flow], limit: int) -> None:
    ours = [one for one in many if one.mark in NAMES]
    found = clients(many, NAMES, 9)
    assert {each.client: each.connections for each in found.clients} == Counter(one.client for one in ours)
    assert sum(sum(each.uplinks.values()) for each in found.clients) == len(ours)
    moved = [(each.bytes_up or 0) + (each.bytes_down or 0) for each in found.clients]
    assert moved == sorted(moved, reverse=True)
    assert sum(moved) == sum((one.bytes_up or 0) + (one.bytes_down or 0) for one in ours)
    few = clients(many, NAMES, limit)
    assert few.clients == found.clients[:limit]
    assert few.total == found.total == len(found.clients)


def test_bytes_that_nobody_counted_are_no_zero() -> None:
    found = clients([flow("10.0.0.1", 0x100, None), flow("10.0.0.1", 0x200, None)], NAMES, 9)
    assert found.clients == (
        ClientTotal(client="10.0.0.1", connections=2, bytes_up=None, bytes_down=None, uplinks={"fibre": 1, "lte": 1}),
    )
