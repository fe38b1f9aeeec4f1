"""Established connections leave the slow path; what changes brings them back, and no fault finds them there."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack, closing, suppress
from typing import TYPE_CHECKING, Final

import pytest

from polywan.api import calls
from polywan.api.requests import Words
from polywan.api.views.flow_rows import FlowRow, rows_of
from polywan.core.net import Family
from polywan.lab import recipe
from polywan.lab.daemon import DaemonProcess
from polywan.lab.network import Lab
from polywan.lab.scenario import configuration
from polywan.lab.servers import ECHO_PORT
from polywan.lab.topology import LAN_CLIENT, SERVERS
from polywan.lab.traffic import Connection, Opened, exchange, open_connections, udp_socket
from support.netns import polywan, until, with_servers

if TYPE_CHECKING:
    from support.netns import BuildLab, StartDaemon

pytestmark = [pytest.mark.needs("flowtable"), pytest.mark.kernel]

FAMILIES: Final = [Family.V4, Family.V6]
NOTICED: Final = 0.5
"""Seconds within which a change of a route has to count for what is under way; a guest is slow."""

COUNTING: Final = """
table inet counting {
    counter slow { }
    chain counting {
        type filter hook forward priority -400; policy accept;
        meta l4proto { tcp, udp } counter name slow
    }
}
"""


def rows(daemon: DaemonProcess, family: Family, protocol: str = "tcp") -> dict[int, FlowRow]:
    """Return the client's connections to the echo server by the client's port."""
    words = {"to": str(SERVERS[family][0]), "port": str(ECHO_PORT), "proto": protocol}
    words["client"] = str(LAN_CLIENT[family].ip)
    found = rows_of(daemon.client.ask(calls.FLOWS, Words(words=words)))
    return {row.client_port or 0: row for row in found}


def port_of(connection: Connection) -> int:
    return int(connection.sock.getsockname()[1])


def slow_packets(lab: Lab) -> int:
    """Return how many packets rules have seen."""
    return lab.router.counters("inet counting")["slow"]


async def speak(connections: Iterable[Connection], times: int = 1) -> None:
    for connection in connections:
        for number in range(times):
            assert f"line {number}" in await connection.ask(f"line {number}")


def fast_ones(daemon: DaemonProcess, family: Family, connections: Iterable[Connection]) -> list[bool]:
    """Tell of each connection, which has to be listed, whether it is on the fast path."""
    found = rows(daemon, family)
    return [bool(found[port_of(connection)].fast) for connection in connections]


async def fast(daemon: DaemonProcess, family: Family, connections: Iterable[Connection], timeout: float = 5.0) -> None:
    """Speak until every connection takes the fast path."""
    known = list(connections)
    async with asyncio.timeout(timeout):
        while True:
            await speak(known)
            if all(await asyncio.to_thread(fast_ones, daemon, family, known)):
                return
            await asyncio.sleep(0.02)


async def fast_datagrams(
    lab: Lab, daemon: DaemonProcess, sock: socket.socket, family: Family, uplink: int | None = 1, timeout: float = 5.0
) -> None:
    """Exchange datagrams by an uplink until they take the fast path."""
    async with asyncio.timeout(timeout):
        while True:
            with suppress(TimeoutError, ConnectionError):
                assert await exchange(lab, sock, "hello", patience=0.2) == uplink
            found = (await asyncio.to_thread(rows, daemon, family, "udp")).get(sock.getsockname()[1])
            if found is not None and found.fast:
                return


def of_uplink(opened: Opened, number: int) -> list[Connection]:
    return [c for c in opened.connections if c.attempt.uplink == number]


@pytest.mark.parametrize("family", FAMILIES)
def test_no_rule_sees_an_established_connection_and_its_bytes_count_all_the_same(
    lab: Lab, start_daemon: StartDaemon, family: Family
) -> None:
    lab.router.nft(COUNTING)
    daemon = start_daemon(lab, configuration(lab.topology, (1, 1, 1)))

    async def story() -> None:
        with closing(await open_connections(lab, 6, SERVERS[family][0])) as opened:
            await fast(daemon, family, opened.connections)
            before = rows(daemon, family)
            async with asyncio.timeout(5.0):
                seen = -100
                # A table that was just written anew lets nothing in before the kernel has cleared the old one.
                while slow_packets(lab) - seen > 2:
                    seen = slow_packets(lab)
                    await speak(opened.connections, times=20)
            assert "x" * 5000 in await opened.connections[0].ask("x" * 5000)
            after = rows(daemon, family)
            assert {row.state for row in after.values()} == {"ESTABLISHED"}
            port = port_of(opened.connections[0])
            assert (after[port].bytes_up or 0) - (before[port].bytes_up or 0) > 5000
            assert (after[port].bytes_down or 0) - (before[port].bytes_down or 0) > 5000
            assert all(0 <= (row.age or 0) < 60 for row in after.values())

    with_servers(lab, story)
    assert all(seen.spoofed == 0 for seen in lab.all_seen().values())


@pytest.mark.parametrize("family", FAMILIES)
def test_datagrams_take_it_once_both_sides_have_spoken(lab: Lab, start_daemon: StartDaemon, family: Family) -> None:
    daemon = start_daemon(lab, configuration(lab.topology, (1, 1, 1)))

    async def story() -> None:
        with closing(udp_socket(lab, SERVERS[family][0])) as sock:
            first = await exchange(lab, sock, "one")
            assert {await exchange(lab, sock, f"more {n}") for n in range(5)} == {first}
            await fast_datagrams(lab, daemon, sock, family, first)

    with_servers(lab, story)


def test_a_forwarded_port_takes_it(lab: Lab, start_daemon: StartDaemon) -> None:
    start_daemon(lab, configuration(lab.topology, (1, 1, 1)))
    lab.forward_port(8080, ECHO_PORT)
    lab.router.nft(COUNTING)
    own = lab.topology.uplink(2).addresses[Family.V4].own.ip
    listening = lab.client.socket(socket.AF_INET, socket.SOCK_STREAM)
    with closing(listening), ExitStack() as stack:
        listening.bind(("0.0.0.0", ECHO_PORT))
        listening.listen()
        asking = stack.enter_context(closing(lab.server.socket(socket.AF_INET, socket.SOCK_STREAM)))
        asking.settimeout(5)
        asking.connect((str(own), 8080))
        answering = stack.enter_context(closing(listening.accept()[0]))

        def unseen() -> bool:
            seen = slow_packets(lab)
            for _ in range(20):
                asking.sendall(b"x")
                assert answering.recv(10) == b"x"
                answering.sendall(b"y")
                assert asking.recv(10) == b"y"
            return slow_packets(lab) - seen <= 2

        # The table is written anew for the rule sets just made, and the kernel clears the old one a little later.
        asyncio.run(until(unseen))


def without_first(lab: Lab, daemon: DaemonProcess) -> None:
    head, _, rest = configuration(lab.topology, (1, 1, 1)).partition("[uplinks.isp1]")
    daemon.config.write_text(head + rest[rest.index("[uplinks.isp2]") :])
    daemon.reload()


def only_first(lab: Lab) -> str:
    return configuration(lab.topology, (1, 1, 1)) + '[policies.default]\ntiers = [["isp1"], ["isp2", "isp3"]]\n'


LOSSES: Final[dict[str, Callable[[Lab, DaemonProcess], object]]] = {
    "carrier": lambda lab, _: lab.cut(1),
    "silence": lambda lab, _: lab.blackhole(1),
    "device down": lambda lab, _: lab.router.ip(["link set wan1 down"]),
    "device gone": lambda lab, _: lab.router.ip(["link delete wan1"]),
    "removed from the file": without_first,
}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("loss", LOSSES)
def test_a_lost_uplink_frees_its_connections_and_the_others_go_on_fast(
    lab: Lab, start_daemon: StartDaemon, loss: str, family: Family
) -> None:
    daemon = start_daemon(lab, configuration(lab.topology, (1, 1, 1)))

    async def story() -> None:
        with closing(await open_connections(lab, 9, SERVERS[family][0])) as opened:
            await fast(daemon, family, opened.connections)
            doomed, others = of_uplink(opened, 1), [*of_uplink(opened, 2), *of_uplink(opened, 3)]
            assert doomed
            assert others
            LOSSES[loss](lab, daemon)
            for connection in doomed:
                with pytest.raises(OSError, match="reset"):
                    await asyncio.wait_for(asyncio.get_running_loop().sock_recv(connection.sock, 10), 5)
            await fast(daemon, family, others)

    with_servers(lab, story)
    assert all(seen.spoofed == 0 for seen in lab.all_seen().values())


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("order", ["drain", "disable"])
def test_an_uplink_that_somebody_takes_out_carries_nothing_fast(
    lab: Lab, start_daemon: StartDaemon, order: str, family: Family
) -> None:
    daemon = start_daemon(lab, configuration(lab.topology, (1, 1, 1)))

    async def story() -> None:
        with closing(await open_connections(lab, 6, SERVERS[family][0])) as opened:
            await fast(daemon, family, opened.connections)
            moving = of_uplink(opened, 1)
            assert polywan(daemon, "uplink", order, "isp1").returncode == 0
            await until(lambda: not any(fast_ones(daemon, family, moving)))
            await speak(moving, times=3)
            assert not any(fast_ones(daemon, family, moving))
            await fast(daemon, family, [*of_uplink(opened, 2), *of_uplink(opened, 3)])
            if order == "drain":
                assert polywan(daemon, "uplink", "enable", "isp1").returncode == 0
                await fast(daemon, family, opened.connections)

    with_servers(lab, story)


CHANGES: Final = {
    "by another uplink": "via {gateway} dev wan2",
    "by a tunnel": "dev tun0",
    "unreachable": "unreachable",
}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("change", CHANGES)
def test_a_more_specific_route_counts_for_connections_that_are_under_way(
    lab: Lab, start_daemon: StartDaemon, change: str, family: Family
) -> None:
    """On the slow path the guard drops what would leave by another uplink, and a tunnel gets what is its own."""
    daemon = start_daemon(lab, only_first(lab))
    server, gateway = SERVERS[family][0], lab.topology.uplink(2).addresses[family].gateway
    lab.router.ip(["link add tun0 type veth peer name far0", "link set tun0 up", "link set far0 up"])
    kind, _, where = CHANGES[change].format(gateway=gateway).partition("unreachable")
    route = f"{'unreachable ' if not kind else ''}{server} {kind}{where}".split()

    async def story() -> None:
        with closing(udp_socket(lab, server)) as sock:
            await fast_datagrams(lab, daemon, sock, family)
            lab.router.run(["ip", f"-{family:d}", "route", "add", *route])
            changed = last = time.monotonic()
            while time.monotonic() < changed + 1.0:
                with suppress(OSError):
                    await exchange(lab, sock, "still?", patience=0.05)
                    last = time.monotonic()
            assert last - changed < NOTICED
            lab.router.run(["ip", f"-{family:d}", "route", "delete", *route])
            # Masquerading forgets what leaves by another device: that connection began anew, without a translation.
            if change != "by a tunnel":
                await fast_datagrams(lab, daemon, sock, family)

    with_servers(lab, story)
    assert all(seen.spoofed == 0 for seen in lab.all_seen().values())


SLOW: Final = {
    "a kill switch": '[[rules]]\nfrom = "192.168.15.0/24"\nonly = ["isp1"]\n',
    "a kill switch for answers": '[[rules]]\nto = "192.168.15.0/24"\nonly = ["isp1"]\n',
    "a kill switch at certain times": """
