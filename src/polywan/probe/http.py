"""The HTTP layer: does a page have the status that it must have? A captive portal answers in its place."""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from ipaddress import ip_address
from typing import Final
from urllib.parse import SplitResult, urlsplit

import h11

from polywan.core.net import IPAddress, family_of
from polywan.probe.bound import ABORT, SocketDeniedError, bound_socket, endpoint
from polywan.probe.check import CheckAttempt, CheckFailedError, explained, shown, weigh
from polywan.probe.dns import Answer, ask, ask_by_tcp

LARGEST_HEAD: Final = 65536
"""Bytes of an answer's head before it counts as none; its body is never read."""

_PIECE: Final = 4096
_SENDABLE: Final = re.compile("[!-~]+")
_PORTS: Final = {"http": 80, "https": 443}
_TRIED: Final = 3
"""Addresses of a name tried one after the other."""

_NETWORK_AUTHENTICATION_REQUIRED: Final = 511
"""A portal that says so itself (RFC 6585, 6)."""


OTHER_STATUS: Final = " instead of "
"""In the detail of a page that was answered with another status than wanted."""


@dataclass(frozen=True, slots=True)
class Page:
    """A URL in parts."""

    scheme: str
    host: str
    port: int
    path: str

    @classmethod
    def parse(cls, url: str) -> Page:
        """Take a URL apart.

        Raises:
            CheckFailedError: it is none that can be fetched.
        """
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as error:
            raise CheckFailedError(f"{shown(url)} is not a URL") from error
        if parts.scheme not in _PORTS or not parts.hostname or not _SENDABLE.fullmatch(url):
            raise CheckFailedError(f"{shown(url)} is not an http or https URL")
        return cls(parts.scheme, parts.hostname, port or _PORTS[parts.scheme], _path(parts))

    @property
    def authority(self) -> str:
        """What the Host header says (RFC 9110, 7.2)."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def address(self) -> IPAddress | None:
        """The host, where it is no name."""
        with suppress(ValueError):
            return ip_address(self.host)
        return None


def _path(parts: SplitResult) -> str:
    return (parts.path or "/") + (f"?{parts.query}" if parts.query else "")


async def check_http(attempt: CheckAttempt) -> str:
    """Fetch the order's page by one of its addresses; a page that has none in the family is not looked at."""
    order = attempt.order
    page = Page.parse(order.url)
    addresses: tuple[IPAddress, ...]
    if page.address is not None:
        addresses = (page.address,) if family_of(page.address) is order.family else ()
    elif attempt.servers():
        attempt.pending = f"{page.host}: no answer from a resolver"
        found = await _look_up(attempt, page.host)
        if not found.exists:
            raise CheckFailedError(f"{page.host}: {found.server} says that there is no such name")
        addresses = found.addresses[:_TRIED]
    else:
        return f"no IPv{order.family} resolver to query for {page.host}"
    if not addresses:
        return f"{page.host} has no IPv{order.family} address"
    head, address = await _fetch(attempt, page, addresses)
    return judge(page, order.status, head, address)


async def _look_up(attempt: CheckAttempt, host: str) -> Answer:
    """Return all that a resolver knows of the host.

    An answer that was cut short must not pass for "there is no address": that would be a good result.
    """
    found = await ask(attempt, host)
    if not found.truncated:
        return found
    attempt.pending = f"{host}: {found.server} truncated its answer, and gave none over TCP"
    try:
        return await ask_by_tcp(attempt, found.server, host)
    except SocketDeniedError:
        raise
    except (CheckFailedError, OSError) as error:
        if found.addresses:
            return found
        why = str(error) if isinstance(error, CheckFailedError) else explained(error)
        raise CheckFailedError(f"{attempt.pending}: {why}") from error


