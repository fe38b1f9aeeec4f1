"""`/metrics`: what `polywan metrics` prints, for those who may read."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from polywan.api import calls
from polywan.api.requests import Nothing
from polywan.api.status import Status
from polywan.core.errors import ControlError
from polywan.core.metrics.exposition import content_type, negotiated, text
from polywan.web.upstream import BusyHereError, Upstream
from polywan.web.visitors import Door


def route(upstream: Upstream, door: Door) -> Route:
    """Return the route; a daemon that does not answer is a metric, too."""

    async def answer(request: Request) -> Response:
        door.visitor(request, "read")
        form = negotiated(request.headers.get("accept"))
        fields = {"Content-Type": content_type(form), "Cache-Control": "no-store", "Vary": "Accept"}
        return Response(text(await _status(upstream), form), headers=fields)

    return Route("/metrics", answer)


async def _status(upstream: Upstream) -> Status | None:
    try:
        return await upstream.document(calls.STATUS, Nothing())
    except ControlError as error:
        # Of the daemon itself, an answer that we have no room for tells nothing.
        if error.status == 503 and not isinstance(error, BusyHereError):
            return None
        raise
