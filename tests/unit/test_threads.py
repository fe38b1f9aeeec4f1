"""Threads that a disk may hold for ever."""

from __future__ import annotations

import subprocess
import sys
import threading
from concurrent.futures import wait

import pytest

from polywan.threads import Threads

HANGS = """
import threading
from polywan.threads import Threads
began = threading.Event()
def work():
    began.set()
    threading.Event().wait()
Threads(1, "disk").submit(work)
began.wait()
"""


def test_a_process_ends_whatever_its_threads_wait_for() -> None:
    assert subprocess.run([sys.executable, "-c", HANGS], timeout=10, check=False).returncode == 0


def test_work_is_done_in_order_and_errors_are_results() -> None:
    threads, done = Threads(1, "one"), []

    def work(number: int) -> int:
        done.append(number)
        return 1 // (number - 5)

    futures = [threads.submit(lambda number=number: work(number)) for number in range(10)]  # type: ignore[misc]
    wait(futures)
    assert done == list(range(10))
    assert futures[9].result() == 0
    assert isinstance(futures[5].exception(), ZeroDivisionError)


def test_no_more_threads_run_than_are_wanted_and_none_that_has_nothing_to_do() -> None:
    threads, gate = Threads(2, "two of them"), threading.Event()
    futures = [threads.submit(gate.wait) for _ in range(5)]
    mine = [thread for thread in threading.enumerate() if thread.name == "two of them"]
    assert len(mine) == 2
    gate.set()
    wait(futures)
    for thread in mine:
        thread.join(5)
        assert not thread.is_alive()


def test_what_was_cancelled_before_its_turn_is_not_done() -> None:
    threads, gate = Threads(1, "one"), threading.Event()
    first, second, third = threads.submit(gate.wait), threads.submit(gate.clear), threads.submit(lambda: 3)
    assert second.cancel()
    gate.set()
    assert (first.result(5), third.result(5), gate.is_set()) == (True, 3, True)


def test_a_thread_that_cannot_be_started_is_an_error_and_nothing_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    threads, done = Threads(1, "one"), []
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refused)
        with pytest.raises(RuntimeError):
            threads.submit(lambda: done.append(1))
    threads.submit(lambda: done.append(2)).result(5)
    assert done == [2]
