"""The page's server against strangers: whatever they send, however slowly, it goes on; and TLS as browsers speak it."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import subprocess
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from polywan import serving
from polywan.core.errors import PolywanError
from polywan.web import server
from polywan.web.guard import FIELDS
from polywan.web.rights import context
from polywan.web.server import LARGEST_REQUEST_HEAD, bound
from polywan.web.settings import SELF_MADE, Settings, lacking, listen
from support.web import Browser, logged, page, token


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with page(tmp_path_factory.mktemp("run")) as (browser,):
        yield browser


def answered(browser: Browser, said: bytes) -> bytes:
    """Say something and nothing after it, and return what comes back; a reset is an end, too."""
    with browser.connect() as sock:
        found = b""
        try:
            sock.sendall(said)
            sock.shutdown(socket.SHUT_WR)
            while piece := sock.recv(65536):
                found += piece
        except (ConnectionResetError, BrokenPipeError):
            pass
        return found


PATHS = st.sampled_from(["/", "/api/whoami", "/api/v1/status", "/api/v1/why", "/api/v1/plan", "/static/x", "/%00", "*"])
NAMES = st.sampled_from(
    [
        "Host",
        "Authorization",
        "Origin",
        "Content-Type",
        "Content-Length",
        "Transfer-Encoding",
        "X-Polywan",
        "Accept-Encoding",
    ]
)
VALUES = st.sampled_from(
    ["", "localhost", "Bearer x", "http://localhost", "application/json", "1", "chunked", "gzip;q="]
)
TEXTS = st.text(st.characters(min_codepoint=32, max_codepoint=255), max_size=60)


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    """Something like a request."""
    method = draw(st.sampled_from(["GET", "POST", "HEAD", "OPTIONS", "CONNECT", "PRI"]) | TEXTS)
    path = draw(PATHS | TEXTS | st.builds(lambda path, query: f"{path}?{query}", PATHS, TEXTS))
    fields = draw(st.lists(st.tuples(NAMES | TEXTS, VALUES | TEXTS), max_size=5))
    usual = draw(st.sampled_from(["Host: localhost\r\n", ""]))
    head = f"{method} {path} HTTP/1.1\r\n{usual}" + "".join(f"{name}: {value}\r\n" for name, value in fields)
    return head.encode("latin-1") + b"Connection: close\r\n\r\n" + draw(st.binary(max_size=60))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(said=requests() | st.binary(max_size=200))
def test_whatever_is_sent_no_answer_is_a_500_and_the_server_goes_on(shared: Browser, said: bytes) -> None:
    with logged() as lines:
        found = answered(shared, said)
    assert not found.startswith(b"HTTP/1.1 500")
    assert [line for line in lines if "Exception" in line] == []


def test_the_server_is_well_after_all_that(shared: Browser) -> None:
    assert shared.get("/api/whoami").status == 200


def test_a_head_that_is_too_long_is_refused(shared: Browser) -> None:
    field = b"X: " + b"x" * LARGEST_REQUEST_HEAD
    assert answered(shared, b"GET / HTTP/1.1\r\nHost: localhost\r\n" + field).startswith(b"HTTP/1.1 400")


@pytest.mark.parametrize("said", [b"x\r\n\r\n", b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n"])
def test_what_is_no_http_is_refused_like_everything_else(shared: Browser, said: bytes) -> None:
    head, _, body = answered(shared, said).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert {f"{name}: {text}" for name, text in FIELDS.items()} <= set(head.decode().split("\r\n"))
    assert json.loads(body) == {"error": "Invalid HTTP request received."}


@pytest.mark.parametrize(("peer", "local"), [("127.0.0.1", True), ("192.0.2.1", False)])
def test_loopback_reached_from_elsewhere_is_elsewhere(peer: str, local: bool) -> None:
    class Connection(socket.socket):
        def getpeername(self) -> Any:
            return peer, 1

    with socket.socket() as listener, Connection() as connection:
        listener.bind(("127.0.0.1", 0))
        assert server._entrance(listener, None).describe(connection)["local"] == local


@pytest.mark.parametrize(
    "said", [b"", b"GET / HTT", b"POST /api/v1/plan HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{"]
)
def test_who_says_too_little_loses_the_connection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: bytes) -> None:
    monkeypatch.setattr(serving, "REQUEST_TIMEOUT", 0.1)
    with page(tmp_path, tokens_only=True) as (browser,), browser.connect() as sock:
        sock.sendall(said)
        try:
            while sock.recv(65536):
                pass
        except ConnectionResetError:
            pass


def test_who_takes_all_connections_is_told_so_and_makes_room_by_ending_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "MOST_VISITORS", 4)
    with page(tmp_path) as (browser,), logged() as lines:
        held = [browser.connect() for _ in range(4)]
        found = browser.get("/api/whoami")
        assert (found.status, "no more are allowed" in found.json["error"]) == (503, True)
        assert {name: found.headers.get(name.lower()) for name in FIELDS} == dict(FIELDS)
        for sock in held:
            sock.close()
        while browser.get("/api/whoami").status != 200:
            pass
        assert len([line for line in lines if line.startswith("web.refused: ")]) == 1


def test_one_address_of_elsewhere_cannot_keep_others_out() -> None:
    def refused(peer: str, others: list[str]) -> str | None:
        with socket.socket() as sock:
            described = [{"peer": ip_address(other)} for other in others]
            return server._refuse(sock, {"peer": ip_address(peer)}, described)

    full = ["192.0.2.1"] * server.EACH_VISITOR
    assert "192.0.2.1 has 32 connections" in str(refused("192.0.2.1", full))
    assert refused("192.0.2.2", full) is None
    assert refused("127.0.0.1", ["127.0.0.1"] * (server.MOST_VISITORS - 1)) is None
    assert refused("192.0.2.2", full * 6) is not None


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate, made by what the refusal tells."""
    directory = tmp_path_factory.mktemp("tls")
    subprocess.run(
        SELF_MADE.format(name="127.0.0.1", kind="IP").split(), cwd=directory, check=True, capture_output=True
    )
    return directory / "web.crt", directory / "web.key"


