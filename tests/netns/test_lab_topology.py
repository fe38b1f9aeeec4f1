from __future__ import annotations

import asyncio
import gc
import json
import socket
import time
import warnings
from collections.abc import Callable
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from polywan.core.net import Family
from polywan.lab.network import Lab
from polywan.lab.sandbox import LabError
from polywan.lab.servers import ECHO_PORT, STREAM_PORT, serve
from polywan.lab.topology import SERVERS
from polywan.lab.traffic import connect, exchange, udp_flows, udp_socket

if TYPE_CHECKING:
    from support.netns import BuildLab, WaitFor

FAMILIES = [Family.V4, Family.V6]


def by_uplink(lab: Lab, number: int, family: Family, patience: float = 1.0) -> int | None:
    """Open a connection from the router bound to an uplink and return the uplink the server saw."""

    async def talk() -> int | None:
        servers = await serve(lab)
        try:
            device = lab.topology.uplink(number).interface
            attempt, connection = await connect(
                lab, SERVERS[family][0], namespace=lab.router, device=device, patience=patience
            )
            if connection is not None:
                connection.close()
            return attempt.uplink
        finally:
            await servers.close()

    return asyncio.run(talk())


def ping(lab: Lab, number: int, address: object) -> bool:
    device = lab.topology.uplink(number).interface
    done = lab.router.run(["ping", "-c1", "-W1", "-I", device, str(address)], check=False)
    return done.returncode == 0


@pytest.mark.parametrize("family", FAMILIES)
def test_every_provider_leads_to_the_servers_without_a_daemon(lab: Lab, family: Family) -> None:
    assert [by_uplink(lab, number, family) for number in (1, 2, 3)] == [1, 2, 3]


@pytest.mark.alone
def test_three_uplinks_stand_within_a_second(lab_of: BuildLab) -> None:
    began = time.monotonic()
    lab_of(3)
    assert time.monotonic() - began < 1.0


@pytest.mark.alone
def test_53_uplinks_stand_within_four_seconds_and_every_one_leads_out(lab_of: BuildLab) -> None:
    began = time.monotonic()
    lab = lab_of(53)
    assert time.monotonic() - began < 4.0
    assert all(lab.router.carrier(uplink.interface) for uplink in lab.topology.uplinks)
    assert [by_uplink(lab, number, Family.V4) for number in (1, 27, 53)] == [1, 27, 53]


@pytest.mark.alone
@pytest.mark.parametrize("trunk", [False, True])
def test_a_cut_is_seen_in_the_router_and_a_repair_too(lab_of: BuildLab, wait_for: WaitFor, trunk: bool) -> None:
    lab = lab_of(3, trunk=trunk)
    lab.cut(1)
    wait_for(lambda: not lab.router.carrier("wan1"), timeout=0.5)
    assert lab.router.carrier("wan2")
    lab.restore(1)
    wait_for(lambda: lab.router.carrier("wan1"), timeout=0.5)


