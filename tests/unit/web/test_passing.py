"""The page's server between a browser and a daemon: real sockets on both sides."""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from polywan.api import calls
from polywan.api.codec import encode
from polywan.api.requests import Nothing, Words
from polywan.api.status import Status
from polywan.core.errors import ControlError
from polywan.daemon.api.http import route
from polywan.web import upstream
from polywan.web.guard import FIELDS
from polywan.web.server import bound
from polywan.web.settings import listen
from support.documents import status
from support.web import Browser, Stream, page, token

STATUS = status()


class Daemon:
    """Answers some calls."""

    def __init__(self) -> None:
        self.asked: list[Any] = []

    async def status(self, _: Nothing) -> Status:
        return STATUS

    async def why(self, asked: Words) -> Any:
        self.asked.append(dict(asked.words))
        raise ControlError("the question makes no sense", 400)

    def routes(self) -> list[Route]:
        return [route(calls.STATUS, self.status), route(calls.WHY, self.why)]


@pytest.fixture
def daemon() -> Daemon:
    return Daemon()


@pytest.fixture
def browser(daemon: Daemon, tmp_path: Path) -> Iterator[Browser]:
    with page(tmp_path, daemon.routes()) as (browser,):
        yield browser


def test_an_answer_of_the_daemon_is_passed_on(browser: Browser) -> None:
    found = browser.get("/api/v1/status")
    assert (found.status, found.headers["content-type"]) == (200, "application/json")
    assert found.headers["cache-control"] == "no-store"
    assert found.json == encode(STATUS)


def test_words_of_the_query_and_refusals_are_passed_on(browser: Browser, daemon: Daemon) -> None:
    found = browser.get("/api/v1/why?src=192.0.2.1&x=%26%3D%0a%C3%A4")
    assert (found.status, found.json) == (400, {"error": "the question makes no sense"})
    assert daemon.asked == [{"src": "192.0.2.1", "x": "&=\nä"}]


def test_a_visitor_of_this_machine_may_read(browser: Browser) -> None:
    assert browser.get("/api/whoami").json == {"scopes": ["read"], "name": ""}


@pytest.mark.parametrize(
    "path", ["/api/v1/nothing", "/api/v1/status/", "/api//v1/status", "/v1/status", "/api/v1/show/a%2Fb"]
)
def test_what_is_no_call_is_not_passed_on(browser: Browser, path: str) -> None:
    assert browser.get(path).status == 404


@pytest.mark.parametrize("path", ["/", "/api/whoami", "/api/v1/status", "/api/v1/why", "/nothing", "/static/none.js"])
def test_every_answer_has_the_fields_of_security(browser: Browser, path: str) -> None:
    for found in (browser.get(path), browser.get(path, Host="evil.example"), browser.ask("PATCH", path)):
        assert {name: found.headers.get(name.lower()) for name in FIELDS} == dict(FIELDS)
        assert "server" not in found.headers


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example:80", "192.0.2.1"])
@pytest.mark.parametrize("path", ["/", "/api/v1/status", "/static/app.js", "/nothing"])
def test_a_name_that_is_not_ours_gets_nothing(browser: Browser, path: str, host: str) -> None:
    assert browser.get(path, Host=host).status == 421


def test_a_request_without_a_host_gets_nothing(browser: Browser) -> None:
    assert browser.raw(b"GET /api/v1/status HTTP/1.0\r\n\r\n").startswith(b"HTTP/1.1 421 ")


def test_a_request_with_two_hosts_gets_nothing(browser: Browser) -> None:
    two = b"GET /api/v1/status HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    assert browser.raw(two).startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize("site", ["cross-site", "same-site", "cross-origin"])
def test_a_page_of_another_site_is_told_nothing(browser: Browser, site: str) -> None:
    for path in ("/api/v1/status", "/api/whoami"):
        assert browser.get(path, Sec_Fetch_Site=site).status == 403
    assert browser.get("/api/v1/status", Sec_Fetch_Site="same-origin").status == 200


def test_without_a_daemon_the_answer_says_so(tmp_path: Path) -> None:
    with page(tmp_path) as (browser,):
        found = browser.get("/api/v1/status")
        assert found.status == 503
        assert "no daemon answers at" in found.json["error"]


def test_a_name_that_was_given_is_ours(tmp_path: Path, daemon: Daemon) -> None:
    with page(tmp_path, daemon.routes(), hosts=frozenset({"gw.example.org"})) as (browser,):
        assert browser.get("/", Host="gw.example.org").status == 200
        assert browser.get("/", Host="other.example.org").status == 421


def test_every_address_is_served(tmp_path: Path, daemon: Daemon) -> None:
    with page(tmp_path, daemon.routes(), listens=("127.0.0.1:0", "[::1]:0")) as browsers:
        assert [browser.get("/api/v1/status").status for browser in browsers] == [200, 200]