[[rules]]
port = 7007
protocol = "tcp"
time = "00:00-00:01"
only = ["isp1"]
""",
    "nobody wants it": "",
}


@pytest.mark.parametrize("why", SLOW)
def test_what_has_to_be_judged_packet_by_packet_stays_on_the_slow_path(
    lab: Lab, start_daemon: StartDaemon, why: str
) -> None:
    text = configuration(lab.topology, (1, 1, 1)) + SLOW[why].replace("7007", str(ECHO_PORT))
    text = text.replace("[global]\n", "[global]\nfastpath = false\n") if not SLOW[why] else text
    daemon = start_daemon(lab, text)

    async def story() -> None:
        with closing(await open_connections(lab, 4, SERVERS[Family.V4][0])) as opened:
            await speak(opened.connections, times=5)
            assert not any(fast_ones(daemon, Family.V4, opened.connections))

    with_servers(lab, story)


def test_connections_that_no_kill_switch_is_about_take_it(lab: Lab, start_daemon: StartDaemon) -> None:
    rule = '[[rules]]\nfrom = "192.168.15.77"\nonly = ["isp1"]\n'
    daemon = start_daemon(lab, configuration(lab.topology, (1, 1, 1)) + rule)

    async def story() -> None:
        with closing(await open_connections(lab, 4, SERVERS[Family.V4][0])) as opened:
            await fast(daemon, Family.V4, opened.connections)

    with_servers(lab, story)


def test_a_firewall_that_limits_every_packet_goes_on_doing_so(lab: Lab, start_daemon: StartDaemon) -> None:
    daemon = start_daemon(lab, configuration(lab.topology, (1, 1, 1)))
    limit = "add table inet theirs\nadd chain inet theirs limits { type filter hook forward priority 0; }\n"

    async def story() -> None:
        with closing(await open_connections(lab, 4, SERVERS[Family.V4][0])) as opened:
            await fast(daemon, Family.V4, opened.connections)
            lab.router.nft(f"{limit}add rule inet theirs limits limit rate over 10 mbytes/second drop\n")
            await until(lambda: daemon.status().notes != ())
            (note,) = daemon.status().notes
            assert "chain limits of table inet theirs has to see every packet (limit)" in note
            await speak(opened.connections, times=3)
            assert not any(fast_ones(daemon, Family.V4, opened.connections))
            lab.router.nft("delete table inet theirs\n")
            await until(lambda: daemon.status().notes == ())
            await fast(daemon, Family.V4, opened.connections)

    with_servers(lab, story)


@pytest.mark.needs("fq_codel")
def test_shaping_sees_every_packet(lab: Lab, start_daemon: StartDaemon) -> None:
    daemon = start_daemon(lab, configuration(lab.topology, (1, 1, 1)))
    for device in ("wan1", "lan0"):
        lab.router.run(["tc", "qdisc", "add", "dev", device, "root", "fq_codel"])

    def sent(device: str) -> int:
        listed = json.loads(lab.router.run(["tc", "-s", "-j", "qdisc", "show", "dev", device]).stdout)
        return int(listed[0]["packets"])

    async def story() -> None:
        with closing(await open_connections(lab, 3, SERVERS[Family.V4][0])) as opened:
            await fast(daemon, Family.V4, opened.connections)
            (connection,) = of_uplink(opened, 1)
            before = sent("wan1"), sent("lan0")
            await speak([connection], times=50)
            assert fast_ones(daemon, Family.V4, [connection]) == [True]
            assert sent("wan1") - before[0] >= 50
            assert sent("lan0") - before[1] >= 50

    with_servers(lab, story)


BANS: Final = {
    "what is asked": ("inet", "forward priority 0", "daddr"),
    "answers alone": ("inet", "forward priority 0", "saddr"),
    "answers as they come": ("inet", "prerouting priority -300", "saddr"),
    "behind our chain": ("inet", "forward priority 400", "daddr"),
    "as it leaves": ("inet", "postrouting priority 200", "daddr"),
    "at the device": ("netdev", 'ingress device "lan0" priority 100', "daddr"),
}


@pytest.mark.parametrize("where", BANS)
def test_a_ban_by_another_program_ends_a_connection_that_is_under_way(
    lab: Lab, start_daemon: StartDaemon, where: str
) -> None:
    kind, hook, side = BANS[where]
    lab.router.nft(
        f"table {kind} bans {{ set bad {{ type ipv4_addr; }}\n"
        f"chain banning {{ type filter hook {hook}; ip {side} @bad drop\n}}\n}}\n"
    )
    daemon = start_daemon(lab, configuration(lab.topology, (1, 1, 1)))
    server = SERVERS[Family.V4][0]

    async def story() -> None:
        with closing(await open_connections(lab, 2, server)) as opened:
            await fast(daemon, Family.V4, opened.connections)
            lab.router.nft(f"add element {kind} bans bad {{ {server} }}\n")
            async with asyncio.timeout(5.0):
                for connection in opened.connections:
                    with suppress(TimeoutError):
                        while await connection.ask("still there?", patience=0.3):
                            pass

    with_servers(lab, story)


def test_a_device_that_is_made_anew_carries_connections_fast_again(lab_of: BuildLab, start_daemon: StartDaemon) -> None:
    lab = lab_of(3, trunk=True)
    daemon = start_daemon(lab, configuration(lab.topology, (1, 1, 1)))

    async def story() -> None:
        for _ in range(2):
            with closing(await open_connections(lab, 6, SERVERS[Family.V4][0])) as opened:
                assert of_uplink(opened, 1)
                await fast(daemon, Family.V4, opened.connections)
            lab.router.ip(recipe.remake(lab.topology.uplink(1)))
            await until(lambda: daemon.uplink(1).state == "up", 30.0)

    with_servers(lab, story)
