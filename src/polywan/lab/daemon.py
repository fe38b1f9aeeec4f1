"""The real daemon in the lab's router, as a child process whose every log line is kept with its time."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final, Protocol, TypeAlias

from polywan.api import calls
from polywan.api.requests import Nothing, ToReload
from polywan.api.running import Reloaded, Removed
from polywan.api.status import Status, UplinkStatus
from polywan.client import Client
from polywan.lab.namespaces import Namespace
from polywan.lab.sandbox import LabError

_READY: Final = re.compile(r"\bready\b")
_BAD: Final = re.compile(r"\b(ERROR|CRITICAL)\b|^Traceback |\bnever (awaited|retrieved)\b")


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line the daemon wrote to standard error, with the monotonic time it was read."""

    at: float
    text: str


class Child(Protocol):
    """What is wanted of a process; as in `subprocess.Popen`."""

    pid: int
    stderr: IO[str] | None

    def poll(self) -> int | None:
        """Return its exit code, or None while it runs."""

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end, or raise TimeoutExpired."""

    def send_signal(self, sig: int) -> None:
        """Send it a signal, unless it has ended."""

    def kill(self) -> None:
        """End it at once."""


Spawn: TypeAlias = Callable[[Namespace, Sequence[str]], Child]
"""Starts `polywan` with arguments in a namespace, its standard error in a pipe."""


def executed(namespace: Namespace, arguments: Sequence[str]) -> Child:
    """Start it as anybody does; from the main thread, since the process ends with its starter."""
    argv = [sys.executable, "-m", "polywan", *arguments]
    return namespace.start(argv, stderr=subprocess.PIPE, environment={"PYTHONUNBUFFERED": "1"})


class DaemonProcess:
    """A daemon under test: start, kill and start again; its kernel state and files outlive the process.

    Attributes:
        spawn: how it is started.
        config: its configuration file.
        runtime: its runtime directory, with the control socket.
        log: every line so far, of all its lives.
    """

    def __init__(self, namespace: Namespace, config: str, directory: Path, spawn: Spawn = executed) -> None:
        self.namespace = namespace
        self.spawn = spawn
        self.config = directory / "polywan.toml"
        self.runtime = directory
        self.state = directory / "state"
        for made in (directory, self.runtime, self.state):
            made.mkdir(parents=True, exist_ok=True)
        self.config.write_text(config, encoding="utf-8")
        self.log: list[LogLine] = []
        self.process: Child | None = None
        self._heard = threading.Condition()
        self._listener: threading.Thread | None = None
        self._birth, self._before, self._deaf = 0.0, 0, True

    @property
    def client(self) -> Client:
        """A client of its control socket."""
        return Client(self.runtime)

    def status(self) -> Status:
        """Return what it says of everything.

        Raises:
            ControlError: it does not answer.
        """
        return self.client.ask(calls.STATUS, Nothing())

    def uplink(self, number: int) -> UplinkStatus:
        """Return what it says of an uplink, counted from 1 in the order of its file.

        Raises:
            ControlError: it does not answer.
        """
        return self.status().uplinks[number - 1]

    def reload(self) -> Reloaded:
        """Make it read its file again, and wait until that is in force.

        Raises:
            ControlError: it does not answer.
            ConfigError: the file is bad.
        """
        return self.client.ask(calls.RELOAD, ToReload())

    def down(self) -> Removed:
        """Make it leave the kernel as found and end.

        Raises:
            ControlError: it does not answer, or something stays.
        """
        return self.client.ask(calls.DOWN, Nothing())

    @property
    def troubles(self) -> list[str]:
        """Log lines that no healthy run has: errors and tracebacks."""
        return [line.text for line in list(self.log) if _BAD.search(line.text)]

    def start(self, timeout: float = 15.0) -> float:
        """Start it and wait until its data plane is in force; return how many seconds that took.

        Raises:
            LabError: as `wait_ready`.
        """
        self.launch()
        return self.wait_ready(timeout)

    def launch(self) -> None:
        """Start it and do not wait."""
        arguments = ["run", "--config", str(self.config)]
        arguments += ["--runtime-dir", str(self.runtime), "--state-dir", str(self.state)]
        self._birth, self._before, self._deaf = time.monotonic(), len(self.log), False
        self.process = self.spawn(self.namespace, arguments)
        self._listener = threading.Thread(target=self._listen, args=(self.process,), daemon=True)
        self._listener.start()

    def wait_ready(self, timeout: float = 15.0) -> float:
        """Wait until the data plane is in force and return how many seconds after the launch that was.

        Raises:
            LabError: it ended instead, or was not ready in time; the text carries the end of its log.
        """
        line = self.wait_log(lambda text: _READY.search(text) is not None, timeout, since=self._before)
        if line is not None:
            return line.at - self._birth
        tail = "\n".join(entry.text for entry in self.log[-12:])
        ended = self._ended()
        state = "was not ready in time" if ended is None else f"ended with {ended}"
        raise LabError(f"the daemon {state}:\n{tail}")

    def _ended(self) -> int | None:
        """Return its exit code, or None while it runs; a closed log means that it is just about to have one."""
        if self.process is None:
            return None
        if self._deaf:
            with suppress(subprocess.TimeoutExpired):
                return self.process.wait(2.0)
        return self.process.poll()

    def wait_log(self, wanted: Callable[[str], bool], timeout: float, since: int = 0) -> LogLine | None:
        """Wait for a log line, from index `since` on; None when time is up or the daemon has ended."""
        deadline = time.monotonic() + timeout
        with self._heard:
            seen = since
            while True:
                for line in self.log[seen:]:
                    if wanted(line.text):
                        return line
                seen = len(self.log)
                if self._deaf or not self._heard.wait(timeout=max(0.0, deadline - time.monotonic())):
                    return None

    def kill(self) -> float:
        """End it at once (SIGKILL) and return the monotonic time."""
        return self._end(signal.SIGKILL)

    def stop(self) -> float:
        """Ask it to end (SIGTERM), insist after five seconds, and return the monotonic time."""
        return self._end(signal.SIGTERM)

    def _end(self, number: signal.Signals) -> float:
        if self.process is None:
            return time.monotonic()
        self.process.send_signal(number)
        moment = time.monotonic()
        try:
            self.process.wait(5.0)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        if self._listener is not None:
            self._listener.join(5.0)
        self.process = None
        return moment

    def _listen(self, process: Child) -> None:
        if process.stderr is None:
            return
        with process.stderr as stream:
            for text in stream:
                with self._heard:
                    self.log.append(LogLine(time.monotonic(), text.rstrip("\n")))
                    self._heard.notify_all()
        with self._heard:
            self._deaf = True
            self._heard.notify_all()
