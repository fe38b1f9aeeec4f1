"""The script layer: a program of the administrator's looks at the uplink, and its exit status decides.

It runs as the daemon's user, without a shell, in a session of its own that ends with the check.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from contextlib import ExitStack, suppress
from typing import Final

from polywan.core.health.layers import CheckOrder
from polywan.probe.check import CheckAttempt, CheckFailedError, explained, shown

KEPT_OUTPUT: Final = 4096
"""Bytes kept of what it says: the end, as its last line is shown."""

_PIECE: Final = 65536
"""A pipe's whole room (pipe(7)): one read gets all that a program that has ended left there."""

TALKATIVE: Final = 1 << 20
"""Bytes after which it is taken for broken."""

MOURNING: Final = 0.05
"""Seconds to wait for a killed program's end, which takes one thousandth; one that the kernel holds back ends later."""


def environment(order: CheckOrder) -> dict[str, str]:
    """Return all that the program gets to know; POLYWAN_GATEWAY is empty on links without one."""
    return {
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
        "LANG": "C",
        "POLYWAN_UPLINK": order.uplink,
        "POLYWAN_INTERFACE": order.interface,
        "POLYWAN_FAMILY": f"ipv{order.family:d}",
        "POLYWAN_MARK": f"{order.mark:#x}",
        "POLYWAN_GATEWAY": "" if order.gateway is None else str(order.gateway),
    }


async def check_script(attempt: CheckAttempt) -> str:
    """Run the order's program to its end and return the last line that it said."""
    order = attempt.order
    if not order.command:
        raise CheckFailedError("no program")
    program = shown(order.command[0])
    attempt.pending = f"{program}: did not end within {order.timeout:g} s"
    try:
        child = _Child(order)
    except OSError as error:
        raise CheckFailedError(f"{program} cannot be run: {explained(error)}") from error
    try:
        await child.over.wait()
    finally:
        status = child.end()
    if child.total > TALKATIVE:
        raise CheckFailedError(f"{program} wrote more than {TALKATIVE >> 20} MiB")
    last = child.last_line()
    if status == 0:
        return last
    raise CheckFailedError(": ".join(filter(None, (_manner(status), last))))


def _manner(status: int) -> str:
    if status > 0:
        return f"exit status {status}"
    with suppress(ValueError):
        return f"killed by {signal.Signals(-status).name}"
    return f"killed by signal {-status}"


class _Child:
    """A program under way, its session, and what it says.

    Its end is told by a pidfd (pidfd_open(2)): unlike asyncio's child watchers that takes no thread and no signal.

    Attributes:
        over: set when it has ended, or when there is no point in waiting for that.
        total: bytes that it has said.
    """

    def __init__(self, order: CheckOrder) -> None:
        """Start it.

        Raises:
            OSError: the program cannot be executed, or a resource has run out.
            ValueError: an argument has a zero byte.
        """
        self.over = asyncio.Event()
        self.total = 0
        self._said = b""
        self._loop = asyncio.get_running_loop()
        with ExitStack() as undo:
            self._hear, speak = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
            undo.callback(os.close, self._hear)
            os.set_blocking(speak, True)
            try:
                self._process = _start(order, speak)
            finally:
                os.close(speak)
            undo.callback(self._process.wait)
            undo.callback(self._kill)
            self._end = os.pidfd_open(self._process.pid)
            undo.pop_all()
        self._loop.add_reader(self._hear, self._listen)
        self._loop.add_reader(self._end, self.over.set)

    def end(self) -> int:
        """End what is left of its session, release everything and return its status, negative for a signal.

        Waits without the loop: a second cancellation, when the daemon ends, must not leave anything behind.
        """
        self._kill()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(MOURNING)
        self._listen()
        for descriptor in (self._hear, self._end):
            self._loop.remove_reader(descriptor)
            os.close(descriptor)
        return -signal.SIGKILL if self._process.returncode is None else self._process.returncode

    def last_line(self) -> str:
        """Return the last line that is not blank, fit to be shown."""
        lines = [line for line in self._said.decode(errors="replace").splitlines() if line.strip()]
        return shown(lines[-1]) if lines else ""

    def _kill(self) -> None:
        # Before it is reaped nobody else can have its number, so the group is its own.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def _listen(self) -> None:
        try:
            data = os.read(self._hear, _PIECE)
        except (BlockingIOError, InterruptedError):
            return
        self._said = (self._said + data)[-KEPT_OUTPUT:]
        self.total += len(data)
        if not data or self.total > TALKATIVE:
            self._loop.remove_reader(self._hear)
        if self.total > TALKATIVE:
            self.over.set()


def _start(order: CheckOrder, speak: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        order.command,
        stdin=subprocess.DEVNULL,
        stdout=speak,
        stderr=speak,
        cwd="/",
        env=environment(order),
        start_new_session=True,
    )
