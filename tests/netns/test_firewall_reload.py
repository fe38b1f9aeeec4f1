"""A firewall that is loaded anew takes every nftables rule away for a moment; nobody may notice."""

from __future__ import annotations

import asyncio
import signal
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from polywan.core.net import FAMILIES, Family
from polywan.core.ruleset.second_table import KEEP_TABLE
from polywan.lab.network import Lab
from polywan.lab.scenario import configuration
from polywan.lab.servers import ECHO_PORT, SOCKET_FAMILY, STREAM_PORT, Servers
from polywan.lab.topology import SERVERS
from polywan.lab.traffic import SteadyLoad, connect
from support.firewalls import CAUSES, FIREWALL, TIMES, flushed
from support.invalid import unasked_answer
from support.netns import with_servers

if TYPE_CHECKING:
    from support.netns import StartDaemon, WaitFor

FORWARDED = 8080


@dataclass
class Talk:
    """A connection that asks each 50 ms, or that only reads what is sent without end; `moved` counts answers."""

    name: str
    moved: int = 0
    broken: str = ""


async def chat(lab: Lab, family: Family, talk: Talk) -> None:
    _, connection = await connect(lab, SERVERS[family][1])
    assert connection is not None
    with closing(connection):
        try:
            while True:
                await connection.ask("x", patience=10.0)
                talk.moved += 1
                await asyncio.sleep(0.05)
        except OSError as error:
            talk.broken = repr(error)


async def download(lab: Lab, family: Family, talk: Talk) -> None:
    loop = asyncio.get_running_loop()
    with closing(lab.client.socket(SOCKET_FAMILY[family], socket.SOCK_STREAM)) as sock:
        # A small window: it is about being alive, not about being fast.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
        try:
            await loop.sock_connect(sock, (str(SERVERS[family][1]), STREAM_PORT))
            while await loop.sock_recv(sock, 2048):
                talk.moved += 1
                await asyncio.sleep(0.005)
        except OSError as error:
            talk.broken = repr(error)


@asynccontextmanager
async def talking(lab: Lab) -> AsyncIterator[list[Talk]]:
    """Six chats and six downloads in each family."""
    talks = [Talk(f"{kind} {family:d}") for kind in ("chat", "download") for family in FAMILIES for _ in range(6)]
    kinds = {"chat": chat, "download": download}
    works = [
        asyncio.create_task(kinds[talk.name.split()[0]](lab, Family(int(talk.name.split()[1])), talk)) for talk in talks
    ]
    try:
        await asyncio.sleep(0.5)
        yield talks
    finally:
        for work in works:
            work.cancel()
        await asyncio.gather(*works, return_exceptions=True)


async def hanging(talks: list[Talk]) -> list[Talk]:
    """Give each three seconds to go on, and return who did not."""
    before, deadline = [talk.moved for talk in talks], time.monotonic() + 3.0

    def waiting() -> list[Talk]:
        return [t for t, count in zip(talks, before, strict=True) if t.broken or t.moved < count + 2]

    while waiting() and time.monotonic() < deadline:
        await asyncio.sleep(0.02)
    return waiting()


@pytest.mark.parametrize("cause", CAUSES.values(), ids=CAUSES)
def test_no_connection_breaks_or_hangs_or_fails_while(
    lab: Lab, start_daemon: StartDaemon, wait_for: WaitFor, cause: str
) -> None:
    start_daemon(lab, configuration(lab.topology, (1, 1, 1)))

    async def story() -> None:
        async with SteadyLoad(lab) as load, talking(lab) as talks:
            for _ in range(TIMES):
                await flushed(lab, cause, wait_for)
                assert await hanging(talks) == []
                await asyncio.sleep(1.0)
        assert [attempt for attempt in load.attempts if not attempt.ok] == []

    with_servers(lab, story)
    assert sum(seen.spoofed for seen in lab.all_seen().values()) == 0


