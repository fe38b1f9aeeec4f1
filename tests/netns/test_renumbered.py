"""An uplink loses an address and goes on, with another one or the same: nobody who only listens is left hanging."""

from __future__ import annotations

import asyncio
import socket
import time
from contextlib import ExitStack, closing
from dataclasses import replace
from ipaddress import ip_address, ip_interface
from typing import TYPE_CHECKING, Final

import pytest

from polywan.core.net import FAMILIES, Family, IPInterface
from polywan.lab import recipe
from polywan.lab.network import Lab
from polywan.lab.scenario import configuration
from polywan.lab.servers import ECHO_PORT, SOCKET_FAMILY, STREAM_PORT
from polywan.lab.topology import SERVERS
from polywan.lab.traffic import error_name
from support.invalid import unasked_answer
from support.netns import with_servers

if TYPE_CHECKING:
    from support.netns import BuildLab, StartDaemon

DOWNLOADS: Final = 10
QUIET: Final = 2.0
"""Seconds within which every download has ended by a reset; time for a slow machine is in it."""

MANY: Final = 200

_TRANSPARENT: Final = {
    Family.V4: (socket.IPPROTO_IP, socket.IP_TRANSPARENT),
    Family.V6: (socket.IPPROTO_IPV6, 75),  # IPV6_TRANSPARENT, linux/in6.h
}

RACES: Final = 3
"""Packets with the address of another link that a test of some hundred connections may see in IPv4: the kernel has no
setting against it (docs/design/chaos.md)."""

FIRST: Final = '[policies.default]\ntiers = [["isp1"], ["isp2"], ["isp3"]]\n'


class Change:
    """What happens to the addresses of the first uplink in one family, in batches of ip(8), with a pause between."""

    def __init__(self, lab: Lab, family: Family) -> None:
        self.uplink = lab.topology.uplink(1)
        self.old = self.uplink.addresses[family].own
        self.new = _beside(str(self.old), 9)
        self.back = list(recipe.bring_up(self.uplink))
        taken = replace(self.uplink.addresses[family], own=self.new)
        exchanged = replace(self.uplink, addresses={**self.uplink.addresses, family: taken})
        self.forward = list(recipe.bring_up(exchanged))
        self.gone = [f"address del {self.old} dev {self.uplink.interface}"]

    def batches(self, what: str) -> tuple[list[list[str]], float]:
        """Return the batches and the pause between them."""
        if what == "another":
            return [[*self.gone, *self.forward]], 0.0
        if what == "the same":
            return [[*self.gone, *self.back]], 0.0
        if what == "one of two":
            return [self.gone], 0.0
        return [self.gone, self.back], float(what)


def _beside(own: str, host: int) -> IPInterface:
    network = ip_interface(own).network
    return ip_interface((int(network.network_address) + host, network.prefixlen))


async def start(lab: Lab, family: Family, stack: ExitStack) -> tuple[str, socket.socket]:
    """Begin a download; return which address its server saw."""
    loop = asyncio.get_running_loop()
    sock = stack.enter_context(closing(lab.client.socket(SOCKET_FAMILY[family], socket.SOCK_STREAM)))
    await loop.sock_connect(sock, (str(SERVERS[family][0]), STREAM_PORT))
    return (await loop.sock_recv(sock, 64)).split(b"\n")[0].decode(), sock


async def ending(sock: socket.socket, until: float) -> str:
    """Read until the download breaks; one that is silent at the end hangs."""
    loop, heard = asyncio.get_running_loop(), time.monotonic()
    try:
        while time.monotonic() < until:
            async with asyncio.timeout_at(loop.time() + max(0.0, until - time.monotonic())):
                if not await loop.sock_recv(sock, 1 << 20):
                    return "closed"
            heard = time.monotonic()
    except TimeoutError:
        pass
    except OSError as failure:
        return error_name(failure)
    return "goes on" if until - heard < 0.5 else "hangs"


@pytest.mark.parametrize("family", [Family.V4, Family.V6])
@pytest.mark.parametrize("what", ["another", "the same", "0.1", "1.0", "one of two"])
def test_no_download_hangs_when_an_address_of_its_uplink_goes(
    lab_of: BuildLab, start_daemon: StartDaemon, family: Family, what: str
) -> None:
    lab = lab_of(3)
    change = Change(lab, family)
    start_daemon(lab, configuration(lab.topology, (1, 1, 1)) + FIRST)

    async def story() -> None:
        with ExitStack() as stack:
            begun = [await start(lab, family, stack) for _ in range(DOWNLOADS)]
            assert {ip_address(seen) for seen, _ in begun} == {change.old.ip}
            if what == "one of two":
                lab.router.ip([f"address add {change.new} dev {change.uplink.interface}"])
            batches, pause = change.batches(what)
            tasks = [asyncio.create_task(ending(sock, time.monotonic() + QUIET + pause)) for _, sock in begun]
            await asyncio.sleep(0.1)
            for batch in batches:
                await asyncio.to_thread(lab.router.ip, batch)
                await asyncio.sleep(pause)
            ends = await asyncio.gather(*tasks)
            assert set(ends) <= {"ECONNRESET", "goes on"}, ends
            # The kernel's own resets, too, leave by the link whose address they carry, or not at all.
            assert {number: lab.seen(number).spoofed for number in (2, 3)} == {2: 0, 3: 0}

    with_servers(lab, story)


