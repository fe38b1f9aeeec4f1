"""Real connections through the lab, each recorded as a value: when, how it ended, by which uplink."""

from __future__ import annotations

import asyncio
import errno
import random
import socket
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Final, Self

from polywan.core.net import Family, IPAddress
from polywan.lab.namespaces import Namespace
from polywan.lab.network import Lab
from polywan.lab.servers import ECHO_PORT, SOCKET_FAMILY
from polywan.lab.topology import SERVERS

CONNECT_TIMEOUT: Final = 5.0
"""Seconds a client waits for a new connection."""
UDP_TIMEOUT: Final = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One try to open a connection; times are monotonic seconds.

    Attributes:
        connected: when the handshake was done, None when it never was.
        ended: when the server's greeting had arrived, or the attempt had failed.
        uplink: number of the uplink whose address the server saw; None without a greeting.
        error: name of the error number (errno(3)), "timeout", "closed", or empty when all went well.
    """

    family: Family
    started: float
    connected: float | None
    ended: float
    uplink: int | None
    error: str

    @property
    def ok(self) -> bool:
        """The connection works."""
        return not self.error


@dataclass(slots=True)
class Connection:
    """An open connection and how it came about; whoever has it closes it."""

    attempt: Attempt
    sock: socket.socket

    def close(self) -> None:
        """End it with a FIN."""
        self.sock.close()

    async def ask(self, line: str, patience: float = CONNECT_TIMEOUT) -> str:
        """Send a line to the echo server and return its answer.

        Raises:
            OSError: the connection broke or was silent for too long (TimeoutError).
        """
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(patience):
            await loop.sock_sendall(self.sock, f"{line}\n".encode())
            return await read_line(self.sock)


async def read_line(sock: socket.socket) -> str:
    """Read until a newline.

    Raises:
        ConnectionAbortedError: the peer closed before it.
        OSError: the connection broke.
    """
    loop, data = asyncio.get_running_loop(), b""
    while not data.endswith(b"\n"):
        more = await loop.sock_recv(sock, 4096)
        if not more:
            raise ConnectionAbortedError(errno.ECONNABORTED, "closed")
        data += more
    return data.decode("ascii", "replace").rstrip("\n")


async def connect(
    lab: Lab,
    address: IPAddress,
    *,
    port: int = ECHO_PORT,
    namespace: Namespace | None = None,
    patience: float = CONNECT_TIMEOUT,
    device: str = "",
) -> tuple[Attempt, Connection | None]:
    """Try once to open a TCP connection, from the client unless told otherwise; never raises for a refusal.

    With `device` the socket is bound to that device of the namespace first (SO_BINDTODEVICE, socket(7)).
    """
    family = Family(address.version)
    sock = (namespace or lab.client).socket(SOCKET_FAMILY[family], socket.SOCK_STREAM)
    started, connected, uplink, error = time.monotonic(), None, None, ""
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if device:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.encode())
        async with asyncio.timeout(patience):
            await asyncio.get_running_loop().sock_connect(sock, (str(address), port))
            connected = time.monotonic()
            uplink = lab.topology.number_of(ip_address(await read_line(sock)))
    except OSError as failure:
        error = error_name(failure)
    except asyncio.CancelledError:
        sock.close()
        raise
    ended = time.monotonic()
    attempt = Attempt(family=family, started=started, connected=connected, ended=ended, uplink=uplink, error=error)
    if attempt.ok:
        return attempt, Connection(attempt, sock)
    sock.close()
    return attempt, None


async def exchange(lab: Lab, sock: socket.socket, payload: str, patience: float = UDP_TIMEOUT) -> int | None:
    """Send one datagram on a connected socket and return the uplink the server saw.

    Raises:
        OSError: an ICMP error came back, or nothing in time (TimeoutError).
    """
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(patience):
        await loop.sock_sendall(sock, payload.encode())
        while True:
            seen, _, rest = (await loop.sock_recv(sock, 4096)).decode("ascii", "replace").partition(" ")
            if rest == payload:
                return lab.topology.number_of(ip_address(seen))


def udp_socket(lab: Lab, address: IPAddress, namespace: Namespace | None = None) -> socket.socket:
    """Return a UDP socket that is connected to the echo port of a server."""
    sock = (namespace or lab.client).socket(SOCKET_FAMILY[Family(address.version)], socket.SOCK_DGRAM)
    sock.connect((str(address), ECHO_PORT))
    return sock


@dataclass(slots=True)
class Opened:
    """Many connections, kept open."""

    attempts: list[Attempt] = field(default_factory=list)
    connections: list[Connection] = field(default_factory=list)

    def close(self) -> None:
        """Close all of them."""
        for connection in self.connections:
            connection.close()
        self.connections.clear()


async def open_connections(
    lab: Lab, number: int, address: IPAddress, *, concurrency: int = 20, namespace: Namespace | None = None
) -> Opened:
    """Open that many TCP connections to one server and keep them."""
    opened, gate = Opened(), asyncio.Semaphore(concurrency)

    async def one() -> None:
        async with gate:
            attempt, connection = await connect(lab, address, namespace=namespace)
        opened.attempts.append(attempt)
        if connection is not None:
            opened.connections.append(connection)

    await asyncio.gather(*(one() for _ in range(number)))
    return opened


async def udp_flows(lab: Lab, number: int, address: IPAddress, namespace: Namespace | None = None) -> list[int | None]:
    """Open that many UDP flows, one datagram each; return their uplinks, None for unanswered ones."""
    seen: list[int | None] = []
    with ExitStack() as sockets:
        for index in range(number):
            # All stay open to the end: a port that is used again would belong to the earlier flow's connection.
            sock = sockets.enter_context(udp_socket(lab, address, namespace))
            try:
                seen.append(await exchange(lab, sock, f"flow {index}"))
            except OSError:
                seen.append(None)
    return seen


class SteadyLoad:
    """A new connection each `interval` seconds, families mixed by a fixed chance; closed once greeted."""

    def __init__(self, lab: Lab, *, interval: float = 0.02, patience: float = CONNECT_TIMEOUT) -> None:
        self.attempts: list[Attempt] = []
        self._lab, self._interval, self._patience = lab, interval, patience
        # A strict alternation of families would keep step with the policy's own turns.
        self._chance = random.Random(1)  # noqa: S311 - a repeatable mix, not a secret
        self._under_way: set[asyncio.Task[None]] = set()
        self._driver: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._driver = asyncio.create_task(self._drive())
        return self

    async def __aexit__(self, *_: object) -> None:
        """Open no more, and wait for those under way: each has its own time limit."""
        if self._driver is not None:
            self._driver.cancel()
            await asyncio.gather(self._driver, return_exceptions=True)
        await asyncio.gather(*self._under_way)

    async def _drive(self) -> None:
        loop = asyncio.get_running_loop()
        families = self._lab.topology.families
        due = loop.time()
        while True:
            task = asyncio.create_task(self._one(SERVERS[self._chance.choice(families)][0]))
            self._under_way.add(task)
            task.add_done_callback(self._under_way.discard)
            due = max(due + self._interval, loop.time() - 1.0)
            await asyncio.sleep(max(0.0, due - loop.time()))

    async def _one(self, address: IPAddress) -> None:
        attempt, connection = await connect(self._lab, address, patience=self._patience)
        self.attempts.append(attempt)
        if connection is not None:
            connection.close()


def shares(uplinks: Iterable[int | None]) -> Counter[int]:
    """Count connections by uplink, without those that never got one."""
    return Counter(number for number in uplinks if number is not None)


def deviation(seen: Counter[int], weights: Sequence[int]) -> float:
    """Return how many connections the worst uplink is away from its exact share of all that were seen."""
    total, weight = sum(seen.values()), sum(weights)
    return max(abs(seen[number] - total * own / weight) for number, own in enumerate(weights, 1))


def error_name(error: OSError) -> str:
    """Name an error shortly: "timeout", or its number's name as in errno(3)."""
    if isinstance(error, TimeoutError) and error.errno is None:
        return "timeout"
    return errno.errorcode.get(error.errno or 0, type(error).__name__)
