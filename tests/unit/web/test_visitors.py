"""Who may do what by the page: tokens and their scopes, other sites, and what is kept of strangers."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import nullcontext
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import Request
from starlette.routing import Route

from polywan.api import calls
from polywan.api.calls import CALLS
from polywan.api.codec import encode
from polywan.api.requests import DrainUplink, Nothing, OfUplink, WhatToPlan
from polywan.api.running import Planned
from polywan.api.status import Status
from polywan.api.uplinks import UplinkChanged
from polywan.core.errors import ControlError
from polywan.daemon.api.http import route
from polywan.web import visitors
from polywan.web.hosts import authority
from polywan.web.passing import LARGEST_BODY
from polywan.web.token_files import TokenFile, uses_of
from polywan.web.tokens import digest_of
from polywan.web.visitors import WRONG_SPAN, WRONG_TOKENS, Door, check_action
from support.documents import status
from support.web import Browser, Stream, logged, page, revoke, token

STATUS = status()
CHANGED = UplinkChanged(uplink="lte", state="disabled", reason="by the operator", saved=True, warnings=())
AS_OUR_PAGE = {"Content_Type": "application/json", "X_Polywan": "1"}
DISABLE = "/api/v1/uplinks/lte/disable"


class Daemon:
    """Answers some calls, and keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[Any] = []

    async def status(self, _: Nothing) -> Status:
        return STATUS

    async def order(self, asked: OfUplink) -> UplinkChanged:
        self.asked.append(asked)
        return CHANGED

    async def drain(self, asked: DrainUplink) -> UplinkChanged:
        self.asked.append(asked)
        return CHANGED

    async def plan(self, asked: WhatToPlan) -> Planned:
        self.asked.append(asked)
        return Planned(ops=(), warnings=())

    def routes(self) -> list[Route]:
        return [
            route(calls.STATUS, self.status),
            route(calls.DISABLE, self.order),
            route(calls.DRAIN, self.drain),
            route(calls.PLAN, self.plan),
        ]


@pytest.fixture
def daemon() -> Daemon:
    return Daemon()


@pytest.fixture
def browser(daemon: Daemon, tmp_path: Path) -> Iterator[Browser]:
    with page(tmp_path, daemon.routes()) as (browser,):
        yield browser


@pytest.fixture
def reader(tmp_path: Path) -> str:
    return token(tmp_path, "phone")


@pytest.fixture
def actor(tmp_path: Path) -> str:
    return token(tmp_path, "laptop", "act")


def path_of(call: Any) -> str:
    return f"/api{call.path}".replace("{name:path}", "lte").replace("{what}", "nft").replace("{number}", "1")


def may_act(status: int) -> bool:
    """Tell whether an order was passed on, whatever the daemon made of it."""
    return status not in (401, 403, 405, 415, 429)


@pytest.mark.parametrize("call", CALLS, ids=lambda call: f"{call.method} {call.path}")
def test_a_token_is_good_for_the_calls_of_its_scope_and_for_no_other(
    browser: Browser, reader: str, actor: str, call: Any
) -> None:
    def asked(**headers: str) -> int:
        body = b"{}" if call.method == "POST" else None
        return browser.ask(call.method, path_of(call), body, **{**AS_OUR_PAGE, **headers}).status

    nameless, reading, acting = asked(), asked(Authorization=reader), asked(Authorization=actor)
    match call.right:
        case "read":
            assert not {nameless, reading, acting} & {401, 403, 405}
        case "act":
            assert (nameless, reading) == (401, 403)
            assert may_act(acting)
        case _:
            assert not {nameless, reading, acting} - {404, 405}


def test_an_order_is_passed_on_and_logged_with_the_name_of_the_token(
    browser: Browser, daemon: Daemon, actor: str
) -> None:
    with logged() as lines:
        found = browser.ask("POST", "/api/v1/uplinks/lte/drain?deadline=5m", None, Authorization=actor, **AS_OUR_PAGE)
    assert (found.status, found.json["state"]) == (200, "disabled")
    assert daemon.asked == [DrainUplink(name="lte", deadline="5m")]
    (line,) = (line for line in lines if line.startswith("web.acted: "))
    assert line == "web.acted: laptop at 127.0.0.1 asked for /v1/uplinks/lte/drain; answered with 200"


