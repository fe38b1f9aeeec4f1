"""What a dead uplink leaves behind: every connection on it is free at once, and no other one notices."""

from __future__ import annotations

import asyncio
import itertools
import socket
import struct
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing, suppress
from functools import partial
from ipaddress import ip_address
from typing import TYPE_CHECKING, Final, Self

import pytest

from polywan.core.net import Family
from polywan.kernel.conntrack.challenge_ack import End, challenge
from polywan.lab.daemon import DaemonProcess
from polywan.lab.namespaces import Namespace
from polywan.lab.network import Lab
from polywan.lab.scenario import configuration
from polywan.lab.servers import ECHO_PORT, SOCKET_FAMILY, STREAM_PORT
from polywan.lab.topology import LAN_CLIENT, SERVERS
from polywan.lab.traffic import Connection, Opened, connect, error_name, exchange, open_connections
from support.netns import with_servers

if TYPE_CHECKING:
    from support.netns import BuildLab, StartDaemon

FAMILIES: Final = [Family.V4, Family.V6]
FAULTS: Final = ["carrier", "device down", "device gone", "silent"]

ONE_FAMILY_EACH: Final = pytest.mark.parametrize(
    ("fault", "family"), list(zip(FAULTS, [Family.V4, Family.V6, Family.V6, Family.V4], strict=True))
)
"""Each fault in one family. How it is noticed, and what the kernel forgets by itself, depends on both; how a kind of
connection is freed then does not. So two tests try every fault in both families, others in one."""


MASK: Final = 0x3F000000
"""The default `mark_mask`; all of it is the mark that no uplink has."""

FREED: Final = 0.2
"""Seconds after the verdict within which a connection has to be free."""

PATIENCE: Final = 10.0

TICK: Final = 0.01
"""Seconds between looks whether this process runs at all."""

FIRST_THEN_SECOND: Final = '[policies.default]\ntiers = [["isp1"], ["isp2"], ["isp3"]]\n'


def break_uplink(lab: Lab, number: int, fault: str) -> None:
    if fault == "carrier":
        lab.cut(number)
    elif fault == "device down":
        lab.router.ip([f"link set wan{number} down"])
    elif fault == "device gone":
        lab.router.ip([f"link delete wan{number}"])
    else:
        lab.blackhole(number)


def verdict(daemon: DaemonProcess, number: int, family: Family) -> float:
    """Wait until the uplink is found down in a family; return when."""
    name = f"isp{number} is "

    def was_logged(text: str) -> bool:
        return name in text and ("is down" in text or f"IPv{family:d} down" in text)

    line = daemon.wait_log(was_logged, PATIENCE)
    assert line is not None, f"isp{number} was never found down"
    return line.at


def firewall(namespace: Namespace, hook: str) -> None:
    """Drop what no tracked connection knows, as stateful firewalls do."""
    namespace.nft(
        f"table inet firewall {{ chain guard {{ type filter hook {hook} priority 10; policy accept;\n"
        "ct state invalid counter drop\n"
        "tcp flags & (syn | rst | fin) == 0x0 ct state new counter drop\n}\n}\n"
    )
    namespace.sysctl({"netfilter/nf_conntrack_tcp_loose": 0})


async def ending(sock: socket.socket) -> tuple[float, str]:
    """Read until the connection breaks; return when and how."""
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(PATIENCE):
            while await loop.sock_recv(sock, 65536):
                pass
        return time.monotonic(), "closed"
    except OSError as failure:
        return time.monotonic(), error_name(failure)


class Stalls:
    """Notes when this process was kept from running: whatever it measures meanwhile is late by as much."""

    def __init__(self) -> None:
        self._seen: list[tuple[float, float]] = []

    async def __aenter__(self) -> Self:
        self._watching = asyncio.create_task(self._watch())
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.sleep(2 * TICK)  # So that the last stall is known.
        self._watching.cancel()

    async def _watch(self) -> None:
        while True:
            before = time.monotonic()
            await asyncio.sleep(TICK)
            self._seen.append((before, time.monotonic() - before - TICK))

    def net(self, since: float, until: float) -> float:
        """Seconds between two times without those in which this process did not run; for afterwards."""
        stalls = ((max(since, began), min(until, began + TICK + late)) for began, late in self._seen if late > TICK)
        return until - since - sum(max(0.0, end - begin) for begin, end in stalls)


