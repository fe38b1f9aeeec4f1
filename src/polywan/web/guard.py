"""What holds for every request: which host it is meant for, where it comes from, and fields of every answer."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from polywan.api.codec import encode
from polywan.api.requests import Refusal
from polywan.web.hosts import known, without_zone

FIELDS: Final = {
    # No inline code and nothing from elsewhere: a name from outside that slips into the page stays a name.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "font-src 'self'; connect-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Permissions-Policy": "camera=(), geolocation=(), hid=(), microphone=(), payment=(), usb=()",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
}
"""Fields of every answer."""

_ALSO: Final = {401: {"WWW-Authenticate": "Bearer"}, 429: {"Retry-After": "60"}}
"""Fields that a status asks for (RFC 9110, 11.6.1; RFC 6585, 4)."""


def refusal(status: int, text: str) -> JSONResponse:
    """Return the answer that says why there is no other one."""
    headers = {"Cache-Control": "no-store", **_ALSO.get(status, {})}
    return JSONResponse(encode(Refusal(error=text)), status, headers)


class Guard:
    """Lets requests pass that are meant for us, and adds our fields to every answer.

    The scope's `state` gets `asked`, the host that was asked for, and `known`, as what it is ours.

    Args:
        app: answers.
        names: under which the page may be asked for, beside the addresses of this machine.
    """

    def __init__(self, app: ASGIApp, names: Collection[str]) -> None:
        self._app = app
        self._names = frozenset(names)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(FIELDS)
            await send(message)

        found = known(Headers(scope=scope).getlist("host"), self._names, without_zone(scope["server"][0]))
        if found is None:
            text = "this name is not one of ours: open the page by an address, or start `polywan web --host NAME`"
            await refusal(421, text)(scope, receive, sending)
            return
        scope["state"]["asked"], scope["state"]["known"] = found
        await self._app(scope, receive, sending)
