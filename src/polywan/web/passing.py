"""Pass calls on to the daemon: those of the table in `api/calls.py` and no others, read and written anew."""

from __future__ import annotations

from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from polywan.api.asking import asked_of
from polywan.api.calls import CALLS, STREAMS, Call, Stream
from polywan.api.codec import DocumentError
from polywan.core.errors import ControlError
from polywan.web.guard import is_foreign, refusal
from polywan.web.upstream import EVENT_STREAM, Reply, Upstream

API_PREFIX: Final = "/api"


class Passed(StreamingResponse):
    """An answer of the daemon."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(
            reply.pieces(),
            reply.status,
            # A proxy that keeps answers to send them together later must not keep a stream.
            {"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
            EVENT_STREAM if reply.streams else "application/json",
        )
        self._reply = reply

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it while it comes."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._reply.close()


def routes(upstream: Upstream) -> list[Route]:
    """Return the routes of all calls that the page may make."""
    return [
        *(_route(call, upstream) for call in CALLS if call.method == "GET"),
        *(_route(stream, upstream) for stream in STREAMS),
    ]


def _route(call: Call[Any, Any] | Stream[Any], upstream: Upstream) -> Route:
    async def answer(request: Request) -> Response:
        if is_foreign(request.headers):
            return refusal(403, "a page of another site asks for this")
        try:
            asked = asked_of(call, {**request.query_params, **request.path_params}, b"")
        except DocumentError as error:
            return refusal(400, str(error))
        try:
            return Passed(await upstream.ask(call, asked))
        except ControlError as error:
            return refusal(error.status, str(error))

    return Route(API_PREFIX + call.path, answer, methods=["GET"])
