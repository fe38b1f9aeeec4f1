"""Uplinks without a router, or without an address of their own, in a real router: they take their share as others."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from polywan.core.net import Family
from polywan.lab.daemon import DaemonProcess
from polywan.lab.network import Lab
from polywan.lab.scenario import configuration
from polywan.lab.topology import SERVERS
from polywan.lab.traffic import open_connections, shares
from support.netns import with_servers

if TYPE_CHECKING:
    from support.netns import BuildLab, StartDaemon, WaitFor

FAMILIES = [Family.V4, Family.V6]


def replace_default(lab: Lab, family: Family, words: str) -> None:
    """Exchange the default route by wan1; `words` say how the new one goes."""
    lab.router.ip([f"route del {family.default} dev wan1", f"route add {family.default} {words} metric 101"])


def answer_for_everybody(lab: Lab, family: Family) -> None:
    """Let provider 1's router answer ARP or neighbour discovery in the name of the servers."""
    provider = lab.provider(1)
    if family is Family.V4:
        provider.sysctl({"ipv4/conf/wan/proxy_arp": 1})
        return
    provider.sysctl({"ipv6/conf/wan/proxy_ndp": 1})
    provider.ip([f"neigh add proxy {server} dev wan" for server in SERVERS[family]])


async def shared(lab: Lab, family: Family) -> None:
    opened = await open_connections(lab, 8, SERVERS[family][0])
    opened.close()
    assert [a.error for a in opened.attempts if a.error] == []
    assert shares(a.uplink for a in opened.attempts) == {1: 4, 2: 4}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_default_route_may_name_the_device_alone(lab_of: BuildLab, start_daemon: StartDaemon, family: Family) -> None:
    lab = lab_of(2)
    answer_for_everybody(lab, family)
    replace_default(lab, family, "dev wan1")
    start_daemon(lab, configuration(lab.topology, (1, 1)))

    async def story() -> None:
        await shared(lab, family)

    with_servers(lab, story)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_route_may_go_by_a_nexthop_object(lab_of: BuildLab, start_daemon: StartDaemon, family: Family) -> None:
    lab = lab_of(2)
    gateway = lab.topology.uplink(1).addresses[family].gateway
    lab.router.ip([f"nexthop add id 7 via {gateway} dev wan1"])
    replace_default(lab, family, "nhid 7")
    start_daemon(lab, configuration(lab.topology, (1, 1)))

    async def story() -> None:
        await shared(lab, family)

    with_servers(lab, story)


@pytest.mark.parametrize("numbers", [(1,), (1, 2)])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_address_may_be_that_of_the_loopback_device(
    lab_of: BuildLab, start_daemon: StartDaemon, family: Family, numbers: tuple[int, ...]
) -> None:
    lab = lab_of(2)
    for number in numbers:
        to_loopback(lab, family, number)
    start_daemon(lab, configuration(lab.topology, (1, 1)))

    async def story() -> None:
        await shared(lab, family)

    with_servers(lab, story)


def to_loopback(lab: Lab, family: Family, number: int) -> None:
    """Move an uplink's address to the loopback device; its default route asks for it."""
    address, device = lab.topology.uplink(number).addresses[family], f"wan{number}"
    own, length = address.own.ip, family.host_length
    lab.router.ip(
        [
            f"address del {address.own} dev {device}",
            f"address add {own}/{length} dev lo{' nodad' if family is Family.V6 else ''}",
            f"route replace {family.default} via {address.gateway} dev {device} onlink src {own} metric {100 + number}",
        ]
    )
    if family is Family.V6:
        # Neighbour discovery answers for the link's own addresses only: the provider has a route by its local one.
        lab.router.ip([f"address add fe80::2/64 dev {device} nodad"])
        lab.provider(number).ip([f"route add {own}/{length} via fe80::2 dev wan"])


def test_a_port_of_a_bridge_names_the_bridge(lab_of: BuildLab, start_daemon: StartDaemon, wait_for: WaitFor) -> None:
    lab = lab_of(2)
    daemon = start_daemon(lab, configuration(lab.topology, (1, 1)))
    lab.router.ip(["link add br0 type bridge", "link set br0 up", "link set wan1 master br0"])
    wait_for(lambda: "port of bridge br0: name br0" in daemon.uplink(1).reason)


def warned(daemon: DaemonProcess, *words: str) -> bool:
    return any(all(word in line for word in words) for line in daemon.status().warnings)


def test_a_default_by_a_device_that_is_not_named_is_told_while_it_is_there(
    lab_of: BuildLab, start_daemon: StartDaemon, wait_for: WaitFor
) -> None:
    lab = lab_of(2)
    daemon = start_daemon(lab, configuration(lab.topology, (1, 1)))
    assert not warned(daemon, "balanced")
    lab.router.ip(["link add mgmt0 type veth peer name far0", "link set mgmt0 up", "link set far0 up"])
    lab.router.ip(["route add default dev mgmt0 metric 5"])
    wait_for(lambda: warned(daemon, "nothing is balanced in IPv4", "mgmt0"))
    assert daemon.wait_log(lambda line: "caution: nothing is balanced" in line, 5.0)
    lab.router.ip(["route del default dev mgmt0", "route add 0.0.0.0/1 dev mgmt0", "route add 128.0.0.0/1 dev mgmt0"])
    wait_for(lambda: warned(daemon, "nothing is balanced in IPv4", "0.0.0.0/1 and 128.0.0.0/1", "mgmt0"))
    lab.router.ip(["link del mgmt0"])
    wait_for(lambda: not warned(daemon, "mgmt0"))


def test_a_firewall_that_drops_by_policy_is_named(
    lab_of: BuildLab, start_daemon: StartDaemon, wait_for: WaitFor
) -> None:
    lab = lab_of(2)
    lab.router.nft("table inet fw { chain drops { type filter hook forward priority 0; policy drop; }; }\n")
    daemon = start_daemon(lab, configuration(lab.topology, (1, 1)))
    wait_for(lambda: warned(daemon, "chain drops of table inet fw", "lan0"))
