"""Whatever somebody asks by the control socket, it is answered or refused in words, and only with right carried out."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from starlette.applications import Starlette

from polywan.api.calls import CALLS, DOWN, EXEC_VIA, OPENAPI
from polywan.api.codec import decode
from polywan.api.openapi import openapi
from polywan.core.state.events import ConfigLoaded
from support.daemons import daemon_over, kernel_of, places_in, service_of
from support.engine_world import config

READER, ROOT = 1000, 0
FILE = '[uplinks.u1]\ninterface = "wan1"\n[uplinks.u2]\ninterface = "wan2"\n'
HOSTILE = [
    *("", "\0", "../../etc/passwd", "u1/../u2", "\x1b[2J", "$(id)", "'; DROP TABLE entries; --", "9" * 400, "-1"),
    *("\ud800", "a" * 5000, "%00", "u1\n", "٣", "true", "null", "NaN", "1e309"),
]
SENSIBLE = [
    *("u1", "u2", "default", "nft", "config", "openapi", "disable", "drain", "0", "5", "2h", "203.0.113.9", "wan1"),
    *("192.0.2.1:443", "2001:db8::9", "10.0.0.0/8", "tcp", "icmp", "bytes", "client", "2026-11-30T08:00", "ef", "all"),
    *("9999-12-31T23:59+14:00", "0001-01-01T00:00+14:00", "192.0.2.1 1 192.0.2.2 22", "02:00:00:00:00:01"),
]
texts = st.sampled_from(HOSTILE) | st.sampled_from(SENSIBLE) | st.text(max_size=20)
plain = st.none() | st.booleans() | st.integers() | st.floats() | texts
anything = st.recursive(plain, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3))
DESCRIBED = openapi("1")
SCHEMAS = DESCRIBED["components"]["schemas"]


class Machine:
    """A daemon that runs as long as somebody waits for an answer of it."""

    def __init__(self, directory: Path) -> None:
        self.runner = asyncio.Runner()
        self.kernel = kernel_of(2)
        self.daemon = daemon_over(self.kernel, directory)
        (directory / "polywan.toml").write_text(FILE)
        self.runner.run(self._start(directory))

    async def _start(self, directory: Path) -> None:
        self.daemon.post(ConfigLoaded(config(2)))
        self.task = asyncio.create_task(self.daemon.run())
        await self.daemon.ready.wait()
        self.app = Starlette(routes=service_of(self.daemon, self.kernel, places_in(directory)).routes())

    def ask(self, method: str, path: str, query: str, body: bytes, uid: int) -> tuple[int, bytes]:
        return self.runner.run(self._ask(method, path, query, body, uid))

    async def _ask(self, method: str, path: str, query: str, body: bytes, uid: int) -> tuple[int, bytes]:
        scope = {
            "type": "http", "asgi": {"version": "3.0", "spec_version": "2.3"}, "http_version": "1.1", "method": method,
            "path": path, "raw_path": path.encode("utf-8", "surrogatepass"), "query_string": query.encode(),
            "headers": [(b"host", b"localhost")], "state": {"uid": uid}, "server": None, "client": None,
            "scheme": "http", "root_path": "",
        }  # fmt: skip
        sent: list[Any] = []
        asked = iter([{"type": "http.request", "body": body, "more_body": False}])
        over = asyncio.Event()

        async def receive() -> Any:
            if (message := next(asked, None)) is None:
                await over.wait()
            return message or {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            sent.append(message)

        async with asyncio.timeout(20):
            await self.app(scope, receive, send)
        return sent[0]["status"], b"".join(message.get("body", b"") for message in sent)

    def close(self) -> None:
        async def end() -> None:
            self.task.cancel()
            await asyncio.gather(self.task, return_exceptions=True)

        self.runner.run(end())
        self.runner.close()
        self.kernel.close()


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    machine = Machine(tmp_path_factory.mktemp("asked"))
    yield machine
    assert not machine.task.done()
    machine.close()


@st.composite
def questions(draw: st.DrawFn) -> tuple[str, str, str, bytes]:
    """A call, by method and path as it is described, the path that is asked, words and body."""
    plain_path = draw(st.sampled_from([*DESCRIBED["paths"]]))
    method = draw(st.sampled_from([*DESCRIBED["paths"][plain_path]]))
    operation, path = DESCRIBED["paths"][plain_path][method], plain_path
    words: dict[str, str] = {}
    for parameter in operation["parameters"]:
        name, value = parameter["name"], draw(texts)
        if parameter["in"] == "path":
            path = path.replace(f"{{{name}}}", value)
        elif name != "wait" and draw(st.booleans()):
            # An answer that is waited for may take its time.
            words[name] = value
    if draw(st.integers(0, 9)) == 0:
        words[draw(texts)] = draw(texts)
    body = b""
    if "requestBody" in operation:
        name = operation["requestBody"]["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
        fields = {key: draw(anything) for key in SCHEMAS[name]["properties"] if draw(st.integers(0, 4))}
        body = draw(
            st.sampled_from(
                [json.dumps(fields).encode(), b"", b"[" * 5000, b"\xff", b"{", json.dumps(draw(anything)).encode()]
            )
        )
    return f"{method.upper()} {plain_path}", path, urlencode(words, errors="surrogatepass"), body


LEFT_OUT = {"GET /v1/stream", f"{DOWN.method} {DOWN.path}", f"{EXEC_VIA.method} {EXEC_VIA.path.replace(':path', '')}"}
"""What never ends, what ends the daemon, and what looks at control groups of this very machine."""


ANSWERS = {f"{call.method} {call.path.replace(':path', '')}": call.answer for call in CALLS}


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@example(question=("POST /v1/trial", "/v1/trial", "", b"[" * 100_000), uid=ROOT)
@given(question=questions(), uid=st.sampled_from([READER, ROOT]))
def test_every_question_is_answered_as_described_or_refused_in_words(
    machine: Machine, question: tuple[str, str, str, bytes], uid: int
) -> None:
    call, path, query, body = question
    method = call.partition(" ")[0]
    if call in LEFT_OUT:
        return
    before = machine.daemon.state
    status, answer = machine.ask(method, path, query, body, uid)
    if (status, answer) in ((404, b"Not Found"), (307, b"")):
        # A path that is none, such as with a name that is empty.
        return
    document = json.loads(answer)
    if status == 200:
        if call in ANSWERS:
            decode(ANSWERS[call], document)
    else:
        assert status in {400, 403, 404, 405, 409, 410, 422, 501}, document
        assert document["error"]
    if uid == READER and os.geteuid() != READER:
        assert (status == 403) == (method == "POST")
        assert machine.daemon.state.known.memory.orders == before.known.memory.orders
        assert machine.daemon.state.known.config is before.known.config


def test_every_call_is_described() -> None:
    described = {(method.upper(), path) for path, methods in DESCRIBED["paths"].items() for method in methods}
    asked = {(call.method, call.path.replace(":path", "")) for call in CALLS}
    assert described == asked | {("GET", "/v1/stream"), ("GET", OPENAPI)}


@pytest.mark.parametrize("name", HOSTILE)
def test_no_name_of_an_uplink_is_anything_but_a_name(machine: Machine, name: str) -> None:
    status, answer = machine.ask("GET", f"/v1/uplinks/{name}/effect", "order=disable", b"", READER)
    assert status == 404
    assert quote(name, errors="surrogatepass") == "" or answer
