"""Traffic of a chaos run: long-lived flows that are opened again when they end, and connections from outside."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack, asynccontextmanager, closing, suppress
from itertools import count
from typing import Final, Literal, cast

from chaos.history import BEAT, Flow, History, Inbound, Span
from polywan.core.net import Family
from polywan.lab.network import Lab
from polywan.lab.servers import ECHO_PORT, SOCKET_FAMILY, Servers, serve
from polywan.lab.topology import SERVERS
from polywan.lab.traffic import Connection, connect, error_name, exchange, read_line, udp_socket
from polywan.lab.witness import Move

DRIP_PORT: Final = 7002
"""TCP: the client's address, then a line each `DRIP` seconds, whatever the client does."""
DRIP: Final = 0.2
INBOUND_PORT: Final = 7100
"""Forwarded from every uplink to the echo server of the client."""
KEPT_IN: Final = 2
"""Index of the server whose datagrams may leave by the first uplink alone; see `acts.config_text`."""

_LONG: Final = 0.9
_AGAIN: Final = 0.3
_UDP_PATIENCE: Final = 0.5
_FOREVER: Final = 600.0
_TUNNEL_BEATS: Final = 60
_TALKERS, _LISTENERS = 4, 2


class _Drip(asyncio.Protocol):
    """Greets like the echo server, then says a little now and then."""

    transport: asyncio.Transport

    def __init__(self, until: ExitStack) -> None:
        self.until = until

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.until.callback(self.transport.abort)
        self._say(str(self.transport.get_extra_info("peername")[0]))

    def _say(self, text: str) -> None:
        if not self.transport.is_closing():
            self.transport.write(f"{text}\n".encode())
            asyncio.get_running_loop().call_later(DRIP, self._say, ".")


@asynccontextmanager
async def serving(lab: Lab) -> AsyncIterator[None]:
    """Run all servers: the lab's, those that drip, and the one behind the forwarded port."""
    servers, inside, drips = await serve(lab), Servers(), ExitStack()
    loop = asyncio.get_running_loop()
    for family in lab.topology.families:
        await inside.listen(lab.client, family, INBOUND_PORT)
        with lab.server.entered():
            drip = await loop.create_server(lambda: _Drip(drips), str(SERVERS[family][1]), DRIP_PORT)
        drips.callback(drip.close)
    try:
        yield
    finally:
        drips.close()
        await inside.close()
        await servers.close()


