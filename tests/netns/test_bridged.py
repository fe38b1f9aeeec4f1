"""An uplink that is a bridge with others behind it: their frames pass the hooks, and are nobody's but the bridge's."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from polywan.core.net import FAMILIES, Family
from polywan.lab.namespaces import Namespace
from polywan.lab.network import Lab
from polywan.lab.scenario import configuration
from polywan.lab.topology import SERVERS
from polywan.lab.traffic import open_connections, shares
from support.netns import with_servers

if TYPE_CHECKING:
    from support.netns import BuildLab, StartDaemon

PORT = 4000
AF = {Family.V4: socket.AF_INET, Family.V6: socket.AF_INET6}

pytestmark = pytest.mark.needs("bridge", "bridge netfilter")


@dataclass(frozen=True)
class Bridged:
    """A lab whose second uplink is a bridge, and a guest beside the router on it."""

    lab: Lab
    guest: Namespace

    def own(self, family: Family) -> str:
        """The guest's address: the last but one of the link's network."""
        network = self.lab.topology.uplink(2).addresses[family].own.network
        return str(network[-2])

    def config(self, more: str = "") -> str:
        text = configuration(self.lab.topology, (1, 1)).replace('interface = "wan2"', 'interface = "br0"')
        return text + more


@pytest.fixture
def bridged(lab_of: BuildLab) -> Iterator[Bridged]:
    lab, guest = lab_of(2), Namespace("guest")
    guest.create()
    try:
        found = Bridged(lab, guest)
        link = lab.topology.uplink(2)
        moves = ["link add br0 type bridge forward_delay 0", "link set br0 up", "link set wan2 master br0"]
        for family in FAMILIES:
            address = link.addresses[family]
            moves += [f"addr del {address.own} dev wan2", f"addr add {address.own} dev br0 nodad"]
            moves.append(f"-{family:d} route replace default via {address.gateway} dev br0 metric 102")
        moves.append(f"link add port0 type veth peer name eth0 netns {guest.name}")
        moves += ["link set port0 master br0", "link set port0 up"]
        for line in moves:
            lab.router.run(["ip", *line.split()])
        lab.router.sysctl({"bridge/bridge-nf-call-iptables": 1, "bridge/bridge-nf-call-ip6tables": 1})
        guest.run(["ip", "link", "set", "eth0", "up"])
        for family in FAMILIES:
            length = link.addresses[family].own.network.prefixlen
            guest.run(
                [
                    "ip",
                    "addr",
                    "add",
                    f"{found.own(family)}/{length}",
                    "dev",
                    "eth0",
                    *(["nodad"] * (family is Family.V6)),
                ]
            )
        yield found
    finally:
        guest.delete()


def seen_of(bridged: Bridged, family: Family, count: int = 6) -> set[str]:
    """Connect from the guest to the provider's router; who does that one say is there?"""
    gateway = str(bridged.lab.topology.uplink(2).addresses[family].gateway)
    found = set()
    with closing(bridged.lab.provider(2).socket(AF[family], socket.SOCK_STREAM)) as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind((gateway, PORT))
        server.listen(count)
        server.settimeout(5)
        for _ in range(count):
            with closing(bridged.guest.socket(AF[family], socket.SOCK_STREAM)) as client:
                client.settimeout(5)
                client.connect((gateway, PORT))
                there, address = server.accept()
                with closing(there):
                    client.sendall(b"x")
                    assert there.recv(1) == b"x"
                found.add(str(address[0]))
    return found


@pytest.mark.parametrize("family", FAMILIES)
def test_the_provider_sees_a_guest_of_the_bridge_with_its_own_address(
    bridged: Bridged, start_daemon: StartDaemon, family: Family
) -> None:
    start_daemon(bridged.lab, bridged.config())
    assert seen_of(bridged, family) == {bridged.own(family)}


@pytest.mark.parametrize("family", FAMILIES)
def test_rules_and_the_kill_switch_say_nothing_about_a_guest_of_the_bridge(
    bridged: Bridged, start_daemon: StartDaemon, family: Family
) -> None:
    more = '\n[[rules]]\nin_interface = "br0"\naction = "block"\n\n[[rules]]\nonly = "isp1"\n'
    start_daemon(bridged.lab, bridged.config(more))
    assert seen_of(bridged, family) == {bridged.own(family)}


@pytest.mark.parametrize("family", FAMILIES)
def test_the_lan_is_balanced_over_a_bridge_as_ever(bridged: Bridged, start_daemon: StartDaemon, family: Family) -> None:
    start_daemon(bridged.lab, bridged.config())

    async def story() -> None:
        opened = await open_connections(bridged.lab, 12, SERVERS[family][0])
        opened.close()
        assert [a.error for a in opened.attempts if a.error] == []
        assert shares(a.uplink for a in opened.attempts) == {1: 6, 2: 6}

    with_servers(bridged.lab, story)
