"""What IPsec takes stays as it is: real ESP between the router and a far network behind the server."""

from __future__ import annotations

import json
import select
import socket
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from polywan.core.net import FAMILIES, Family
from polywan.lab.namespaces import Namespace
from polywan.lab.network import Lab
from polywan.lab.scenario import configuration
from polywan.lab.topology import LAN_CLIENT, SERVERS
from support.netns import with_servers

if TYPE_CHECKING:
    from support.netns import BuildLab, StartDaemon, WaitFor

FAR = {Family.V4: "203.0.113.97", Family.V6: "2001:db8:97::97"}
FAR_NETWORK = {Family.V4: "203.0.113.96/28", Family.V6: "2001:db8:97::/64"}
PORT = 4000
KEY = "0x" + "11" * 20
AF = {Family.V4: socket.AF_INET, Family.V6: socket.AF_INET6}

pytestmark = [pytest.mark.needs("esp"), pytest.mark.kernel]


def encrypt(lab: Lab, family: Family, number: int, inside: str | None = None) -> None:
    """Put a tunnel between this uplink's address and the server, by policy."""
    here, there = str(lab.topology.uplink(number).addresses[family].own.ip), str(SERVERS[family][0])
    near, far = inside or str(LAN_CLIENT[family].network), FAR_NETWORK[family]
    lead_back(lab, family, near)
    for space, me, peer, mine, theirs in (
        (lab.router, here, there, near, far),
        (lab.server, there, here, far, near),
    ):
        tunnel = f"proto esp reqid {number} mode tunnel"
        lines = [
            f"xfrm state add src {a} dst {b} proto esp spi {spi + number} reqid {number} mode tunnel "
            f"aead rfc4106(gcm(aes)) {KEY} 128"
            for a, b, spi in ((here, there, 256), (there, here, 512))
        ]
        lines.append(f"xfrm policy add src {mine} dst {theirs} dir out tmpl src {me} dst {peer} {tunnel}")
        lines += [
            f"xfrm policy add src {theirs} dst {mine} dir {direction} tmpl src {peer} dst {me} {tunnel}"
            for direction in ("in", "fwd")
        ]
        for line in lines:
            space.run(["ip", *line.split()])


def lead_back(lab: Lab, family: Family, to: str) -> None:
    """Route a network from the server towards the router; a policy takes what has a route."""
    own = lab.topology.uplink(1).addresses[family].own.ip
    found = json.loads(lab.server.run(["ip", "-j", "route", "get", str(own)]).stdout)[0]
    lab.server.run(["ip", "route", "replace", to, "via", found["gateway"], "dev", found["dev"]])


def drop_tunnel(lab: Lab) -> None:
    for space in (lab.router, lab.server):
        space.run(["ip", "xfrm", "policy", "flush"])
        space.run(["ip", "xfrm", "state", "flush"])


def watch(lab: Lab, family: Family) -> None:
    """Count what leaves the router: for the far network in clear, and ESP by each uplink."""
    word = "ip" if family is Family.V4 else "ip6"
    names = [uplink.interface for uplink in lab.topology.uplinks]
    counters = "".join(f"counter {name} {{ }}\n" for name in ("clear", *names))
    esp = "".join(f'oifname "{name}" meta l4proto esp counter name {name}\n' for name in names)
    lab.router.nft(
        f"table inet watch {{\n{counters}chain out {{ type filter hook postrouting priority 300;\n"
        f'oifname "wan*" {word} daddr {FAR_NETWORK[family]} rt ipsec missing counter name clear\n{esp}}}\n}}'
    )


def peer_of(lab: Lab, family: Family, far: socket.socket) -> str:
    """Connect from the LAN to the far network; who does it say is there?"""
    with closing(lab.client.socket(AF[family], socket.SOCK_STREAM)) as near:
        near.settimeout(5)
        near.connect((FAR[family], PORT))
        there, address = far.accept()
        with closing(there):
            there.settimeout(5)
            near.sendall(b"x")
            assert there.recv(1) == b"x"
        return str(address[0])


