"""The hooks of examples/hooks do what they say, with real programs on loopback."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from urllib.parse import parse_qs

import pytest

from polywan.api.codec import decode
from polywan.api.events import LinkEvent
from polywan.child import CLEAN
from polywan.core.status.link_events import variables

FOLDER = Path(__file__).parents[2] / "examples" / "hooks"
EXAMPLES = sorted(FOLDER.iterdir())
NAMED = [path.name for path in EXAMPLES]
NASTY = "$(id) `id` \"d\" 'q' & = %0a"

needs_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is absent (package curl)")


def variables_of(hook: str, **values: object) -> dict[str, str]:
    nothing = dict.fromkeys(LinkEvent.__fields__)
    usual = {
        "id": 1,
        "time": "2026-11-30T08:00:00.000+00:00",
        "uplink": "fibre",
        "interface": "ppp0",
        "event": "state",
        "state": "down",
        "previous_state": "up",
        "reason": NASTY,
        "lasted_s": 61.0,
        "rx_bytes": 108844271,
        "tx_bytes": 6073206,
        "address": "192.0.2.2",
    }
    return {**CLEAN, **variables(decode(LinkEvent, {**nothing, **usual, **values}), hook, ["dsl", "lte"], 6001)}


def call(name: str, hook: str, *arguments: str, **values: object) -> str:
    """Run an example as the daemon does, and return what it says."""
    done = subprocess.run(
        [FOLDER / name, *arguments],
        env=variables_of(hook, **values),
        text=True,
        capture_output=True,
        check=False,
        cwd="/",
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


@pytest.mark.parametrize("path", EXAMPLES, ids=NAMED)
def test_an_example_is_a_program_in_plain_shell(path: Path) -> None:
    assert os.access(path, os.X_OK)
    assert path.read_text().startswith("#!/bin/sh\n# ")
    subprocess.run(["sh", "-n", path], check=True)


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is absent (package shellcheck)")
@pytest.mark.parametrize("path", EXAMPLES, ids=NAMED)
def test_shellcheck_finds_nothing(path: Path) -> None:
    subprocess.run(["shellcheck", path], check=True)


def test_the_log_says_what_ip_up_local_and_ip_down_local_said() -> None:
    up = call("log", "up", state="up", gateway="192.0.2.1")
    assert up.splitlines() == [
        "ppp0 going up at 2026-11-30T08:00:00.000+00:00",
        "ppp0 got address: 192.0.2.2, peer address is 192.0.2.1; its table is 6001",
    ]
    assert call("log", "down").splitlines() == [
        f"ppp0 going down at 2026-11-30T08:00:00.000+00:00: {NASTY}",
        "connection lasted 61 seconds, 6073206 bytes sent, 108844271 bytes received",
        "available: dsl lte",
    ]
    assert call("log", "all_down") == "all connections are down\n"


@contextmanager
def web_service() -> Iterator[tuple[str, list[dict[str, list[str]]]]]:
    received: list[dict[str, list[str]]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            received.append(parse_qs(body, keep_blank_values=True))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/x", received
        finally:
            server.shutdown()
            thread.join()


@needs_curl
def test_the_web_service_is_told_everything_as_it_is() -> None:
    with web_service() as (url, received):
        assert call("webhook", "down", url) == ""
    assert received == [
        {
            "hook": ["down"],
            "time": ["2026-11-30T08:00:00.000+00:00"],
            "uplink": ["fibre"],
            "state": ["down"],
            "previous_state": ["up"],
            "reason": [NASTY],
            "address": ["192.0.2.2"],
            "duration": ["61"],
        }
    ]


@contextmanager
def mail_server() -> Iterator[tuple[str, list[str]]]:
    """Take one mail (RFC 5321)."""
    received: list[str] = []

    def serve(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection, connection.makefile("rw", encoding="utf-8", newline="") as stream:

            def say(text: str) -> None:
                stream.write(f"{text}\r\n")
                stream.flush()

            say("220 here")
            data = False
            for line in stream:
                received.append(line.rstrip("\r\n"))
                if data:
                    data = line != ".\r\n"
                    if not data:
                        say("250 taken")
                elif line.startswith("DATA"):
                    data = True
                    say("354 go on")
                elif line.startswith("QUIT"):
                    say("221 bye")
                    return
                else:
                    say("250 fine")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, args=(listener,))
        thread.start()
        yield f"smtp://127.0.0.1:{listener.getsockname()[1]}", received
        thread.join(10)


@needs_curl
def test_the_mail_arrives() -> None:
    with mail_server() as (server, received):
        call("mail", "down", "admin@example.com", server)
    assert "RCPT TO:<admin@example.com>" in [line.partition(" SIZE")[0] for line in received]
    assert "Subject: polywan: fibre is down" in received
    assert f"Reason: {NASTY}" in received
    assert "Before that: 61 s, 108844271 bytes received, 6073206 sent" in received
    assert "Still serving: dsl lte" in received


def test_the_desktop_is_told_what_happens_from_now_on(tmp_path: Path) -> None:
    for name, text in (
        ("polywan", '#!/bin/sh\n[ "$*" = "events --follow --since 0s" ] && printf "%s\\n" "one \\\\n" "  two"\n'),
        ("notify-send", f'#!{shutil.which("sh")}\nprintf "[%s]" "$@" >> {tmp_path}/shown\n'),
    ):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    subprocess.run([FOLDER / "notify-desktop"], env={**CLEAN, "PATH": f"{tmp_path}:{CLEAN['PATH']}"}, check=True)
    shown = (tmp_path / "shown").read_text()
    assert shown == "[--app-name][polywan][polywan][one \\n][--app-name][polywan][polywan][  two]"
