"""Other programs' marks, translations, routes and bound sockets beside polywan: what they decide stays as decided."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from ipaddress import ip_address
from typing import TYPE_CHECKING

import pytest

from polywan.core.net import FAMILIES, Family, IPAddress
from polywan.lab.daemon import DaemonProcess
from polywan.lab.namespaces import Namespace
from polywan.lab.network import Lab
from polywan.lab.scenario import configuration
from polywan.lab.servers import ECHO_PORT, SOCKET_FAMILY
from polywan.lab.topology import LAN_CLIENT, LAN_ROUTER, SERVERS
from polywan.lab.traffic import read_line
from support.lan_traffic import Asker
from support.netns import with_servers

if TYPE_CHECKING:
    from support.netns import BuildLab, StartDaemon, WaitFor

IP_UNICAST_IF, IP_PKTINFO = 50, 8
MODEM_PORT = 4080


def two(lab: Lab) -> str:
    return configuration(lab.topology, (1, 1)).replace('hold_down = "3s"', 'hold_down = "1s"\ninterval = "300ms"')


async def shares(ask: Asker, server: IPAddress, count: int = 8, **how: object) -> Counter[int | None]:
    return Counter([await ask.tcp(server, **how) for _ in range(count)])  # type: ignore[arg-type]  # passed on


@asynccontextmanager
async def answering(namespace: Namespace, address: str, port: int) -> AsyncIterator[None]:
    """A server that tells whom it sees, and then says everything back."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            writer.write(f"{writer.get_extra_info('peername')[0]}\n".encode())
            while said := await reader.read(4096):
                writer.write(said)
        writer.close()

    family = Family(ip_address(address).version)
    listener = namespace.socket(SOCKET_FAMILY[family], socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((address, port))
    server = await asyncio.start_server(serve, sock=listener)
    try:
        yield
    finally:
        server.close()


def loaded(lab: Lab, rules: str) -> None:
    """Load rules of another program into the router."""
    lab.router.nft(rules)


# ---- marks


MARKING = """
table inet other {{
  chain arriving {{ type filter hook prerouting priority mangle; iifname "lan0" meta mark set {mark}; }}
  chain passing {{ type filter hook forward priority mangle; meta mark {mark} counter; }}
  chain leaving {{ type filter hook postrouting priority mangle; meta mark {mark} counter; }}
}}
"""


@pytest.mark.parametrize("mark", ["0x1", "0xca6c", "0x2a000001"])
@pytest.mark.parametrize("first", [True, False], ids=["loaded before", "loaded after"])
def test_a_whole_word_mark_is_seen_whole_by_its_program_whoever_was_first(
    lab_of: BuildLab, start_daemon: StartDaemon, wait_for: WaitFor, mark: str, first: bool
) -> None:
    lab = lab_of(2)
    if first:
        loaded(lab, MARKING.format(mark=mark))
    start_daemon(lab, two(lab))
    if not first:
        loaded(lab, MARKING.format(mark=mark))
    ours = ["nft", "list", "chain", "inet", "polywan", "forward"]
    wait_for(lambda: lab.router.run(ours, check=False).returncode == 0, 2.0, "our bits come off where others compare")

    async def story() -> None:
        for family in FAMILIES:
            seen = await shares(Asker(lab), SERVERS[family][0])
            # A mark with bits of ours that no policy rule names is left alone, and leaves as without polywan.
            assert seen == ({1: 8} if mark == "0x2a000001" else {1: 4, 2: 4})

    with_servers(lab, story)
    listed = lab.router.run(["nft", "list", "table", "inet", "other"]).stdout
    counts = [int(line.split("packets ")[1].split()[0]) for line in listed.splitlines() if "packets" in line]
    assert len(counts) == 2
    assert min(counts) >= 2 * 8 * 3


SAVING = """
table inet other {
  chain arriving {
    type filter hook prerouting priority mangle;
    iifname "lan0" meta mark set 0x1 ct mark set meta mark;
  }
  chain own { type route hook output priority mangle; ct mark set 0x2; }
}
"""


def test_a_program_that_overwrites_the_whole_connection_mark_moves_no_connection(
    lab_of: BuildLab, start_daemon: StartDaemon
) -> None:
    lab = lab_of(2)
    loaded(lab, SAVING)
    start_daemon(lab, two(lab))

    async def story() -> None:
        for namespace in (lab.client, lab.router):
            taken = []
            for _ in range(6):
                with namespace.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
                    async with asyncio.timeout(3):
                        await asyncio.get_running_loop().sock_connect(sock, (str(SERVERS[Family.V4][0]), ECHO_PORT))
                        seen = (await read_line(sock)).strip()
                        for _ in range(5):
                            await asyncio.get_running_loop().sock_sendall(sock, b"still there?\n")
                            assert await read_line(sock)
                taken.append(lab.topology.number_of(ip_address(seen)))
            assert Counter(taken) == {1: 3, 2: 3}

    with_servers(lab, story)


# ---- what ends inside or here


INSIDE = """
table inet other {{
  chain arriving {{
    type nat hook prerouting priority dstnat;
    iifname "lan0" ip daddr {server4} tcp dport 81 redirect to :{here}
    iifname "lan0" ip6 daddr {server6} tcp dport 81 redirect to :{here}
    iifname "lan0" ip daddr 203.0.113.77 tcp dport 5000 dnat ip to {client4}:{inside}
  }}
  chain own {{
    type nat hook output priority -100;
    ip daddr {server4} tcp dport 82 redirect to :{here}
    ip daddr {server4} tcp dport 83 dnat ip to {client4}:{inside}
  }}
  chain leaving {{ type nat hook postrouting priority srcnat - 10; ip daddr {client4} masquerade; }}
}}
"""


def test_what_is_translated_to_here_or_inside_takes_no_turn_and_outlives_every_uplink(
    lab_of: BuildLab, start_daemon: StartDaemon, wait_for: WaitFor
) -> None:
    lab = lab_of(2)
    here, inside = 3128, 8080
    server4, server6 = (str(SERVERS[f][0]) for f in FAMILIES)
    client4 = str(LAN_CLIENT[Family.V4].ip)
    loaded(lab, INSIDE.format(server4=server4, server6=server6, client4=client4, here=here, inside=inside))
    daemon = start_daemon(lab, two(lab) + '[[rules]]\nprotocol = "tcp"\nport = "81-83,3128,8080"\nonly = ["isp1"]\n')

    async def greeting(namespace: Namespace, address: str, port: int) -> str:
        family = Family(ip_address(address).version)
        with namespace.socket(SOCKET_FAMILY[family], socket.SOCK_STREAM) as sock:
            sock.settimeout(0)
            async with asyncio.timeout(3):
                await asyncio.get_running_loop().sock_connect(sock, (address, port))
                return (await asyncio.get_running_loop().sock_recv(sock, 99)).decode().strip()

    async def lan_reaches() -> None:
        for address, port in ((server4, 81), (server6, 81), ("203.0.113.77", 5000)):
            assert await greeting(lab.client, address, port)

    async def all_reach() -> None:
        await lan_reaches()
        for port in (82, 83):
            assert await greeting(lab.router, server4, port)

    async def story() -> None:
        ask = Asker(lab)
        async with (
            answering(lab.router, "0.0.0.0", here),
            answering(lab.router, "::1", here),
            answering(lab.router, str(LAN_ROUTER[Family.V6].ip), here),
            answering(lab.client, client4, inside),
        ):
            taken = []
            for _ in range(4):
                await all_reach()
                taken += [await ask.tcp(SERVERS[Family.V4][0]), await ask.tcp(SERVERS[Family.V6][0])]
            assert sorted(map(str, taken)) == ["1"] * 4 + ["2"] * 4
            for number in (1, 2):
                lab.cut(number)
            await asyncio.to_thread(wait_for, lambda: set(states(daemon).values()) == {"down"}, 10.0, "both down")
            # The box itself finds no route at all now, as without polywan.
            await lan_reaches()

    with_servers(lab, story)


def states(daemon: DaemonProcess) -> dict[str, str]:
    return {uplink.name: uplink.state for uplink in daemon.status().uplinks}


# ---- specific routes


@pytest.mark.parametrize("family", FAMILIES)
def test_the_modem_and_what_a_specific_route_leads_to_live_on_while_only_the_internet_is_dead(
    lab_of: BuildLab, start_daemon: StartDaemon, wait_for: WaitFor, family: Family
) -> None:
    lab = lab_of(2)
    gateway = str(lab.topology.uplink(1).addresses[family].gateway)
    phone = "100.127.0.1" if family is Family.V4 else "2001:db8:127::1"
    lab.provider(1).ip([f"addr add {phone}/{family.host_length} dev lo"])
    lab.router.ip([f"route add {phone} via {gateway} dev wan1"])
    daemon = start_daemon(lab, two(lab))

    async def story() -> None:
        ask = Asker(lab)
        async with answering(lab.provider(1), gateway, MODEM_PORT), answering(lab.provider(1), phone, MODEM_PORT):

            async def all_reach() -> None:
                for address in (gateway, phone):
                    for namespace in (None, lab.router):
                        seen = await shares(ask, ip_address(address), 3, namespace=namespace, server_port=MODEM_PORT)
                        assert seen == {1: 3}, (address, namespace)

            await all_reach()
            with lab.client.socket(SOCKET_FAMILY[family], socket.SOCK_STREAM) as call:
                call.settimeout(0)
                await asyncio.get_running_loop().sock_connect(call, (phone, MODEM_PORT))
                lab.blackhole(1)
                await asyncio.to_thread(wait_for, lambda: states(daemon)["isp1"] != "up", 10.0, "isp1 down")
                await all_reach()
                await asyncio.get_running_loop().sock_recv(call, 99)
                await asyncio.get_running_loop().sock_sendall(call, b"still there?")
                async with asyncio.timeout(3):
                    assert await asyncio.get_running_loop().sock_recv(call, 99) == b"still there?"
            assert await shares(ask, SERVERS[family][0], 3) == {2: 3}

    with_servers(lab, story)


# ---- sockets and tunnels of the box


def _device(sock: socket.socket, device: str, _: str) -> list[tuple[int, int, bytes]]:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.encode())
    return []


