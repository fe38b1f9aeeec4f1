"""The real daemon in a real router: every way to balance, as the servers see it."""

from __future__ import annotations

import json
import socket
from collections import Counter
from ipaddress import ip_address
from typing import TYPE_CHECKING

import pytest

from polywan.core.net import Family
from polywan.lab.network import Lab
from polywan.lab.scenario import configuration
from polywan.lab.topology import SERVERS
from polywan.lab.traffic import open_connections, shares
from support.lan_clients import ask_from, many_clients, uplinks_of
from support.netns import with_servers

if TYPE_CHECKING:
    from support.netns import BuildLab, StartDaemon, WaitFor

FAMILIES = [Family.V4, Family.V6]


def policy(lab: Lab, weights: tuple[int, ...], **keys: object) -> str:
    """Return a configuration whose default policy has these keys."""
    names = [u.name for u in lab.topology.uplinks]
    lines = [
        f"{key} = {json.dumps(value) if not isinstance(value, dict) else _inline(value)}" for key, value in keys.items()
    ]
    return (
        configuration(lab.topology, weights)
        + f"\n[policies.default]\ntiers = [{json.dumps(names)}]\n"
        + "\n".join(lines)
    )


def _inline(table: dict[str, object]) -> str:
    return "{" + ", ".join(f"{k} = {json.dumps(v)}" for k, v in table.items()) + "}"


def test_random_draws_by_weight(lab: Lab, start_daemon: StartDaemon) -> None:
    start_daemon(lab, policy(lab, (3, 2, 1), algorithm="random"))

    async def story() -> None:
        opened = await open_connections(lab, 300, SERVERS[Family.V4][0])
        opened.close()
        seen = shares(a.uplink for a in opened.attempts)
        assert abs(seen[1] - 150) < 45
        assert abs(seen[2] - 100) < 42
        assert abs(seen[3] - 50) < 35

    with_servers(lab, story)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_source_stays_with_its_uplink_and_a_loss_moves_only_those_of_the_lost_one(
    lab: Lab, start_daemon: StartDaemon, wait_for: WaitFor, family: Family
) -> None:
    daemon = start_daemon(lab, policy(lab, (1, 1, 1), algorithm="source"))
    sources = many_clients(lab, family, 24)

    async def story() -> None:
        near, far = SERVERS[family][0], SERVERS[family][-1]
        before = await uplinks_of(lab, sources, near)
        assert len(set(before.values())) == 3
        assert await uplinks_of(lab, sources, near) == before
        assert await uplinks_of(lab, sources, far) == before
        lab.cut(1)
        wait_for(lambda: daemon.uplink(1).state == "down")
        after = await uplinks_of(lab, sources, near)
        assert {s: u for s, u in after.items() if before[s] != 1} == {s: u for s, u in before.items() if u != 1}
        assert set(after.values()) == {2, 3}

    with_servers(lab, story)


@pytest.mark.parametrize("family", FAMILIES)
def test_source_and_destination_together_choose(lab: Lab, start_daemon: StartDaemon, family: Family) -> None:
    start_daemon(lab, policy(lab, (1, 1, 1), algorithm="source-destination"))
    sources = many_clients(lab, family, 16)

    async def story() -> None:
        near = await uplinks_of(lab, sources, SERVERS[family][0])
        assert await uplinks_of(lab, sources, SERVERS[family][0]) == near
        far = await uplinks_of(lab, sources, SERVERS[family][-1])
        assert far != near

    with_servers(lab, story)


@pytest.mark.parametrize("family", FAMILIES)
def test_one_client_and_one_server_use_every_uplink_when_ports_count(
    lab: Lab, start_daemon: StartDaemon, family: Family
) -> None:
    start_daemon(lab, policy(lab, (1, 1, 1), algorithm="connection"))
    (source,) = many_clients(lab, family, 1)

    async def story() -> None:
        seen = Counter([await ask_from(lab, source, SERVERS[family][0], 20000 + n) for n in range(60)])
        assert set(seen) == {1, 2, 3}
        assert min(seen.values()) >= 8

    with_servers(lab, story)


@pytest.mark.parametrize("family", FAMILIES)
def test_even_sources_take_one_uplink_and_odd_ones_the_other(
    lab_of: BuildLab, start_daemon: StartDaemon, family: Family
) -> None:
    lab = lab_of(2)
    start_daemon(lab, policy(lab, (1, 1), algorithm="source-parity"))
    sources = many_clients(lab, family, 8)

    async def story() -> None:
        seen = await uplinks_of(lab, sources, SERVERS[family][0])
        assert seen == {s: 1 + int(ip_address(s)) % 2 for s in sources}

    with_servers(lab, story)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_client_is_kept_on_its_uplink_over_reload_and_restart(
    lab: Lab, start_daemon: StartDaemon, family: Family
) -> None:
    toml = policy(lab, (3, 2, 1), affinity={"key": "source", "timeout": "10m"})
    daemon = start_daemon(lab, toml)
    sources = many_clients(lab, family, 9)

    async def story() -> None:
        near, far = SERVERS[family][0], SERVERS[family][-1]
        before = await uplinks_of(lab, sources, near)
        assert set(before.values()) == {1, 2, 3}
        assert await uplinks_of(lab, sources, far) == before
        daemon.config.write_text(
            policy(lab, (1, 1, 1), affinity={"key": "source", "timeout": "10m"})
            + '\n[policies.other]\ntiers = [["isp1"]]\n'
        )
        daemon.reload()
        assert await uplinks_of(lab, sources, near) == before
        daemon.kill()
        daemon.start()
        assert await uplinks_of(lab, sources, near) == before

    with_servers(lab, story)


