"""What is kept of others' routes is what a fresh reader finds, and costs the kernel nothing while nothing happens."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Iterator

import pytest

from contract.kernels import LinuxWorld, linux_world
from polywan.core.world.observed import Observed
from polywan.kernel.linux import LinuxKernel
from polywan.kernel.netlink import rtnetlink as rt
from polywan.kernel.netlink.socket import NetlinkSocket
from support.event_watch import events

pytestmark = pytest.mark.netns


@pytest.fixture
def linux() -> Iterator[LinuxWorld]:
    with linux_world() as world:
        yield world


def ip(words: str) -> None:
    subprocess.run(["ip", *words.split()], check=True, capture_output=True)


@pytest.fixture
def dumps(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Kinds of all dumps that are asked for."""
    asked: list[int] = []
    dump = NetlinkSocket.dump

    def counting(self: NetlinkSocket, kind: int, body: bytes) -> object:
        asked.append(kind)
        return dump(self, kind, body)

    monkeypatch.setattr(NetlinkSocket, "dump", counting)
    return asked


BEFORE = """
address add 192.0.2.1/24 dev up1
address add 198.51.100.1/24 dev up2
route add default via 192.0.2.254 dev up1
route add default via 198.51.100.254 dev up2 metric 7 src 198.51.100.1
route add 0.0.0.0/1 via 198.51.100.254 dev up2
nexthop add id 9 via 192.0.2.253 dev up1
route add 203.0.113.0/25 nhid 9
route add 203.0.113.128/25 dev up1
route add 203.0.115.0/24 via 192.0.2.253 src 198.51.100.1
rule add priority 50 from 10.9.0.0/16 lookup 77
route add default via 192.0.2.252 dev up1 table 77
"""

ACTS = [
    "route del default dev up1",
    "route add default via 192.0.2.250 dev up1 metric 3",
    "route add 203.0.114.0/24 dev up2",
    "route add 203.0.114.0/24 dev up2 table 77",
    "route del 0.0.0.0/1",
    "route flush table 77",
    "link set up1 down",
    "link del up1",
    "address del 192.0.2.1/24 dev up1",
    "address add 198.51.100.7/24 dev up2",
    "address del 198.51.100.1/24 dev up2",
    "address flush dev up1",
    "nexthop del id 9",
    "rule del priority 50",
    "rule add priority 51 from 10.8.0.0/16 lookup 78",
    "link add other type veth peer name its_peer",
]


async def settled(linux: LinuxWorld, act: str) -> Observed:
    """Read, act, let the notifications come in, and read again."""
    stream = events(linux.kernel)
    heard = asyncio.Event()

    async def listen() -> None:
        async for _ in stream:
            heard.set()

    listener = asyncio.create_task(listen())
    await asyncio.sleep(0)
    linux.kernel.observe()
    ip(act)
    async with asyncio.timeout(5):
        await heard.wait()
    seen = linux.kernel.observe()
    listener.cancel()
    return seen


@pytest.mark.parametrize("act", ACTS)
def test_after_any_change_of_others_the_routes_are_those_that_a_fresh_reader_finds(linux: LinuxWorld, act: str) -> None:
    for line in BEFORE.strip().splitlines():
        ip(line)
    seen = asyncio.run(settled(linux, act))
    new = LinuxKernel()
    try:
        assert seen == new.observe()
    finally:
        new.close()


def test_reading_again_asks_for_no_routes_of_others_and_once_for_links(linux: LinuxWorld, dumps: list[int]) -> None:
    async def main() -> None:
        stream = events(linux.kernel)

        async def listen() -> None:
            await anext(stream)

        listener = asyncio.create_task(listen())
        await asyncio.sleep(0)
        linux.kernel.observe()
        dumps.clear()
        linux.kernel.observe()
        listener.cancel()

    asyncio.run(main())
    assert (dumps.count(rt.GETROUTE), dumps.count(rt.GETLINK)) == (0, 1)
    linux.kernel.read(())
    assert dumps.count(rt.GETLINK) == 1


def test_a_foreign_device_that_goes_leaves_what_was_read_of_routes_as_it_is(
    linux: LinuxWorld, dumps: list[int]
) -> None:
    ip("link add other type veth peer name its_peer")
    ip("address add 192.0.2.1/24 dev up1")
    ip("route add default via 192.0.2.254 dev up1")

    async def main() -> None:
        await settled(linux, "link del other")

    asyncio.run(main())
    assert dumps.count(rt.GETROUTE) == 4  # both families, all tables, and main once more: at the first read only
