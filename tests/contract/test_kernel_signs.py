"""What every kernel tells of new connections: a sample, of our marks, of what a working server would answer."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterator

import pytest

from contract.entries import Entry
from contract.kernels import LinuxWorld, World, linux_world
from contract.values import MASK
from polywan.core.health.passive import SAMPLE
from polywan.core.net import FAMILIES, Family
from polywan.core.state.events import NewConnections
from polywan.kernel.api import Freed
from polywan.kernel.conntrack.forgotten import ForgottenConnections
from polywan.kernel.conntrack.new_connections import NewConnectionListener

PATIENCE = 5.0


def tcp(port: int, mark: int = 0x100, family: Family = Family.V4, state: int = 1) -> Entry:
    return Entry(protocol="tcp", port=port, mark=mark, family=family, state=state)


def heard(
    world: World, *acts: Callable[[], object], enough: Callable[[NewConnections], bool], mask: int = MASK
) -> NewConnections:
    """What is told, taken together, from the first act on; each look that brings nothing new lets the next act."""

    async def listen() -> NewConnections:
        world.kernel.listen(mask)
        stream, known, remaining = world.kernel.new_connections(), NewConnections(), list(acts)

        async def take() -> None:
            nonlocal known
            async for new_connections in stream:
                known = NewConnections(
                    opened=known.opened + new_connections.opened, answered=known.answered | new_connections.answered
                )
                if remaining:
                    remaining.pop(0)()
                elif enough(known):
                    return

        taking = asyncio.create_task(take())
        await asyncio.sleep(0)
        remaining.pop(0)()
        try:
            async with asyncio.timeout(PATIENCE):
                await taking
        finally:
            taking.cancel()
            await asyncio.gather(taking, return_exceptions=True)
        return known

    return asyncio.run(listen())


def opened(count: int) -> Callable[[NewConnections], bool]:
    return lambda new_connections: len(new_connections.opened) >= count


@pytest.mark.parametrize("family", FAMILIES)
def test_a_new_connection_is_told_with_its_mark_and_destination(world: World, family: Family) -> None:
    new_connections = heard(world, lambda: world.track([tcp(1, 0xC100, family)]), enough=opened(1))
    (only,) = new_connections.opened
    assert (only.mark, only.family) == (0x100, family)
    assert str(only.destination) == ("203.0.113.9" if family is Family.V4 else "2001:db8:9::9")
    assert new_connections.answered == frozenset()


def test_connections_of_others_and_in_the_middle_of_their_life_are_not_told(world: World) -> None:
    entries = [tcp(1, 0), tcp(2, 0xC000), tcp(3, state=3), Entry(protocol="icmp", port=4, mark=0x100), tcp(5, 0x200)]
    new_connections = heard(world, lambda: world.track(entries), enough=opened(1))
    assert [o.mark for o in new_connections.opened] == [0x200]


def test_queries_by_udp_are_told(world: World) -> None:
    new_connections = heard(world, lambda: world.track([Entry(mark=0x100)]), enough=opened(1))
    assert len(new_connections.opened) == 1


def test_of_many_a_few_of_each_mark_are_told(world: World) -> None:
    entries = [tcp(port, 0x100 * (1 + port % 2)) for port in range(1000, 1040)]
    new_connections = heard(world, lambda: world.track(entries), enough=opened(2 * SAMPLE))
    assert sorted(o.mark for o in new_connections.opened) == [0x100] * SAMPLE + [0x200] * SAMPLE
    assert len({o.number for o in new_connections.opened}) == 2 * SAMPLE


@pytest.mark.parametrize("family", FAMILIES)
def test_open_tcp_that_the_kernel_forgot_while_somebody_listened_is_ended_with_a_cut(
    world: World, family: Family
) -> None:
    other = next(f for f in FAMILIES if f is not family)
    theirs = [Entry(mark=0x100, family=family), tcp(2, 0x200, family, state=3), tcp(3, family=other, state=3)]
    freed: list[Freed] = []

    def forget() -> None:
        world.expire([tcp(1, family=family, state=3), *theirs])
        freed.extend(world.kernel.cut(0x100, MASK, family) for _ in range(2))
        world.track([tcp(9, 0x300)])

    heard(world, lambda: world.track([tcp(8, 0x300)]), forget, enough=opened(2))
    assert [(f.challenged, f.forgotten, f.ended) for f in freed] == [(1, 0, 0), (0, 0, 0)]


@pytest.mark.parametrize("family", FAMILIES)
def test_what_the_kernel_forgot_is_released_alone(world: World, family: Family) -> None:
    freed: list[Freed] = []

    def forget() -> None:
        world.expire([tcp(1, family=family, state=3), tcp(2, 0x200, family, state=3)])
        world.track([tcp(3, family=family, state=3), Entry(mark=0x100, port=4, family=family)])
        freed.extend(world.kernel.release(0x100, MASK, family) for _ in range(2))

    heard(world, lambda: world.track([tcp(8, 0x300)]), forget, lambda: world.track([tcp(9, 0x300)]), enough=opened(2))
    assert [(f.challenged, f.forgotten, f.ended) for f in freed] == [(1, 0, 0), (0, 0, 0)]
    assert world.kernel.connections(MASK)[0x100] == 2


def test_what_the_kernel_forgot_while_nobody_listened_is_not_known(world: World) -> None:
    world.expire([tcp(1, state=3)])
    assert world.kernel.cut(0x100, MASK, Family.V4).challenged == 0


@pytest.fixture
def linux() -> Iterator[LinuxWorld]:
    with linux_world() as world:
        yield world


@pytest.mark.netns
def test_a_connection_that_is_gone_counts_as_answered(linux: LinuxWorld) -> None:
    new_connections = heard(
        linux,
        lambda: linux.track([tcp(1), tcp(2, 0x200)]),
        lambda: linux.kernel.cut(0x100, MASK, Family.V4),
        enough=lambda new_connections: bool(new_connections.answered),
    )
    assert new_connections.answered == {o.number for o in new_connections.opened if o.mark == 0x100}


@pytest.mark.netns
def test_nothing_is_told_while_nobody_wants_to_hear(linux: LinuxWorld) -> None:
    with pytest.raises(TimeoutError):
        quiet(linux, 0)
    assert quiet(linux, MASK) == 1


def quiet(linux: LinuxWorld, mask: int) -> int:
    async def first() -> int:
        linux.kernel.listen(mask)
        stream = linux.kernel.new_connections()
        asking = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0)
        linux.track([tcp(1 + mask)])
        async with asyncio.timeout(0.5 if mask == 0 else PATIENCE):
            return len((await asking).opened)

    return asyncio.run(first())


@pytest.mark.netns
def test_closing_ends_the_stream_whether_it_waits_or_works(linux: LinuxWorld) -> None:
    async def story() -> None:
        linux.kernel.listen(MASK)
        stream = linux.kernel.new_connections()
        ended = asyncio.ensure_future(anext(stream, None))
        await asyncio.sleep(0)
        linux.kernel.close()
        async with asyncio.timeout(PATIENCE):
            assert await ended is None

    asyncio.run(story())


class Pauses(ForgottenConnections):
    """Notes when nothing is to be told, and when again."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[bool] = []

    def pause(self, *, paused: bool) -> None:
        if [paused] != self.seen[-1:]:
            self.seen.append(paused)
        super().pause(paused=paused)


@pytest.mark.netns
def test_the_end_of_connections_is_not_told_while_very_many_begin(linux: LinuxWorld) -> None:
    pauses = Pauses()
    ear, ports = NewConnectionListener(pauses), itertools.count(1)

    def many() -> None:
        while True not in pauses.seen:
            linux.track([tcp(next(ports)) for _ in range(200)])

    async def hear() -> None:
        async for _ in ear.stream():
            pass

    async def story() -> None:
        ear.listen(MASK)
        hearing = asyncio.create_task(hear())
        async with asyncio.timeout(PATIENCE):
            await asyncio.to_thread(many)
            while pauses.seen[-1]:
                await asyncio.sleep(0.01)
        ear.close()
        await hearing

    asyncio.run(story())
    assert pauses.seen == [False, True, False]
