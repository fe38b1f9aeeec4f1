"""The control socket: HTTP and JSON on a unix socket; reads for its group, writes for root and the daemon's user.

uvicorn would make the socket world-writable, so it is bound here and handed over.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from polywan.api.codec import encode
from polywan.api.status import Status
from polywan.core.errors import ConfigError, ControlError, KernelError, MissingFeature
from polywan.core.policy.operator import Verb
from polywan.core.status.flow_list import FlowQuery, flow_query_of
from polywan.core.trace.question import QuestionError
from polywan.daemon.api.peers import REQUEST_TIMEOUT, Server, user_of, writers
from polywan.files import SOCKET

log = logging.getLogger("polywan")


class Api(Protocol):
    """What the socket offers; `daemon/main.py` carries it out."""

    async def status(self) -> Status:
        """Return the status document."""
        ...

    def show(self, what: str) -> dict[str, Any] | None:
        """Return {"text": …} of nft, routes, rules, config or dnsmasq; None when there is no such thing."""
        ...

    async def why(self, words: Mapping[str, str]) -> dict[str, Any]:
        """Explain which way a connection would take; `words` as in `core/trace/question.py`.

        Raises:
            QuestionError: they make no sense.
            KernelError: the kernel refused to answer.
        """
        ...

    async def reload(self) -> dict[str, Any]:
        """Read the file again and put it in force.

        Raises:
            ConfigError: the file is bad; the old configuration stays in force.
            ControlError: likewise, for a reason that nobody thought of.
        """
        ...

    async def plan(self, asked: dict[str, Any]) -> dict[str, Any]:
        """Tell what a configuration would change in the kernel now; `asked` as in `daemon/api/plan.py`.

        Raises:
            ControlError: another network namespace is meant, or those are no files.
            ConfigError: the configuration is bad.
            KernelError: the kernel cannot be read.
        """
        ...

    async def down(self) -> dict[str, Any]:
        """Leave the kernel as found, then end the daemon."""
        ...

    async def via(self, name: str) -> dict[str, Any]:
        """Look at the control group of an uplink's programs; answer when the kernel asks for it.

        Raises:
            ControlError: there is no such uplink.
            MissingFeature: control groups cannot be asked for here.
        """
        ...

    async def flows(self, wanted: FlowQuery) -> list[bytes]:
        """Return the document of tracked connections, in pieces.

        Raises:
            ControlError: there is no such uplink.
            KernelError: the kernel refused.
        """
        ...

    async def affinity(self, policy: str | None) -> list[bytes]:
        """Return the document of clients that keep their uplink, in pieces.

        Raises:
            ControlError: there is no such policy.
            KernelError: the kernel refused.
        """
        ...

    async def clear_affinity(self, address: str | None, policy: str | None) -> dict[str, Any]:
        """Forget clients of an address or network, or all.

        Raises:
            ControlError: there is no such policy, or that is no address.
            KernelError: the kernel refused.
        """
        ...

    async def order(self, name: str, verb: Verb, deadline: str | None) -> dict[str, Any]:
        """Disable, drain or enable an uplink, and keep that; `deadline` as "10m", for `drain`.

        Raises:
            ControlError: there is no such uplink, or no such deadline.
        """
        ...

    async def test(self, name: str) -> dict[str, Any]:
        """Probe an uplink now and tell what each layer says.

        Raises:
            ControlError: there is no such uplink.
        """
        ...


def application(api: Api) -> Starlette:
    """Return the ASGI application over the API."""

    async def status(_: Request) -> Response:
        return JSONResponse(encode(await api.status()))

    async def show(request: Request) -> Response:
        document = api.show(request.path_params["what"])
        return _error(404, "there is nothing to show by that name") if document is None else JSONResponse(document)

    async def why(request: Request) -> Response:
        try:
            return JSONResponse(await api.why(dict(request.query_params)))
        except QuestionError as error:
            return _error(400, str(error))
        except KernelError as error:
            return _error(502, str(error))

    async def down(_: Request) -> Response:
        return JSONResponse(await api.down())

    async def via(request: Request) -> Response:
        try:
            return JSONResponse(await api.via(request.path_params["name"]))
        except MissingFeature as error:
            return _error(501, str(error))

    return Starlette(
        routes=[
            *_configuring(api),
            *_tracking(api),
            *_uplinks(api),
            Route("/v1/status", _with_errors(status)),
            Route("/v1/show/{what}", _with_errors(show)),
            Route("/v1/why", _with_errors(why)),
            Route("/v1/down", _writer(_with_errors(down)), methods=["POST"]),
            Route("/v1/via/{name:path}", _writer(_with_errors(via)), methods=["POST"]),
        ]
    )


def _configuring(api: Api) -> list[Route]:
    async def reload(_: Request) -> Response:
        return JSONResponse(await api.reload())

    async def plan(request: Request) -> Response:
        try:
            asked = json.loads(await request.body())
        except ValueError:
            asked = None
        if not isinstance(asked, dict):
            return _error(400, "expected a JSON object with files and namespace")
        return JSONResponse(await api.plan(asked))

    return [
        Route("/v1/reload", _writer(_with_errors(reload)), methods=["POST"]),
        Route("/v1/plan", _writer(_with_errors(plan)), methods=["POST"]),
    ]


def _tracking(api: Api) -> list[Route]:
    async def flows(request: Request) -> Response:
        try:
            wanted = flow_query_of(request.query_params)
        except ValueError as error:
            return _error(400, str(error))
        return _pieces(await api.flows(wanted))

    async def affinity(request: Request) -> Response:
        return _pieces(await api.affinity(request.query_params.get("policy")))

    async def clear(request: Request) -> Response:
        asked = request.query_params
        if ("address" in asked) is (asked.get("all") == "true"):
            return _error(400, "expected either address=ADDRESS or all=true")
        return JSONResponse(await api.clear_affinity(asked.get("address"), asked.get("policy")))

    return [
        Route("/v1/flows", _with_errors(flows)),
        Route("/v1/affinity", _with_errors(affinity)),
        Route("/v1/affinity/clear", _writer(_with_errors(clear)), methods=["POST"]),
    ]


def _uplinks(api: Api) -> list[Route]:
    def order(verb: Verb) -> Callable[[Request], Awaitable[Response]]:
        async def handlers(request: Request) -> Response:
            name, deadline = request.path_params["name"], request.query_params.get("deadline")
            return JSONResponse(await api.order(name, verb, deadline if verb is Verb.DRAIN else None))

        return handlers

    async def test(request: Request) -> Response:
        return JSONResponse(await api.test(request.path_params["name"]))

    handlers = {**{str(verb): order(verb) for verb in Verb}, "test": test}
    return [
        Route(f"/v1/uplinks/{{name:path}}/{word}", _writer(_with_errors(handler)), methods=["POST"])
        for word, handler in handlers.items()
    ]


def _with_errors(handler: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
    """Turn the errors of an answer into one that says so."""

    async def careful(request: Request) -> Response:
        try:
            return await handler(request)
        except ControlError as error:
            return _error(error.status, str(error))
        except ConfigError as error:
            problems = [{"where": p.where, "key": p.key, "message": p.message, "hint": p.hint} for p in error.problems]
            return JSONResponse({"error": str(error), "problems": problems}, status_code=422)
        except KernelError as error:
            return _error(500, str(error))
        except Exception as error:
            log.error("control.failed: %s: %s: %s", request.url.path, type(error).__name__, error)
            log.debug("control.failed: where it failed", exc_info=error)
            return _error(500, f"polywan failed to answer: {type(error).__name__}: {error}")

    return careful


def _pieces(pieces: list[bytes]) -> Response:
    async def each() -> AsyncIterator[bytes]:
        for piece in pieces:
            yield piece

    return StreamingResponse(each(), media_type="application/json")


def _error(code: int, text: str) -> Response:
    return JSONResponse({"error": text}, status_code=code)


def _writer(handler: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
    async def guarded(request: Request) -> Response:
        if request.scope["state"]["uid"] not in writers():
            return _error(403, "only root and the daemon's own user may do that: use sudo")
        return await handler(request)

    return guarded


def bind(runtime_dir: Path) -> socket.socket:
    """Bind the socket with mode 0660; the caller holds the directory's lock, so an old file is a leftover."""
    path = runtime_dir / SOCKET
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    mask = os.umask(0o117)
    try:
        listener.bind(str(path))
    finally:
        os.umask(mask)
    listener.listen(64)
    return listener


@asynccontextmanager
async def serving(api: Api, runtime_dir: Path, user: Callable[[socket.socket], int] = user_of) -> AsyncIterator[None]:
    """Serve the API on the runtime directory's socket while the context lasts; removes that socket afterwards."""
    listener = bind(runtime_dir)
    bound = os.lstat(runtime_dir / SOCKET)
    config = uvicorn.Config(
        application(api),
        lifespan="off",
        # Nothing stands before this socket: a header must never say who asks, whatever the environment allows.
        proxy_headers=False,
        log_config=None,
        access_log=False,
        date_header=False,  # it would stand still
        timeout_graceful_shutdown=2,
        timeout_keep_alive=int(REQUEST_TIMEOUT),
    )
    server = Server(config, listener, user)
    task = asyncio.create_task(server.serve(sockets=[]))
    try:
        yield
    finally:
        server.stop()
        with suppress(asyncio.CancelledError):
            await task
        listener.close()
        # By now the name may be another daemon's.
        with suppress(OSError):
            if os.path.samestat(os.lstat(runtime_dir / SOCKET), bound):
                (runtime_dir / SOCKET).unlink()
