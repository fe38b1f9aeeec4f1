"""What is still to come, in the order of time."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from math import inf
from typing import TypeAlias

from polywan.core.state.events import Event

Act: TypeAlias = Callable[[], object]
"""Something that is done at its time; what it returns is not looked at."""


class EventQueue:
    """Events, and acts that are none, each with its time in seconds; what has one time keeps the order it came in."""

    def __init__(self) -> None:
        self._entries: list[tuple[float, int, Event | Act]] = []
        self._count = 0

    @property
    def next(self) -> float:
        """When the first of them is due; endless when there is none."""
        return self._entries[0][0] if self._entries else inf

    def put(self, at: float, entry: Event | Act) -> None:
        """Add one."""
        self._count += 1
        heapq.heappush(self._entries, (at, self._count, entry))

    def pop(self) -> Event | Act:
        """Take the first one out.

        Raises:
            IndexError: there is none.
        """
        return heapq.heappop(self._entries)[2]

    def clear(self) -> None:
        """Drop all."""
        self._entries.clear()

    def drop(self, doomed: Callable[[Event | Act], bool]) -> None:
        """Drop those for which `doomed` is true."""
        self._entries = [entry for entry in self._entries if not doomed(entry[2])]
        heapq.heapify(self._entries)

    def delay(self, until: float, change: Callable[[Event | Act], Event | Act]) -> None:
        """Let nothing come before that time, and exchange each entry for what `change` makes of it."""
        self._entries = [(max(at, until), count, change(entry)) for at, count, entry in self._entries]
        heapq.heapify(self._entries)
