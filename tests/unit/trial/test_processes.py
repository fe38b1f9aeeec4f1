"""Processes are told by number and start, and what another user's process says of itself is not carried out."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from polywan.core.trial.record import Daemon
from polywan.files import SOCKET
from polywan.trial import processes

NOBODY = 65534


@contextmanager
def running(user: int | None = None) -> Iterator[subprocess.Popen[bytes]]:
    pipe = subprocess.PIPE
    with subprocess.Popen(["cat"], stdin=pipe, stdout=pipe, user=user, env={"PATH": "/bin", "X": "1"}) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        # It is what /proc says it is once it has begun.
        process.stdin.write(b"\n")
        process.stdin.flush()
        process.stdout.readline()
        yield process


def test_a_process_with_the_same_number_and_another_start_is_not_the_one() -> None:
    me = processes.me()
    assert processes.runs(me)
    assert not processes.runs(replace(me, start=me.start + 1))


def test_how_a_process_was_started_is_known_without_what_its_environment_says_otherwise() -> None:
    with running() as process:
        found = processes.daemon_of(process.pid)
    assert found is not None
    assert found.argv == ("cat",)
    assert found.environment == {"PATH": "/bin"}


def test_what_a_process_of_another_user_says_of_itself_is_not_carried_out() -> None:
    if os.geteuid() != 0:
        pytest.skip("starting a process of another user needs root")
    with running(NOBODY) as process:
        assert processes.daemon_of(process.pid) is None


@pytest.mark.parametrize(
    ("shown", "on_purpose"),
    [
        ("ActiveState=inactive\n", True),
        ("Job=812\nActiveState=deactivating\n", True),
        ("ActiveState=deactivating\n", False),
        ("ActiveState=failed\n", False),
        ("Job=812\nActiveState=activating\n", False),
        ("ActiveState=active\n", False),
        ("", False),
    ],
)
def test_a_unit_was_stopped_on_purpose_when_it_is_inactive_or_systemd_has_the_job_to_stop_it(
    shown: str, on_purpose: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "systemctl"
    program.write_text(f"#!/bin/sh\nprintf %s '{shown}'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    daemon = Daemon(process=processes.me(), argv=(), cwd="/", environment={}, unit="polywan.service")
    assert processes.stopped(daemon, tmp_path) is on_purpose


def test_without_a_unit_a_daemon_was_stopped_when_it_is_gone_and_its_socket_too(tmp_path: Path) -> None:
    running = Daemon(process=processes.me(), argv=(), cwd="/", environment={}, unit="")
    gone = replace(running, process=replace(running.process, start=0))
    assert not processes.stopped(running, tmp_path)
    assert processes.stopped(gone, tmp_path)
    (tmp_path / SOCKET).touch()
    assert not processes.stopped(gone, tmp_path)