@pytest.mark.parametrize("family", FAMILIES)
def test_what_tracking_calls_invalid_leaves_by_no_other_uplink_than_that_of_its_address(
    lab: Lab, start_daemon: StartDaemon, family: Family
) -> None:
    """An answer that nobody asked for, after the routes of its uplink went with nobody there to put them back."""
    daemon = start_daemon(lab, configuration(lab.topology, (1, 1, 1)))
    daemon.kill()
    for words in (["route", "flush", "table", "6001"], ["route", "del", "default", "dev", "wan1"]):
        lab.router.run(["ip", f"-{family:d}", *words])
    unasked_answer(lab, family, lab.router, lab.topology.uplink(1).addresses[family].own.ip)
    assert {number: seen.spoofed for number, seen in lab.all_seen().items()} == {1: 0, 2: 0, 3: 0}


@pytest.mark.needs("conntrack")
@pytest.mark.parametrize("family", FAMILIES)
def test_an_answer_to_a_probe_of_a_lost_address_leaves_by_no_other_uplink(
    lab: Lab, start_daemon: StartDaemon, family: Family
) -> None:
    """The entry of a probe has no mark and is translated to nothing else, so it outlives the address."""
    start_daemon(lab, configuration(lab.topology, (1, 1, 1)))
    server, lost = str(SERVERS[family][0]), "192.0.2.99" if family is Family.V4 else "2001:db8:99::99"
    uplink, provider = lab.topology.uplink(2), lab.provider(2)
    there = f"neighbour replace {lost} lladdr {uplink.mac} dev wan nud permanent"
    provider.ip([f"route add {lost} dev wan", there])
    ends = ["--orig-src", lost, "--orig-dst", server, "--sport", "4000", "--dport", "7"]
    lab.router.run(["conntrack", "-I", "-p", "udp", "--timeout", "60", "--status", "SEEN_REPLY", *ends])
    with closing(provider.socket(SOCKET_FAMILY[family], socket.SOCK_DGRAM)) as sock:
        # As routers do: with an address that is not its own.
        sock.setsockopt(*_TRANSPARENT[family], 1)
        sock.bind((server, 7))
        for _ in range(3):
            sock.sendto(b"answer", (lost, 4000))
    listed = lab.router.run(["conntrack", "-L", "-f", f"ipv{family:d}", "-p", "udp", "--orig-src", lost]).stdout
    assert "UNREPLIED" not in listed
    assert {number: seen.spoofed for number, seen in lab.all_seen().items()} == {1: 0, 2: 0, 3: 0}


@pytest.mark.parametrize(
    ("family", "most", "pause"), [(Family.V4, RACES, 0.1), (Family.V6, 0, 0.0), (Family.V6, 0, 0.1)]
)
def test_a_connection_that_begins_while_its_uplink_has_no_address_carries_no_other_links_address(
    lab_of: BuildLab, start_daemon: StartDaemon, family: Family, most: int, pause: float
) -> None:
    lab = lab_of(2)
    change = Change(lab, family)
    start_daemon(lab, configuration(lab.topology, (1, 1)) + '[policies.default]\ntiers = [["isp1"], ["isp2"]]\n')

    async def story() -> None:
        with ExitStack() as stack:
            batch = asyncio.create_task(asyncio.to_thread(exchange))
            opened = 0
            while not batch.done() or opened < MANY:
                for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
                    sock = stack.enter_context(closing(lab.client.socket(SOCKET_FAMILY[family], kind)))
                    sock.setblocking(False)
                    sock.connect_ex((str(SERVERS[family][0]), ECHO_PORT))
                    if kind == socket.SOCK_DGRAM:
                        sock.send(b"x")
                opened += 1
                # A fast machine would run out of descriptors.
                await asyncio.sleep(0.005)
            await batch
            # As long as a TCP client takes to repeat itself twice.
            await asyncio.sleep(3.2)
            assert lab.seen(1).spoofed <= most

    def exchange() -> None:
        again = [f"address del {change.new} dev {change.uplink.interface}"]
        for _ in range(4):
            for lines in (change.gone, change.forward, again, change.back):
                lab.router.ip(lines)
                time.sleep(pause)

    with_servers(lab, story)
