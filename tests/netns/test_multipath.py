"""Policies whose uplink the kernel chooses: nexthop groups under the real daemon and real connections."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, closing
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

import pytest

from polywan.api import calls
from polywan.api.requests import What
from polywan.core.net import Family
from polywan.lab.daemon import DaemonProcess
from polywan.lab.network import Lab
from polywan.lab.scenario import configuration
from polywan.lab.topology import SERVERS
from polywan.lab.traffic import connect, exchange, open_connections, shares, udp_socket
from support.netns import with_servers

if TYPE_CHECKING:
    from support.netns import BuildLab, StartDaemon, WaitFor

FAMILIES = [Family.V4, Family.V6]
MANY = 200
SPREAD = 36
"""How far 200 connections may be away from 150 to 50: the hash is a fair draw, and this is six times its deviation."""

HASH_POLICIES = ("ipv4/fib_multipath_hash_policy", "ipv6/fib_multipath_hash_policy")


def multipath(lab: Lab, *weights: int, algorithm: str = "multipath") -> str:
    names = [f'"{uplink.name}"' for uplink in lab.topology.uplinks]
    policy = f'[policies.default]\nalgorithm = "{algorithm}"\ntiers = [[{", ".join(names)}]]\n'
    return configuration(lab.topology, weights) + policy


@pytest.fixture
def two(lab_of: BuildLab) -> Lab:
    return lab_of(2)


def nexthops(lab: Lab) -> list[dict[str, Any]]:
    """What ip(8), an independent witness, shows."""
    found: list[dict[str, Any]] = json.loads(lab.router.run(["ip", "-j", "-N", "nexthop"]).stdout or "[]")
    return found


def members(lab: Lab, family: Family) -> dict[int, int]:
    """Weights in the group of a family, by the number of the uplink."""
    band = 1_900_000_000 + 1_000 * family
    groups = (n["group"] for n in nexthops(lab) if "group" in n and n["id"] // 1_000 == (band + 10_000) // 1_000)
    return {m["id"] - band: m.get("weight", 1) for group in groups for m in group}


def near(seen: Counter[int], number: int, share: float) -> bool:
    return abs(seen[number] - share * sum(seen.values())) <= SPREAD


def state_is(daemon: DaemonProcess, number: int, wanted: str) -> Callable[[], bool]:
    return lambda: daemon.uplink(number).state == wanted


def marks(lab: Lab, family: Family) -> Counter[str]:
    table = lab.router.run(["conntrack", "-L", "-f", f"ipv{family:d}", "-p", "tcp"]).stdout
    return Counter(word for word in table.split() if word.startswith("mark="))


@pytest.mark.needs("conntrack")
@pytest.mark.parametrize("family", FAMILIES)
def test_the_kernel_shares_connections_of_the_lan_by_weight_and_they_stay(
    two: Lab, start_daemon: StartDaemon, family: Family
) -> None:
    start_daemon(two, multipath(two, 3, 1))
    assert members(two, family) == {1: 3, 2: 1}

    async def story() -> None:
        with closing(await open_connections(two, MANY, SERVERS[family][0])) as opened:
            seen = shares(a.uplink for a in opened.attempts)
            assert sum(seen.values()) == MANY
            assert near(seen, 1, 0.75), seen
            for connection in opened.connections:
                assert await connection.ask("still by the same uplink?")
            # The policy's own mark, 0x300, is on no connection any more: each is its uplink's.
            assert marks(two, family) == {"mark=16777216": seen[1], "mark=33554432": seen[2]}

    with_servers(two, story)
    assert all(counted.spoofed == 0 for counted in two.all_seen().values())


@pytest.mark.parametrize("family", FAMILIES)
def test_datagrams_of_one_flow_stay_on_one_uplink(two: Lab, start_daemon: StartDaemon, family: Family) -> None:
    start_daemon(two, multipath(two, 1, 1))

    async def story() -> None:
        with ExitStack() as open_sockets:
            sockets = [open_sockets.enter_context(udp_socket(two, SERVERS[family][0])) for _ in range(40)]
            first = [await exchange(two, sock, "first") for sock in sockets]
            assert set(first) == {1, 2}
            for _ in range(3):
                assert [await exchange(two, sock, "again") for sock in sockets] == first

    with_servers(two, story)
    assert all(counted.spoofed == 0 for counted in two.all_seen().values())


@pytest.mark.parametrize("family", FAMILIES)
def test_the_boxs_own_connections_are_spread_by_server(two: Lab, start_daemon: StartDaemon, family: Family) -> None:
    network = "203.0.113." if family is Family.V4 else "2001:db8:203::"
    servers = [ip_address(f"{network}{n}") for n in range(20, 70)]
    two.server.ip([f"addr add {address} dev lo" for address in servers])
    start_daemon(two, multipath(two, 1, 1))

    async def story() -> None:
        by_server = []
        for address in servers:
            with closing(await open_connections(two, 3, address, namespace=two.router)) as opened:
                assert len(opened.connections) == 3
                for connection in opened.connections:
                    assert await connection.ask("still by the same uplink?")
                by_server.append({attempt.uplink for attempt in opened.attempts})
        # The kernel routes them again without their ports: one server, one uplink.
        assert {len(uplinks) for uplinks in by_server} == {1}
        assert set().union(*by_server) == {1, 2}

    with_servers(two, story)
    assert all(counted.spoofed == 0 for counted in two.all_seen().values())


@pytest.mark.parametrize("family", FAMILIES)
def test_new_connections_leave_a_dead_cable_at_once_and_come_back_after_the_hold_down(
    two: Lab, start_daemon: StartDaemon, wait_for: WaitFor, family: Family
) -> None:
    daemon = start_daemon(two, multipath(two, 1, 1))

    async def story() -> None:
        with closing(await open_connections(two, 20, SERVERS[family][0])) as before:
            two.cut(1)
            with closing(await open_connections(two, 40, SERVERS[family][0])) as opened:
                assert [a.error for a in opened.attempts if a.error] == []
                assert shares(a.uplink for a in opened.attempts) == {2: 40}
            for connection in before.connections:
                if connection.attempt.uplink == 2:
                    assert await connection.ask("undisturbed?")

    async def afterwards() -> None:
        with closing(await open_connections(two, 60, SERVERS[family][0])) as opened:
            assert set(shares(a.uplink for a in opened.attempts)) == {1, 2}

    with_servers(two, story)
    wait_for(state_is(daemon, 1, "down"))
    assert members(two, family) == {2: 1}
    two.restore(1)
    with_servers(two, lambda: asyncio.to_thread(wait_for, state_is(daemon, 1, "up"), 15.0))
    wait_for(lambda: members(two, family) == {1: 1, 2: 1})
    with_servers(two, afterwards)
    assert all(counted.spoofed == 0 for counted in two.all_seen().values())


def test_a_silent_uplink_leaves_the_group(two: Lab, start_daemon: StartDaemon, wait_for: WaitFor) -> None:
    daemon = start_daemon(two, multipath(two, 1, 1))

    async def story() -> None:
        two.blackhole(1)
        await asyncio.to_thread(wait_for, state_is(daemon, 1, "down"))
        for family in FAMILIES:
            assert members(two, family) == {2: 1}
            with closing(await open_connections(two, 20, SERVERS[family][0])) as opened:
                assert shares(a.uplink for a in opened.attempts) == {2: 20}

    with_servers(two, story)


def served_by(daemon: DaemonProcess, family: Family) -> list[str]:
    """Return who serves the default policy, by the daemon's own word."""
    chosen = daemon.status().policies[0].families[family.nfproto]
    return [member.uplink for member in chosen.members]


