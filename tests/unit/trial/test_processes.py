"""Processes are told by number and start, and what another user's process says of itself is not carried out."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

from polywan.trial import processes

NOBODY = 65534


@contextmanager
def sleeping(user: int | None = None) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "60"], user=user, env={"PATH": "/usr/bin:/bin", "X": "1"}) as process:
        try:
            yield process
        finally:
            process.kill()


def test_a_process_with_the_same_number_and_another_start_is_not_the_one() -> None:
    me = processes.me()
    assert processes.runs(me)
    assert not processes.runs(replace(me, start=me.start + 1))


def test_how_a_process_was_started_is_known_without_what_its_environment_says_otherwise() -> None:
    with sleeping() as process:
        found = processes.daemon_of(process.pid)
    assert found is not None
    assert found.argv == ("sleep", "60")
    assert found.environment == {"PATH": "/usr/bin:/bin"}


def test_what_a_process_of_another_user_says_of_itself_is_not_carried_out() -> None:
    if os.geteuid() != 0:
        pytest.skip("starting a process of another user needs root")
    with sleeping(NOBODY) as process:
        assert processes.daemon_of(process.pid) is None
