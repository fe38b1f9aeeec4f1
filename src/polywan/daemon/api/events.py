"""Answers `polywan events`: parts of the journal, and the next entry as soon as there is one."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Final

from pydantic_core import PydanticCustomError

from polywan.api.codec import encode
from polywan.api.events import Events
from polywan.api.requests import OfEvents
from polywan.config.faults import shown
from polywan.config.kinds.scalars import Duration
from polywan.core.errors import ControlError
from polywan.core.state.state import State
from polywan.daemon.api.http import Written
from polywan.daemon.api.unknown import unknown
from polywan.daemon.api.words import whole
from polywan.daemon.journal import EventQuery
from polywan.daemon.tasks.recording import Recorder

SCHEMA: Final = 1
"""Version of the document's shape; fields are added, never changed."""

MOST_AT_ONCE: Final = 100
"""Entries of one answer: written in three milliseconds, for which everything else may have to wait."""

LONGEST_WAIT: Final = 60
"""Seconds that an answer may be waited for."""

_MOMENT: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}([T ][0-9:.+Z-]{2,30})?")
"""What Python reads as a moment may be much stranger."""

_LONGEST_AGO: Final = 36500 * 86400.0


class Journalled:
    """The journal over a control socket.

    Args:
        recorder: keeps it.
        state: returns what the daemon knows now.
        stop: set when the daemon ends, so that nobody waits any longer.
    """

    def __init__(self, recorder: Recorder, state: Callable[[], State], stop: asyncio.Event) -> None:
        self._recorder = recorder
        self._state = state
        self._stop = stop

    async def events(self, asked: OfEvents) -> Written[Events]:
        """Return entries.

        Raises:
            ControlError: a word of the question makes no sense (400), or no uplink has or had that name (404).
        """
        after, wait = _whole("after", asked.after), _whole("wait", asked.wait, LONGEST_WAIT)
        since = None if asked.since is None else since_of(asked.since, time.time())
        wanted = EventQuery(uplink=asked.uplink, since=since, after=after, most=MOST_AT_ONCE + 1)
        document = await self._events(wanted, asked.journal)
        if wait and after is not None:
            with suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    while not document.events and not self._stop.is_set():
                        await self._arrival(document.last)
                        document = await self._events(wanted._replace(after=document.last), document.journal)
        if asked.uplink is not None and not document.events and after is None:
            config = self._state().known.config
            if config is None or asked.uplink not in config.uplinks:
                raise unknown("uplink", asked.uplink, config.uplinks if config else ())
        return Written(await asyncio.to_thread(lambda: [json.dumps(encode(document)).encode()]))

    async def _events(self, wanted: EventQuery, journal: str | None) -> Events:
        recorder = self._recorder
        if wanted.after is not None:
            wanted = wanted._replace(after=recorder.position(wanted.after, journal))
        last, counted_by = recorder.last, recorder.name
        found = await recorder.events(wanted)
        # A file that can be read at last may have changed the numbers.
        last = recorder.position(last, counted_by)
        more = len(found) > MOST_AT_ONCE
        if more:
            found = found[1:] if wanted.newest else found[:MOST_AT_ONCE]
        more = more and not wanted.newest
        return Events(
            schema=SCHEMA,
            events=tuple(found),
            last=found[-1].id if more else max(last, found[-1].id if found else 0),
            more=more,
            journal=recorder.name,
            problem=recorder.problem,
        )

    async def _arrival(self, after: int) -> None:
        """Wait for an entry, or for the end of the daemon."""
        waiting = [asyncio.ensure_future(self._recorder.arrival(after)), asyncio.ensure_future(self._stop.wait())]
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in waiting:
                task.cancel()


def since_of(text: str, now: float) -> float:
    """Return the moment that `since` names; `now` and it are Unix seconds.

    Raises:
        ControlError: it is neither a duration nor a moment (400).
    """
    with suppress(PydanticCustomError):
        return now - float(Duration(0, _LONGEST_AGO).parse(text))
    try:
        found = datetime.fromisoformat(text if _MOMENT.fullmatch(text) else "")
        return (found if found.tzinfo else found.astimezone()).astimezone(UTC).timestamp()
    except (ValueError, OverflowError, OSError):
        wanted = 'a duration such as "2h", or a time such as "2026-11-30T08:00"'
        raise ControlError(f"since: expected {wanted}, got {shown(text)}", 400) from None


def _whole(name: str, text: str | None, most: int | None = None) -> int | None:
    return None if text is None else whole(name, text, most)