def test_without_any_cable_connections_are_refused_and_one_cable_is_enough_again(
    two: Lab, start_daemon: StartDaemon, wait_for: WaitFor
) -> None:
    daemon = start_daemon(two, multipath(two, 1, 1))

    async def story() -> None:
        for number in (1, 2):
            two.cut(number)
            await asyncio.to_thread(wait_for, state_is(daemon, number, "down"))
        assert nexthops(two) == []
        attempt, _ = await connect(two, SERVERS[Family.V4][0], patience=2.0)
        assert attempt.error not in ("", "timeout")
        two.restore(2)
        for family in FAMILIES:
            await asyncio.to_thread(wait_for, lambda f=family: members(two, f) == {2: 1})
            # The group stands before the chains that lead to it: the daemon's word says that both do.
            await asyncio.to_thread(wait_for, lambda f=family: served_by(daemon, f) == ["isp2"])
            with closing(await open_connections(two, 10, SERVERS[family][0])) as opened:
                assert shares(a.uplink for a in opened.attempts) == {2: 10}

    with_servers(two, story)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_cable_that_is_in_and_out_without_a_daemon_is_put_right_by_the_next_one(
    two: Lab, start_daemon: StartDaemon, wait_for: WaitFor, family: Family
) -> None:
    daemon = start_daemon(two, multipath(two, 2, 1))
    daemon.kill()
    two.cut(1)
    wait_for(lambda: members(two, family) == {2: 1})
    two.restore(1)
    daemon.start()
    assert members(two, family) == {1: 2, 2: 1}


@pytest.mark.parametrize("family", FAMILIES)
def test_without_a_daemon_the_first_cable_that_is_back_takes_all(
    two: Lab, start_daemon: StartDaemon, wait_for: WaitFor, family: Family
) -> None:
    daemon = start_daemon(two, multipath(two, 1, 1))
    daemon.kill()
    two.cut(1)
    two.cut(2)
    wait_for(lambda: nexthops(two) == [])
    two.restore(2)

    async def story() -> None:
        with closing(await open_connections(two, 10, SERVERS[family][0])) as opened:
            assert shares(a.uplink for a in opened.attempts) == {2: 10}
            for connection in opened.connections:
                assert await connection.ask("still by the same uplink?")

    with_servers(two, story)