def test_an_order_with_a_body_is_passed_on(browser: Browser, daemon: Daemon, actor: str) -> None:
    said = WhatToPlan(files={"polywan.toml": "ä\n"}, namespace="4:4026531840")
    found = browser.ask("POST", "/api/v1/plan", json.dumps(encode(said)).encode(), Authorization=actor, **AS_OUR_PAGE)
    assert found.status == 200
    assert daemon.asked == [said]


def test_a_name_with_odd_signs_reaches_the_daemon_as_it_is_and_forges_no_line(
    browser: Browser, daemon: Daemon, actor: str
) -> None:
    with logged() as lines:
        browser.ask("POST", "/api/v1/uplinks/a%1B%2Fc%3Fd%23/disable", None, Authorization=actor, **AS_OUR_PAGE)
    assert daemon.asked == [OfUplink(name="a\x1b/c?d#")]
    assert all(line.isprintable() for line in lines)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Content_Type": "text/plain"}, 415),
        ({"Content_Type": "application/x-www-form-urlencoded"}, 415),
        ({"X_Polywan": "0"}, 403),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://localhost:1"}, 403),
        ({"Origin": "file://"}, 403),
        ({"Origin": "http://localhost.evil.example"}, 403),
        ({"Sec_Fetch_Site": "cross-site"}, 403),
        ({"Sec_Fetch_Site": "same-site"}, 403),
    ],
)
def test_an_order_that_another_site_may_have_made_a_browser_send_is_refused(
    browser: Browser, daemon: Daemon, actor: str, headers: dict[str, str], status: int
) -> None:
    found = browser.ask("POST", DISABLE, b"{}", Authorization=actor, **{**AS_OUR_PAGE, **headers})
    assert found.status == status
    assert daemon.asked == []


def test_an_order_without_the_fields_of_our_page_is_refused(browser: Browser, daemon: Daemon, actor: str) -> None:
    assert browser.ask("POST", DISABLE, Authorization=actor, X_Polywan="1").status == 415
    assert browser.ask("POST", DISABLE, Authorization=actor, Content_Type="application/json").status == 403
    assert daemon.asked == []


def test_an_order_of_our_own_page_is_taken(browser: Browser, daemon: Daemon, actor: str) -> None:
    origin = {"Origin": f"http://127.0.0.1:{browser.port}", "Sec_Fetch_Site": "same-origin"}
    assert browser.ask("POST", DISABLE, b"{}", Authorization=actor, **AS_OUR_PAGE, **origin).status == 200


def test_a_page_of_another_site_may_not_even_ask_what_it_may_send(browser: Browser) -> None:
    found = browser.ask("OPTIONS", DISABLE, Origin="http://evil.example", Access_Control_Request_Method="POST")
    assert found.status == 405
    assert not [name for name in found.headers if name.startswith("access-control")]


def test_an_order_that_is_too_long_is_refused(browser: Browser, daemon: Daemon, actor: str) -> None:
    body = b" " * (LARGEST_BODY + 1)
    assert browser.ask("POST", "/api/v1/plan", body, Authorization=actor, **AS_OUR_PAGE).status == 413
    assert daemon.asked == []


@pytest.mark.parametrize(
    "field", ["Bearer", "Bearer ", "Bearer pw_phon", "Basic cHdfcGhvbmU=", "pw_phone", "Bearer pw_phone pw_phone"]
)
def test_what_is_no_token_is_refused_even_where_none_is_needed(browser: Browser, reader: str, field: str) -> None:
    found = browser.get("/api/v1/status", Authorization=field)
    assert (found.status, found.headers["www-authenticate"]) == (401, "Bearer")


def test_whoami_tells_the_name_of_a_token_and_what_it_is_good_for(browser: Browser, reader: str, actor: str) -> None:
    assert browser.get("/api/whoami").json == {"scopes": ["read"], "name": ""}
    assert browser.get("/api/whoami", Authorization=reader).json == {"scopes": ["read"], "name": "phone"}
    assert browser.get("/api/whoami", Authorization=actor).json == {"scopes": ["read", "act"], "name": "laptop"}


def test_a_token_is_good_as_soon_as_it_is_made_and_for_nothing_once_it_is_revoked(
    browser: Browser, tmp_path: Path
) -> None:
    for _ in range(3):
        field = token(tmp_path, "phone")
        assert browser.get("/api/whoami", Authorization=field).status == 200
        revoke(tmp_path, "phone")
        assert browser.get("/api/whoami", Authorization=field).status == 401


