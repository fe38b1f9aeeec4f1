"""A page of a running lab in a browser: the real daemon, the page's real server, Debian's chromium."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, Playwright, Request

from polywan.api.codec import encode
from polywan.api.status import Status, UplinkStatus
from polywan.lab.daemon import DaemonProcess
from polywan.lab.namespaces import ip_batch
from polywan.lab.network import Lab, build
from polywan.lab.scenario import configuration
from polywan.lab.servers import SOCKET_FAMILY, STREAM_PORT, serve
from polywan.lab.topology import SERVERS
from support.web import page

SCREENSHOTS = Path(__file__).parents[2] / "build/screenshots"
DESK, PHONE = (1280, 800), (360, 800)
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
_DOWNLOADS, _PIECE, _PAUSE = 12, 1 << 15, 0.1
"""Some 2.6 Mbit/s each."""
_STREAM = """(() => {
  const asked = window.fetch, bytes = new TextEncoder(), status = STATUS, sample = SAMPLE;
  const event = (name, data) => bytes.encode(`event: ${name}\\ndata: ${JSON.stringify(data)}\\n\\n`);
  const measured = () => event("sample", {...sample, time: new Date().toISOString()});
  const begin = (stream) => {
    stream.enqueue(event("snapshot", status));
    stream.enqueue(measured());
    setInterval(() => stream.enqueue(measured()), 1000);
  };
  window.fetch = (url, options) => String(url).includes("/v1/stream")
    ? Promise.resolve(new Response(new ReadableStream({start: begin}))) : asked(url, options);
})()"""


class Household:
    """Clients of a lab that download all the time; runs in a thread of its own, and opens again what breaks."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._loop = asyncio.new_event_loop()
        self._done = asyncio.Event()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._live(),), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._done.set)
        self._thread.join(10)
        self._loop.close()

    async def _live(self) -> None:
        servers = await serve(self._lab)
        work = [asyncio.create_task(self._download(number)) for number in range(_DOWNLOADS)]
        await self._done.wait()
        for task in work:
            task.cancel()
        await asyncio.gather(*work, return_exceptions=True)
        await servers.close()

    async def _download(self, number: int) -> None:
        families = self._lab.topology.families
        family = families[number % len(families)]
        loop = asyncio.get_running_loop()
        while True:
            with suppress(OSError), self._lab.client.socket(SOCKET_FAMILY[family], socket.SOCK_STREAM) as sock:
                await asyncio.wait_for(loop.sock_connect(sock, (str(SERVERS[family][0]), STREAM_PORT)), 2)
                # Each lasts some seconds: what comes after it may take another uplink.
                for _ in range(20 + 5 * number):
                    await asyncio.wait_for(loop.sock_recv(sock, _PIECE), 2)
                    await asyncio.sleep(_PAUSE)
            await asyncio.sleep(_PAUSE)


@dataclass
class House:
    """A lab with its daemon and the page's server; `support.web.token` makes a token in `daemon.runtime`.

    Attributes:
        url: of the page, without a slash at its end.
    """

    lab: Lab
    daemon: DaemonProcess
    url: str


@contextmanager
def running_house(directory: Path, weights: Sequence[int] = (3, 2, 1)) -> Iterator[House]:
    """Yield a lab with traffic, a daemon and a page."""
    with build(len(weights)) as lab, Household(lab):
        daemon = DaemonProcess(lab.router, configuration(lab.topology, weights), directory)
        try:
            daemon.start()
            with page(daemon.runtime) as (server,):
                yield House(lab, daemon, f"http://{server.host}:{server.port}")
        finally:
            daemon.stop()
        assert daemon.troubles == []


def go_online() -> None:
    """Give this namespace a device: with the loopback one alone chromium calls itself offline, and asks nobody.

    Whatever chromium asks for fails when the network changes meanwhile. So there is no address that comes later by
    itself, and the device is ready when this returns.
    """
    ip_batch(["link set lo up", "link add screen0 type veth peer name screen1", "addr add 192.0.2.1/24 dev screen0"])
    for device in ("screen0", "screen1"):
        ip_batch([f"link set {device} addrgenmode none", f"link set {device} up"])
    while b'"operstate":"UP"' not in subprocess.check_output(["ip", "-j", "link", "show", "dev", "screen0"]):
        time.sleep(0.02)


def chromium(playwright: Playwright) -> Browser:
    """Start Debian's chromium, or skip the test."""
    if (path := shutil.which("chromium")) is None:
        pytest.skip("chromium is absent (package chromium)")
    return playwright.chromium.launch(executable_path=path, args=FLAGS)


@dataclass
class Visit:
    """A tab, and what its console said.

    Attributes:
        complaints: errors and warnings of the console, exceptions, and requests to others than the page's server.
    """

    page: Page
    complaints: list[str] = field(default_factory=list)

    def watch(self, url: str) -> None:
        """Note whatever is no business of a page that works."""

        def said(message: ConsoleMessage) -> None:
            if message.type in {"error", "warning"}:
                self.complaints.append(f"{message.text} ({message.location['url']})")

        def asked(request: Request) -> None:
            if not request.url.startswith((url, "data:")):
                self.complaints.append(request.url)

        self.page.on("console", said)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", asked)


def screenshot(tab: Page, name: str, *, whole: bool = False) -> None:
    """Keep a picture for people, in build/screenshots."""
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    tab.screenshot(path=SCREENSHOTS / f"{name}.png", full_page=whole)
    os.chmod(SCREENSHOTS, 0o755)


def streaming(status: Status) -> str:
    """Return a script for a page that puts a stream of this status, which never changes, in the daemon's place."""
    sample = {"uplinks": {uplink.name: _sample(uplink) for uplink in status.uplinks}}
    return _STREAM.replace("STATUS", json.dumps(encode(status))).replace("SAMPLE", json.dumps(sample))


def _sample(uplink: UplinkStatus) -> dict[str, Any]:
    keys = ("rx_bps", "tx_bps", "rx_bytes", "tx_bytes", "connections", "rtt_ms", "jitter_ms", "loss")
    return {**{key: getattr(uplink, key) for key in keys}, "share_seen": None}
