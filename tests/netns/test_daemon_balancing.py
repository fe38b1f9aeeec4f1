"""The real daemon in a real router: who takes which connection."""

from __future__ import annotations

import socket
from collections import Counter
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from polywan.core.net import Family
from polywan.lab.network import Lab
from polywan.lab.scenario import configuration
from polywan.lab.servers import ECHO_PORT, Servers
from polywan.lab.topology import SERVERS
from polywan.lab.traffic import connect, open_connections, shares, udp_flows
from support.netns import with_servers

if TYPE_CHECKING:
    from support.netns import BuildLab, StartDaemon, WaitFor

FAMILIES = [Family.V4, Family.V6]


async def tcp_shares(lab: Lab, count: int, family: Family, *, router: bool = False) -> Counter[int]:
    opened = await open_connections(lab, count, SERVERS[family][0], namespace=lab.router if router else None)
    opened.close()
    assert [a.error for a in opened.attempts if a.error] == []
    return shares(a.uplink for a in opened.attempts)


@pytest.mark.parametrize("family", FAMILIES)
def test_connections_of_the_lan_are_shared_exactly_by_weight(
    lab: Lab, start_daemon: StartDaemon, family: Family
) -> None:
    start_daemon(lab, configuration(lab.topology, (3, 2, 1)))

    async def story() -> None:
        assert await tcp_shares(lab, 60, family) == {1: 30, 2: 20, 3: 10}

    with_servers(lab, story)


def test_udp_flows_are_shared_by_weight_too(lab: Lab, start_daemon: StartDaemon) -> None:
    start_daemon(lab, configuration(lab.topology, (3, 2, 1)))

    async def story() -> None:
        assert shares(await udp_flows(lab, 30, SERVERS[Family.V4][0])) == {1: 15, 2: 10, 3: 5}

    with_servers(lab, story)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_boxs_own_connections_are_shared_too(lab: Lab, start_daemon: StartDaemon, family: Family) -> None:
    start_daemon(lab, configuration(lab.topology, (3, 2, 1)))

    async def story() -> None:
        seen = await tcp_shares(lab, 60, family, router=True)
        assert seen == {1: 30, 2: 20, 3: 10}

    with_servers(lab, story)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_socket_bound_to_an_uplink_leaves_by_it(lab: Lab, start_daemon: StartDaemon, family: Family) -> None:
    start_daemon(lab, configuration(lab.topology, (3, 2, 1)))

    async def story() -> None:
        for uplink in lab.topology.uplinks * 4:
            attempt, connection = await connect(lab, SERVERS[family][0], namespace=lab.router, device=uplink.interface)
            assert connection is not None, attempt.error
            assert await connection.ask("hello")
            assert attempt.uplink == uplink.number
            connection.close()

    with_servers(lab, story)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_connection_from_outside_is_answered_by_the_uplink_it_came_in_by(
    lab: Lab, start_daemon: StartDaemon, family: Family
) -> None:
    start_daemon(lab, configuration(lab.topology, (3, 2, 1)))

    async def story() -> None:
        own = Servers()
        await own.listen(lab.router, family, ECHO_PORT)
        for uplink in lab.topology.uplinks:
            address = uplink.addresses[family].own.ip
            attempt, connection = await connect(lab, address, namespace=lab.server)
            assert connection is not None, (uplink.number, attempt.error)
            assert await connection.ask("still there?")
            connection.close()
        await own.close()

    with_servers(lab, story)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_port_forward_works_on_every_uplink(lab: Lab, start_daemon: StartDaemon, family: Family) -> None:
    start_daemon(lab, configuration(lab.topology, (3, 2, 1)))
    lab.forward_port(8080, ECHO_PORT)

    async def story() -> None:
        inside = Servers()
        await inside.listen(lab.client, family, ECHO_PORT)
        for uplink in lab.topology.uplinks:
            address = uplink.addresses[family].own.ip
            attempt, connection = await connect(lab, address, port=8080, namespace=lab.server)
            assert connection is not None, (uplink.number, attempt.error)
            connection.close()
        await inside.close()

    with_servers(lab, story)


def test_no_packet_ever_leaves_with_the_address_of_another_uplink(lab: Lab, start_daemon: StartDaemon) -> None:
    start_daemon(lab, configuration(lab.topology, (1, 1, 1)))

    async def story() -> None:
        for family in FAMILIES:
            await tcp_shares(lab, 60, family)
            await tcp_shares(lab, 30, family, router=True)

    with_servers(lab, story)
    assert {n: seen.spoofed for n, seen in lab.all_seen().items()} == {1: 0, 2: 0, 3: 0}


