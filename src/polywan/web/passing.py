"""Pass calls on to the daemon: those of the tables in `api/calls.py` and no others, read and written anew."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from polywan.api.asking import asked_of
from polywan.api.calls import CALLS, STREAMS, Call, Stream
from polywan.api.codec import DocumentError
from polywan.core.errors import ControlError
from polywan.core.words import printable
from polywan.serving import body_of, while_there
from polywan.web.upstream import EVENT_STREAM, Reply, Upstream
from polywan.web.visitors import Door, Visitor, check_action

log = logging.getLogger("polywan")

API_PREFIX: Final = "/api"

LARGEST_BODY: Final = 4 << 20
"""Bytes behind the header of an order: a configuration with 254 uplinks has 100 kB."""

CHECK_PERIOD: Final = 1.0
"""Seconds between two looks whether whoever follows a stream still may."""


# A proxy that keeps answers to send them together later must not keep a stream.
PASSED_FIELDS: Final = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
"""Fields of what is passed on."""


class Passed(StreamingResponse):
    """An answer of the daemon; it ends when whoever gets it may not read any more."""

    def __init__(self, reply: Reply, still: Callable[[], bool]) -> None:
        super().__init__(
            reply.pieces(), reply.status, PASSED_FIELDS, EVENT_STREAM if reply.streams else "application/json"
        )
        self._reply = reply
        self._still = still

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it while it comes."""
        watch = asyncio.create_task(self._watch())
        try:
            await super().__call__(scope, receive, send)
        finally:
            watch.cancel()
            with suppress(asyncio.CancelledError):
                await watch
            self._reply.close()

    async def _watch(self) -> None:
        while self._still():  # noqa: ASYNC110 - who revokes a token tells nobody
            await asyncio.sleep(CHECK_PERIOD)
        self._reply.close()


def routes(upstream: Upstream, door: Door) -> list[Route]:
    """Return the routes of all calls that the page may make."""
    return [
        *(_reading(call, upstream, door) for call in CALLS if call.right == "read"),
        *(_reading(stream, upstream, door) for stream in STREAMS),
        *(_acting(call, upstream, door) for call in CALLS if call.right == "act"),
    ]


def _reading(call: Call[Any, Any] | Stream[Any], upstream: Upstream, door: Door) -> Route:
    async def answer(request: Request) -> Response:
        visitor = door.visitor(request, "read")
        if isinstance(call, Stream) and request.method == "HEAD":
            # The daemon's answer would never end, since nobody reads what is behind its head.
            found = Response(headers=PASSED_FIELDS, media_type=EVENT_STREAM)
            del found.headers["content-length"]
            return found
        reply = await while_there(request, upstream.ask(call, _asked(call, request, b"")))
        return Passed(reply, lambda: door.still(visitor))

    return Route(API_PREFIX + call.path, answer, methods=["GET"])


def _acting(call: Call[Any, Any], upstream: Upstream, door: Door) -> Route:
    async def answer(request: Request) -> Response:
        visitor = door.visitor(request, "act")
        check_action(request)
        asked = _asked(call, request, await body_of(request, LARGEST_BODY) if call.body else b"")
        try:
            reply = await upstream.ask(call, asked)
        except ControlError as error:
            # The daemon may have done it all the same.
            _record(request, visitor, error.status)
            raise
        _record(request, visitor, reply.status)
        return Passed(reply, lambda: door.still(visitor))

    return Route(API_PREFIX + call.path, answer, methods=["POST"])


def _asked(call: Call[Any, Any] | Stream[Any], request: Request, body: bytes) -> Any:
    try:
        return asked_of(call, {**request.query_params, **request.path_params}, body)
    except DocumentError as error:
        raise ControlError(str(error), 400) from error


def _record(request: Request, visitor: Visitor, status: int) -> None:
    peer, path = request.scope["state"]["peer"], printable(request.url.path.removeprefix(API_PREFIX))
    log.info("web.acted: %s at %s asked for %s; answered with %d", visitor.name, peer, path, status)