async def after_verdict(
    daemon: DaemonProcess,
    number: int,
    family: Family,
    doomed: Sequence[socket.socket],
    fault: Callable[[], object],
    *,
    senders: Sequence[socket.socket] = (),
) -> list[tuple[float, str]]:
    """Break an uplink under connections that listen or send; return seconds after the verdict and the end of each."""
    users = [asyncio.create_task(end) for end in (*map(ending, doomed), *map(sending, senders))]
    await asyncio.sleep(0)
    async with Stalls() as stalls:
        await asyncio.to_thread(fault)
        known = await asyncio.to_thread(verdict, daemon, number, family)
        ends = await asyncio.gather(*users)
    return sorted((stalls.net(known, at), how) for at, how in ends)


def assert_reset(ends: Sequence[tuple[float, str]], how: str = "ECONNRESET") -> None:
    assert {error for _, error in ends} == {how}
    assert ends[-1][0] < FREED, f"free after {[round(1000 * seconds) for seconds, _ in ends]} ms"


def on(opened: Opened, number: int) -> list[Connection]:
    return [c for c in opened.connections if c.attempt.uplink == number]


def sockets_on(opened: Opened, number: int) -> list[socket.socket]:
    found = [c.sock for c in on(opened, number)]
    assert found
    return found


async def download(lab: Lab, family: Family) -> socket.socket:
    """Open a connection from a server that sends without end."""
    sock = lab.client.socket(SOCKET_FAMILY[family], socket.SOCK_STREAM)
    await asyncio.get_running_loop().sock_connect(sock, (str(SERVERS[family][0]), STREAM_PORT))
    return sock


async def opening(lab: Lab, sock: socket.socket) -> tuple[int | None, socket.socket]:
    """Read the first line of a download, which tells its uplink."""
    greeting = await asyncio.get_running_loop().sock_recv(sock, 64)
    return lab.topology.number_of(ip_address(greeting.split(b"\n")[0].decode())), sock


async def sending(sock: socket.socket) -> tuple[float, str]:
    """Send now and then, as an upload does, until the connection breaks; return when and how."""
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(PATIENCE):
            while True:
                await loop.sock_sendall(sock, b"more\n")
                await asyncio.sleep(0.01)
    except OSError as failure:
        return time.monotonic(), error_name(failure)


class Inside:
    """A listener of a namespace that keeps what it accepts and says nothing."""

    def __init__(self, namespace: Namespace, family: Family) -> None:
        self._family = family
        self._listener = namespace.socket(SOCKET_FAMILY[family], socket.SOCK_STREAM)
        self._listener.bind(("::" if family is Family.V6 else "0.0.0.0", ECHO_PORT))
        self._listener.listen()
        self._stack = ExitStack()
        self._outside: dict[int, socket.socket] = {}

    def __enter__(self) -> Self:
        self._stack.enter_context(self._listener)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    async def session(self, lab: Lab, number: int, *, port: int = ECHO_PORT) -> socket.socket:
        """Let a host outside connect by an uplink's address; return the end inside."""
        loop = asyncio.get_running_loop()
        address = lab.topology.uplink(number).addresses[self._family].own.ip
        outside = self._stack.enter_context(lab.server.socket(SOCKET_FAMILY[self._family], socket.SOCK_STREAM))
        await loop.sock_connect(outside, (str(address), port))
        inside, _ = await loop.sock_accept(self._listener)
        self._outside[inside.fileno()] = outside
        return self._stack.enter_context(inside)

    def outside(self, inside: socket.socket) -> socket.socket:
        """Return the end outside of a session."""
        return self._outside[inside.fileno()]


class Pinger:
    """Echo requests of one identifier from the client, which are one connection to conntrack."""

    def __init__(self, lab: Lab, family: Family) -> None:
        self._v4 = family is Family.V4
        protocol = socket.getprotobyname("icmp" if self._v4 else "ipv6-icmp")
        with lab.client.entered():
            self._sock = socket.socket(SOCKET_FAMILY[family], socket.SOCK_RAW, protocol)
        self._sock.setblocking(False)
        self._sock.connect((str(SERVERS[family][0]), 0))
        self._identifier = id(self) >> 4 & 0xFFFF

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._sock.close()

    async def echo(self, patience: float) -> None:
        """Ask once and await the answer.

        Raises:
            TimeoutError: there was none.
        """
        loop = asyncio.get_running_loop()
        request = self._message(8 if self._v4 else 128)
        await loop.sock_sendall(self._sock, request)
        async with asyncio.timeout(patience):
            while (data := await loop.sock_recv(self._sock, 2048)) is not None:
                message = data[20:] if self._v4 else data
                if message[0] == (0 if self._v4 else 129) and message[4:8] == request[4:8]:
                    return

    def _message(self, kind: int) -> bytes:
        body = struct.pack(">BBHHH", kind, 0, 0, self._identifier, 1)
        total = sum(struct.unpack(">4H", body))
        checksum = ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF if self._v4 else 0
        return body[:2] + struct.pack(">H", checksum) + body[4:]


