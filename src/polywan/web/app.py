"""What is where: the page, its files, and the calls of the daemon."""

from __future__ import annotations

from collections.abc import Collection

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from polywan.web import passing
from polywan.web.assets import Assets
from polywan.web.guard import Guard, is_foreign, refusal
from polywan.web.upstream import Upstream


async def whoami(request: Request) -> Response:
    """Tell what a visitor may do."""
    if is_foreign(request.headers):
        return refusal(403, "a page of another site asks for this")
    return JSONResponse({"scopes": ["read"], "name": ""}, headers={"Cache-Control": "no-store"})


async def _nothing(_: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    texts = {404: "there is nothing by that name", 405: "that cannot be done with this method"}
    return refusal(status, texts.get(status, "the page failed to answer"))


def application(upstream: Upstream, assets: Assets, names: Collection[str]) -> ASGIApp:
    """Return the application that answers every request."""
    found = Starlette(
        routes=[
            Route("/", assets.page),
            Route("/static/{path:path}", assets.file),
            Route("/api/whoami", whoami),
            *passing.routes(upstream),
        ],
        exception_handlers={HTTPException: _nothing},
    )
    # A redirection to the same path with a slash would name a host.
    found.router.redirect_slashes = False
    return Guard(found, names)
