"""The connections of the control socket: whose they are (SO_PEERCRED, unix(7)), how many, and how long.

asyncio's own way to accept ends at the limit of open files only, and there it logs and tries without a pause.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import pwd
import resource
import socket
import struct
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from functools import cache
from typing import Final, cast

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

from polywan.api.codec import encode
from polywan.api.requests import Refusal
from polywan.daemon.api.admission import refusal

log = logging.getLogger("polywan")

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

PAGE_USER: Final = "polywan-web"

asking: Final = ContextVar("asking", default=0)
"""User of the connection whose request is being answered; root where nothing asks, as at a signal."""

_UCRED: Final = struct.Struct("3i")


def user_of(connection: socket.socket) -> int:
    """Return the user id of the other end's process."""
    _, uid, _ = _UCRED.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    return int(uid)


def writers() -> tuple[int, int]:
    """Return the users who may change things: root and the daemon's own."""
    return 0, os.geteuid()


@cache
def page_user() -> int | None:
    """Return the user of the web page's process; None on a machine without one."""
    try:
        return pwd.getpwnam(PAGE_USER).pw_uid
    except KeyError:
        return None


class _Peer(H11Protocol):
    """A connection that ends when it is of no use, and tells the application whose it is: `state.uid` of the scope."""

    def __init__(self, server: Server, uid: int) -> None:
        super().__init__(server.config, server.server_state, {**server.lifespan.state, "uid": uid})
        self.uid = uid
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
        """End it, unless a request is being answered, and the answer read."""
        cycle = cast("RequestResponseCycle | None", self.cycle)  # as it is until the first request
        answering = cycle is not None and not cycle.response_complete and not cycle.more_body
        if answering and not self._unread_for(READ_TIMEOUT):
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
    """uvicorn without its own signal handlers, which the daemon has, and without waking up ten times a second.

    Args:
        config: uvicorn's.
        listener: a listening unix socket; whoever made it closes it.
        user: tells whose a connection is.

    Attributes:
        peers: the open connections.
    """

    def __init__(
        self, config: uvicorn.Config, listener: socket.socket, user: Callable[[socket.socket], int] = user_of
    ) -> None:
        super().__init__(config)
        self.peers: set[_Peer] = set()
        self._listener = listener
        self._user = user
        self._stopped = asyncio.Event()
        self._arriving: set[asyncio.Task[None]] = set()
        self._reported_at = float("-inf")

    async def main_loop(self) -> None:
        """Serve until `stop`."""
        await self.on_tick(0)
        loop = asyncio.get_running_loop()
        self._listener.settimeout(0)
        loop.add_reader(self._listener, self._accept)
        try:
            await self._stopped.wait()
        finally:
            loop.remove_reader(self._listener)

    def stop(self) -> None:
        """Let `serve` come to its end."""
        self.should_exit = True
        self._stopped.set()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals alone."""
        yield

    def _accept(self) -> None:
        for _ in range(_BURST):
            try:
                connection, _ = self._listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                self._rest(error)
                return
            self._admit(connection)

    def _rest(self, error: OSError) -> None:
        """Look away from the socket for a while: it stays ready for as long as nothing can be accepted."""
        self._tell(f"clients cannot connect for now: {error.strerror}")
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._listener)
        loop.call_later(_REST, self._resume)

    def _resume(self) -> None:
        if not self._stopped.is_set():
            asyncio.get_running_loop().add_reader(self._listener, self._accept)

    def _admit(self, connection: socket.socket) -> None:
        uid = self._user(connection)
        connected = Counter(peer.uid for peer in self.peers)
        if why := refusal(uid, writers(), connected, _free(connection), page_user()):
            self._tell(why)
            with suppress(OSError):
                connection.send(_refused(why), socket.MSG_DONTWAIT)
            connection.close()
            return
        peer = _Peer(self, uid)
        self.peers.add(peer)
        task = asyncio.create_task(self._welcome(connection, peer))
        self._arriving.add(task)
        task.add_done_callback(self._arriving.discard)

    async def _welcome(self, connection: socket.socket, peer: _Peer) -> None:
        try:
            await asyncio.get_running_loop().connect_accepted_socket(lambda: peer, connection)
        except OSError as error:
            self.peers.discard(peer)
            connection.close()
            self._tell(f"a connection was lost: {error.strerror}")

    def _tell(self, why: str) -> None:
        now = asyncio.get_running_loop().time()
        if now - self._reported_at >= _SELDOM:
            self._reported_at = now
            log.warning("control.refused: %s", why)


def _free(newest: socket.socket) -> int:
    """Return how many descriptors are left: the kernel gives the lowest number that is free."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return (1 << 30 if limit == resource.RLIM_INFINITY else limit) - newest.fileno() - 1


def _refused(why: str) -> bytes:
    body = json.dumps(encode(Refusal(error=why))).encode()
    fields = [("Content-Type", "application/json"), ("Content-Length", str(len(body))), ("Connection", "close")]
    answer = h11.Connection(h11.SERVER)
    head = answer.send(h11.Response(status_code=503, headers=fields, reason="Service Unavailable")) or b""
    return head + body
