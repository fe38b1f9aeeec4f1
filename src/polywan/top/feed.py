"""What the daemon says, from threads of their own: the screen never waits for it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Final

from polywan.api import calls
from polywan.api.codec import DocumentError
from polywan.api.events import LinkEvent
from polywan.api.requests import Nothing, OfEvents, Words
from polywan.api.status import Status
from polywan.api.views.flow_rows import FlowRow, rows_of
from polywan.api.views.stream import Change, StreamSample
from polywan.client import Client
from polywan.core.errors import ControlError
from polywan.threads import Threads
from polywan.top.asking import flow_words, why_lines, why_words
from polywan.top.view import FlowsRead, Lost, News, Pane, View

AFTER_LOSS: Final = 1.0
"""Seconds until a daemon is asked again that does not answer."""

_FLOWS_EVERY: Final = 3.0
"""Seconds between two readings of connections."""


class Feed:
    """Hears the daemon and asks it; what it says is in `news`.

    Args:
        directory: the daemon's runtime directory.
        wake: called when there is news, from any thread.
    """

    def __init__(self, directory: Path, wake: Callable[[], None]) -> None:
        self._directory = directory
        self._wake = wake
        self._news: SimpleQueue[News] = SimpleQueue()
        self._asking = Threads(1, "asking")
        self._flows_due = 0.0
        self._flows_asked: dict[str, str] | None = None

    def start(self) -> None:
        """Begin to listen; until the process ends."""
        threading.Thread(target=self._listen, name="listening", daemon=True).start()

    def news(self) -> list[News]:
        """Return what was heard since the last call."""
        found = []
        try:
            while True:
                found.append(self._news.get_nowait())
        except Empty:
            return found

    def read_flows(self, view: View, now: float) -> None:
        """Have connections read when it is time, or when others are wanted. `now` is monotonic, seconds."""
        try:
            words = flow_words(view)
        except ValueError as error:
            # The filter made sense when it was typed: an uplink that it names is no more.
            if self._flows_asked is not None:
                self._flows_asked = None
                self._say(FlowsRead(problem=str(error)))
            return
        if words != self._flows_asked or now >= self._flows_due:
            self._flows_asked, self._flows_due = words, float("inf")
            self._asking.submit(lambda: self._read_flows(words))

    def ask_why(self, row: FlowRow) -> None:
        """Have it asked why a connection takes its uplink."""
        self._asking.submit(lambda: self._ask_why(row))

    def _say(self, news: News) -> None:
        self._news.put(news)
        self._wake()

    def _listen(self) -> None:
        client = Client(self._directory)
        while True:
            try:
                for event in client.follow(calls.LIVE, Nothing()):
                    if isinstance(event, Status | Change | StreamSample | LinkEvent):
                        self._say(event)
                    if isinstance(event, Status):
                        # A daemon that was away has entered what it found.
                        self._say(client.ask(calls.JOURNAL, OfEvents()))
                self._say(Lost(problem="the daemon has closed the connection"))
            except ControlError as error:
                self._say(Lost(problem=str(error)))
            time.sleep(AFTER_LOSS)

    def _read_flows(self, words: dict[str, str]) -> None:
        try:
            document = Client(self._directory).ask(calls.FLOWS, Words(words=words))
            total = sum(total.connections for total in document.totals)
            found = FlowsRead(rows=tuple(rows_of(document)), total=total)
        except (ControlError, DocumentError) as error:
            found = FlowsRead(problem=str(error))
        self._flows_due = time.monotonic() + _FLOWS_EVERY
        self._say(found)

    def _ask_why(self, row: FlowRow) -> None:
        try:
            answer = Client(self._directory).ask(calls.WHY, Words(words=why_words(row)))
            lines = why_lines(row, answer.text)
        except ControlError as error:
            lines = (f"no answer: {error}",)
        self._say(Pane(kind="why", lines=lines))