def test_a_token_that_has_expired_is_good_for_nothing(browser: Browser, tmp_path: Path) -> None:
    assert browser.get("/api/whoami", Authorization=token(tmp_path, "old", expires=time.time() - 1)).status == 401


def test_the_use_of_a_token_is_recorded(browser: Browser, tmp_path: Path, reader: str) -> None:
    browser.get("/api/whoami", Authorization=reader)
    assert time.time() - uses_of(tmp_path / "web")[digest_of("pw_phone")] < 60


@pytest.mark.parametrize(
    "headers",
    [{"X_Forwarded_For": "192.0.2.1"}, {"Forwarded": "for=192.0.2.1"}, {"Via": "1.1 x"}, {"Host": "gw.example.org"}],
)
def test_whoever_comes_through_a_proxy_needs_a_token(
    tmp_path: Path, daemon: Daemon, reader: str, headers: dict[str, str]
) -> None:
    with page(tmp_path, daemon.routes(), hosts=frozenset({"gw.example.org"})) as (browser,):
        assert browser.get("/api/v1/status", **headers).status == 401
        assert browser.get("/api/v1/status", Authorization=reader, **headers).status == 200


def test_where_tokens_are_wanted_of_all_nobody_reads_without_one(tmp_path: Path, daemon: Daemon, reader: str) -> None:
    with page(tmp_path, daemon.routes(), tokens_only=True) as (browser,):
        assert browser.get("/api/v1/status").status == 401
        assert browser.get("/api/v1/status", Authorization=reader).status == 200


def test_many_wrong_tokens_of_one_address_are_refused_and_a_right_one_is_taken(browser: Browser, reader: str) -> None:
    with logged() as lines:
        found = [browser.get("/api/whoami", Authorization=f"Bearer {n}").status for n in range(2 * WRONG_TOKENS)]
    assert found == [401] * WRONG_TOKENS + [429] * WRONG_TOKENS
    assert len([line for line in lines if line.startswith("web.refused: ")]) == 1
    assert browser.get("/api/whoami", Authorization=reader).status == 200


@pytest.mark.parametrize("how", ["revoked", "expired"])
def test_a_stream_ends_when_its_token_does(tmp_path: Path, how: str) -> None:
    with page(tmp_path, Stream().routes()) as (browser,), browser.connect() as sock:
        field = token(tmp_path, "phone", expires=time.time() + 4 if how == "expired" else None)
        request = (
            f"GET /api/v1/stream HTTP/1.1\r\nHost: localhost\r\nAuthorization: {field}\r\nConnection: close\r\n\r\n"
        )
        sock.sendall(request.encode())
        assert b"200 OK" in sock.recv(65536)
        if how == "revoked":
            revoke(tmp_path, "phone")
        until = time.monotonic() + 30
        while sock.recv(65536):
            assert time.monotonic() < until


def test_a_file_of_tokens_that_makes_no_sense_is_told_once_and_none_is_good(
    browser: Browser, tmp_path: Path, reader: str
) -> None:
    (tmp_path / "web/tokens.json").write_text("[" * 100_000)
    with logged() as lines:
        assert [browser.get("/api/whoami", Authorization=reader).status for _ in range(3)] == [401] * 3
    assert len([line for line in lines if line.startswith("tokens.unreadable: ")]) == 1


def test_a_file_of_tokens_is_good_again_once_what_ailed_it_is_over(
    browser: Browser, tmp_path: Path, reader: str
) -> None:
    file, other = tmp_path / "web/tokens.json", tmp_path / "other"
    # Whoever has another name for it could write it.
    other.hardlink_to(file)
    assert browser.get("/api/whoami", Authorization=reader).status == 401
    other.unlink()
    assert browser.get("/api/whoami", Authorization=reader).status == 200


def test_a_file_of_tokens_that_is_not_ours_any_more_is_noticed(browser: Browser, tmp_path: Path, reader: str) -> None:
    assert browser.get("/api/whoami", Authorization=reader).status == 200
    (tmp_path / "other").hardlink_to(tmp_path / "web/tokens.json")
    assert browser.get("/api/whoami", Authorization=reader).status == 401


