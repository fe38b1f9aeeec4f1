"""Programs that scripts/vm starts: what they say, and that none is left."""

from __future__ import annotations

import signal
import subprocess

import pytest
from guest.errors import GuestError
from guest.processes import run, started


def test_a_signal_while_a_process_is_being_started_ends_it_too() -> None:
    processes = []

    def start() -> subprocess.Popen[bytes]:
        processes.append(subprocess.Popen(["sleep", "60"], start_new_session=True))
        signal.raise_signal(signal.SIGINT)
        return processes[0]

    with pytest.raises(KeyboardInterrupt), started(start):
        pytest.fail("the block began")
    assert processes[0].poll() == -signal.SIGKILL


def test_signals_are_as_before_once_a_process_is_there() -> None:
    before = signal.getsignal(signal.SIGTERM)
    assert run(["true"]) == []
    assert signal.getsignal(signal.SIGTERM) is before


def test_what_a_program_prints_comes_back_and_is_shown_at_once() -> None:
    seen: list[str] = []
    assert run(["sh", "-c", "echo out; echo err >&2"], on_line=seen.append) == seen == ["out", "err"]


def test_a_program_that_fails_is_named_with_its_last_lines() -> None:
    with pytest.raises(GuestError, match=r"`sh -c echo why; exit 3` failed with exit status 3:\nwhy"):
        run(["sh", "-c", "echo why; exit 3"])


def test_a_program_that_is_not_there_is_named() -> None:
    with pytest.raises(GuestError, match="no-such-program cannot be started: No such file or directory"):
        run(["no-such-program"])