async def flow(lab: Lab, family: Family, port: int, stack: ExitStack) -> socket.socket:
    """Return a UDP socket with a fixed port, as tunnels have, whose flow is known."""
    sock = stack.enter_context(lab.client.socket(SOCKET_FAMILY[family], socket.SOCK_DGRAM))
    sock.bind((str(LAN_CLIENT[family].ip), port))
    sock.connect((str(SERVERS[family][0]), ECHO_PORT))
    assert await exchange(lab, sock, "hello") == 1
    return sock


async def until_moved(lab: Lab, sock: socket.socket) -> float:
    """Talk on and on until an answer comes by the second uplink; return when."""
    async with asyncio.timeout(PATIENCE):
        for count in itertools.count():
            with suppress(OSError):
                if await exchange(lab, sock, f"talk {count}", patience=0.02) == 2:
                    break
    return time.monotonic()


async def still_work(opened: Opened, number: int) -> None:
    """Every connection that is not of this uplink answers."""
    for connection in (c for c in opened.connections if c.attempt.uplink != number):
        assert await connection.ask("and you?", patience=2.0)


@pytest.mark.alone
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("fault", FAULTS)
def test_idle_connections_are_reset_at_once_and_no_others(
    lab: Lab, start_daemon: StartDaemon, family: Family, fault: str
) -> None:
    daemon = start_daemon(lab, configuration(lab.topology, (1, 1, 1)))

    async def story() -> None:
        with closing(await open_connections(lab, 150, SERVERS[family][0])) as opened:
            doomed = sockets_on(opened, 1)
            ends = await after_verdict(daemon, 1, family, doomed, lambda: break_uplink(lab, 1, fault))
            assert len(ends) == 50
            assert_reset(ends)
            await still_work(opened, 1)

    with_servers(lab, story)


@pytest.mark.alone
@pytest.mark.parametrize("family", FAMILIES)
def test_a_rule_that_lets_no_other_uplink_serve_keeps_nobody_elses_connections_on_the_dead_one(
    lab: Lab, start_daemon: StartDaemon, family: Family
) -> None:
    kept_in = SERVERS[family][1]
    rule = f'\n[[rules]]\nto = "{kept_in}"\nonly = ["isp1"]\n'
    daemon = start_daemon(lab, configuration(lab.topology, (1, 1, 1)) + rule)

    async def story() -> None:
        with closing(await open_connections(lab, 30, SERVERS[family][0])) as opened:
            doomed = sockets_on(opened, 1)
            ends = await after_verdict(daemon, 1, family, doomed, lambda: lab.blackhole(1))
            assert_reset(ends)
            await still_work(opened, 1)
        refused, _ = await connect(lab, kept_in)
        assert refused.error in ("EHOSTUNREACH", "ENETUNREACH", "ECONNREFUSED")
        lab.unblackhole(1)
        logged = "no healthy uplink; using one that answers again"
        both = ("only isp1: " + logged, f"IPv{family:d}: {logged}")
        assert await asyncio.to_thread(daemon.wait_log, lambda text: any(t in text for t in both), PATIENCE)
        served, connection = await connect(lab, kept_in)
        assert (served.uplink, connection is not None) == (1, True)
        if connection is not None:
            connection.close()

    with_servers(lab, story)


@pytest.mark.alone
@ONE_FAMILY_EACH
def test_stalled_downloads_and_running_uploads_are_reset(
    lab: Lab, start_daemon: StartDaemon, family: Family, fault: str
) -> None:
    daemon = start_daemon(lab, configuration(lab.topology, (1, 1, 1)))

    async def story() -> None:
        with ExitStack() as closing_all:
            loading = [closing_all.enter_context(closing(await download(lab, family))) for _ in range(6)]
            opened = closing_all.enter_context(closing(await open_connections(lab, 6, SERVERS[family][0])))
            greeted = [await opening(lab, sock) for sock in loading]
            doomed = [sock for number, sock in greeted if number == 1]
            senders = sockets_on(opened, 1)
            broken = partial(break_uplink, lab, 1, fault)
            assert_reset(await after_verdict(daemon, 1, family, doomed, broken, senders=senders))
            await still_work(opened, 1)

    with_servers(lab, story)