@pytest.mark.parametrize("family", FAMILIES)
def test_twins_with_one_gateway_and_one_subnet_carry_their_own_traffic(
    lab_of: BuildLab, start_daemon: StartDaemon, family: Family
) -> None:
    lab = lab_of(2, twins=True)
    start_daemon(lab, configuration(lab.topology, (1, 1)))

    async def story() -> None:
        assert await tcp_shares(lab, 40, family) == {1: 20, 2: 20}

    with_servers(lab, story)


@pytest.mark.parametrize("family", FAMILIES)
def test_point_to_point_uplinks_need_no_gateway(lab_of: BuildLab, start_daemon: StartDaemon, family: Family) -> None:
    lab = lab_of(3, point_to_point=(2, 3))
    start_daemon(lab, configuration(lab.topology, (1, 1, 1)))

    async def story() -> None:
        assert await tcp_shares(lab, 30, family) == {1: 10, 2: 10, 3: 10}

    with_servers(lab, story)


def test_an_uplink_without_ipv6_takes_ipv4_only(lab_of: BuildLab, start_daemon: StartDaemon) -> None:
    lab = lab_of(3, ipv4_only=(1,))
    daemon = start_daemon(lab, configuration(lab.topology, (1, 1, 1)))

    async def story() -> None:
        assert await tcp_shares(lab, 30, Family.V4) == {1: 10, 2: 10, 3: 10}
        assert await tcp_shares(lab, 30, Family.V6) == {2: 15, 3: 15}

    with_servers(lab, story)
    assert [u.state for u in daemon.status().uplinks] == ["up", "up", "up"]


RULES = """
[policies.heavy]
tiers = [["isp3"], ["isp2"]]
[[rules]]
to = "198.51.100.10"
uplink = "isp2"
[[rules]]
protocol = "tcp"
port = 7
policy = "heavy"
[[rules]]
to = ["198.51.100.11", "2001:db8:198::11"]
action = "block"
"""


def test_rules_steer_by_destination_and_the_first_match_wins(lab: Lab, start_daemon: StartDaemon) -> None:
    toml = configuration(lab.topology, (1, 1, 1)) + RULES.replace("port = 7", f"port = {ECHO_PORT}")
    start_daemon(lab, toml)

    async def story() -> None:
        direct = await open_connections(lab, 6, SERVERS[Family.V4][1])
        direct.close()
        assert shares(a.uplink for a in direct.attempts) == {2: 6}
        by_port = await open_connections(lab, 6, SERVERS[Family.V4][0])
        by_port.close()
        assert shares(a.uplink for a in by_port.attempts) == {3: 6}
        udp = await udp_flows(lab, 6, SERVERS[Family.V4][0])
        assert shares(udp) == {1: 2, 2: 2, 3: 2}

    with_servers(lab, story)


def test_a_blocked_destination_is_refused_at_once(lab: Lab, start_daemon: StartDaemon) -> None:
    start_daemon(lab, configuration(lab.topology, (1, 1, 1)) + RULES.replace("port = 7", "port = 9"))

    async def story() -> None:
        for family in FAMILIES:
            attempt, _ = await connect(lab, SERVERS[family][2], patience=2.0)
            assert attempt.error not in ("", "timeout")

    with_servers(lab, story)


def test_the_bits_of_others_in_the_connection_mark_survive(lab: Lab, start_daemon: StartDaemon) -> None:
    lab.router.nft(
        "table inet other { chain pre { type filter hook prerouting priority -200; policy accept;\n"
        "ct state new ct mark set 0x40000001\nmeta mark set 0x40000000\n}\n}\n"
    )
    start_daemon(lab, configuration(lab.topology, (1, 1, 1)))

    async def story() -> None:
        with closing(await open_connections(lab, 6, SERVERS[Family.V4][0])) as opened:
            assert shares(a.uplink for a in opened.attempts) == {1: 2, 2: 2, 3: 2}
            for connection in opened.connections:
                await connection.ask("later packets keep their uplink too")
            table = lab.router.run(["conntrack", "-L", "-p", "tcp"], check=True).stdout
            marks = Counter(word for word in table.split() if word.startswith("mark="))
            assert marks == {f"mark={0x40000001 | m}": 2 for m in (0x1000000, 0x2000000, 0x3000000)}

    with_servers(lab, story)


