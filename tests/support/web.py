"""A page's server: inside this process over a daemon that answers what a test wants, or as a process of its own."""

from __future__ import annotations

import asyncio
import http.client
import json
import logging
import re
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.routing import Route

from polywan.daemon.api.http import serving
from polywan.lab.namespaces import Namespace
from polywan.web.rights import context
from polywan.web.server import bound, serve
from polywan.web.settings import Settings, listen
from polywan.web.token_files import changing
from polywan.web.tokens import Scope, Token, digest_of

AS_ROOT = (
    sys.executable,
    "-c",
    "import polywan.web.server as server; server.leave_root = lambda: None; from polywan.__main__ import main; main()",
)
"""The command with a page that stays root: a sandbox may have no other user, or none that can reach its files."""

_URL = re.compile(r"web\.ready: .* at (https?)://(\S+):([0-9]+)/")


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Browser:
    """Asks a server by its address."""

    def __init__(self, host: str, port: int, namespace: Namespace | None = None, *, tls: bool = False) -> None:
        self.host, self.port, self._namespace, self._tls = host, port, namespace, tls

    def connect(self) -> socket.socket:
        """Open a connection for bytes of one's own."""
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        if self._namespace is None:
            sock = socket.socket(family, socket.SOCK_STREAM)
        else:
            sock = self._namespace.socket(family, socket.SOCK_STREAM)
        sock.settimeout(10)
        sock.connect((self.host, self.port))
        if not self._tls:
            return sock
        trusting = ssl.create_default_context()
        trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
        return trusting.wrap_socket(sock)

    def ask(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Answer:
        connection = http.client.HTTPConnection(self.host, self.port, timeout=10)
        connection.sock = self.connect()
        try:
            connection.request(method, path, body, {name.replace("_", "-"): text for name, text in headers.items()})
            response = connection.getresponse()
            return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
        finally:
            connection.close()

    def get(self, path: str, **headers: str) -> Answer:
        return self.ask("GET", path, None, **headers)

    def raw(self, request: bytes) -> bytes:
        """Send bytes and return all that comes back until the end."""
        with self.connect() as sock:
            sock.sendall(request)
            found = b""
            while piece := sock.recv(65536):
                found += piece
            return found


class Stream:
    """A daemon that streams."""

    def __init__(self) -> None:
        self.open = 0

    async def answer(self, request: Request) -> StreamingResponse:
        async def pieces() -> AsyncIterator[bytes]:
            self.open += 1
            try:
                for number in count():
                    yield f"event: sample\ndata: {json.dumps(number)}\n\n".encode()
                    await asyncio.sleep(0.01)
            finally:
                self.open -= 1

        return StreamingResponse(pieces(), media_type="text/event-stream")

    def routes(self) -> list[Route]:
        return [Route("/v1/stream", self.answer)]


@contextmanager
def logged() -> Iterator[list[str]]:
    """Keep what is logged meanwhile."""
    found: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            found.append(record.getMessage())

    log, handler = logging.getLogger("polywan"), Keep()
    before = log.level
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield found
    finally:
        log.removeHandler(handler)
        log.setLevel(before)


def token(directory: Path, name: str, scope: Scope = "read", *, expires: float | None = None) -> str:
    """Make a token in the state directory of a page, and return the header that shows it."""
    text = f"pw_{name}"
    with changing(directory / "web", None) as tokens:
        tokens.append(Token(name=name, digest=digest_of(text), scope=scope, created=0.0, expires=expires))
    return f"Bearer {text}"


def revoke(directory: Path, name: str) -> None:
    """Make a token good for nothing."""
    with changing(directory / "web", None) as tokens:
        tokens[:] = [one for one in tokens if one.name != name]


@contextmanager
def page(
    directory: Path,
    routes: Sequence[Route] = (),
    *,
    listens: Sequence[str] = ("127.0.0.1:0",),
    namespace: Namespace | None = None,
    **more: Any,
) -> Iterator[list[Browser]]:
    """Serve a page in a thread, over a daemon that has these routes, or over one that somebody else runs."""
    kept: dict[str, Any] = {"hosts": frozenset(), "state_dir": directory / "web"}
    settings = Settings(listen=tuple(map(listen, listens)), runtime_dir=directory, **kept | more)
    ready, stop = threading.Event(), asyncio.Event()
    loop = asyncio.new_event_loop()
    failures: list[BaseException] = []
    browsers: list[Browser] = []

    async def serve_all() -> None:
        with ExitStack() as stack:
            with nullcontext() if namespace is None else namespace.entered():
                listeners = stack.enter_context(bound(settings.listen))
            names = [listener.getsockname() for listener in listeners]
            browsers.extend(Browser(name[0], name[1], namespace, tls=settings.tls is not None) for name in names)
            if routes:
                async with serving(routes, directory):
                    await serve(settings, listeners, context(settings), stop, ready.set)
            else:
                await serve(settings, listeners, context(settings), stop, ready.set)

    def run() -> None:
        try:
            loop.run_until_complete(serve_all())
        except BaseException as error:  # noqa: BLE001 - the test's thread raises it
            failures.append(error)
        finally:
            ready.set()
            loop.close()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        assert ready.wait(10)
        if not failures:
            yield browsers
    finally:
        if not loop.is_closed():
            loop.call_soon_threadsafe(stop.set)
        thread.join(10)
    if failures:
        raise failures[0]


class WebProcess(Browser):
    """`polywan web` as a process in a namespace."""

    def __init__(self, process: subprocess.Popen[str], namespace: Namespace) -> None:
        assert process.stderr is not None
        self.log: list[str] = []
        self.pid = process.pid
        self._process = process
        for line in process.stderr:
            self.log.append(line)
            if found := _URL.search(line):
                break
        else:
            raise AssertionError(f"it ended: {''.join(self.log)}")
        super().__init__(found[2].strip("[]"), int(found[3]), namespace)
        self._heard = threading.Condition()
        self._listener = threading.Thread(target=self._listen)
        self._listener.start()

    def end(self) -> None:
        """Stop it, and read its log to the end."""
        self._process.terminate()
        assert self._process.wait(10) == 0
        self._listener.join(10)
        assert self._process.stderr is not None
        self._process.stderr.close()

    def _listen(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            with self._heard:
                self.log.append(line)
                self._heard.notify_all()

    def waits_for(self, event: str, timeout: float = 10.0) -> bool:
        """Tell whether an event comes in its log."""
        with self._heard:
            return self._heard.wait_for(lambda: any(f" {event}: " in line for line in self.log), timeout)


@contextmanager
def web_process(namespace: Namespace, runtime: Path, *words: str, behind: Sequence[str] = ()) -> Iterator[WebProcess]:
    """Run `polywan web` beside a daemon, on a port of loopback that is free."""
    argv = [*behind, sys.executable, "-m", "polywan", "web", "--listen", "127.0.0.1:0", "--runtime-dir", str(runtime)]
    process = namespace.start([*argv, *words], stderr=subprocess.PIPE, environment={"PYTHONUNBUFFERED": "1"})
    found = WebProcess(process, namespace)
    try:
        yield found
    finally:
        found.end()
