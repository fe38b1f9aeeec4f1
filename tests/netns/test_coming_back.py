"""What happens to connections of a stand-in once the better uplink serves again, and the verbs of `polywan uplink`."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Callable
from contextlib import ExitStack, closing
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from polywan.core.net import Family
from polywan.lab.daemon import DaemonProcess
from polywan.lab.network import Lab
from polywan.lab.scenario import configuration
from polywan.lab.servers import STREAM_PORT
from polywan.lab.topology import SERVERS
from polywan.lab.traffic import connect, exchange, open_connections, shares, udp_socket
from support.netns import polywan, until, with_servers

if TYPE_CHECKING:
    from support.netns import StartDaemon

FAMILIES = [Family.V4, Family.V6]
MARKS = {1: 0x1000000, 2: 0x2000000, 3: 0x3000000}

patiently = partial(until, timeout=15.0)
"""Await a condition that follows a return, with its hold-down."""


def tiers(on_up: str) -> str:
    """isp1, then isp2, which stands in for it; isp3 serves a policy of its own, for one server."""
    return f"""
[policies.default]
tiers = [["isp1"], ["isp2"]]
on_up = {on_up}
[policies.other]
tiers = [["isp3"]]
[[rules]]
to = "{SERVERS[Family.V4][1]}"
policy = "other"
"""


def config(lab: Lab, on_up: str) -> str:
    text = configuration(lab.topology, (1, 1, 1)).replace('hold_down = "3s"', 'hold_down = "0s"\nrise = 1')
    return text.replace("[uplinks.isp2]", "[uplinks.isp2]\nmetered = true") + tiers(on_up)


def tracked(lab: Lab, number: int) -> int:
    """Connections of an uplink that the kernel knows, both families."""
    table = [
        lab.router.run(["conntrack", "-L", "-f", family, "-m", f"{MARKS[number]:#x}/0x3f000000"], check=True).stdout
        for family in ("ipv4", "ipv6")
    ]
    return sum(len(text.splitlines()) for text in table)


def downloads(lab: Lab) -> str:
    """Open connections at the server that sends without end."""
    argv = ["ss", "-Htn", "state", "established", "sport", "=", f":{STREAM_PORT}"]
    return lab.server.run(argv, check=True).stdout.strip()


def serves(daemon: DaemonProcess, number: int) -> Callable[[], bool]:
    return lambda: daemon.uplink(number).share > 0


async def by(lab: Lab, number: int, address: Any) -> Any:
    """Open a connection, which has to leave by that uplink."""
    attempt, connection = await connect(lab, address)
    assert connection is not None, attempt.error
    assert attempt.uplink == number
    return connection


async def download(lab: Lab, address: Any) -> socket.socket:
    """Connect to the server that sends without end."""
    sock = lab.client.socket(socket.AF_INET, socket.SOCK_STREAM)
    await asyncio.get_running_loop().sock_connect(sock, (str(address), STREAM_PORT))
    return sock


async def stand_in(lab: Lab, daemon: DaemonProcess) -> None:
    lab.cut(1)
    await patiently(serves(daemon, 2))


async def come_back(lab: Lab, daemon: DaemonProcess) -> None:
    lab.restore(1)
    await patiently(serves(daemon, 1))


async def ended(sock: socket.socket, timeout: float = 8.0) -> str:
    """Wait, without sending anything, until a connection ends; return how."""
    async with asyncio.timeout(timeout):
        try:
            while await asyncio.get_running_loop().sock_recv(sock, 65536):
                pass
        except ConnectionResetError:
            return "reset"
    return "closed"


@pytest.mark.needs("conntrack")
def test_at_the_deadline_of_a_drain_nothing_is_left_and_clients_got_resets(lab: Lab, start_daemon: StartDaemon) -> None:
    daemon = start_daemon(lab, config(lab, '{drain = "2s"}'))

    async def story() -> None:
        await stand_in(lab, daemon)
        with ExitStack() as stack:
            servers = [SERVERS[family][0] for family in FAMILIES]
            idle = [stack.enter_context(closing(await by(lab, 2, address))) for address in servers]
            busy = stack.enter_context(await download(lab, servers[0]))
            apart = stack.enter_context(closing(await by(lab, 3, SERVERS[Family.V4][1])))
            flow = stack.enter_context(udp_socket(lab, servers[0]))
            assert await exchange(lab, flow, "before") == 2
            await come_back(lab, daemon)
            drain_state = daemon.uplink(2).drain
            assert drain_state is not None
            assert not drain_state.by_operator
            assert [await c.ask("still here?") for c in idle] == ["still here?"] * 2
            assert [await ended(s) for s in (*(c.sock for c in idle), busy)] == ["reset"] * 3
            assert await exchange(lab, flow, "after") == 1
            await patiently(lambda: daemon.uplink(2).drain is None)
            assert tracked(lab, 2) == 0
            # The server that goes on sending gets its reset, too.
            await patiently(lambda: not downloads(lab))
            assert await apart.ask("you never noticed?") == "you never noticed?"
        # The mark has left the dead set: the uplink may serve again.
        await stand_in(lab, daemon)
        with closing(await by(lab, 2, SERVERS[Family.V4][0])) as again:
            assert await again.ask("hello again") == "hello again"

    with_servers(lab, story)


def test_what_is_to_stay_stays(lab: Lab, start_daemon: StartDaemon) -> None:
    daemon = start_daemon(lab, config(lab, '"stay"'))

    async def story() -> None:
        await stand_in(lab, daemon)
        with closing(await by(lab, 2, SERVERS[Family.V4][0])) as old, udp_socket(lab, SERVERS[Family.V4][0]) as flow:
            assert await exchange(lab, flow, "before") == 2
            await come_back(lab, daemon)
            assert daemon.uplink(2).drain is None
            assert await exchange(lab, flow, "after") == 2
            assert await old.ask("and you?") == "and you?"

    with_servers(lab, story)


def test_moving_at_once_takes_everything_but_tcp(lab: Lab, start_daemon: StartDaemon) -> None:
    daemon = start_daemon(lab, config(lab, '"move"'))

    async def story() -> None:
        await stand_in(lab, daemon)
        with closing(await by(lab, 2, SERVERS[Family.V4][0])) as old, udp_socket(lab, SERVERS[Family.V4][0]) as flow:
            assert await exchange(lab, flow, "before") == 2
            await come_back(lab, daemon)
            assert await asyncio.to_thread(daemon.wait_log, lambda text: "of isp2 (IPv4) choose again" in text, 5.0)
            assert await exchange(lab, flow, "after") == 1
            assert await old.ask("and you?") == "and you?"

    with_servers(lab, story)


def test_a_flow_moves_in_its_first_pause_and_not_before(lab: Lab, start_daemon: StartDaemon) -> None:
    daemon = start_daemon(lab, config(lab, '"move-when-idle"'))
    address = SERVERS[Family.V4][0]

    async def story() -> None:
        await stand_in(lab, daemon)
        with ExitStack() as stack:
            call = stack.enter_context(udp_socket(lab, address))
            tunnel = stack.enter_context(udp_socket(lab, address))
            tcp = stack.enter_context(closing(await by(lab, 2, address)))
            assert [await exchange(lab, sock, "before") for sock in (call, tunnel)] == [2, 2]
            await come_back(lab, daemon)
            moved = asyncio.create_task(
                asyncio.to_thread(daemon.wait_log, lambda text: "of isp2 (IPv4) choose again" in text, 20.0)
            )
            while not moved.done():
                # A call sends all the time; the tunnel's keep-alive comes after the pause.
                assert await exchange(lab, call, "voice") == 2
                await asyncio.sleep(0.05)
            assert moved.result() is not None
            assert await exchange(lab, tunnel, "keep-alive") == 1
            assert await exchange(lab, call, "voice") == 2
            seen = len(daemon.log)
            wait = lambda text: "of isp2 (IPv4) choose again" in text  # noqa: E731 - as above
            assert await asyncio.to_thread(daemon.wait_log, wait, 20.0, seen)
            assert await exchange(lab, call, "hello again") == 1
            assert await tcp.ask("and you?") == "and you?"

    with_servers(lab, story)


def test_what_is_disabled_by_hand_stays_so_over_a_restart(lab: Lab, start_daemon: StartDaemon) -> None:
    daemon = start_daemon(lab, configuration(lab.topology, (1, 1, 1)))

    async def story() -> None:
        address = SERVERS[Family.V4][0]
        with closing(await open_connections(lab, 6, address)) as old:
            done = await asyncio.to_thread(polywan, daemon, "uplink", "disable", "isp2", "--json")
            assert (done.returncode, json.loads(done.stdout)["state"]) == (0, "disabled")
            assert "disabled by operator since" in daemon.uplink(2).reason
            with closing(await open_connections(lab, 4, address)) as new:
                assert shares(a.uplink for a in new.attempts) == {1: 2, 3: 2}
            daemon.kill()
            daemon.launch()
            await asyncio.to_thread(daemon.wait_ready)
            assert daemon.uplink(2).state == "disabled"
            # What it has stays: it has a path.
            assert [await c.ask("still?") for c in old.connections] == ["still?"] * 6
        assert (await asyncio.to_thread(polywan, daemon, "uplink", "enable", "isp2")).returncode == 0
        await patiently(lambda: daemon.uplink(2).state == "up")
        with closing(await open_connections(lab, 6, address)) as new:
            assert shares(a.uplink for a in new.attempts) == {1: 2, 2: 2, 3: 2}

    with_servers(lab, story)


@pytest.mark.needs("conntrack")
def test_a_drain_by_hand_empties_the_uplink_over_a_restart_and_lasts_until_it_is_enabled(
    lab: Lab, start_daemon: StartDaemon
) -> None:
    daemon = start_daemon(lab, configuration(lab.topology, (1, 1, 1)))

    async def story() -> None:
        address = SERVERS[Family.V4][0]
        with closing(await open_connections(lab, 6, address)) as old:
            doomed = [c for c in old.connections if c.attempt.uplink == 2]
            others = [c for c in old.connections if c.attempt.uplink != 2]
            assert (
                await asyncio.to_thread(polywan, daemon, "uplink", "drain", "isp2", "--deadline", "4s")
            ).returncode == 0
            assert daemon.uplink(2).state == "draining"
            assert [await c.ask("time left?") for c in doomed] == ["time left?"] * 2
            daemon.kill()
            daemon.launch()
            await asyncio.to_thread(daemon.wait_ready)
            assert [await ended(c.sock, 12.0) for c in doomed] == ["reset"] * 2
            await patiently(lambda: daemon.uplink(2).state == "drained")
            assert tracked(lab, 2) == 0
            assert [await c.ask("and you?") for c in others] == ["and you?"] * 4
            with closing(await open_connections(lab, 4, address)) as new:
                assert shares(a.uplink for a in new.attempts) == {1: 2, 3: 2}
        daemon.kill()
        daemon.launch()
        await asyncio.to_thread(daemon.wait_ready)
        assert daemon.uplink(2).state == "drained"
        assert (await asyncio.to_thread(polywan, daemon, "uplink", "enable", "isp2")).returncode == 0
        # It was probed all the time: nothing has to be proven.
        with closing(await open_connections(lab, 6, address)) as new:
            assert shares(a.uplink for a in new.attempts) == {1: 2, 2: 2, 3: 2}

    with_servers(lab, story)


def test_a_test_tells_each_layer_and_exits_by_the_verdict(lab: Lab, start_daemon: StartDaemon) -> None:
    daemon = start_daemon(lab, configuration(lab.topology, (1, 1, 1)))

    async def story() -> None:
        well = await asyncio.to_thread(polywan, daemon, "uplink", "test", "isp1", "--json")
        assert (well.returncode, json.loads(well.stdout)["verdict"]) == (0, "ok"), well.stdout
        lab.blackhole(1)
        await patiently(lambda: daemon.uplink(1).state == "down")
        dead = await asyncio.to_thread(polywan, daemon, "uplink", "test", "isp1")
        assert dead.returncode == 7
        assert "verdict: down" in dead.stdout
        unknown = await asyncio.to_thread(polywan, daemon, "uplink", "test", "ips2")
        assert unknown.returncode == 1
        assert 'did you mean "isp2"?' in unknown.stderr

    with_servers(lab, story)


def test_a_policy_without_uplinks_is_warned_of(lab: Lab, start_daemon: StartDaemon) -> None:
    daemon = start_daemon(lab, config(lab, '"stay"'))
    assert polywan(daemon, "uplink", "disable", "isp2").stderr == ""
    done = polywan(daemon, "uplink", "disable", "isp1")
    assert done.returncode == 0
    assert "warning: policy default (IPv4)" in done.stderr
