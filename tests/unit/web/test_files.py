"""The files of the page: types, caching, compression, and that no other file is ever served."""

from __future__ import annotations

import gzip
import http.client
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from polywan.web.assets import Assets
from support.web import Browser, page

PAGE = b'<!doctype html><script type="module" src="/static/app.js"></script>' + b" " * 2000
SCRIPT = b"import './x.js'\n" * 100


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    above = tmp_path_factory.mktemp("page")
    found = above / "static"
    (found / "vendor").mkdir(parents=True)
    (found / "index.html").write_bytes(PAGE)
    (found / "app.js").write_bytes(SCRIPT)
    (found / "vendor/x.css").write_bytes(b"a{}")
    (found / "vendor/private.key").write_bytes(b"of no type that a page has")
    (above / "outside.js").write_bytes(b"never")
    return found


@pytest.fixture(scope="module")
def browser(directory: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with page(tmp_path_factory.mktemp("run"), static=directory) as (browser,):
        yield browser


@pytest.mark.parametrize(
    ("path", "media_type", "content"),
    [
        ("/static/app.js", "text/javascript; charset=utf-8", SCRIPT),
        ("/static/vendor/x.css", "text/css; charset=utf-8", b"a{}"),
    ],
)
def test_a_file_has_its_type_and_is_asked_for_again(
    browser: Browser, path: str, media_type: str, content: bytes
) -> None:
    found = browser.get(path)
    assert (found.status, found.headers["content-type"], found.body) == (200, media_type, content)
    assert found.headers["cache-control"] == "no-cache"


def test_the_page_names_its_files_by_a_hash_under_which_they_are_kept_for_ever(browser: Browser) -> None:
    found = browser.get("/")
    assert found.headers["content-type"] == "text/html; charset=utf-8"
    assert found.headers["cache-control"] == "no-cache"
    (url,) = re.findall(r'src="(.*?)"', found.body.decode())
    script = browser.get(url)
    assert url.startswith("/static/~")
    assert script.body == SCRIPT
    assert "immutable" in script.headers["cache-control"]


def test_a_hash_of_another_version_leads_to_the_file_and_is_asked_for_again(browser: Browser) -> None:
    assert browser.get("/static/~0123/app.js").headers["cache-control"] == "no-cache"


def test_the_hash_changes_with_any_file(directory: Path, tmp_path: Path) -> None:
    (tmp_path / "app.js").write_bytes(SCRIPT)
    one = Assets(tmp_path).version
    (tmp_path / "other.js").write_bytes(b"")
    assert len({one, Assets(tmp_path).version, Assets(directory).version}) == 3


def test_what_a_browser_has_already_is_not_sent_again(browser: Browser) -> None:
    etag = browser.get("/static/app.js").headers["etag"]
    for field in (etag, f'"x", {etag}', f"W/{etag}"):
        again = browser.get("/static/app.js", If_None_Match=field)
        assert (again.status, again.body, again.headers["etag"]) == (304, b"", etag)
    assert browser.get("/static/app.js", If_None_Match='"x"').status == 200


@pytest.mark.parametrize("accepted", ["gzip", "br, GZIP;q=0.5", "gzip;q=1.0"])
def test_a_browser_that_takes_gzip_gets_it(browser: Browser, accepted: str) -> None:
    found = browser.get("/static/app.js", Accept_Encoding=accepted)
    assert found.headers["content-encoding"] == "gzip"
    assert found.headers["vary"] == "Accept-Encoding"
    assert gzip.decompress(found.body) == SCRIPT


@pytest.mark.parametrize("accepted", ["identity", "gzip;q=0", "gzip; q=0.000", "br", ""])
def test_a_browser_that_does_not_take_gzip_gets_it_plain(browser: Browser, accepted: str) -> None:
    found = browser.get("/static/app.js", Accept_Encoding=accepted)
    assert "content-encoding" not in found.headers
    assert found.body == SCRIPT


@pytest.mark.parametrize(
    "path",
    [
        "/static/",
        "/static",
        "/static/index.htm",
        "/static/../outside.js",
        "/static/%2e%2e/outside.js",
        "/static/..%2foutside.js",
        "/static/vendor/../../outside.js",
        "/static//etc/passwd",
        "/static/vendor",
        "/static/vendor/private.key",
        "/static/app.js%00",
        "/static/~/etc/passwd",
    ],
)
def test_what_is_not_in_the_list_is_not_there(browser: Browser, path: str) -> None:
    assert browser.get(path).status == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
def test_files_are_only_read(browser: Browser, method: str) -> None:
    assert browser.ask(method, "/static/app.js").status == 405


def test_head_tells_the_same_as_get(browser: Browser) -> None:
    connection = http.client.HTTPConnection(browser.host, browser.port, timeout=10)
    connection.request("HEAD", "/static/app.js")
    found = connection.getresponse()
    assert (found.status, found.read(), found.getheader("Content-Length")) == (200, b"", str(len(SCRIPT)))
    connection.close()