def test_an_order_whose_answer_is_lost_is_logged_too(tmp_path: Path, actor: str) -> None:
    with page(tmp_path) as (browser,), logged() as lines:
        assert browser.ask("POST", DISABLE, b"{}", Authorization=actor, **AS_OUR_PAGE).status == 503
    assert "web.acted: laptop at 127.0.0.1 asked for /v1/uplinks/lte/disable; answered with 503" in lines


@pytest.mark.parametrize("files", ['{"\\ud800": "x"}', '{"\\ud800": 5}', '{"a": "\\ud800"}'])
def test_half_a_character_is_refused(browser: Browser, daemon: Daemon, actor: str, files: str) -> None:
    body = b'{"files": %s}' % files.encode()
    found = browser.ask("POST", "/api/v1/plan", body, Authorization=actor, **AS_OUR_PAGE)
    assert (found.status, "half a character" in found.json["error"]) == (400, True)
    assert daemon.asked == []


def test_what_the_query_says_is_no_part_of_the_path(browser: Browser, daemon: Daemon, actor: str) -> None:
    browser.ask("POST", f"{DISABLE}?name=fibre", None, Authorization=actor, **AS_OUR_PAGE)
    assert daemon.asked == [OfUplink(name="lte")]


def test_two_tokens_at_once_are_none(browser: Browser, reader: str) -> None:
    field = f"Authorization: {reader}\r\n".encode()
    request = b"GET /api/whoami HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n" + 2 * field + b"\r\n"
    assert browser.raw(request).startswith(b"HTTP/1.1 401 ")


@pytest.mark.parametrize(
    ("scheme", "host", "origin", "ours"),
    [
        ("http", "127.0.0.1:8410", "http://127.0.0.1:8410", True),
        ("http", "127.0.0.1:8410", "http://127.0.0.1:8411", False),
        ("http", "127.0.0.1:8410", "http://127.0.0.1", False),
        ("http", "gw.example.org", "https://gw.example.org", True),
        ("http", "gw.example.org", "http://gw.example.org:443", False),
        ("https", "gw.example.org:8410", "https://gw.example.org:8410", True),
        ("https", "gw.example.org:8410", "http://gw.example.org:8410", False),
        ("https", "[2001:db8::1]:8410", "https://[2001:db8:0::1]:8410", True),
        ("https", "[2001:db8::1]:8410", "https://[2001:db8::2]:8410", False),
    ],
)
def test_an_order_comes_from_the_page_of_this_host_and_port_and_never_from_one_without_tls_to_one_with_it(
    scheme: str, host: str, origin: str, ours: bool
) -> None:
    fields = {"origin": origin, "content-type": "application/json", "x-polywan": "1"}
    headers = [(name.encode(), text.encode()) for name, text in fields.items()]
    request = Request({"type": "http", "scheme": scheme, "headers": headers, "state": {"asked": authority(host)}})
    with nullcontext() if ours else pytest.raises(ControlError, match="another site"):
        check_action(request)


def wrong(door: Door, peer: str) -> int:
    """Show a wrong token from an address, and return how it is refused."""
    state = {"peer": ip_address(peer)}
    request = Request({"type": "http", "headers": [(b"authorization", b"Bearer x")], "state": state})
    with pytest.raises(ControlError) as refused:
        door.visitor(request, "read")
    return refused.value.status


def test_wrong_tokens_are_counted_for_an_address_or_a_network_of_ipv6_for_a_minute(tmp_path: Path) -> None:
    now = [1000.0]
    door = Door(TokenFile(tmp_path), tokens_only=True, clock=lambda: now[0])
    assert [wrong(door, f"2001:db8::{n}") for n in range(11)] == [401] * WRONG_TOKENS + [429]
    assert wrong(door, "2001:db8:0:1::1") == 401
    assert [wrong(door, f"192.0.2.{n}") for n in range(11)] == [401] * 11
    now[0] += WRONG_SPAN
    assert wrong(door, "2001:db8::1") == 401


def test_only_so_many_addresses_of_wrong_tokens_are_remembered(tmp_path: Path) -> None:
    door = Door(TokenFile(tmp_path), tokens_only=True, clock=lambda: 1000.0)
    for n in range(2 * visitors._MOST_ADDRESSES):
        wrong(door, str(ip_address("192.0.2.0") + n))
    assert len(door._wrong) == visitors._MOST_ADDRESSES