@pytest.mark.parametrize("end", ["kill", "stop"])
def test_a_daemon_that_is_killed_or_restarted_holds_them_again_and_breaks_none(
    lab: Lab, start_daemon: StartDaemon, wait_for: WaitFor, end: str
) -> None:
    daemon = start_daemon(lab, configuration(lab.topology, (1, 1, 1)))

    async def story() -> None:
        async with talking(lab) as talks:
            for _ in range(2):
                await asyncio.to_thread(getattr(daemon, end))
                assert await hanging(talks) == []
                await asyncio.to_thread(daemon.start)
                assert await hanging(talks) == []
                await flushed(lab, FIREWALL, wait_for)
                assert await hanging(talks) == []

    with_servers(lab, story)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_connection_from_outside_that_begins_meanwhile_is_answered_by_its_own_uplink_and_goes_on(
    lab: Lab, start_daemon: StartDaemon, wait_for: WaitFor, family: Family
) -> None:
    daemon = start_daemon(lab, configuration(lab.topology, (1, 1, 1)))
    assert daemon.process is not None
    daemon.process.send_signal(signal.SIGSTOP)
    lab.router.run(["nft", "flush", "ruleset"])
    lab.forward_port(FORWARDED, ECHO_PORT)
    address = lab.topology.uplink(3).addresses[family].own.ip

    async def story() -> None:
        servers = Servers()
        try:
            await servers.listen(lab.client, family, ECHO_PORT)
            attempt, call = await connect(lab, address, port=FORWARDED, namespace=lab.server, patience=3)
            assert attempt.ok
            assert call is not None
            assert daemon.process is not None
            daemon.process.send_signal(signal.SIGCONT)
            assert await asyncio.to_thread(daemon.wait_log, lambda text: "drift.repaired" in text, 5.0)
            with closing(call):
                assert await call.ask("still there?") is not None
        finally:
            await servers.close()

    asyncio.run(story())
    assert sum(seen.spoofed for seen in lab.all_seen().values()) == 0


@pytest.mark.parametrize("family", FAMILIES)
def test_what_tracking_calls_invalid_leaves_by_no_uplink_meanwhile(
    lab: Lab, start_daemon: StartDaemon, family: Family
) -> None:
    def spoofed() -> int:
        return sum(seen.spoofed for seen in lab.all_seen().values())

    daemon = start_daemon(lab, configuration(lab.topology, (1, 1, 1)))
    assert daemon.process is not None
    daemon.process.send_signal(signal.SIGSTOP)
    lab.router.nft("flush ruleset")
    unasked_answer(lab, family, lab.client)
    assert spoofed() == 0
    # The second table goes with the daemon, and nobody drops them any more.
    daemon.kill()
    lab.router.nft("table inet firewall { chain c { type filter hook forward priority 0; ct state new counter; }; }")
    unasked_answer(lab, family, lab.client)
    assert spoofed() == 3


def test_others_cannot_change_the_table_and_it_goes_with_the_daemon(lab: Lab, start_daemon: StartDaemon) -> None:
    daemon = start_daemon(lab, configuration(lab.topology, (1, 1, 1)))
    for words in ("flush table", "delete table"):
        done = lab.router.run(["nft", *words.split(), *KEEP_TABLE.split()], check=False)
        assert "not permitted" in done.stderr
    daemon.kill()
    tables = lab.router.run(["nft", "list", "tables"]).stdout
    assert KEEP_TABLE not in tables
    assert "inet polywan" in tables


def test_a_table_of_that_name_that_is_nobodys_is_replaced(lab: Lab, start_daemon: StartDaemon) -> None:
    lab.router.nft(f"table {KEEP_TABLE} {{ chain old {{ }}\n}}\n")
    daemon = start_daemon(lab, configuration(lab.topology, (1, 1, 1)))
    shown = lab.router.run(["nft", "list", "table", *KEEP_TABLE.split()]).stdout
    assert "flags owner" in shown
    assert "chain old" not in shown
    assert daemon.status().warnings == ()
