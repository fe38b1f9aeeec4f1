"""Other programs, which end when this one is interrupted."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from guest.errors import GuestError

SHOWN = 20
"""Lines of a failed program's output that its error shows."""


ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Signals that end this program by an exception."""

P = TypeVar("P", bound="subprocess.Popen[bytes] | subprocess.Popen[str]")


@contextmanager
def _held_back() -> Iterator[None]:
    """Hold signals back until the end of the block."""
    came: list[int] = []
    before = {number: signal.signal(number, lambda number, _: came.append(number)) for number in ENDING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    for late in came:
        signal.raise_signal(late)


@contextmanager
def started(start: Callable[[], P]) -> Iterator[P]:
    """Start a process that leads its group; however the block ends, it is killed with all that it has started."""
    process: P | None = None
    try:
        # Between the new process and its first name here a signal would leave it to itself.
        with _held_back():
            process = start()
        yield process
    finally:
        if process is not None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def run(
    words: Sequence[str | Path],
    *,
    cwd: Path | None = None,
    variables: Mapping[str, str] | None = None,
    on_line: Callable[[str], None] = lambda _: None,
) -> list[str]:
    """Run a program to its end; return the lines that it printed, those of stderr among them.

    Args:
        words: the program and its arguments.
        cwd: where it runs.
        variables: added to its environment.
        on_line: called with each line at once.

    Raises:
        GuestError: it cannot be started or failed; the last lines that it printed follow the sentence.
    """
    lines: deque[str] = deque(maxlen=2000)
    argv = [str(word) for word in words]
    environment = {**os.environ, "PATH": search_path(), "LC_ALL": "C", **(variables or {})}

    def start() -> subprocess.Popen[str]:
        try:
            return subprocess.Popen(
                argv, cwd=cwd, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT, text=True, errors="replace", start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            raise GuestError(f"{argv[0]} cannot be started: {error.strerror}") from None

    with started(start) as process:
        assert process.stdout  # noqa: S101 - it was asked for
        with process.stdout as output:
            for line in output:
                lines.append(line.rstrip("\n"))
                on_line(lines[-1])
        status = process.wait()
    if status:
        shown = "\n".join(list(lines)[-SHOWN:])
        raise GuestError(f"`{' '.join(argv)}` failed with exit status {status}:\n{shown}")
    return list(lines)


def search_path() -> str:
    """Return where programs are looked for."""
    # Ordinary users of Debian do not have the folders of depmod on their PATH.
    return os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"))


def lacking(tools: Mapping[str, str]) -> dict[str, str]:
    """Return those of the tools that are not there, each with the Debian package that brings it."""
    return {tool: package for tool, package in tools.items() if shutil.which(tool, path=search_path()) is None}


def require(tools: Mapping[str, str], purpose: str) -> None:
    """Refuse to begin without a tool.

    Raises:
        GuestError: names all that are missing, and the packages that bring them.
    """
    if missing := lacking(tools):
        packages = " ".join(sorted(set(missing.values())))
        raise GuestError(f"{purpose} needs {', '.join(missing)}; run: apt-get install {packages}")
