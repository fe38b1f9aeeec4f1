"""Lines with long queues, and loads that fill them, in the lab."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import ExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from itertools import product
from typing import Final, Literal

from polywan.core.net import Family
from polywan.lab.namespaces import Namespace
from polywan.lab.network import Lab
from polywan.lab.topology import SERVERS, LabUplink

Where = Literal["provider up", "provider down", "box"]
Load = Literal["tcp up", "udp up", "tcp down", "udp down"]

RATE: Final = 1_000_000
"""Bits a second of a slow line."""

_MAX_PACING_RATE: Final = 47  # SO_MAX_PACING_RATE (asm-generic/socket.h)

FIRST_PORT: Final = 6000
"""Connections to this port and the number of an uplink take that uplink."""


@dataclass(frozen=True)
class Queue:
    """The queue of one line: where it is, and how many seconds it takes to drain."""

    where: Where
    seconds: float


def configuration(lab: Lab, health: str = "", loaded: int | None = None) -> str:
    """Return a configuration in which a port leads to each of the first uplinks; `health` are lines of [health]."""
    targets = ", ".join(f'"{t}"' for family in lab.topology.families for t in SERVERS[family])
    lines = ["[global]", "forwarding = true", "[health]", f"targets = [{targets}]", health]
    for uplink in lab.topology.uplinks:
        lines += [f"[uplinks.{uplink.name}]", f'interface = "{uplink.interface}"']
    return "\n".join([*lines, *uplink_tables(lab.topology.uplinks[:loaded])]) + "\n"


def uplink_tables(uplinks: Iterable[LabUplink]) -> Iterator[str]:
    """Yield the lines of a configuration by which a load takes its uplink."""
    for uplink, protocol in product(uplinks, ("tcp", "udp")):
        port = FIRST_PORT + uplink.number
        yield from ("[[rules]]", f"port = {port}", f'protocol = "{protocol}"', f'uplink = "{uplink.name}"')


def narrow(lab: Lab, number: int, queue: Queue, rate: int = RATE) -> None:
    """Give an uplink a slow line with a queue: a plain fifo behind a token bucket.

    Neighbours are told to each other for good: their ARP would wait in that queue, too, and fail for real.
    """
    uplink, provider = lab.topology.uplink(number), lab.provider(number)
    ends = uplink.addresses[Family.V4]
    _acquaint(lab.server, f"x{number}", f"10.255.{number}.1", provider, "core")
    _acquaint(provider, "wan", str(ends.own.ip), lab.router, uplink.interface)
    _acquaint(lab.router, uplink.interface, str(ends.gateway), provider, "wan")
    namespace, device = {
        "provider up": (provider, "core"),
        "provider down": (provider, "wan"),
        "box": (lab.router, uplink.interface),
    }[queue.where]
    shape(namespace, device, queue.seconds, rate)


def queue_in_the_box(lab: Lab, number: int, seconds: float, rate: int = RATE) -> None:
    """Give an uplink a slow device with a queue; of many uplinks, who share a cable and so their neighbours."""
    shape(lab.router, lab.topology.uplink(number).interface, seconds, rate)


def shape(namespace: Namespace, device: str, seconds: float, rate: int = RATE) -> None:
    """Make a device slow, with a queue that takes so many seconds to drain."""
    bucket = ["tbf", "rate", f"{rate}bit", "burst", "5k", "limit", str(int(rate / 8 * seconds))]
    namespace.run(["tc", "qdisc", "replace", "dev", device, "root", *bucket])


def _acquaint(here: Namespace, device: str, address: str, there: Namespace, far: str) -> None:
    mac = json.loads(there.run(["ip", "-j", "link", "show", far]).stdout)[0]["address"]
    here.run(["ip", "neigh", "replace", address, "lladdr", mac, "dev", device, "nud", "permanent"])


@asynccontextmanager
async def loaded(
    lab: Lab, load: Load, numbers: list[int], rate: int = RATE, times: float = 3.0
) -> AsyncIterator[list[float]]:
    """Fill the lines of these uplinks; the list has the times at which a connection of the load broke.

    UDP is sent at so many `times` the rate of the line, and TCP at that rate at most, whatever way it takes.
    """
    broken: list[float] = []
    with ExitStack() as stack:
        tasks = []
        for number in numbers:
            kind = socket.SOCK_STREAM if load.startswith("tcp") else socket.SOCK_DGRAM
            server = stack.enter_context(lab.server.socket(socket.AF_INET, kind))
            client = stack.enter_context(lab.client.socket(socket.AF_INET, kind))
            server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            server.bind((str(SERVERS[Family.V4][0]), FIRST_PORT + number))
            for sock in (server, client):
                sock.setblocking(False)
                if kind is socket.SOCK_STREAM:
                    sock.setsockopt(socket.SOL_SOCKET, _MAX_PACING_RATE, int(times * rate / 8))
                    # Fills the queue; BBR, some machines' default, would not.
                    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"reno")
            tasks.append(asyncio.create_task(_one(load, server, client, times * rate, broken)))
        try:
            yield broken
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def _one(load: Load, server: socket.socket, client: socket.socket, rate: float, broken: list[float]) -> None:
    loop = asyncio.get_running_loop()
    to = server.getsockname()
    try:
        if load.startswith("udp"):
            client.connect(to)
            if load == "udp up":
                await _flood(lambda: client.send(bytes(1400)), rate)
            await loop.sock_sendall(client, b"begin")
            _, back = await loop.sock_recvfrom(server, 100)
            await _flood(lambda: server.sendto(bytes(1400), back), rate)
        server.listen(4)
        accept = asyncio.create_task(loop.sock_accept(server))
        await loop.sock_connect(client, to)
        far, _ = await accept
        with far:
            near, sink = (client, far) if load == "tcp up" else (far, client)
            await asyncio.gather(_pour(near), _drain(sink))
    except OSError:
        broken.append(loop.time())


async def _flood(send: Callable[[], object], rate: float) -> None:
    """Send so many bits a second, whatever becomes of them."""
    loop = asyncio.get_running_loop()
    began, sent = loop.time(), 0
    while True:
        while sent < rate / 8 * (loop.time() - began):
            with suppress(OSError):
                send()
            sent += 1428
        await asyncio.sleep(0.01)


async def _pour(sock: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    while True:
        await loop.sock_sendall(sock, bytes(65536))


async def _drain(sock: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    while await loop.sock_recv(sock, 65536):
        pass
