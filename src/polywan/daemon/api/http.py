"""The control socket: HTTP and JSON on a unix socket; reads for its group, writes by the rights of calls.

uvicorn would make the socket world-writable, so it is bound here and handed over.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Generic

import uvicorn
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from polywan.api.asking import asked_of
from polywan.api.calls import Answered, Asked, Call, Right, Stream
from polywan.api.codec import DocumentError, encode
from polywan.api.requests import ProblemFound, Refusal
from polywan.core.errors import ConfigError, ControlError, KernelError
from polywan.daemon.api.admission import MOST_PEERS
from polywan.daemon.api.peers import asking, entrance, may, refused, user_of
from polywan.files import SOCKET
from polywan.serving import REQUEST_TIMEOUT, Server, body_of, while_there

log = logging.getLogger("polywan")


LARGEST_QUESTION: Final = 32 << 20
"""Bytes behind the head of a request: the largest file has 16 MiB, and JSON writes some signs with two."""


@dataclass(frozen=True, slots=True)
class Written(Generic[Answered]):
    """An answer that is JSON already, in pieces, since there is much of it; they may be written still."""

    pieces: list[bytes] | AsyncIterator[bytes]


def route(
    call: Call[Asked, Answered],
    handler: Callable[[Asked], Awaitable[Answered | Written[Answered]]],
    *,
    waits: bool = False,
) -> Route:
    """Return the route of a call of `polywan/api/calls.py`, with who answers it.

    Args:
        call: the call.
        handler: returns the answer. Of its errors, ControlError says with which status it is refused.
        waits: it waits for something to happen; it is cancelled when the client goes.
    """

    async def answer(request: Request) -> Response:
        asked = await _asked(call, request)
        answered = await (while_there(request, handler(asked)) if waits else handler(asked))
        return _pieces(answered.pieces) if isinstance(answered, Written) else JSONResponse(encode(answered))

    careful = _with_errors(answer)
    return Route(call.path, _entitled(call.right, careful), methods=[call.method])


def stream_route(stream: Stream[Asked], events: Callable[[Asked], AsyncIterator[bytes]]) -> Route:
    """Return the route of a stream, with what yields its events as they are sent; it is closed when the client goes."""

    async def answer(request: Request) -> Response:
        asked = await _asked(stream, request)
        # The answer to HEAD would never end, since nobody reads what is behind its head.
        pieces = _each([]) if request.method == "HEAD" else events(asked)
        # What keeps answers to send them together later must not keep these.
        said = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        return StreamingResponse(pieces, media_type="text/event-stream", headers=said)

    return Route(stream.path, _with_errors(answer), methods=["GET"])


def written_route(path: str, write: Callable[[], bytes]) -> Route:
    """Return the route of JSON that is the same for everybody, and written in a thread."""

    async def answer(_: Request) -> Response:
        return Response(await asyncio.to_thread(write), media_type="application/json")

    return Route(path, _with_errors(answer), methods=["GET"])


async def _asked(call: Call[Asked, Any] | Stream[Asked], request: Request) -> Asked:
    said = {**request.query_params, **request.path_params}
    # Of what comes behind a head, nothing is kept that no call asks for.
    body = await body_of(request, LARGEST_QUESTION) if isinstance(call, Call) and call.body else b""
    try:
        return asked_of(call, said, body)
    except DocumentError as error:
        raise ControlError(str(error), 400) from error


def _with_errors(handler: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
    """Turn the errors of an answer into one that says so."""

    async def careful(request: Request) -> Response:
        try:
            return await handler(request)
        except ControlError as error:
            return _error(error.status, str(error))
        except ClientDisconnect:
            return Response(status_code=400)  # nobody reads it
        except ConfigError as error:
            problems = tuple(
                ProblemFound(where=p.where, key=p.key, message=p.message, hint=p.hint) for p in error.problems
            )
            return JSONResponse(encode(Refusal(error=str(error), problems=problems)), status_code=422)
        except KernelError as error:
            return _error(500, str(error))
        except Exception as error:
            log.error("control.failed: %s: %s: %s", request.url.path, type(error).__name__, error)
            log.debug("control.failed: where it failed", exc_info=error)
            return _error(500, f"polywan failed to answer: {type(error).__name__}: {error}")

    return careful


def _pieces(pieces: list[bytes] | AsyncIterator[bytes]) -> Response:
    return StreamingResponse(_each(pieces) if isinstance(pieces, list) else pieces, media_type="application/json")


async def _each(there: list[bytes]) -> AsyncIterator[bytes]:
    for piece in there:
        yield piece


def _error(code: int, text: str) -> Response:
    return JSONResponse(encode(Refusal(error=text)), status_code=code)


def _entitled(
    right: Right, handler: Callable[[Request], Awaitable[Response]]
) -> Callable[[Request], Awaitable[Response]]:
    async def guarded(request: Request) -> Response:
        if not may(request.scope["state"]["uid"], right):
            return _error(403, "only root and the daemon's own user may do that: use sudo")
        asking.set(request.scope["state"]["uid"])
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
    listener.listen(MOST_PEERS)
    return listener


@asynccontextmanager
async def serving(
    routes: Sequence[Route], runtime_dir: Path, user: Callable[[socket.socket], int] = user_of
) -> AsyncIterator[None]:
    """Serve routes on the runtime directory's socket while the context lasts; removes that socket afterwards."""
    listener = bind(runtime_dir)
    bound = os.lstat(runtime_dir / SOCKET)
    config = uvicorn.Config(
        Starlette(routes=list(routes)),
        lifespan="off",
        # Nothing stands before this socket: a header must never say who asks, whatever the environment allows.
        proxy_headers=False,
        log_config=None,
        access_log=False,
        date_header=False,  # it would stand still
        timeout_graceful_shutdown=2,
        timeout_keep_alive=int(REQUEST_TIMEOUT),
    )
    server = Server(config, [entrance(listener, user)], refused)
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