def _index(sock: socket.socket, device: str, _: str) -> list[tuple[int, int, bytes]]:
    sock.setsockopt(socket.IPPROTO_IP, IP_UNICAST_IF, struct.pack("!I", socket.if_nametoindex(device)))
    return []


def _address(sock: socket.socket, _: str, address: str) -> list[tuple[int, int, bytes]]:
    sock.bind((address, 0))
    return []


def _packet_info(_: socket.socket, device: str, __: str) -> list[tuple[int, int, bytes]]:
    return [(socket.IPPROTO_IP, IP_PKTINFO, struct.pack("=i4s4s", socket.if_nametoindex(device), b"", b""))]


Bind = Callable[[socket.socket, str, str], list[tuple[int, int, bytes]]]


@pytest.mark.parametrize("bind", [_device, _index, _address, _packet_info])
@pytest.mark.parametrize("number", [1, 2])
def test_a_socket_that_chose_an_uplink_keeps_it_also_on_the_link_of_mains_default(
    lab_of: BuildLab, start_daemon: StartDaemon, bind: Bind, number: int
) -> None:
    lab = lab_of(2)
    start_daemon(lab, two(lab))
    uplink = lab.topology.uplink(number)
    own = str(uplink.addresses[Family.V4].own.ip)

    async def story() -> None:
        for _ in range(12):
            with lab.router.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                sock.settimeout(0)
                with lab.router.entered():
                    extra = bind(sock, uplink.interface, own)
                sock.sendmsg([b"hello"], extra, 0, (str(SERVERS[Family.V4][0]), ECHO_PORT))
                async with asyncio.timeout(3):
                    answer = await asyncio.get_running_loop().sock_recv(sock, 4096)
                assert answer.split()[0].decode() == own

    with_servers(lab, story)


@pytest.mark.parametrize("protocol", [41, 47, 50], ids=["6in4", "GRE", "ESP"])
def test_a_tunnel_with_a_local_end_keeps_its_uplink(lab_of: BuildLab, start_daemon: StartDaemon, protocol: int) -> None:
    lab = lab_of(2)
    start_daemon(lab, two(lab))
    before = lab.all_seen()
    with lab.router.entered():
        sock = socket.socket(socket.AF_INET, socket.SOCK_RAW, protocol)
    with sock:
        sock.bind((str(lab.topology.uplink(1).addresses[Family.V4].own.ip), 0))
        for server in SERVERS[Family.V4]:
            for _ in range(8):
                sock.sendto(bytes(60), (str(server), 0))
    after = lab.all_seen()
    assert after[1].packets - before[1].packets >= 24
    listed = lab.router.run(["nft", "list", "chain", "inet", "polywan", "guard_isp2"]).stdout
    assert "packets 0" in listed
