"""A process that has imported the daemon already: what it forks is the daemon itself, half a second sooner.

Tests start hundreds of daemons, and without this a third of all their processor time went into imports. A daemon that
is started again after its end is a process of its own, as an administrator's: with another seed for hashes, so that
nothing may depend on the order of sets.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import IO, Final, NoReturn

from polywan.__main__ import main
from polywan.lab.namespaces import Namespace
from polywan.lab.sandbox import LabError

_PRELOADED: Final = ("polywan.cli.run", "polywan.daemon.main", "polywan.kernel.linux")
_PR_SET_PDEATHSIG: Final = 1
_MOST: Final = 1 << 16
_SERVE: Final = "import sys; sys.path[:] = {path!r}; from support.fork_server import serve; serve({fd})"


class ForkedDaemon:
    """A daemon that was forked, with what `lab/daemon.py` wants of a process."""

    def __init__(self, server: ForkServer, pid: int, stderr: IO[str]) -> None:
        self.pid = pid
        self.stderr: IO[str] | None = stderr
        self._server = server
        self._ended: int | None = None
        self._handle = os.pidfd_open(pid)
        self._lock = threading.Lock()

    def poll(self) -> int | None:
        """Return its exit code, or None while it runs."""
        return self._within(0.0)

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end.

        Raises:
            subprocess.TimeoutExpired: it runs still.
        """
        ended = self._within(timeout)
        if ended is None:
            raise subprocess.TimeoutExpired("a forked daemon", timeout or 0.0)
        return ended

    def send_signal(self, sig: int) -> None:
        """Send it a signal, unless it has ended."""
        if self.poll() is None:
            signal.pidfd_send_signal(self._handle, sig)

    def kill(self) -> None:
        """End it at once."""
        self.send_signal(signal.SIGKILL)

    def _within(self, timeout: float | None) -> int | None:
        with self._lock:
            if self._ended is None:
                waiter = select.poll()
                waiter.register(self._handle, select.POLLIN)
                if waiter.poll(None if timeout is None else timeout * 1000):
                    self._ended = self._server.ask({"ended": self.pid})
                    os.close(self._handle)
            return self._ended


class ForkServer:
    """The process that forks; it ends with the thread that made it, and so do its daemons."""

    def __init__(self) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._lock = threading.Lock()
        code = _SERVE.format(path=sys.path, fd=theirs.fileno())
        argv = ["setpriv", "--pdeathsig", "KILL", "--", sys.executable, "-c", code]
        with theirs:
            self._process = subprocess.Popen(argv, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL)

    def start(self, namespace: Namespace, arguments: Sequence[str]) -> ForkedDaemon:
        """Start `polywan` with these arguments in a namespace, its standard error in a pipe."""
        reader, writer = os.pipe()
        try:
            what = {"namespace": namespace.name, "arguments": list(arguments), "environment": dict(os.environ)}
            pid = self.ask(what, writer)
        except LabError:
            os.close(reader)
            raise
        finally:
            os.close(writer)
        return ForkedDaemon(self, pid, os.fdopen(reader, encoding="utf-8"))

    def ask(self, what: Mapping[str, object], *descriptors: int) -> int:
        """Ask it something and return the number that it answers.

        Raises:
            LabError: it has ended, or cannot be asked.
        """
        text = json.dumps(what).encode()
        if len(text) > _MOST:
            raise LabError(f"the environment of the tests is too large to be handed on: {len(text)} bytes")
        with self._lock:
            try:
                socket.send_fds(self._socket, [text], list(descriptors))
                answer = self._socket.recv(_MOST)
            except OSError:
                answer = b""
        if not answer:
            raise LabError(f"the process that forks daemons has ended with {self._process.poll()}")
        return int(answer)

    def close(self) -> None:
        """End it."""
        self._socket.close()
        self._process.wait()


def serve(descriptor: int) -> None:
    """Fork daemons for whoever is at the other end, until it closes."""
    for module in _PRELOADED:
        import_module(module)
    gc.freeze()
    with socket.socket(fileno=descriptor) as client:
        while True:
            text, descriptors, _, _ = socket.recv_fds(client, _MOST, 1)
            if not text:
                return
            asked = json.loads(text)
            if "ended" in asked:
                _, status = os.waitpid(asked["ended"], 0)
                client.send(str(os.waitstatus_to_exitcode(status)).encode())
                continue
            pid = os.fork()
            if pid == 0:
                client.close()
                os.environ.clear()
                os.environ.update(asked["environment"])
                time.tzset()
                _become(asked["namespace"], asked["arguments"], descriptors[0])
            os.close(descriptors[0])
            client.send(str(pid).encode())


def _become(namespace: str, arguments: list[str], stderr: int) -> NoReturn:
    """Be the daemon, and end as any program does: by SystemExit, or by what nobody caught."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    os.setsid()
    nothing = os.open(os.devnull, os.O_RDWR)
    for number, to in ((nothing, 0), (nothing, 1), (stderr, 2)):
        os.dup2(number, to)
    os.closerange(3, max(nothing, stderr) + 1)
    sys.argv = ["polywan", *arguments]
    with Namespace(namespace).entered():
        main()
    sys.exit(0)