def reaches(lab: Lab, address: object) -> bool:
    """Ping from the client; `conntrack` would make several pings of one process a single connection."""
    return lab.client.run(["ping", "-c1", "-W1", str(address)], check=False).returncode == 0


@pytest.mark.parametrize("family", FAMILIES)
def test_a_modem_in_an_uplinks_own_network_is_always_reached(
    lab: Lab, start_daemon: StartDaemon, family: Family
) -> None:
    start_daemon(lab, configuration(lab.topology, (1, 1, 1)))
    gateways = [uplink.addresses[family].gateway for uplink in lab.topology.uplinks]
    assert [reaches(lab, gateway) for gateway in gateways for _ in range(4)] == [True] * 12


def test_a_specific_route_by_an_uplink_wins_over_the_policy(lab: Lab, start_daemon: StartDaemon) -> None:
    start_daemon(lab, configuration(lab.topology, (1, 1, 1)))
    lab.router.ip([f"route add 198.51.100.0/24 via {lab.topology.uplink(3).addresses[Family.V4].gateway} dev wan3"])

    async def story() -> None:
        opened = await open_connections(lab, 6, SERVERS[Family.V4][1])
        opened.close()
        assert shares(a.uplink for a in opened.attempts) == {3: 6}

    with_servers(lab, story)
    assert all(seen.spoofed == 0 for seen in lab.all_seen().values())


def test_a_network_inside_that_only_another_programs_table_knows_gets_its_answers(
    lab: Lab, start_daemon: StartDaemon
) -> None:
    lab.client.ip(["addr add 192.168.77.10/32 dev eth0"])
    lab.router.ip(["route add 192.168.77.10/32 dev lan0 table 77", "rule add pref 30000 to 192.168.77.10 lookup 77"])
    start_daemon(lab, configuration(lab.topology, (1, 1, 1)))
    done = lab.client.run(
        ["ping", "-c3", "-W1", "-i0.2", "-I", "192.168.77.10", str(SERVERS[Family.V4][0])], check=False
    )
    assert done.returncode == 0, done.stdout


def test_a_packet_from_the_lan_that_claims_to_come_from_this_box_is_dropped(
    lab: Lab, start_daemon: StartDaemon
) -> None:
    start_daemon(lab, configuration(lab.topology, (1, 1, 1)))
    stolen = str(lab.topology.uplink(1).addresses[Family.V4].own.ip)
    lab.client.ip([f"addr add {stolen}/32 dev eth0"])
    with lab.client.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((stolen, 40999))
        for server in SERVERS[Family.V4]:
            sock.sendto(b"spoofed", (str(server), ECHO_PORT))
    tracked = lab.router.run(["conntrack", "-L", "-p", "udp", "--orig-port-src", "40999"]).stdout
    assert tracked == ""


def test_large_segments_are_clamped_to_the_uplinks_mtu(lab: Lab, start_daemon: StartDaemon) -> None:
    for uplink in lab.topology.uplinks:
        lab.router.ip([f"link set {uplink.interface} mtu 1400"])
    start_daemon(lab, configuration(lab.topology, (1, 1, 1)))

    async def story() -> None:
        with closing(await open_connections(lab, 3, SERVERS[Family.V4][0])) as opened:
            # TCP_MAXSEG (tcp(7)): what the other side asked for, less the time stamps' 12 bytes.
            sizes = {c.sock.getsockopt(6, 2) for c in opened.connections}
            assert sizes == {1400 - 40 - 12}

    with_servers(lab, story)


def test_shares_of_53_uplinks_are_exact(lab_of: BuildLab, start_daemon: StartDaemon) -> None:
    lab = lab_of(53)
    start_daemon(lab, configuration(lab.topology, (1,) * 53))

    async def story() -> None:
        assert await tcp_shares(lab, 106, Family.V4) == dict.fromkeys(range(1, 54), 2)

    with_servers(lab, story)


def test_status_shares_add_up_to_one(lab: Lab, start_daemon: StartDaemon, wait_for: WaitFor) -> None:
    daemon = start_daemon(lab, configuration(lab.topology, (3, 2, 1)))
    status = daemon.status()
    assert [round(u.share, 3) for u in status.uplinks] == [0.5, 0.333, 0.167]
    assert sum(u.share for u in status.uplinks) == pytest.approx(1.0, abs=1e-5)