@pytest.mark.alone
@ONE_FAMILY_EACH
def test_a_firewall_on_either_end_changes_nothing(
    lab: Lab, start_daemon: StartDaemon, family: Family, fault: str
) -> None:
    daemon = start_daemon(lab, configuration(lab.topology, (1, 1, 1)))
    firewall(lab.client, "input")
    firewall(lab.server, "input")

    async def story() -> None:
        with closing(await open_connections(lab, 40, SERVERS[family][0])) as opened:
            ends = await after_verdict(daemon, 1, family, sockets_on(opened, 1), lambda: break_uplink(lab, 1, fault))
            assert_reset(ends)
            await still_work(opened, 1)

    with_servers(lab, story)


@pytest.mark.alone
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("fault", FAULTS)
def test_the_boxs_own_sockets_are_ended(lab: Lab, start_daemon: StartDaemon, family: Family, fault: str) -> None:
    daemon = start_daemon(lab, configuration(lab.topology, (1, 1, 1)))

    async def story() -> None:
        with closing(await open_connections(lab, 12, SERVERS[family][0], namespace=lab.router)) as opened:
            doomed = sockets_on(opened, 1)
            ends = await after_verdict(daemon, 1, family, doomed, lambda: break_uplink(lab, 1, fault))
            assert_reset(ends, "ECONNABORTED")
            # All have the address of the first uplink, whatever carries them, unless that went with its device.
            if lab.router.run(["ip", "address", "show", "to", str(doomed[0].getsockname()[0])], check=False).stdout:
                await still_work(opened, 1)

    with_servers(lab, story)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_boxs_own_connections_elsewhere_outlive_the_uplink_whose_address_they_have(
    lab: Lab, start_daemon: StartDaemon, family: Family
) -> None:
    daemon = start_daemon(lab, configuration(lab.topology, (1, 1, 1)))

    async def story() -> None:
        with closing(await open_connections(lab, 12, SERVERS[family][0], namespace=lab.router)) as opened:
            daemon.kill()
            lab.cut(1)
            await still_work(opened, 1)

    with_servers(lab, story)


@pytest.mark.alone
@pytest.mark.parametrize("family", FAMILIES)
def test_a_session_on_the_box_is_ended_and_its_listener_goes_on(
    lab: Lab, start_daemon: StartDaemon, family: Family
) -> None:
    daemon = start_daemon(lab, configuration(lab.topology, (1, 1, 1)))

    async def story() -> None:
        with Inside(lab.router, family) as inside:
            first = await inside.session(lab, 1)
            assert_reset(await after_verdict(daemon, 1, family, [first], lambda: lab.cut(1)), "ECONNABORTED")
            second = await inside.session(lab, 2)
            assert second.getpeername()[0] == str(SERVERS[family][0])

    with_servers(lab, story)


@pytest.mark.alone
@pytest.mark.parametrize("family", FAMILIES)
def test_a_forwarded_ports_server_is_reset(lab: Lab, start_daemon: StartDaemon, family: Family) -> None:
    daemon = start_daemon(lab, configuration(lab.topology, (1, 1, 1)))
    lab.forward_port(8080, ECHO_PORT)

    async def story() -> None:
        with Inside(lab.client, family) as inside:
            waiting = [await inside.session(lab, 1, port=8080) for _ in range(5)]
            assert_reset(await after_verdict(daemon, 1, family, waiting, lambda: lab.cut(1)))

    with_servers(lab, story)