def test_other_weights_move_no_open_connection(two: Lab, start_daemon: StartDaemon) -> None:
    daemon = start_daemon(two, multipath(two, 3, 1))

    async def story() -> None:
        with closing(await open_connections(two, 60, SERVERS[Family.V4][0])) as opened:
            daemon.config.write_text(multipath(two, 1, 50))
            assert (await asyncio.to_thread(daemon.reload)).changed
            assert members(two, Family.V4) == {1: 1, 2: 50}
            with closing(await open_connections(two, MANY, SERVERS[Family.V4][0])) as later:
                assert near(shares(a.uplink for a in later.attempts), 2, 50 / 51)
            for connection in opened.connections:
                assert await connection.ask("still by the same uplink?")

    with_servers(two, story)
    assert all(counted.spoofed == 0 for counted in two.all_seen().values())


def test_another_algorithm_takes_over_without_losing_a_connection(two: Lab, start_daemon: StartDaemon) -> None:
    daemon = start_daemon(two, multipath(two, 1, 1))

    async def story() -> None:
        with closing(await open_connections(two, 40, SERVERS[Family.V4][0])) as opened:
            daemon.config.write_text(multipath(two, 1, 1, algorithm="weighted"))
            await asyncio.to_thread(daemon.reload)
            assert nexthops(two) == []
            for connection in opened.connections:
                assert await connection.ask("still by the same uplink?")
            with closing(await open_connections(two, 10, SERVERS[Family.V4][0])) as later:
                assert shares(a.uplink for a in later.attempts) == {1: 5, 2: 5}

    with_servers(two, story)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_link_without_next_hop_takes_its_share(lab_of: BuildLab, start_daemon: StartDaemon, family: Family) -> None:
    lab = lab_of(2, point_to_point=(2,))
    start_daemon(lab, multipath(lab, 1, 1))

    async def story() -> None:
        with closing(await open_connections(lab, 60, SERVERS[family][0])) as opened:
            assert set(shares(a.uplink for a in opened.attempts)) == {1, 2}
            assert len(opened.connections) == 60

    with_servers(lab, story)
    assert all(counted.spoofed == 0 for counted in lab.all_seen().values())


@pytest.mark.parametrize("ident", [1_900_004_001, 1_900_014_003, 1_900_006_002, 1_900_016_003])
def test_a_nexthop_that_somebody_else_deletes_is_back_within_two_seconds(
    two: Lab, start_daemon: StartDaemon, wait_for: WaitFor, ident: int
) -> None:
    daemon = start_daemon(two, multipath(two, 3, 1))
    before = {key: two.router.run(key.split()).stdout for key in ("ip nexthop", "ip route show table 6003")}
    two.router.ip([f"nexthop del id {ident}"])
    wait_for(lambda: all(two.router.run(key.split()).stdout == text for key, text in before.items()), 2.0)
    assert daemon.wait_log(lambda text: "drift.repaired" in text, 2.0) is not None


def test_down_leaves_no_nexthop_and_the_settings_as_found(
    two: Lab, start_daemon: StartDaemon, wait_for: WaitFor
) -> None:
    gateway = two.topology.uplink(1).addresses[Family.V4].gateway
    two.router.ip([f"nexthop add id 7 via {gateway} dev wan1 protocol static"])
    before = {path: two.router.read_sysctl(path) for path in HASH_POLICIES}
    daemon = start_daemon(two, multipath(two, 1, 1))
    assert {two.router.read_sysctl(path) for path in HASH_POLICIES} == {"1"}
    assert len(nexthops(two)) == 7
    daemon.down()
    wait_for(lambda: daemon.process is None or daemon.process.poll() is not None)
    assert [found["id"] for found in nexthops(two)] == [7]
    assert {path: two.router.read_sysctl(path) for path in HASH_POLICIES} == before


def test_a_restart_adopts_the_nexthops_and_writes_nothing(two: Lab, start_daemon: StartDaemon) -> None:
    daemon = start_daemon(two, multipath(two, 3, 1))
    running = nexthops(two)
    daemon.kill()
    daemon.start()
    assert daemon.status().generation == 0
    assert nexthops(two) == running


def test_show_routes_names_the_nexthops(two: Lab, start_daemon: StartDaemon) -> None:
    shown = start_daemon(two, multipath(two, 3, 1)).client.ask(calls.SHOW, What(what="routes")).text.splitlines()
    assert "nexthop -4 id 1900004001 via 100.64.1.1 dev wan1" in shown
    assert "nexthop id 1900014003 group 1900004001,3/1900004002,1 type resilient buckets 1024 idle_timer 0" in shown
    assert "-4 default nhid 1900014003 table 6003 metric 1" in shown
