"""Run programs that print what they know, such as ip(8) and nft(8): never for long, and no endless output."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import IO, Final

from polywan.child import CLEAN, manner
from polywan.core.errors import MissingFeature, PolywanError

PATIENCE: Final = 4.0
"""Seconds that a program may take: nothing that is looked at takes more than five."""

MOST_BYTES: Final = 16 << 20
"""Of one program: some 150 000 rules."""

_PIECE: Final = 65536
_LAST_WORDS: Final = 1000
"""Bytes of complaints that are looked at."""


def output(command: Sequence[str], package: str) -> str:
    """Return what a program prints.

    Args:
        command: program and arguments.
        package: what brings the program, for people.

    Raises:
        MissingFeature: it is not installed.
        PolywanError: it fails, takes longer than `PATIENCE`, or prints more than `MOST_BYTES`.
    """
    with tempfile.TemporaryFile() as complaints:
        try:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=complaints,
                cwd="/",
                env={**CLEAN},
                start_new_session=True,
            )
        except FileNotFoundError as error:
            raise MissingFeature(f"{command[0]} is not installed (package {package})") from error
        except OSError as error:
            raise PolywanError(f"{command[0]}: {error.strerror}") from error
        try:
            found = _read(process, command[0])
        finally:
            _end(process)
        if process.returncode != 0:
            complaints.seek(0)
            raise PolywanError(f"{command[0]}: {_last_words(complaints) or manner(process.returncode)}")
    return found.decode("utf-8", "replace")


def listing(command: Sequence[str], package: str) -> object:
    """Return what a program prints as JSON; errors as `output`."""
    text = output(command, package)
    try:
        return json.loads(text) if text.strip() else []
    except ValueError as error:
        raise PolywanError(f"{' '.join(command)}: its output is no JSON") from error


def _read(process: subprocess.Popen[bytes], name: str) -> bytes:
    found = bytearray()
    if process.stdout is None:
        return b""
    end = time.monotonic() + PATIENCE
    poll = select.poll()
    poll.register(process.stdout, select.POLLIN)
    while (remaining := end - time.monotonic()) > 0:
        if poll.poll(remaining * 1000):
            piece = os.read(process.stdout.fileno(), _PIECE)
            if not piece:
                with suppress(subprocess.TimeoutExpired):
                    process.wait(max(0.0, end - time.monotonic()))
                    return bytes(found)
                break
            found += piece
            if len(found) > MOST_BYTES:
                raise PolywanError(f"{name} prints more than {MOST_BYTES >> 20} MiB")
    raise PolywanError(f"{name} did not end within {PATIENCE:g} s")


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill what has not ended, with all that it has started."""
    with suppress(ProcessLookupError, PermissionError):
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    if process.stdout is not None:
        process.stdout.close()


def _last_words(complaints: IO[bytes]) -> str:
    lines = complaints.read(_LAST_WORDS).decode("utf-8", "replace").strip().splitlines()
    return lines[-1].strip() if lines else ""
