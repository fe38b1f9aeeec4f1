"""Serve HTTP on sockets of our own: how many connections there may be, and how long one may be of no use.

asyncio's own way to accept ends at the limit of open files only, and there it logs and tries without a pause.
"""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http import HTTPStatus
from types import MappingProxyType
from typing import Any, Final, TypeVar, cast

import h11
import uvicorn
from starlette.requests import ClientDisconnect, Request
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

from polywan.api.codec import encode
from polywan.api.requests import Refusal
from polywan.core.errors import ControlError

Result = TypeVar("Result")

REQUEST_TIMEOUT: Final = 10.0
"""Seconds that a connection may be open without a whole request: until the first, and between two."""

READ_TIMEOUT: Final = 60.0
"""Seconds in which an answer has to be read: who never reads would keep it, and its place, for ever."""

_BURST: Final = 16
"""Connections accepted before others get their turn."""

_REST: Final = 1.0
"""Seconds until the next try where the kernel has nothing left to accept with."""

_SELDOM: Final = 60.0
"""Seconds between two lines about refused connections."""

NO_FIELDS: Final[Mapping[str, str]] = MappingProxyType({})


@dataclass(frozen=True)
class Entrance:
    """A listening socket, and what is asked of a connection by it.

    Attributes:
        listener: the socket; whoever made it closes it.
        describe: returns what the application gets to know of a connection: keys of `state` in the scope.
        refuse: returns why it may not come in, given its description and those of the others that are open; None if
            it may.
        tls: for connections that are encrypted.
    """

    listener: socket.socket
    describe: Callable[[socket.socket], Mapping[str, Any]]
    refuse: Callable[[socket.socket, Mapping[str, Any], Collection[Mapping[str, Any]]], str | None]
    tls: ssl.SSLContext | None = None