class Load:
    """Keeps a number of long-lived flows open while it is entered, and tries forwarded ports."""

    def __init__(self, lab: Lab, history: History) -> None:
        self._lab, self._history = lab, history
        self._tasks: list[asyncio.Task[None]] = []
        self._alive: dict[int, Flow] = {}
        self._numbers = count(1)

    async def __aenter__(self) -> None:
        for family in self._lab.topology.families:
            works = [self._talk] * _TALKERS + [self._listen] * _LISTENERS + [self._beacon] * _TALKERS
            self._tasks += [asyncio.create_task(self._again(work, family)) for work in works]
            self._tasks.append(asyncio.create_task(self._kept_in(family)))
            self._tasks.append(asyncio.create_task(self._again(self._tunnel, family)))
            self._tasks.append(asyncio.create_task(self._from_outside(family)))

    async def __aexit__(self, *_: object) -> None:
        now = time.monotonic()
        for task in self._tasks:
            task.cancel()
        for outcome in await asyncio.gather(*self._tasks, return_exceptions=True):
            if not isinstance(outcome, asyncio.CancelledError) and outcome is not None:
                raise outcome
        for flow in self._alive.values():
            if now - flow.last > _LONG:
                flow.gaps.append(Span(flow.last, now))

    async def _again(self, work: Callable[[Family], Awaitable[None]], family: Family) -> None:
        while True:
            await work(family)
            await asyncio.sleep(_AGAIN)

    def _begin(
        self, protocol: Literal["tcp", "udp"], role: Literal["talk", "listen", "tunnel"], family: Family, uplink: int
    ) -> Flow:
        number, now = next(self._numbers), time.monotonic()
        name = f"{protocol}{family:d} {role}er {number} of isp{uplink}"
        flow = Flow(name=name, protocol=protocol, role=role, family=family, uplink=uplink, born=now, last=now)
        self._history.flows.append(flow)
        self._alive[number] = flow
        return flow

    def _answered(self, flow: Flow) -> None:
        now = time.monotonic()
        if now - flow.last > _LONG:
            flow.gaps.append(Span(flow.last, now))
        flow.last = now

    def _broke(self, flow: Flow, error: OSError) -> None:
        flow.broken, flow.error = time.monotonic(), error_name(error)
        if flow.broken - flow.last > _LONG:
            flow.gaps.append(Span(flow.last, flow.broken))
        self._alive = {number: other for number, other in self._alive.items() if other is not flow}

    async def _open(self, family: Family, port: int) -> Connection | None:
        attempt, connection = await connect(self._lab, SERVERS[family][1], port=port)
        if connection is not None and attempt.uplink is None:
            connection.close()
            return None
        return connection

    async def _talk(self, family: Family) -> None:
        if (connection := await self._open(family, ECHO_PORT)) is None:
            return
        flow = self._begin("tcp", "talk", family, connection.attempt.uplink or 0)
        with closing(connection):
            while flow.broken is None:
                try:
                    await connection.ask("beat", patience=_FOREVER)
                except OSError as error:
                    self._broke(flow, error)
                else:
                    self._answered(flow)
                    await asyncio.sleep(BEAT)

    async def _listen(self, family: Family) -> None:
        if (connection := await self._open(family, DRIP_PORT)) is None:
            return
        flow = self._begin("tcp", "listen", family, connection.attempt.uplink or 0)
        with closing(connection):
            while flow.broken is None:
                try:
                    await read_line(connection.sock)
                except OSError as error:
                    self._broke(flow, error)
                else:
                    self._answered(flow)

    async def _beacon(self, family: Family) -> None:
        with udp_socket(self._lab, SERVERS[family][1]) as sock:
            first = None
            with suppress(OSError):
                first = await exchange(self._lab, sock, "first")
            if first is None:
                return
            flow = self._begin("udp", "talk", family, first)
            by = first
            for beat in count():
                with suppress(OSError):
                    seen = await exchange(self._lab, sock, f"beat {beat}", patience=_UDP_PATIENCE)
                    self._answered(flow)
                    if seen is not None and seen != by:
                        flow.moves.append(Move(time.monotonic(), by, seen))
                        by = seen
                await asyncio.sleep(BEAT)

    async def _tunnel(self, family: Family) -> None:
        """Ask from the box itself, bound to the address of the link of main's default; each socket for a while.

        In IPv4 that chooses the uplink, but for destinations that a rule names; in IPv6 the first packet chooses.
        """
        home = self._lab.topology.uplink(1)
        own = home.addresses[family].own.ip
        with self._lab.router.socket(SOCKET_FAMILY[family], socket.SOCK_DGRAM) as sock:
            try:
                sock.bind((str(own), 0))
                sock.connect((str(SERVERS[family][0]), ECHO_PORT))
                by = await exchange(self._lab, sock, "first") if family is Family.V6 else home.number
            except OSError:
                # The address is just being exchanged, or nobody answers.
                return
            flow = self._begin("udp", "tunnel", family, by or home.number)
            for beat in range(_TUNNEL_BEATS):
                with suppress(OSError):
                    seen = await exchange(self._lab, sock, f"tunnel {beat}", patience=_UDP_PATIENCE)
                    self._answered(flow)
                    if seen is not None and seen != flow.uplink:
                        flow.moves.append(Move(time.monotonic(), flow.uplink, seen))
                        break
                if self._lab.topology.uplink(1) != home:
                    break
                await asyncio.sleep(BEAT)
            self._closed(flow)

    def _closed(self, flow: Flow) -> None:
        """Note that a flow was ended by the load itself."""
        now = time.monotonic()
        if now - flow.last > _LONG:
            flow.gaps.append(Span(flow.last, now))
        self._alive = {number: other for number, other in self._alive.items() if other is not flow}

    async def _kept_in(self, family: Family) -> None:
        """Send what only the first uplink may carry, each time from a new port; the providers count it."""
        for beat in count():
            with udp_socket(self._lab, SERVERS[family][KEPT_IN]) as sock, suppress(OSError):
                await exchange(self._lab, sock, f"kept {beat}", patience=_UDP_PATIENCE)
            await asyncio.sleep(_AGAIN)

    async def _from_outside(self, family: Family) -> None:
        for turn in count():
            uplink = self._lab.topology.uplinks[turn % len(self._lab.topology.uplinks)]
            address = uplink.addresses[family].own.ip
            attempt, connection = await connect(
                self._lab, address, port=INBOUND_PORT, namespace=self._lab.server, patience=2.0
            )
            self._history.inbound.append(Inbound(uplink.number, attempt))
            if connection is not None:
                connection.close()
            await asyncio.sleep(_AGAIN)
