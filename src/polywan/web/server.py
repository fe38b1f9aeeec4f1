"""Serve the page: bind, and answer until SIGTERM or SIGINT."""

from __future__ import annotations

import asyncio
import errno
import logging
import signal
import socket
import ssl
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from ipaddress import ip_address
from typing import Any, Final

import uvicorn

from polywan import library_log, log_handler
from polywan.core.errors import NotPermitted, PolywanError
from polywan.notify import notify
from polywan.serving import REQUEST_TIMEOUT, Entrance, Server
from polywan.web.app import application
from polywan.web.assets import Assets
from polywan.web.guard import FIELDS
from polywan.web.hosts import without_zone
from polywan.web.rights import context, leave_root
from polywan.web.settings import Listen, Settings
from polywan.web.token_files import TokenFile
from polywan.web.upstream import Upstream
from polywan.web.visitors import Door

log = logging.getLogger("polywan")

MOST_VISITORS: Final = 192
"""Connections at once, of everybody."""

EACH_VISITOR: Final = 32
"""Connections at once of one address of elsewhere; a browser has up to seven. A proxy here has those of everybody."""

LARGEST_REQUEST_HEAD: Final = 1 << 14
"""Bytes of a request without its body."""


def run(settings: Settings) -> None:
    """Serve in the foreground; root becomes the page's user once addresses and key are there.

    Raises:
        PolywanError: an address or a certificate cannot be used, or root has no user to become.
    """
    log.addHandler(log_handler.to_stderr())
    log.setLevel(logging.INFO)
    library_log.borrow()
    # Whatever strangers send would be a line of the log.
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
    with bound(settings.listen) as listeners:
        tls = context(settings)
        leave_root()
        asyncio.run(_until_told(settings, listeners, tls))


async def _until_told(settings: Settings, listeners: Sequence[socket.socket], tls: ssl.SSLContext | None) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)

    def ready() -> None:
        for listener in listeners:
            log.info("web.ready: the page is at http%s://%s/", "" if tls is None else "s", address_of(listener))
        notify("READY=1")

    await serve(settings, listeners, tls, stop, ready)
    notify("STOPPING=1")


async def serve(
    settings: Settings,
    listeners: Sequence[socket.socket],
    tls: ssl.SSLContext | None,
    stop: asyncio.Event,
    ready: Callable[[], None],
) -> None:
    """Serve on sockets that are bound, until `stop` is set.

    Args:
        settings: how.
        listeners: as `bound` returns them.
        tls: for all of them.
        stop: ends it; streams that are open end as well.
        ready: called once connections are taken.
    """
    door = Door(TokenFile(settings.state_dir), tokens_only=settings.tokens_only)
    upstream = Upstream(settings.runtime_dir)
    app = application(upstream, Assets(settings.static), door, settings.hosts)
    config = uvicorn.Config(
        app,
        lifespan="off",
        ws="none",
        http="h11",
        proxy_headers=False,
        server_header=False,
        date_header=False,  # it would stand still
        log_config=None,
        access_log=False,
        h11_max_incomplete_event_size=LARGEST_REQUEST_HEAD,
        timeout_graceful_shutdown=2,
        timeout_keep_alive=int(REQUEST_TIMEOUT),
    )
    server = Server(config, [_entrance(listener, tls) for listener in listeners], _tell, FIELDS)
    task = asyncio.create_task(server.serve(sockets=[]))
    ready()
    await stop.wait()
    server.stop()
    # Whoever follows a stream would be waited for in vain, and his end be an error.
    upstream.end()
    with suppress(asyncio.CancelledError):
        await task


def address_of(listener: socket.socket) -> Listen:
    """Return where a socket listens."""
    name = listener.getsockname()
    return Listen(ip_address(name[0]), name[1])


def _tell(why: str) -> None:
    log.warning("web.refused: %s", why)


def _entrance(listener: socket.socket, tls: ssl.SSLContext | None) -> Entrance:
    local = address_of(listener).address.is_loopback

    def describe(connection: socket.socket) -> Mapping[str, Any]:
        peer = without_zone(connection.getpeername()[0])
        # With route_localnet=1 (ip-sysctl), as container runtimes set it, others reach loopback, too.
        return {"peer": peer, "local": local and peer.is_loopback}

    return Entrance(listener, describe, _refuse, tls)


def _refuse(_: socket.socket, peer: Mapping[str, Any], others: Collection[Mapping[str, Any]]) -> str | None:
    if len(others) >= MOST_VISITORS:
        return f"{MOST_VISITORS} connections to the page are open, no more are allowed: close some"
    if not peer["peer"].is_loopback and Counter(other["peer"] for other in others)[peer["peer"]] >= EACH_VISITOR:
        return f"{peer['peer']} has {EACH_VISITOR} connections to the page, no more are allowed: close some"
    return None


@contextmanager
def bound(wanted: Sequence[Listen]) -> Iterator[list[socket.socket]]:
    """Listen on addresses while the context lasts.

    Raises:
        NotPermitted: a port is not for this user.
        PolywanError: an address or port cannot be had.
    """
    found: list[socket.socket] = []
    try:
        found.extend(map(_bind, wanted))
        yield found
    finally:
        for listener in found:
            listener.close()


def _bind(wanted: Listen) -> socket.socket:
    family = socket.AF_INET6 if wanted.address.version == 6 else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        # Gives the number of the device of a link-local address, too.
        numeric = socket.AI_NUMERICHOST
        found = socket.getaddrinfo(str(wanted.address), wanted.port, family, socket.SOCK_STREAM, flags=numeric)
        listener.bind(found[0][4])
        listener.listen(MOST_VISITORS)
    except OSError as error:
        listener.close()
        text = f"cannot listen on {wanted}: {(error.strerror or str(error)).lower()}"
        if isinstance(error, PermissionError):
            raise NotPermitted(f"{text}: ports below 1024 are for root; choose a higher one") from error
        rest = ": end what uses it, or choose another port by --listen" if error.errno == errno.EADDRINUSE else ""
        raise PolywanError(text + rest) from error
    return listener
