"""What every kernel reports of the doings of others, and of its own: nothing."""

from __future__ import annotations

import asyncio
from ipaddress import ip_network

import pytest

from contract.kernels import World, apply, events_of, routes, settings
from contract.values import FOREIGN_DEFAULTS, FOREIGN_RULES, default, desired, rule, sample
from polywan.core.net import Family
from polywan.core.plan.plan import AddRule, NftBatch, PutRoute, diff, removal
from polywan.core.ruleset.model import replace_text
from polywan.core.state.events import ForeignStateChanged, KernelEvent, LinkChanged, LinkRemoved, OwnStateChanged
from support.event_watch import events


def ours(events: list[KernelEvent]) -> list[KernelEvent]:
    return [event for event in events if isinstance(event, OwnStateChanged)]


def test_ipv4_routes_of_a_downed_link_go_without_an_event(world: World) -> None:
    apply(world, PutRoute(default(Family.V4)))
    events = events_of(world, lambda: world.set_up("up1", up=False))
    assert routes(world) == frozenset()
    assert ours(events) == []
    assert any(isinstance(e, LinkChanged) and e.link.name == "up1" and not e.link.up for e in events)


def test_ipv6_routes_of_a_downed_link_go_with_an_event(world: World) -> None:
    apply(world, PutRoute(default(Family.V6)))
    events = events_of(world, lambda: world.set_up("up1", up=False))
    assert ours(events) == [OwnStateChanged("route")]


def test_a_link_that_is_removed_is_reported(world: World) -> None:
    assert LinkRemoved("up1") in events_of(world, lambda: world.remove_link("up1"))


def test_foreign_default_routes_and_rules_are_reported(world: World) -> None:
    def act() -> None:
        world.add_default(FOREIGN_DEFAULTS[0])
        world.add_foreign_rule(FOREIGN_RULES[0])

    events = events_of(world, act)
    assert {ForeignStateChanged("route"), ForeignStateChanged("rule")} <= set(events)


@pytest.mark.parametrize(("to", "reported"), [("0.0.0.0/1", True), ("2000::/3", True), ("10.0.0.0/8", False)])
def test_pieces_of_a_default_route_are_reported(world: World, to: str, reported: bool) -> None:
    events = events_of(world, lambda: world.add_foreign_route(ip_network(to), "up2"))
    assert (ForeignStateChanged("route") in events) is reported


def test_a_deleted_rule_of_ours_is_reported(world: World) -> None:
    apply(world, AddRule(rule(Family.V6)))
    assert ours(events_of(world, lambda: world.delete_rule(rule(Family.V6)))) == [OwnStateChanged("rule")]


def test_a_deleted_route_of_ours_is_reported(world: World) -> None:
    apply(world, PutRoute(default(Family.V4)))
    assert ours(events_of(world, lambda: world.delete_route(default(Family.V4)))) == [OwnStateChanged("route")]


def test_a_flushed_table_of_ours_is_reported_with_its_culprit(world: World) -> None:
    apply(world, NftBatch(replace_text(sample())))
    (event,) = ours(events_of(world, world.flush_ruleset))
    assert isinstance(event, OwnStateChanged)
    assert event.what == "table"
    assert event.by.startswith("nft (pid ")


def test_our_own_changes_are_not_reported(world: World) -> None:
    state = desired(sample())

    def act() -> None:
        apply(world, *diff(state, world.kernel.read(settings(state))).ops)
        apply(world, *removal(world.kernel.read(()), ()).ops)

    assert ours(events_of(world, act)) == []


def test_events_end_with_close(world: World) -> None:
    async def main() -> list[KernelEvent]:
        stream = events(world.kernel)

        async def collect() -> list[KernelEvent]:
            return [event async for event in stream if not isinstance(event, LinkChanged)]

        waiting = asyncio.create_task(collect())
        await asyncio.sleep(0)
        world.kernel.close()
        return await asyncio.wait_for(waiting, 5)

    assert asyncio.run(main()) == []


def test_whoever_no_longer_waits_hears_nothing_more(world: World) -> None:
    reported: list[KernelEvent] = []

    async def main() -> None:
        world.kernel.watch(reported.append).cancel()
        others = events(world.kernel)
        world.add_link("late")
        async with asyncio.timeout(5):
            await anext(others)

    asyncio.run(main())
    assert reported == []


def test_what_a_listener_raises_ends_its_watch(world: World) -> None:
    reported: list[KernelEvent] = []

    def tell(event: KernelEvent) -> None:
        reported.append(event)
        raise ValueError("no more")

    async def main() -> None:
        ended = world.kernel.watch(tell)
        world.add_link("late")
        world.add_link("later")
        async with asyncio.timeout(5):
            await ended

    with pytest.raises(ValueError, match="no more"):
        asyncio.run(main())
    assert len(reported) == 1