def test_a_stream_comes_while_it_is_sent_and_ends_with_its_reader(tmp_path: Path) -> None:
    stream = Stream()
    with page(tmp_path, stream.routes()) as (browser,):
        with browser.connect() as sock:
            sock.sendall(b"GET /api/v1/stream HTTP/1.1\r\nHost: localhost\r\n\r\n")
            found = b""
            while b"data: 5\n" not in found:
                found += sock.recv(65536)
            assert b"content-type: text/event-stream" in found
            assert stream.open == 1
        for _ in range(500):
            if not stream.open:
                break
            asyncio.run(asyncio.sleep(0.01))
        assert stream.open == 0


def test_a_server_that_ends_ends_its_streams_as_http_has_it_and_nothing_is_wrong(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with page(tmp_path, Stream().routes()) as (browser,):
        sock = browser.connect()
        sock.sendall(b"GET /api/v1/stream HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert sock.recv(1)
    with sock:
        found = b"".join(iter(lambda: sock.recv(65536), b""))
    assert found.endswith(b"\r\n0\r\n\r\n")
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == []


@pytest.mark.parametrize(
    ("accepted", "media_type", "end"),
    [
        ("application/openmetrics-text;version=1.0.0,text/plain;q=0.5", "application/openmetrics-text", b"# EOF\n"),
        ("text/plain", "text/plain", b"\n"),
    ],
)
def test_metrics_are_written_as_they_are_asked_for(
    browser: Browser, accepted: str, media_type: str, end: bytes
) -> None:
    found = browser.get("/metrics", Accept=accepted)
    assert (found.status, found.headers["content-type"].partition(";")[0]) == (200, media_type)
    assert b"\npolywan_up 1\n" in found.body
    assert found.body.endswith(end)


def test_a_daemon_that_is_away_is_a_metric(tmp_path: Path) -> None:
    with page(tmp_path) as (browser,):
        found = browser.get("/metrics")
        assert (found.status, b"\npolywan_up 0\n" in found.body) == (200, True)


def test_metrics_are_for_those_who_may_read(tmp_path: Path, daemon: Daemon) -> None:
    with page(tmp_path, daemon.routes(), tokens_only=True) as (browser,):
        assert browser.get("/metrics").status == 401
        assert browser.get("/metrics", Authorization=token(tmp_path, "prometheus")).status == 200


def test_a_status_that_makes_no_sense_is_an_error_and_no_metric(tmp_path: Path) -> None:
    async def senseless(_: Request) -> Response:
        return Response(b"[", media_type="application/json")

    with page(tmp_path, [Route("/v1/status", senseless)]) as (browser,):
        found = browser.get("/metrics")
        assert (found.status, "another version" in found.json["error"]) == (502, True)


def test_an_answer_that_there_is_no_room_for_is_not_a_daemon_that_is_away(
    browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upstream, "MOST_ANSWERS", 0)
    found = browser.get("/metrics")
    assert (found.status, "requests are being answered" in found.json["error"]) == (503, True)


def test_who_goes_makes_room_for_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upstream, "MOST_ANSWERS", 1)
    waiting = threading.Event()

    async def waits(request: Request) -> Response:
        if "wait" in request.query_params:
            waiting.set()
            await asyncio.Event().wait()
        return Response(b"{}", media_type="application/json")

    with page(tmp_path, [Route("/v1/events", waits)]) as (browser,):
        with browser.connect() as sock:
            sock.sendall(b"GET /api/v1/events?wait=60&after=0 HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert waiting.wait(5)
            assert browser.get("/api/v1/events").status == 503
        until = time.monotonic() + 10
        while browser.get("/api/v1/events").status != 200:
            assert time.monotonic() < until


def test_the_head_of_a_stream_is_all_that_comes_of_it(tmp_path: Path) -> None:
    with page(tmp_path, Stream().routes()) as (browser,):
        found = browser.ask("HEAD", "/api/v1/stream")
        assert (found.status, found.headers["content-type"].partition(";")[0]) == (200, "text/event-stream")
        assert browser.raw(b"HEAD /api/v1/stream HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")


def test_so_many_pages_are_open_at_once_and_who_closes_one_makes_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upstream, "MOST_STREAMS", 1)
    request = b"GET /api/v1/stream HTTP/1.1\r\nHost: localhost\r\n\r\n"

    def followed(browser: Browser) -> bytes:
        with browser.connect() as sock:
            sock.sendall(request)
            return sock.recv(65536)

    with page(tmp_path, Stream().routes()) as (browser,):
        with browser.connect() as first:
            first.sendall(request)
            assert first.recv(65536).startswith(b"HTTP/1.1 200 ")
            assert followed(browser).startswith(b"HTTP/1.1 503 ")
        until = time.monotonic() + 10
        while not followed(browser).startswith(b"HTTP/1.1 200 "):
            assert time.monotonic() < until


def test_a_daemon_that_says_nothing_is_not_waited_for_without_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upstream, "REPLY_TIMEOUT", 0.2)

    async def silent(_: Request) -> Response:
        await asyncio.Event().wait()
        raise AssertionError

    with page(tmp_path, [Route("/v1/status", silent)]) as (browser,):
        assert browser.get("/api/v1/status").status == 503
        assert b"\npolywan_up 0\n" in browser.get("/metrics").body


def test_an_address_of_ipv6_takes_no_connection_of_ipv4() -> None:
    with bound([listen("[::]:0")]) as (listener,):
        assert listener.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY) == 1