def test_a_client_and_a_server_together_are_kept(lab: Lab, start_daemon: StartDaemon) -> None:
    start_daemon(lab, policy(lab, (1, 1, 1), affinity={"key": "source-destination"}))
    sources = many_clients(lab, Family.V4, 10)

    async def story() -> None:
        near, far = SERVERS[Family.V4][0], SERVERS[Family.V4][-1]
        first, second = await uplinks_of(lab, sources, near), await uplinks_of(lab, sources, far)
        assert first != second
        assert await uplinks_of(lab, sources, near) == first
        assert await uplinks_of(lab, sources, far) == second

    with_servers(lab, story)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_client_is_let_go_by_an_uplink_that_dies_and_not_taken_back(
    lab: Lab, start_daemon: StartDaemon, wait_for: WaitFor, family: Family
) -> None:
    daemon = start_daemon(lab, policy(lab, (1, 1, 1), affinity={"key": "source"}))
    sources = many_clients(lab, family, 9)

    async def story() -> None:
        near = SERVERS[family][0]
        before = await uplinks_of(lab, sources, near)
        lab.cut(1)
        wait_for(lambda: daemon.uplink(1).state == "down")
        moved = await uplinks_of(lab, sources, near)
        assert {s: u for s, u in moved.items() if before[s] != 1} == {s: u for s, u in before.items() if u != 1}
        assert 1 not in moved.values()
        lab.restore(1)
        wait_for(lambda: daemon.uplink(1).state == "up", 20.0)
        assert await uplinks_of(lab, sources, near) == moved

    with_servers(lab, story)


def test_a_client_is_kept_although_others_mark_its_packets(lab: Lab, start_daemon: StartDaemon) -> None:
    start_daemon(lab, policy(lab, (1, 1, 1), affinity={"key": "source"}))
    lab.router.nft(
        "table inet shaper { chain c { type filter hook prerouting priority -160; meta mark set meta mark | 0x1\n}\n}"
    )
    sources = many_clients(lab, Family.V4, 9)

    async def story() -> None:
        before = await uplinks_of(lab, sources, SERVERS[Family.V4][0])
        assert set(before.values()) == {1, 2, 3}
        assert await uplinks_of(lab, sources, SERVERS[Family.V4][0]) == before

    with_servers(lab, story)


def test_single_packets_of_one_flow_are_dealt_out_where_nothing_is_translated(
    lab_of: BuildLab, start_daemon: StartDaemon
) -> None:
    lab = lab_of(2)
    names = [u.name for u in lab.topology.uplinks]
    toml = configuration(lab.topology, (1, 1))
    for name in names:
        toml = toml.replace(f"[uplinks.{name}]", f'[uplinks.{name}]\nnat = "none"\nnat6 = "native"')
    start_daemon(lab, toml + f'[policies.default]\nalgorithm = "per-packet"\ntiers = [{json.dumps(names)}]\n')
    # Without translation the providers must know the way back to the LAN.
    for uplink in lab.topology.uplinks:
        own = uplink.addresses[Family.V4].own.ip
        lab.provider(uplink.number).ip([f"route add 192.168.15.0/24 via {own}"])
    counted = [lab.provider(n) for n in (1, 2)]
    for provider in counted:
        provider.nft(
            "table inet tally { counter c { }; chain f { type filter hook prerouting priority -310; "
            "udp dport 7777 counter name c\n}\n}"
        )
    with lab.client.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect((str(SERVERS[Family.V4][0]), 7777))
        for _ in range(40):
            sock.send(b"x")
    assert [p.counters("inet tally")["c"] for p in counted] == [20, 20]


def test_a_policy_of_ipv4_uplinks_leaks_no_ipv6(lab: Lab, start_daemon: StartDaemon) -> None:
    start_daemon(
        lab, configuration(lab.topology, (1, 1, 1)).replace("weight = 1\n", 'weight = 1\nfamilies = ["ipv4"]\n')
    )

    async def story() -> None:
        opened = await open_connections(lab, 5, SERVERS[Family.V6][0])
        assert {a.error for a in opened.attempts} <= {"ENETUNREACH", "EHOSTUNREACH"}
        own = await open_connections(lab, 5, SERVERS[Family.V6][0], namespace=lab.router)
        assert {a.error for a in own.attempts} <= {"ENETUNREACH", "EHOSTUNREACH"}
        again = await open_connections(lab, 5, SERVERS[Family.V4][0])
        again.close()
        assert all(a.ok for a in again.attempts)

    with_servers(lab, story)
