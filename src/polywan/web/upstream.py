"""The daemon, asked without blocking: one connection to its socket for each question, and answers while they come."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final

import h11

from polywan import files
from polywan.api.calls import Answered, Asked, Call, Stream
from polywan.api.codec import Doc, decode
from polywan.api.requests import Refusal
from polywan.client import SENSELESS, request_of, senseless, unreachable
from polywan.core.errors import ControlError
from polywan.core.words import printable

log = logging.getLogger("polywan")

MOST_ANSWERS: Final = 108
"""Answers at once; the daemon lets the page have a few more connections (`PAGE_PEERS` of `daemon/api/admission.py`)."""

MOST_STREAMS: Final = 100
"""Of these, streams that do not end: one for each page that is open."""

LARGEST_DOCUMENT: Final = 16 << 20
"""Bytes; the status of 254 uplinks has 1 MB."""

REPLY_TIMEOUT: Final = 75.0
"""Seconds that the daemon may say nothing: a client of `events` may have it wait for 60 s."""

_CONNECT_TIMEOUT: Final = 5.0
_CONNECT_AGAIN: Final = 0.02
_AT_ONCE: Final = 1 << 16

EVENT_STREAM: Final = "text/event-stream"


class BusyHereError(ControlError):
    """The daemon is not asked: too many questions are on their way already."""


class Reply:
    """An answer of the daemon that is still coming.

    Attributes:
        status: of HTTP.
        streams: it is a stream of events, that does not end.
    """

    def __init__(self, exchange: _Exchange, status: int, done: Callable[[], None], *, streams: bool) -> None:
        self.status = status
        self.streams = streams
        self._exchange = exchange
        self._done: Callable[[], None] | None = done

    async def pieces(self) -> AsyncIterator[bytes]:
        """Yield what comes; a daemon that ends in the middle leaves half an answer, which is no JSON."""
        with suppress(OSError, h11.RemoteProtocolError):
            async for piece in self._exchange.body():
                yield piece

    def close(self) -> None:
        """Let go of it, whatever is still to come; twice does no harm."""
        if self._done is not None:
            self._exchange.close()
            self._done()
            self._done = None


class Upstream:
    """The daemon of a runtime directory."""

    def __init__(self, runtime_dir: Path) -> None:
        self._path = runtime_dir / files.SOCKET
        self._answers = 0
        self._streams = 0
        self._gone = False
        self._open: set[_Exchange] = set()

    def end(self) -> None:
        """End all answers, also those that have not begun: half a stream is whole as HTTP has it."""
        for exchange in tuple(self._open):
            exchange.close()

    async def ask(self, call: Call[Asked, Any] | Stream[Asked], asked: Asked) -> Reply:
        """Make a call, or follow a stream; whoever gets the reply closes it.

        Raises:
            ControlError: the daemon cannot be reached, its answer makes no sense, or too many ask at once.
        """
        if self._answers >= MOST_ANSWERS:
            raise BusyHereError(f"{MOST_ANSWERS} requests are being answered, no more are possible: try again", 503)
        self._answers += 1
        exchange = None
        try:
            exchange = _Exchange(*await self._connected())
            self._open.add(exchange)
            head = await exchange.begin("GET" if isinstance(call, Stream) else call.method, *request_of(call, asked))
            streams = self._streaming(head)
        except BaseException as error:
            self._answers -= 1
            if exchange is not None:
                exchange.close()
                self._open.discard(exchange)
            if isinstance(error, OSError | h11.RemoteProtocolError):
                raise self._lost(error) from error
            raise
        self._found()
        self._streams += streams
        return Reply(exchange, head.status_code, lambda: self._release(exchange, streams=streams), streams=streams)

    async def document(self, call: Call[Asked, Answered], asked: Asked) -> Answered:
        """Make a call, and return what the daemon answers.

        Raises:
            ControlError: as by `ask`; or the daemon refuses (with its status).
        """
        reply = await self.ask(call, asked)
        found = b""
        try:
            async for piece in reply.pieces():
                found += piece[: LARGEST_DOCUMENT - len(found)]
        finally:
            reply.close()
        if reply.status >= 400:
            raise ControlError(_read(Refusal, found).error or "the daemon refuses", reply.status)
        return _read(call.answer, found)

    def _streaming(self, head: h11.Response) -> bool:
        """Tell whether an answer is a stream; one more than allowed is refused."""
        streams = dict(head.headers).get(b"content-type", b"").startswith(EVENT_STREAM.encode())
        if streams and self._streams >= MOST_STREAMS:
            raise BusyHereError(f"{MOST_STREAMS} pages are open, no more are possible: close one", 503)
        return streams

    def _release(self, exchange: _Exchange, *, streams: bool) -> None:
        self._open.discard(exchange)
        self._answers -= 1
        self._streams -= streams

    async def _connected(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            descriptor = files.own_socket(self._path)
            try:
                await _connect(sock, f"/proc/self/fd/{descriptor}")
            finally:
                os.close(descriptor)
            return await asyncio.open_connection(sock=sock)
        except BaseException:
            sock.close()
            raise

    def _lost(self, error: Exception) -> ControlError:
        if isinstance(error, h11.RemoteProtocolError):
            return ControlError("cannot read the answer of the daemon: it may be of another version", SENSELESS)
        found = ControlError(str(unreachable(self._path, error)), 503)
        if not self._gone:
            self._gone = True
            log.warning("web.waiting: %s", printable(str(found)))
        return found

    def _found(self) -> None:
        if self._gone:
            self._gone = False
            log.info("web.answered: the daemon answers at %s", self._path)


def _read(kind: type[Doc], content: bytes) -> Doc:
    try:
        return decode(kind, json.loads(content))
    except RecursionError:
        raise senseless(ValueError("brackets are nested too deeply")) from None
    except ValueError as error:
        raise senseless(error) from error


async def _connect(sock: socket.socket, path: str) -> None:
    """Connect; while others fill the queue of the socket, try again (EAGAIN, unix(7)), which asyncio does not."""
    sock.setblocking(False)  # noqa: FBT003 - the standard library's signature
    async with _within(_CONNECT_TIMEOUT):
        while True:
            try:
                sock.connect(path)
            except BlockingIOError:
                await asyncio.sleep(_CONNECT_AGAIN)
            else:
                return


@asynccontextmanager
async def _within(seconds: float) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        raise TimeoutError(f"nothing for {seconds:.0f} s") from None


class _Exchange:
    """One question and its answer on a connection of their own."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._http = h11.Connection(h11.CLIENT)

    async def begin(self, method: str, path: str, body: str | None) -> h11.Response:
        """Send a request and return the head of its answer."""
        content = (body or "").encode()
        fields = [("Host", "localhost"), ("Connection", "close"), ("Content-Length", str(len(content)))]
        said = (h11.Request(method=method, target=path, headers=fields), h11.Data(content), h11.EndOfMessage())
        self._writer.write(b"".join(self._http.send(event) or b"" for event in said))
        # A daemon that has too many connections answers before it is asked, and closes.
        with suppress(ConnectionError):
            async with _within(REPLY_TIMEOUT):
                await self._writer.drain()
        while True:
            event = await self._next()
            if isinstance(event, h11.Response):
                return event
            if not isinstance(event, h11.InformationalResponse):
                raise h11.RemoteProtocolError("there is no answer")

    async def body(self) -> AsyncIterator[bytes]:
        """Yield what is in the answer as it comes."""
        while isinstance(event := await self._next(), h11.Data):
            yield bytes(event.data)

    def close(self) -> None:
        """End the connection, whatever is still to come."""
        self._writer.transport.abort()

    async def _next(self) -> object:
        while (event := self._http.next_event()) is h11.NEED_DATA:
            async with _within(REPLY_TIMEOUT):
                self._http.receive_data(await self._reader.read(_AT_ONCE))
        return event
