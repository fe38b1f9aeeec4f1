"""What is where: the page, its files, and the calls of the daemon."""

from __future__ import annotations

from collections.abc import Collection

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from polywan.core.errors import ControlError
from polywan.web import metrics, passing
from polywan.web.assets import Assets
from polywan.web.guard import Guard, refusal
from polywan.web.upstream import Upstream
from polywan.web.visitors import Door


def application(upstream: Upstream, assets: Assets, door: Door, names: Collection[str]) -> ASGIApp:
    """Return the application that answers every request."""

    async def whoami(request: Request) -> Response:
        visitor = door.visitor(request, "read")
        found = {"scopes": list(visitor.scopes), "name": visitor.name}
        return JSONResponse(found, headers={"Cache-Control": "no-store"})

    found = Starlette(
        routes=[
            Route("/", assets.page),
            Route("/static/{path:path}", assets.file),
            Route("/api/whoami", whoami),
            metrics.route(upstream, door),
            *passing.routes(upstream, door),
        ],
        exception_handlers={HTTPException: _nothing, ControlError: _refused, ClientDisconnect: _disconnected},
    )
    # A redirection to the same path with a slash would name a host.
    found.router.redirect_slashes = False
    return Guard(found, names)


async def _nothing(_: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 404
    return refusal(status, "there is nothing by that name" if status == 404 else "this method makes no sense here")


async def _refused(_: Request, error: Exception) -> Response:
    return refusal(error.status if isinstance(error, ControlError) else 500, str(error))


async def _disconnected(_: Request, __: Exception) -> Response:
    """Answer nobody: he went in the middle of what he said."""
    return Response(status_code=400)