async def _fetch(attempt: CheckAttempt, page: Page, addresses: tuple[IPAddress, ...]) -> tuple[Head, IPAddress]:
    """Return the answer of the first address that gives one; each has an equal part of the time."""
    loop = asyncio.get_running_loop()
    troubles: list[str] = []
    for remaining, address in zip(range(len(addresses), 0, -1), addresses, strict=True):
        attempt.pending = "; ".join([*troubles, f"no answer from {address}"])
        try:
            async with asyncio.timeout((attempt.deadline - loop.time()) / remaining):
                return await _fetch_from(attempt, page, address), address
        except TimeoutError:
            troubles.append(f"no answer from {address}")
        except ssl.SSLCertVerificationError as error:
            troubles.append(f"{address}: invalid certificate: {shown(error.verify_message)}")
        except ssl.SSLError as error:
            troubles.append(f"{address}: TLS failed: {shown(error.reason or str(error))}")
        except (h11.RemoteProtocolError, EOFError) as error:
            troubles.append(f"{address}: {shown(str(error))}")
        except SocketDeniedError:
            raise
        except OSError as error:
            troubles.append(f"{address}: {explained(error)}")
    raise CheckFailedError("; ".join(troubles))


async def _fetch_from(attempt: CheckAttempt, page: Page, address: IPAddress) -> Head:
    order = attempt.order
    # Before connecting: reading the system's certificates takes longer than a handshake.
    context = await asyncio.to_thread(_tls) if page.scheme == "https" else None
    sock = bound_socket(order.family, socket.SOCK_STREAM, socket.IPPROTO_TCP, order.interface, order.mark)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, ABORT)
        await asyncio.get_running_loop().sock_connect(sock, endpoint(address, page.port))
        return await _converse(sock, page, context)
    finally:
        weigh(attempt, sock)
        sock.close()


async def _converse(sock: socket.socket, page: Page, context: ssl.SSLContext | None) -> Head:
    reader, writer = await asyncio.open_connection(
        sock=sock.dup(), ssl=context, server_hostname=page.host if context else None
    )
    try:
        connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=LARGEST_HEAD)
        writer.write(_request(connection, page))
        return await _head(connection, reader)
    finally:
        writer.transport.abort()


def _request(connection: h11.Connection, page: Page) -> bytes:
    fields = [("Host", page.authority), ("User-Agent", "polywan"), ("Accept", "*/*"), ("Connection", "close")]
    request = connection.send(h11.Request(method="GET", target=page.path, headers=fields))
    return (request or b"") + (connection.send(h11.EndOfMessage()) or b"")


@dataclass(frozen=True, slots=True)
class Head:
    """The part of an answer that counts."""

    status: int
    location: str = ""


async def _head(connection: h11.Connection, reader: asyncio.StreamReader) -> Head:
    """Read up to the end of the answer's head.

    Raises:
        h11.RemoteProtocolError: it is none of HTTP, or too long.
        EOFError: the peer has closed before.
    """
    total = 0
    while True:
        event = connection.next_event()
        if isinstance(event, h11.Response):
            places = [value for name, value in event.headers if name == b"location"]
            return Head(event.status_code, places[0].decode("latin-1") if places else "")
        if event is not h11.NEED_DATA:
            continue
        data = await reader.read(_PIECE)
        total += len(data)
        if not data:
            raise EOFError("closed without an answer")
        if total > LARGEST_HEAD:
            raise EOFError("the answer does not end")
        connection.receive_data(data)


def judge(page: Page, wanted: int, head: Head, address: IPAddress) -> str:
    """Return what a good answer is to be called.

    Raises:
        CheckFailedError: the status is another one; the text guesses why.
    """
    if head.status == wanted:
        return f"{head.status} from {address}"
    raise CheckFailedError(f"{head.status} instead of {wanted}" + _guess(page, wanted, head))


def _guess(page: Page, wanted: int, head: Head) -> str:
    if head.status == _NETWORK_AUTHENTICATION_REQUIRED:
        return ": a captive portal"
    if 300 <= head.status < 400 and head.location:
        host = _host_of(head.location)
        return f": a captive portal at {host}" if host not in ("", page.host) else ": redirected within its host"
    if head.status == 200 and wanted == 204:
        return ": probably a captive portal"
    return ""


def _host_of(location: str) -> str:
    try:
        return shown(urlsplit(location).hostname or "")
    except ValueError:
        return shown(location)


@cache
def _tls() -> ssl.SSLContext:
    """Return the settings that verify name and chain against the system's certificates."""
    return ssl.create_default_context()