def test_a_browser_that_trusts_the_certificate_is_served(tmp_path: Path, certificate: tuple[Path, Path]) -> None:
    with page(tmp_path, tls=certificate) as (browser,):
        trusting = ssl.create_default_context(cafile=str(certificate[0]))
        connection = http.client.HTTPSConnection(browser.host, browser.port, timeout=10, context=trusting)
        connection.request("GET", "/api/whoami")
        assert connection.getresponse().status == 200
        connection.close()


def test_an_order_of_our_page_by_tls_is_taken_and_one_of_the_same_host_without_is_not(
    tmp_path: Path, certificate: tuple[Path, Path]
) -> None:
    field = token(tmp_path, "laptop", "act")
    with page(tmp_path, tls=certificate) as (browser,):
        fields = {"Authorization": field, "Content_Type": "application/json", "X_Polywan": "1"}
        host = f"127.0.0.1:{browser.port}"
        path = "/api/v1/uplinks/lte/disable"
        assert browser.ask("POST", path, b"{}", **fields, Origin=f"https://{host}").status == 503
        assert browser.ask("POST", path, b"{}", **fields, Origin=f"http://{host}").status == 403


def test_an_old_version_of_tls_is_refused(tmp_path: Path, certificate: tuple[Path, Path]) -> None:
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
    old.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1"):
        old.minimum_version, old.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
    with page(tmp_path, tls=certificate) as (browser,):
        sock = socket.create_connection((browser.host, browser.port), 10)
        with sock, pytest.raises((ssl.SSLError, ConnectionResetError)):
            old.wrap_socket(sock)


@pytest.mark.parametrize("said", [b"", b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", b"\x16\x03\x01\x00"])
def test_who_never_greets_by_tls_loses_the_connection_and_others_are_served(
    tmp_path: Path, certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, said: bytes
) -> None:
    monkeypatch.setattr(serving, "REQUEST_TIMEOUT", 0.2)
    with page(tmp_path, tls=certificate) as (browser,), logged() as lines:
        with socket.create_connection((browser.host, browser.port), 10) as sock:
            sock.sendall(said)
            try:
                while sock.recv(65536):
                    pass
            except ConnectionResetError:
                pass
        assert browser.get("/api/whoami").status == 200
    assert lines == []


def test_a_bad_certificate_is_an_error_that_names_it(tmp_path: Path, certificate: tuple[Path, Path]) -> None:
    def tried(*tls: Path) -> str:
        wanted = Settings(listen=(), hosts=frozenset(), runtime_dir=tmp_path, state_dir=tmp_path, tls=(tls[0], tls[1]))
        with pytest.raises(PolywanError) as caught:
            context(wanted)
        return str(caught.value)

    (tmp_path / "junk").write_text("junk")
    assert f"certificate {tmp_path}/none with the key" in tried(tmp_path / "none", certificate[1])
    assert "expected PEM, without a password" in tried(tmp_path / "junk", certificate[1])
    locked = tmp_path / "locked"
    command = f"openssl ec -aes256 -passout pass:x -in {certificate[1]} -out {locked}".split()
    subprocess.run(command, check=True, capture_output=True)
    assert "without a password" in tried(certificate[0], locked)


def test_a_port_that_is_taken_is_an_error_that_says_so() -> None:
    with bound([listen("127.0.0.1:0")]) as (one,):
        port = one.getsockname()[1]
        with (
            pytest.raises(PolywanError, match="address already in use: end what uses it"),
            bound([listen(f"127.0.0.1:{port}")]),
        ):
            pass


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("127.0.0.1:8410", "127.0.0.1:8410"),
        ("127.0.0.1", "127.0.0.1:8410"),
        ("::1", "[::1]:8410"),
        ("[::1]", "[::1]:8410"),
        ("[2001:db8::1]:443", "[2001:db8::1]:443"),
        ("0.0.0.0:80", "0.0.0.0:80"),
    ],
)
def test_an_address_may_be_written_in_these_ways(text: str, expected: str) -> None:
    assert str(listen(text)) == expected


@pytest.mark.parametrize(
    "text", ["", "8410", "localhost:8410", "::1:8410x", "[::1]:65536", "[127.0.0.1]:80", "127.0.0.1:"]
)
def test_anything_else_is_refused_with_what_was_expected(text: str) -> None:
    with pytest.raises(ValueError, match="expected an address such as"):
        listen(text)


@pytest.mark.parametrize("address", ["192.0.2.1:8410", "0.0.0.0:8410", "[::]:8410", "[2001:db8::1]:8410"])
def test_beyond_loopback_the_page_needs_tls_and_a_token(address: str, tmp_path: Path) -> None:
    kept: dict[str, Any] = {"hosts": frozenset(), "runtime_dir": tmp_path, "state_dir": tmp_path}
    plain = Settings(listen=(listen("127.0.0.1:8410"), listen(address)), **kept)
    secret = Settings(listen=(listen(address),), tls=(tmp_path, tmp_path), **kept)
    assert [text.count("openssl") for text in lacking(plain, has_tokens=False)] == [1, 0]
    assert len(lacking(plain, has_tokens=True)) == 1
    assert "polywan web token add" in lacking(secret, has_tokens=False)[0]
    assert lacking(secret, has_tokens=True) == []
    assert lacking(Settings(listen=(listen("[::1]:8410"), listen("127.9.9.9:1")), **kept), has_tokens=False) == []
