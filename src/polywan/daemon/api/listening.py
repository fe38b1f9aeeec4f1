"""Answer on the socket for as long as the daemon runs: what somebody removes is made again."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any, Final, TypeAlias

from starlette.routing import Route

from polywan.core.errors import PolywanError
from polywan.core.words import printable
from polywan.daemon import clock
from polywan.daemon.api.http import serving
from polywan.daemon.rundir import LOCK_FILE, DirectoryLock
from polywan.files import SOCKET

log = logging.getLogger("polywan")

DIRECTORY_PERIOD: Final = 3.0
"""Seconds between two looks at the directory; a look is two system calls."""

_Identity: TypeAlias = tuple[int, int] | None
_Seen: TypeAlias = tuple[_Identity, _Identity]


async def listening(
    routes: Sequence[Route],
    held: DirectoryLock,
    directory: Path,
    until: Collection[asyncio.Task[Any]],
    on_ready: Callable[[], None],
    period: float = DIRECTORY_PERIOD,
) -> None:
    """Serve routes until one of the tasks has ended.

    Args:
        routes: what is served.
        held: the hold on the directory, taken again when the directory or its lock was removed.
        directory: the runtime directory.
        until: tasks of which one will end.
        on_ready: called once, when the socket answers for the first time.
        period: seconds between two looks.

    Raises:
        OSError: the socket cannot be bound the first time.
    """
    served, reported = False, ""
    while not any(task.done() for task in until):
        try:
            held.again()
            async with serving(routes, directory):
                watch = asyncio.create_task(_gone(directory, _seen(directory), period))
                if served:
                    log.warning("socket.again: files in %s were removed; created them again", directory)
                else:
                    on_ready()
                served, reported = True, ""
                await asyncio.wait({*until, watch}, return_when=asyncio.FIRST_COMPLETED)
                watch.cancel()
        except (OSError, PolywanError) as error:
            if not served:
                raise
            if str(error) != reported:
                reported = str(error)
                log.error("socket.gone: clients cannot reach this daemon: %s; trying again", printable(reported))
            await asyncio.wait(until, timeout=period, return_when=asyncio.FIRST_COMPLETED)


async def _gone(directory: Path, was: _Seen, period: float) -> None:
    """Return when the lock or the socket is not the one that it was."""
    while _seen(directory) == was:
        await clock.turn(period)


def _seen(directory: Path) -> _Seen:
    return _identity(directory / LOCK_FILE), _identity(directory / SOCKET)


def _identity(path: Path) -> _Identity:
    try:
        status = os.lstat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino
