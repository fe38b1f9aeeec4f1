"""Run a program of the administrator's: without a shell, in a session of its own that ends with it, and never for long.

Its words are read as they come, and its end is told by a pidfd (pidfd_open(2)): unlike asyncio's child watchers that
takes no thread and no signal.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Final

from polywan.threads import Threads

if sys.version_info < (3, 11, 4):
    # Such a CPython holds its lock from vfork to exec: a program on a disk that hangs would stop all threads.
    subprocess._USE_VFORK = False  # type: ignore[misc]  # noqa: SLF001 - CPython names this switch for such cases

TALKATIVE: Final = 1 << 20
"""Bytes of words after which a program is taken for broken: reading them takes the loop's time."""

CLEAN: Final[Mapping[str, str]] = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C"}
"""The environment that every program gets, beside what it is told."""

_PIECE: Final = 65536
"""A pipe's whole room (pipe(7)): one read gets all that a program that has ended left there."""

_MOURNING: Final = 0.05
"""Seconds to wait for a killed program's end, which takes one thousandth; one that the kernel holds back ends later."""


class Started:
    """A program that was started. Making one may wait for a disk, so a thread does it (`start`); then `Child` has it.

    Args:
        command: program and arguments.
        environment: what it is told, beside `CLEAN`.

    Raises:
        OSError: the program cannot be executed, or a resource has run out.
        ValueError: an argument or a value has a zero byte.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        with ExitStack() as undo:
            self.hear, speak = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
            undo.callback(os.close, self.hear)
            os.set_blocking(speak, True)
            try:
                self.process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=speak,
                    stderr=speak,
                    cwd="/",
                    env={**CLEAN, **environment},
                    start_new_session=True,
                )
            finally:
                os.close(speak)
            undo.callback(self.process.wait)
            undo.callback(self.signal, signal.SIGKILL)
            self.end = os.pidfd_open(self.process.pid)
            undo.pop_all()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to all of its process group; not after it was waited for."""
        # Before it is reaped nobody else can have its number, so the group is its own.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, number)

    def discard(self) -> None:
        """Kill it, and release everything: nobody waits for it any more."""
        self.signal(signal.SIGKILL)
        self.process.wait()
        os.close(self.hear)
        os.close(self.end)

    def companions(self) -> int:
        """Return how many other processes are in its group, as far as /proc shows them; needs 20 µs for each."""
        found = 0
        for entry in os.listdir("/proc"):
            if entry.isdigit() and int(entry) != self.process.pid:
                with suppress(OSError, ValueError, IndexError):
                    # The name may hold anything, the fields behind it are numbers (proc_pid_stat(5)).
                    fields = Path(f"/proc/{entry}/stat").read_bytes().rpartition(b")")[2].split()
                    found += int(fields[2]) == self.process.pid and fields[0] != b"Z"
        return found


async def start(command: Sequence[str], environment: Mapping[str, str], threads: Threads) -> Started:
    """Start a program in one of these threads, since its file may be on a disk that hangs.

    One that starts after nobody waits for it any more is killed at once.

    Raises:
        OSError, ValueError: as `Started`.
        RuntimeError: no thread can be started.
    """
    future = threads.submit(lambda: Started(command, environment))
    try:
        return await asyncio.wrap_future(future)
    except BaseException:
        future.add_done_callback(_discarded)
        raise


def _discarded(future: Future[Started]) -> None:
    if not future.cancelled() and future.exception() is None:
        future.result().discard()


class Child:
    """A started program under way.

    Args:
        started: the program.
        take: gets what it says, as it comes.

    Attributes:
        over: set when it has ended, or when there is no point in waiting for that; `ended`: when it has.
        total: bytes that it has said.
    """

    def __init__(self, started: Started, take: Callable[[bytes], None]) -> None:
        self.started = started
        self.over = asyncio.Event()
        self.ended = asyncio.Event()
        self.total = 0
        self._take = take
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(started.hear, self._listen)
        self._loop.add_reader(started.end, self._ended)

    async def kill(self, patience: float) -> None:
        """Kill what is left of its session and wait for its end, at most so many seconds."""
        self.started.signal(signal.SIGKILL)
        with suppress(TimeoutError):
            async with asyncio.timeout(patience):
                await self.ended.wait()

    def end(self, mourning: float = _MOURNING) -> int:
        """End what is left of its session, release everything and return its status, negative for a signal.

        Waits without the loop, `mourning` seconds at most: a second cancellation, when the daemon ends, must not leave
        anything behind.
        """
        process = self.started.process
        self.started.signal(signal.SIGKILL)
        with suppress(subprocess.TimeoutExpired):
            process.wait(mourning)
        self._listen()
        for descriptor in (self.started.hear, self.started.end):
            self._loop.remove_reader(descriptor)
            os.close(descriptor)
        return -signal.SIGKILL if process.returncode is None else process.returncode

    def _ended(self) -> None:
        self._loop.remove_reader(self.started.end)
        self.ended.set()
        self.over.set()

    def _listen(self) -> None:
        try:
            data = os.read(self.started.hear, _PIECE)
        except (BlockingIOError, InterruptedError):
            return
        self.total += len(data)
        self._take(data)
        if not data or self.total > TALKATIVE:
            self._loop.remove_reader(self.started.hear)
        if self.total > TALKATIVE:
            self.over.set()


def manner(status: int) -> str:
    """Say how a program ended that did not succeed."""
    if status > 0:
        return f"exit status {status}"
    with suppress(ValueError):
        return f"killed by {signal.Signals(-status).name}"
    return f"killed by signal {-status}"
