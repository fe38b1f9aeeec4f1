"""What answers in the lab: servers that say which client address they see, and so which uplink was taken."""

from __future__ import annotations

import asyncio
import socket
from typing import Final, cast

from polywan.core.net import Family, IPAddress
from polywan.lab.namespaces import Namespace
from polywan.lab.network import Lab
from polywan.lab.topology import SERVERS

ECHO_PORT: Final = 7000
"""TCP: one line with the client's address, then all comes back. UDP: the address, a space, the payload."""
STREAM_PORT: Final = 7001
"""TCP: the same first line, then bytes without end."""

SOCKET_FAMILY: Final = {Family.V4: socket.AF_INET, Family.V6: socket.AF_INET6}

_CHUNK: Final = b"x" * 16_383 + b"\n"
_PAUSE: Final = 0.005
_TURNS: Final = 5


class _Echo(asyncio.Protocol):
    """Greets with the client's address and returns what it gets."""

    transport: asyncio.Transport

    def __init__(self, servers: Servers) -> None:
        self.servers = servers

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.servers.open.add(self.transport)
        peer = self.transport.get_extra_info("peername")
        self.transport.write(f"{peer[0]}\n".encode())

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        self.servers.open.discard(self.transport)


class _Stream(_Echo):
    """Greets, then sends without end, as fast as the receiver takes it but at most 3 MB/s."""

    _paused = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._pump()

    def data_received(self, data: bytes) -> None:
        """Ignore what a reader says."""

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False

    def _pump(self) -> None:
        if self.transport.is_closing():
            return
        if not self._paused:
            self.transport.write(_CHUNK)
        asyncio.get_running_loop().call_later(_PAUSE, self._pump)


class _Datagrams(asyncio.DatagramProtocol):
    """Returns each datagram with its sender's address before it."""

    transport: asyncio.DatagramTransport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str | int, ...]) -> None:
        self.transport.sendto(f"{addr[0]} ".encode() + data, addr)

    def error_received(self, exc: Exception) -> None:
        """Nobody to tell: a client that left is no failure of the server."""


class Servers:
    """Servers of one namespace; `close` ends them and their connections."""

    def __init__(self) -> None:
        self.open: set[asyncio.Transport] = set()
        self._listeners: list[asyncio.Server] = []
        self._datagrams: list[asyncio.BaseTransport] = []

    async def listen(self, namespace: Namespace, family: Family, port: int, *, stream: bool = False) -> None:
        """Answer TCP on every address of the namespace."""
        sock = _bound(namespace, family, socket.SOCK_STREAM, "::" if family is Family.V6 else "0.0.0.0", port)  # noqa: S104
        sock.listen(1024)
        kind = _Stream if stream else _Echo
        server = await asyncio.get_running_loop().create_server(lambda: kind(self), sock=sock)
        self._listeners.append(server)

    async def answer(self, namespace: Namespace, address: IPAddress, port: int) -> None:
        """Answer UDP on one address: a wildcard socket could reply from another one."""
        sock = _bound(namespace, Family(address.version), socket.SOCK_DGRAM, str(address), port)
        transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(_Datagrams, sock=sock)
        self._datagrams.append(transport)

    async def close(self) -> None:
        """Stop listening and drop every connection."""
        loop = asyncio.get_running_loop()
        for listener in self._listeners:
            for sock in listener.sockets:
                loop.remove_reader(sock.fileno())
        # A connection accepted just now needs some turns of the loop, and an open server, until it has a transport.
        for _ in range(_TURNS):
            await asyncio.sleep(0)
        for listener in self._listeners:
            listener.close()
        for transport in [*self._datagrams, *self.open]:
            cast("asyncio.DatagramTransport | asyncio.Transport", transport).abort()
        await asyncio.sleep(0)


async def serve(lab: Lab) -> Servers:
    """Start the lab's servers: echo, stream and datagrams, in every family of the lab."""
    servers = Servers()
    for family in lab.topology.families:
        await servers.listen(lab.server, family, ECHO_PORT)
        await servers.listen(lab.server, family, STREAM_PORT, stream=True)
        for address in SERVERS[family]:
            await servers.answer(lab.server, address, ECHO_PORT)
    return servers


def _bound(namespace: Namespace, family: Family, kind: socket.SocketKind, address: str, port: int) -> socket.socket:
    sock = namespace.socket(SOCKET_FAMILY[family], kind)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if family is Family.V6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    sock.bind((address, port))
    return sock
