"""Pages as checks, over the loopback: what an answer is taken for, and what TLS must prove."""

from __future__ import annotations

import asyncio
import shutil
import socket
import ssl
import subprocess
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polywan.core.health.layers import CheckResult, Layer
from polywan.probe import http
from polywan.probe.check import MAX_TEXT, CheckFailedError
from polywan.probe.http import Head, Page, judge
from polywan.probe.prober import NetProber
from support.examples import examples
from support.page_server import PageServer
from support.probe_orders import check_order, inspect

ADDRESS = ip_address("192.0.2.1")
NO_CONTENT = b"HTTP/1.1 204 No Content\r\n\r\n"
needs_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is absent (package openssl)")


def verdict(head: Head, *, wanted: int = 204, url: str = "http://page.example/204") -> str:
    try:
        return judge(Page.parse(url), wanted, head, ADDRESS)
    except CheckFailedError as failure:
        return str(failure)


@pytest.mark.parametrize(
    ("url", "page", "authority"),
    [
        ("http://page.example", Page("http", "page.example", 80, "/"), "page.example"),
        ("https://page.example/x?y=z#here", Page("https", "page.example", 443, "/x?y=z"), "page.example"),
        ("http://page.example:8080/x", Page("http", "page.example", 8080, "/x"), "page.example:8080"),
        ("http://[2001:db8::1]:80/", Page("http", "2001:db8::1", 80, "/"), "[2001:db8::1]"),
    ],
)
def test_a_url_is_taken_apart(url: str, page: Page, authority: str) -> None:
    assert Page.parse(url) == page
    assert page.authority == authority


@pytest.mark.parametrize(
    "url",
    ["", "page.example", "ftp://page.example/", "http://", "http://[::1", "http://x:99999/", "http://x/\r\nEvil: 1"],
)
def test_what_is_no_url_is_refused(url: str) -> None:
    with pytest.raises(CheckFailedError):
        Page.parse(url)


@pytest.mark.parametrize(
    ("head", "said"),
    [
        (Head(204), "204 from 192.0.2.1"),
        (Head(302, "http://login.example/"), "302 instead of 204: a captive portal at login.example"),
        (Head(302, "http://user@LOGIN.example:81/"), "302 instead of 204: a captive portal at login.example"),
        (Head(301, "https://page.example/204"), "301 instead of 204: redirected within its host"),
        (Head(307, "/login"), "307 instead of 204: redirected within its host"),
        (Head(302), "302 instead of 204"),
        (Head(511), "511 instead of 204: a captive portal"),
        (Head(200), "200 instead of 204: probably a captive portal"),
        (Head(503), "503 instead of 204"),
    ],
)
def test_an_answer_is_taken_for_what_it_is(head: Head, said: str) -> None:
    assert verdict(head) == said


def test_another_status_may_be_the_right_one() -> None:
    assert verdict(Head(200), wanted=200) == "200 from 192.0.2.1"


@given(st.text(st.characters(max_codepoint=255)))
def test_no_location_upsets_the_text(location: str) -> None:
    said = verdict(Head(302, f"http://{location}"))
    assert said.isascii()
    assert said.isprintable()
    assert len(said) < MAX_TEXT + 60


def fetch(url: str) -> CheckResult:
    async def main() -> list[CheckResult]:
        return await inspect(NetProber(), check_order(Layer.HTTP, url=url, timeout=5.0))

    (found,) = asyncio.run(main())
    return found


def listener() -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    sock.bind(("127.0.0.1", 0))
    return sock


@settings(max_examples=examples(20))
@given(answer=st.binary(max_size=200))
def test_no_answer_upsets_the_check(answer: bytes) -> None:
    with PageServer(listener(), answer) as server:
        found = fetch(f"http://127.0.0.1:{server.port}/")
    assert found.detail
    assert found.detail.isprintable()


def certificate(folder: Path, name: str) -> ssl.SSLContext:
    """Make a certificate that signs itself; it and its key are in `folder`."""
    make = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=lab"]
    argv = [*make, "-keyout", "key", "-out", "cert", "-addext", f"subjectAltName={name}"]
    subprocess.run(argv, cwd=folder, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert", folder / "key")
    return context


@pytest.fixture
def trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder whose certificate the system trusts."""
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "cert"))
    http._tls.cache_clear()
    yield tmp_path
    http._tls.cache_clear()


@needs_openssl
def test_a_page_by_tls_is_well_when_its_certificate_is_good(trusted: Path) -> None:
    with PageServer(listener(), NO_CONTENT, certificate(trusted, "IP:127.0.0.1")) as server:
        found = fetch(f"https://127.0.0.1:{server.port}/")
    assert (found.ok, found.detail) == (True, "204 from 127.0.0.1")


@needs_openssl
def test_a_certificate_for_another_host_is_not_good(trusted: Path) -> None:
    with PageServer(listener(), NO_CONTENT, certificate(trusted, "DNS:portal.example")) as server:
        found = fetch(f"https://127.0.0.1:{server.port}/")
    assert not found.ok
    assert found.detail.startswith("127.0.0.1: invalid certificate: IP address mismatch")
    assert server.requests == []


@needs_openssl
def test_a_certificate_of_nobody_is_not_good(tmp_path: Path) -> None:
    with PageServer(listener(), NO_CONTENT, certificate(tmp_path, "IP:127.0.0.1")) as server:
        found = fetch(f"https://127.0.0.1:{server.port}/")
    assert not found.ok
    assert found.detail.startswith("127.0.0.1: invalid certificate: self-signed certificate")


def test_a_page_without_tls_is_told() -> None:
    with PageServer(listener(), NO_CONTENT) as server:
        found = fetch(f"https://127.0.0.1:{server.port}/")
    assert not found.ok
    assert found.detail.startswith("127.0.0.1: TLS failed: ")