@pytest.mark.parametrize("trunk", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_repaired_uplink_leads_out_again(lab_of: BuildLab, trunk: bool, family: Family) -> None:
    lab = lab_of(2, trunk=trunk)
    lab.cut(1)
    assert by_uplink(lab, 1, family) is None
    lab.restore(1)
    # The kernel may need a moment to act on the carrier: the first SYN can be lost, the second is not.
    assert by_uplink(lab, 1, family, patience=4.0) == 1


def test_a_repair_leaves_everybody_the_addresses_they_had(lab_of: BuildLab) -> None:
    lab = lab_of(2)

    def addresses() -> set[tuple[str, str, str]]:
        shown = {ns.name: json.loads(ns.run(["ip", "-json", "address"]).stdout) for ns in (lab.router, lab.provider(1))}
        return {
            (n, link["ifname"], a["local"]) for n, links in shown.items() for link in links for a in link["addr_info"]
        }

    before = addresses()
    lab.cut(1)
    lab.restore(1)
    assert addresses() == before


@pytest.mark.needs("ping")
@pytest.mark.parametrize("trunk", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_black_hole_swallows_all_but_the_gateway(lab_of: BuildLab, trunk: bool, family: Family) -> None:
    lab = lab_of(2, trunk=trunk)
    server, gateway = SERVERS[family][0], lab.topology.uplink(1).addresses[family].gateway
    assert ping(lab, 1, server)
    lab.blackhole(1)
    assert lab.router.carrier("wan1")
    assert not ping(lab, 1, server)
    assert ping(lab, 1, gateway)
    assert ping(lab, 2, server)
    lab.unblackhole(1)
    assert ping(lab, 1, server)


@pytest.mark.parametrize("trunk", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_packet_with_another_providers_address_is_dropped_and_counted(
    lab_of: BuildLab, wait_for: WaitFor, trunk: bool, family: Family
) -> None:
    lab = lab_of(2, trunk=trunk)
    stolen = lab.topology.uplink(2).addresses[family].own.ip
    with udp_socket(lab, SERVERS[family][0], lab.router) as honest:
        honest.send(b"x")
    before = lab.all_seen()
    assert (before[1].spoofed, before[2].spoofed) == (0, 0)
    lab.router.ip([f"route replace {SERVERS[family][0]} {_hop(lab, 1, family)} src {stolen}"])
    with udp_socket(lab, SERVERS[family][0], lab.router) as thief:
        assert thief.getsockname()[0] == str(stolen)
        thief.send(b"x")
    # It may have to wait for the gateway's link address, or for a processor.
    wait_for(lambda: lab.seen(1).spoofed)
    after = lab.all_seen()
    assert (after[1].spoofed, after[2].spoofed) == (1, 0)


def _hop(lab: Lab, number: int, family: Family) -> str:
    return f"via {lab.topology.uplink(number).addresses[family].gateway} dev wan{number}"


@pytest.mark.parametrize("trunk", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_twins_share_gateway_and_subnet_and_are_told_apart(lab_of: BuildLab, trunk: bool, family: Family) -> None:
    lab = lab_of(2, twins=True, trunk=trunk)
    first, second = (uplink.addresses[family] for uplink in lab.topology.uplinks)
    assert first.gateway == second.gateway
    assert first.own.network == second.own.network
    assert [by_uplink(lab, number, family) for number in (1, 2)] == [1, 2]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_point_to_point_uplink_needs_no_gateway(lab_of: BuildLab, family: Family) -> None:
    lab = lab_of(2, point_to_point=(2,))
    routes = lab.router.run(["ip", f"-{family:d}", "route", "show", "default", "dev", "wan2"]).stdout
    assert routes
    assert "via" not in routes
    assert by_uplink(lab, 2, family) == 2


def test_a_provider_without_ipv6_has_none(lab_of: BuildLab) -> None:
    lab = lab_of(2, ipv4_only=(2,))
    assert by_uplink(lab, 2, Family.V6) is None
    assert by_uplink(lab, 2, Family.V4) == 2


def test_main_may_lack_the_default_of_an_uplink(lab_of: BuildLab) -> None:
    lab = lab_of(2, without_default=(2,))
    assert "wan2" not in lab.router.run(["ip", "route", "show", "default"]).stdout


@pytest.mark.parametrize("family", FAMILIES)
def test_the_world_reaches_a_service_of_the_router_by_each_uplinks_address(lab: Lab, family: Family) -> None:
    async def knock() -> list[str]:
        servers = await serve(lab)
        await servers.listen(lab.router, family, ECHO_PORT)
        errors = []
        # Without a daemon only the first uplink's replies find their way; the address is what is tested.
        own = lab.topology.uplink(1).addresses[family].own.ip
        attempt, connection = await connect(lab, own, namespace=lab.server, patience=2.0)
        errors.append(attempt.error)
        if connection is not None:
            assert await connection.ask("hello") == "hello"
            connection.close()
        await servers.close()
        return errors

    assert asyncio.run(knock()) == [""]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_forwarded_port_ends_at_the_client(lab: Lab, family: Family) -> None:
    lab.router.sysctl({"ipv4/ip_forward": 1, "ipv6/conf/all/forwarding": 1})
    lab.forward_port(8080, ECHO_PORT)

    async def knock() -> str:
        servers = await serve(lab)
        await servers.listen(lab.client, family, ECHO_PORT)
        own = lab.topology.uplink(1).addresses[family].own.ip
        attempt, connection = await connect(lab, own, port=8080, namespace=lab.server, patience=2.0)
        if connection is not None:
            connection.close()
        await servers.close()
        return attempt.error

    assert asyncio.run(knock()) == ""


@pytest.mark.parametrize("family", FAMILIES)
def test_datagrams_come_back_with_the_address_that_was_seen(lab: Lab, family: Family) -> None:
    async def talk() -> tuple[list[int | None], int | None]:
        servers = await serve(lab)
        seen = await udp_flows(lab, 2, SERVERS[family][2], lab.router)
        with udp_socket(lab, SERVERS[family][1], lab.router) as sock:
            again = await exchange(lab, sock, "hello")
        await servers.close()
        return seen, again

    assert asyncio.run(talk()) == ([1, 1], 1)


def test_a_lab_that_was_taken_down_can_be_built_again(lab_of: BuildLab) -> None:
    lab_of(2).close()
    again = lab_of(2)
    assert by_uplink(again, 1, Family.V4) == 1


def test_an_impossible_command_names_the_line_that_was_refused(lab: Lab) -> None:
    with pytest.raises(LabError, match="link add nonsense0"):
        lab.router.ip(["link set lo up", "link add nonsense0 type nonsense"])


def test_an_entered_namespace_is_left_even_after_an_error(lab: Lab, names: Callable[[], list[str]]) -> None:
    outside = names()

    def fail_inside() -> None:
        with lab.router.entered():
            assert "wan1" in names()
            raise RuntimeError("inside")

    with pytest.raises(RuntimeError, match="inside"):
        fail_inside()
    assert names() == outside


@pytest.fixture
def names() -> Callable[[], list[str]]:
    import socket

    return lambda: [name for _, name in socket.if_nameindex()]


@pytest.mark.parametrize("passes", range(6))
@pytest.mark.parametrize("port", [ECHO_PORT, STREAM_PORT])
def test_servers_leave_no_connection_open_that_comes_while_they_close(lab: Lab, passes: int, port: int) -> None:
    async def story() -> None:
        servers = await serve(lab)
        with closing(lab.router.socket(socket.AF_INET, socket.SOCK_STREAM)) as sock:
            sock.setblocking(True)
            sock.connect((str(SERVERS[Family.V4][0]), port))
            for _ in range(passes):
                await asyncio.sleep(0)
            await servers.close()

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ResourceWarning)
        asyncio.run(story())
        gc.collect()
    assert [str(warning.message) for warning in caught] == []
