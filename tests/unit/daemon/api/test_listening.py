"""The socket and its directory: made again when somebody removes them, and nobody else's is ever removed."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from polywan.api import calls
from polywan.api.requests import Nothing
from polywan.api.status import Status
from polywan.client import Client
from polywan.core.errors import BusyError
from polywan.daemon.api.http import bind, route, serving
from polywan.daemon.api.listening import listening
from polywan.daemon.rundir import locked
from polywan.files import SOCKET
from support.documents import status


async def answer(_: Nothing) -> Status:
    return status()


ROUTES = [route(calls.STATUS, answer)]
"""Say that somebody is there."""


def with_socket(directory: Path, story: Callable[[], Awaitable[None]]) -> None:
    """Run a story beside a daemon's socket."""

    async def play() -> None:
        stop, ready = asyncio.Event(), asyncio.Event()
        stopper = asyncio.create_task(stop.wait())
        with locked(directory) as held:
            served = asyncio.create_task(listening(ROUTES, held, directory, {stopper}, ready.set, period=0.01))
            async with asyncio.timeout(20):
                await ready.wait()
                await story()
                stop.set()
                await served

    asyncio.run(play())


async def answers(directory: Path) -> None:
    """Wait until the socket answers."""
    while True:
        try:
            await asyncio.to_thread(Client(directory).ask, calls.STATUS, Nothing())
        except Exception:  # noqa: BLE001 - until it does, the test's own time is over
            await asyncio.sleep(0)
        else:
            return


@pytest.mark.parametrize("what", ["socket", "lock", "directory"])
def test_what_somebody_removes_is_there_again_and_still_held(
    tmp_path: Path, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    run = tmp_path / "run"

    async def story() -> None:
        if what == "directory":
            shutil.rmtree(run)
        else:
            (run / {"socket": SOCKET}.get(what, what)).unlink()
        while "socket.again" not in caplog.text:
            await asyncio.sleep(0)
        await answers(run)
        with pytest.raises(BusyError), locked(run):
            pass

    with_socket(run, story)
    assert not (run / SOCKET).exists()


def test_a_directory_that_another_daemon_took_is_left_to_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run = tmp_path / "run"

    async def story() -> None:
        shutil.rmtree(run)
        with locked(run):
            bind(run).close()
            while "socket.gone" not in caplog.text:
                await asyncio.sleep(0)
            assert (run / SOCKET).is_socket()
        await answers(run)

    with_socket(run, story)
    assert caplog.text.count("socket.gone") == 1


def test_the_end_removes_no_socket_of_another_daemon(tmp_path: Path) -> None:
    async def play() -> None:
        async with serving(ROUTES, tmp_path):
            bind(tmp_path).close()

    asyncio.run(play())
    assert (tmp_path / SOCKET).is_socket()


def test_a_socket_that_cannot_be_bound_at_the_start_is_an_error(tmp_path: Path) -> None:
    (tmp_path / SOCKET).mkdir()

    async def story() -> None:
        raise AssertionError

    with pytest.raises(OSError), locked(tmp_path) as held:  # noqa: PT011 - the kernel's own words
        asyncio.run(_alone(tmp_path, held))


async def _alone(directory: Path, held: Any) -> None:
    never = asyncio.create_task(asyncio.Event().wait())
    try:
        await listening(ROUTES, held, directory, {never}, lambda: None)
    finally:
        never.cancel()