class _Peer(H11Protocol):
    """A connection that ends when it is of no use.

    Attributes:
        description: what its entrance says of it.
    """

    def __init__(self, server: Server, description: Mapping[str, Any]) -> None:
        super().__init__(server.config, server.server_state, {**server.lifespan.state, **description})
        self.description = description
        self._server = server
        self._patience: asyncio.TimerHandle | None = None
        self._unread_since: float | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # uvicorn narrows it
        super().connection_made(transport)
        self._wait()

    def on_response_complete(self) -> None:
        self._unread_since = None
        self._wait()  # before: with a request that came meanwhile, the next answer may be under way afterwards
        super().on_response_complete()

    def resume_writing(self) -> None:
        # Much of what was waiting is gone: it is read, however slowly.
        self._unread_since = None
        super().resume_writing()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP; behind an answer that has begun, there is no place for another one."""
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            self.transport.write(_refusal(400, msg, self._server.fields))
        cycle = cast("RequestResponseCycle | None", self.cycle)
        if cycle is not None and not cycle.response_complete:
            cycle.disconnected = True
            cycle.message_event.set()
        self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._patience is not None:
            self._patience.cancel()
        self._server.peers.discard(self)
        super().connection_lost(exc)

    def _wait(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
        self._patience = self.loop.call_later(REQUEST_TIMEOUT, self._give_up)

    def _give_up(self) -> None:
        """End it, unless a request is being answered, or its answer read."""
        cycle = cast("RequestResponseCycle | None", self.cycle)  # as it is until the first request
        answering = cycle is not None and not cycle.response_complete and not cycle.more_body
        unread = self.transport.get_write_buffer_size() > 0
        if (answering or unread) and not self._unread_for(READ_TIMEOUT):
            self._wait()
        else:
            self.transport.abort()

    def _unread_for(self, seconds: float) -> bool:
        """Tell whether something of the answer has been waiting for so long, as far as was seen."""
        if self.transport.get_write_buffer_size() == 0:
            self._unread_since = None
            return False
        now = self.loop.time()
        if self._unread_since is None:
            self._unread_since = now
        return now - self._unread_since >= seconds


class Server(uvicorn.Server):
    """uvicorn without its own signal handlers, and without waking up ten times a second.

    Args:
        config: uvicorn's.
        entrances: where connections come from.
        tell: logs why one was refused; called once a minute at most.
        fields: of the answers that are not the application's: to whom may not come in, and to what is no HTTP.

    Attributes:
        peers: the open connections.
        fields: as above.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        entrances: Sequence[Entrance],
        tell: Callable[[str], None],
        fields: Mapping[str, str] = NO_FIELDS,
    ) -> None:
        super().__init__(config)
        self.fields = fields
        self.peers: set[_Peer] = set()
        self._entrances = entrances
        self._log = tell
        self._stopped = asyncio.Event()
        self._arriving: set[asyncio.Task[None]] = set()
        self._reported_at = float("-inf")

    async def main_loop(self) -> None:
        """Serve until `stop`."""
        await self.on_tick(0)
        loop = asyncio.get_running_loop()
        for entrance in self._entrances:
            entrance.listener.settimeout(0)
            loop.add_reader(entrance.listener, self._accept, entrance)
        try:
            await self._stopped.wait()
        finally:
            for entrance in self._entrances:
                loop.remove_reader(entrance.listener)

    def stop(self) -> None:
        """Let `serve` come to its end."""
        self.should_exit = True
        self._stopped.set()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals alone."""
        yield

    def _accept(self, entrance: Entrance) -> None:
        for _ in range(_BURST):
            try:
                connection, _ = entrance.listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                self._rest(entrance, error)
                return
            self._admit(entrance, connection)

    def _rest(self, entrance: Entrance, error: OSError) -> None:
        """Look away from the socket for a while: it stays ready for as long as nothing can be accepted."""
        self._tell(f"clients cannot connect for now: {error.strerror}")
        loop = asyncio.get_running_loop()
        loop.remove_reader(entrance.listener)
        loop.call_later(_REST, self._resume, entrance)

    def _resume(self, entrance: Entrance) -> None:
        if not self._stopped.is_set():
            asyncio.get_running_loop().add_reader(entrance.listener, self._accept, entrance)

    def _admit(self, entrance: Entrance, connection: socket.socket) -> None:
        try:
            description = entrance.describe(connection)
        except OSError:
            connection.close()  # it has gone already
            return
        if why := entrance.refuse(connection, description, [peer.description for peer in self.peers]):
            self._tell(why)
            # What waits for a greeting of TLS cannot read a sentence.
            if entrance.tls is None:
                with suppress(OSError):
                    connection.send(_refusal(503, why, self.fields), socket.MSG_DONTWAIT)
            connection.close()
            return
        peer = _Peer(self, description)
        self.peers.add(peer)
        task = asyncio.create_task(self._welcome(entrance, connection, peer))
        self._arriving.add(task)
        task.add_done_callback(self._arriving.discard)

    async def _welcome(self, entrance: Entrance, connection: socket.socket, peer: _Peer) -> None:
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: peer,
                connection,
                ssl=entrance.tls,
                ssl_handshake_timeout=None if entrance.tls is None else REQUEST_TIMEOUT,
            )
        except OSError as error:
            self.peers.discard(peer)
            connection.close()
            # Every scanner makes a greeting fail.
            if entrance.tls is None:
                self._tell(f"a connection was lost: {error.strerror}")

    def _tell(self, why: str) -> None:
        now = asyncio.get_running_loop().time()
        if now - self._reported_at >= _SELDOM:
            self._reported_at = now
            self._log(why)


async def body_of(request: Request, most: int) -> bytes:
    """Return what is behind the head of a request, for a call that is asked by it.

    Args:
        request: of the call.
        most: bytes, a multiple of a MiB.

    Raises:
        ControlError: it is too much (413).
    """
    found = b""
    async for piece in request.stream():
        found += piece
        if len(found) > most:
            raise ControlError(f"this is too much: a request has at most {most >> 20} MiB", 413)
    return found


async def while_there(request: Request, answering: Awaitable[Result]) -> Result:
    """Return what comes of it; it is cancelled when the client goes before.

    Whoever goes gives back his connection at once. If what he asked for went on, nothing would bound how much of that
    there is.

    Raises:
        ClientDisconnect: the client has gone.
    """
    task, gone = asyncio.ensure_future(answering), asyncio.create_task(_gone(request))
    try:
        await asyncio.wait((task, gone), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientDisconnect
        return await task
    finally:
        task.cancel()
        gone.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _refusal(status: int, why: str, more: Mapping[str, str]) -> bytes:
    body = json.dumps(encode(Refusal(error=why))).encode()
    fields = {"Content-Type": "application/json", "Content-Length": str(len(body)), "Connection": "close", **more}
    answer = h11.Connection(h11.SERVER)
    phrase = HTTPStatus(status).phrase
    head = answer.send(h11.Response(status_code=status, headers=[*fields.items()], reason=phrase)) or b""
    return head + body
