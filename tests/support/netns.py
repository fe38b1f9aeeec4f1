"""What tests/netns shares: the shapes of its fixtures' callables, and a story told beside the lab's servers."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

from polywan.lab.daemon import DaemonProcess
from polywan.lab.namespaces import Namespace
from polywan.lab.network import Lab
from polywan.lab.servers import serve

T = TypeVar("T")


class BuildLab(Protocol):
    """Builds a lab with the options of `polywan.lab.network.build`; it is taken down after the test."""

    def __call__(self, uplinks: int = 3, **options: object) -> Lab: ...


class StartDaemon(Protocol):
    """Starts the daemon with a configuration, waits until it is ready, and ends it after the test.

    The test fails when the daemon logged an error or a traceback, unless `may_complain`.
    """

    def __call__(
        self, lab: Lab, toml: str, *, namespace: Namespace | None = None, may_complain: bool = False
    ) -> DaemonProcess: ...


class WaitFor(Protocol):
    """Waits until a predicate returns something true, and returns that; the test fails when time is up."""

    def __call__(self, predicate: Callable[[], T], timeout: float = 5.0, what: str = "") -> T: ...


async def until(predicate: Callable[[], object], timeout: float = 10.0, pause: float = 0.005) -> float:
    """Await a condition that another process brings about; return the monotonic time at which it was seen.

    Args:
        predicate: asked in a thread.
        timeout: seconds after which the test fails.
        pause: seconds between two questions; more where an answer costs what is measured.
    """
    async with asyncio.timeout(timeout):
        while not await asyncio.to_thread(predicate):
            await asyncio.sleep(pause)
    return time.monotonic()


def polywan(daemon: DaemonProcess, *words: str, user: int | None = None) -> subprocess.CompletedProcess[str]:
    """Run the command beside a daemon, as that user."""
    argv = [sys.executable, "-m", "polywan", *words, "--runtime-dir", str(daemon.runtime)]
    return subprocess.run(argv, capture_output=True, text=True, check=False, user=user)


def with_servers(lab: Lab, story: Callable[[], Awaitable[object]]) -> None:
    """Run a story while the lab's servers answer."""

    async def run() -> None:
        servers = await serve(lab)
        try:
            await story()
        finally:
            await servers.close()

    asyncio.run(run())