NOTHING_BEGINS = """
table inet half {
  chain passing {
    type filter hook forward priority -10;
    iifname "wan" meta l4proto { icmp, ipv6-icmp } drop
    iifname "wan" tcp flags & (syn | ack) == syn drop
    iifname "wan" meta l4proto udp drop
  }
}
"""


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("inside_is_the_box", [True, False], ids=["the box", "a host"])
def test_what_came_in_goes_on_while_only_the_targets_are_silent(
    lab: Lab, start_daemon: StartDaemon, family: Family, *, inside_is_the_box: bool
) -> None:
    daemon = start_daemon(lab, configuration(lab.topology, (1, 1, 1)))
    lab.forward_port(8080, ECHO_PORT)
    loop_of = asyncio.get_running_loop

    async def story() -> None:
        with Inside(lab.router if inside_is_the_box else lab.client, family) as inside:
            port = ECHO_PORT if inside_is_the_box else 8080
            before = await inside.session(lab, 1, port=port)
            lab.provider(1).nft(NOTHING_BEGINS)
            await asyncio.to_thread(verdict, daemon, 1, family)
            for session in (before, await inside.session(lab, 1, port=port)):
                await loop_of().sock_sendall(session, b"still here")
                assert (await asyncio.wait_for(loop_of().sock_recv(inside.outside(session), 99), 3)) == b"still here"

    with_servers(lab, story)


@pytest.mark.alone
@ONE_FAMILY_EACH
def test_datagrams_and_pings_take_another_uplink_at_once(
    lab: Lab, start_daemon: StartDaemon, family: Family, fault: str
) -> None:
    daemon = start_daemon(lab, configuration(lab.topology, (1, 1, 1)) + FIRST_THEN_SECOND)

    async def story() -> None:
        with ExitStack() as stack:
            quiet = await flow(lab, family, 51820, stack)
            talker = await flow(lab, family, 51821, stack)
            pinger = stack.enter_context(Pinger(lab, family))
            await pinger.echo(2.0)
            async with Stalls() as stalls:
                break_uplink(lab, 1, fault)
                talk = asyncio.create_task(until_moved(lab, talker))
                known = await asyncio.to_thread(verdict, daemon, 1, family)
                moved = await talk
                began = time.monotonic()
                assert await exchange(lab, quiet, "still me", patience=PATIENCE) == 2
                await pinger.echo(PATIENCE)
                answered = time.monotonic()
            assert stalls.net(known, moved) < FREED
            assert stalls.net(began, answered) < FREED

    with_servers(lab, story)


def test_nothing_is_cut_when_no_other_uplink_is_left(lab_of: BuildLab, start_daemon: StartDaemon) -> None:
    lab = lab_of(1)
    daemon = start_daemon(lab, configuration(lab.topology, (1,)))

    async def story() -> None:
        for family in FAMILIES:
            with ExitStack() as stack:
                own = stack.enter_context(
                    closing(await open_connections(lab, 2, SERVERS[family][0], namespace=lab.router))
                )
                theirs = stack.enter_context(closing(await open_connections(lab, 2, SERVERS[family][0])))
                lab.blackhole(1)
                await asyncio.to_thread(verdict, daemon, 1, family)
                lab.unblackhole(1)
                for connection in (*own.connections, *theirs.connections):
                    assert await connection.ask("did you wait?")

    with_servers(lab, story)
    assert [line.text for line in daemon.log if "released connections" in line.text] == []


@pytest.mark.parametrize("word", ["move", "keep"])
def test_on_down_can_leave_connections_alone(lab: Lab, start_daemon: StartDaemon, word: str) -> None:
    policy = f'{FIRST_THEN_SECOND}on_down = "{word}"\n'
    daemon = start_daemon(lab, configuration(lab.topology, (1, 1, 1)) + policy)

    async def story() -> None:
        with ExitStack() as stack:
            opened = stack.enter_context(closing(await open_connections(lab, 3, SERVERS[Family.V4][0])))
            sock = await flow(lab, Family.V4, 51820, stack)
            lab.blackhole(1)
            await asyncio.to_thread(verdict, daemon, 1, Family.V4)
            if word == "move":
                await asyncio.to_thread(
                    daemon.wait_log, lambda text: "released connections of isp1 (IPv4)" in text, PATIENCE
                )
                assert await exchange(lab, sock, "still me") == 2
            lab.unblackhole(1)
            if word == "keep":
                assert await exchange(lab, sock, "still me") == 1
            for connection in opened.connections:
                assert await connection.ask("did you wait?")

    with_servers(lab, story)


def test_what_speaks_in_the_name_of_others_never_leaves_by_an_uplink(lab: Lab, start_daemon: StartDaemon) -> None:
    daemon = start_daemon(lab, configuration(lab.topology, (1, 1, 1)))
    lab.cut(1)
    for family in FAMILIES:
        verdict(daemon, 1, family)
        with lab.router.entered():
            challenge([End(SERVERS[family][0].packed, 7, LAN_CLIENT[family].ip.packed, 7)], family, 0)
    assert all(seen.spoofed == 0 for seen in lab.all_seen().values())