def listening(lab: Lab, family: Family) -> socket.socket:
    """A server in the far network."""
    length = 32 if family is Family.V4 else 128
    lab.server.run(
        ["ip", "addr", "replace", f"{FAR[family]}/{length}", "dev", "lo", *(["nodad"] if length > 32 else [])]
    )
    far = lab.server.socket(AF[family], socket.SOCK_STREAM)
    far.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    far.settimeout(5)
    far.bind((FAR[family], PORT))
    far.listen(16)
    return far


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("number", [1, 2])
def test_connections_that_ipsec_takes_arrive_encrypted_and_with_their_own_source(
    lab_of: BuildLab, start_daemon: StartDaemon, family: Family, number: int
) -> None:
    lab = lab_of(2)
    encrypt(lab, family, number)
    start_daemon(lab, configuration(lab.topology, (1, 1)))
    watch(lab, family)

    async def story() -> None:
        with closing(listening(lab, family)) as far:
            assert {peer_of(lab, family, far) for _ in range(8)} == {str(LAN_CLIENT[family].ip)}

    with_servers(lab, story)
    counted = lab.router.counters("inet watch")
    assert counted["clear"] == 0
    assert counted[f"wan{number}"] >= 8 * 4
    assert counted[f"wan{3 - number}"] == 0


@pytest.mark.parametrize("family", FAMILIES)
def test_a_connection_survives_its_tunnels_move_to_another_uplink(
    lab_of: BuildLab, start_daemon: StartDaemon, wait_for: WaitFor, family: Family
) -> None:
    lab = lab_of(2)
    encrypt(lab, family, 1)
    daemon = start_daemon(lab, configuration(lab.topology, (1, 1)))
    watch(lab, family)

    async def story() -> None:
        with closing(listening(lab, family)) as far, closing(lab.client.socket(AF[family], socket.SOCK_STREAM)) as near:
            near.settimeout(10)
            near.connect((FAR[family], PORT))
            there, _ = far.accept()
            with closing(there):
                there.settimeout(10)
                lab.blackhole(1)
                wait_for(lambda: daemon.uplink(1).state == "down", 20)
                drop_tunnel(lab)
                encrypt(lab, family, 2)
                near.sendall(b"x")
                assert there.recv(1) == b"x"
                there.sendall(b"y")
                assert near.recv(1) == b"y"

    with_servers(lab, story)
    counted = lab.router.counters("inet watch")
    assert counted["clear"] == 0
    assert counted["wan2"] > 0


def test_what_came_out_of_a_tunnel_and_goes_on_to_the_internet_is_balanced_and_translated(
    lab_of: BuildLab, start_daemon: StartDaemon
) -> None:
    lab, family, site = lab_of(2), Family.V4, "198.51.100.200"
    # To the far network the site is behind the tunnel, to the router it is the Internet.
    encrypt(lab, family, 1, inside=f"{site}/32")
    start_daemon(lab, configuration(lab.topology, (1, 1)))
    own = {str(uplink.addresses[family].own.ip) for uplink in lab.topology.uplinks}

    async def story() -> None:
        listening(lab, family).close()
        sites = [serving(lab.provider(number), site) for number in (1, 2)]
        seen = set()
        for _ in range(4):
            with closing(lab.server.socket(AF[family], socket.SOCK_STREAM)) as traveller:
                traveller.settimeout(5)
                traveller.bind((FAR[family], 0))
                traveller.connect((site, PORT))
                ready, _, _ = select.select(sites, [], [], 5)
                there, address = ready[0].accept()
                with closing(there):
                    there.sendall(b"x")
                    assert traveller.recv(1) == b"x"
                seen.add(address[0])
        assert seen == own
        for site_ in sites:
            site_.close()

    with_servers(lab, story)


def serving(space: Namespace, address: str) -> socket.socket:
    space.run(["ip", "addr", "add", f"{address}/32", "dev", "lo"])
    server = space.socket(socket.AF_INET, socket.SOCK_STREAM)
    server.bind((address, PORT))
    server.listen(16)
    return server
