"""Threads for work that a disk may hold up without end: the end of the process does not wait for them."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

T = TypeVar("T")


class Threads:
    """Carries out work in order, in as many threads as it takes; a thread without work ends.

    Args:
        most: threads at once; further work waits for one of them.
        name: theirs, for people who debug.
    """

    def __init__(self, most: int, name: str) -> None:
        self._most = most
        self._name = name
        self._lock = threading.Lock()
        self._waiting: deque[tuple[Future[Any], Callable[[], Any]]] = deque()
        self._busy = 0

    def submit(self, work: Callable[[], T]) -> Future[T]:
        """Have something done, and return at once.

        Raises:
            RuntimeError: no thread can be started, such as at the limit of threads.
        """
        future: Future[T] = Future()
        with self._lock:
            if self._busy < self._most:
                # Its first act is to wait for the lock.
                threading.Thread(target=self._work, name=self._name, daemon=True).start()
                self._busy += 1
            self._waiting.append((future, work))
        return future

    def _work(self) -> None:
        while True:
            with self._lock:
                if not self._waiting:
                    self._busy -= 1
                    return
                future, work = self._waiting.popleft()
            if future.set_running_or_notify_cancel():
                _carry_out(future, work)


def _carry_out(future: Future[T], work: Callable[[], T]) -> None:
    try:
        result = work()
    except BaseException as error:  # noqa: BLE001 - whoever waits for the result gets it
        future.set_exception(error)
    else:
        future.set_result(result)
