"""Answers what was measured: series, beats, incidents and volumes."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Final

from polywan.api.codec import encode
from polywan.api.events import LinkEvent
from polywan.api.requests import OfIncidents, OfMeasurements, OfMonth, OfSpan
from polywan.api.views.measurements import (
    Availability,
    ClientVolume,
    Incident,
    Incidents,
    Measurements,
    UplinkVolume,
    Volumes,
)
from polywan.config.faults import shown
from polywan.core.errors import ControlError
from polywan.core.measurements import incidents as journal
from polywan.core.measurements.series import Measured, beats, series
from polywan.core.measurements.tiers import tier_of
from polywan.core.state.state import State
from polywan.daemon.api.events import since_of
from polywan.daemon.api.http import Written
from polywan.daemon.api.unknown import unknown
from polywan.daemon.database import DatabaseError
from polywan.daemon.journal import MOST_ENTRIES, EventQuery
from polywan.daemon.measurements.measuring import Measurer
from polywan.daemon.measurements.spans import beats_of, following, month_of, months_since, name_of
from polywan.daemon.tasks.recording import Recorder

SCHEMA: Final = 1
"""Version of the shape of these documents; fields are added, never changed."""

_LAST_HOUR: Final = 3600.0
_LAST_DAYS: Final = 30 * 24 * 3600.0
"""Seconds that an answer is about by default: measurements, incidents."""

POINTS: Final = 300
MOST_POINTS: Final = 1000
"""Intervals of an answer for each uplink: by default, and at most."""

MOST_INCIDENTS: Final = 500
_MOST_ENTRIES: Final = 500
"""Entries of the journal that are read at a time."""
_MOST_READS: Final = MOST_ENTRIES // _MOST_ENTRIES + 1
"""How many times at most: the oldest come first, and without the newest an outage would seem to last."""


class Measuring:
    """Measurements over a control socket.

    Args:
        measurer: keeps them.
        recorder: keeps the journal.
        state: returns what the daemon knows now.
        wall: tells Unix seconds.
    """

    def __init__(
        self, measurer: Measurer, recorder: Recorder, state: Callable[[], State], wall: Callable[[], float] = time.time
    ) -> None:
        self._measurer = measurer
        self._recorder = recorder
        self._state = state
        self._wall = wall

    async def measurements(self, asked: OfMeasurements) -> Written[Measurements]:
        """Return series of what was measured.

        Raises:
            ControlError: a word of the question makes no sense (400), or there is no such uplink (404).
        """
        now = self._wall()
        since, until = _span(asked.since, asked.until, now, _LAST_HOUR)
        names = self._names(asked.uplink)
        tier, step = tier_of(since, until, now, _points(asked.points))
        found, problem = await self._found(tier.step, since, until, names)
        head = Measurements(schema=SCHEMA, step_s=step, series=(), problem=problem)
        return Written(await asyncio.to_thread(lambda: [*_written(head, found, names, since, until, step)]))

    async def availability(self, asked: OfSpan) -> Availability:
        """Return the lives of the uplinks in beats.

        Raises:
            ControlError: there is no such span (400).
        """
        now = self._wall()
        spans, tier = beats_of(asked.span or "24h", now)
        names = self._names(None)
        found, _ = await self._found(tier, spans[0][0], min(now, spans[-1][1] - 1), names)
        outages, _ = await self._incidents(None, spans[0][0], now)
        reasons = await asyncio.to_thread(journal.reasons, outages, spans)
        lives = await asyncio.to_thread(beats, found, names, spans, reasons)
        return Availability(schema=SCHEMA, uplinks=lives)

    async def incidents(self, asked: OfIncidents) -> Incidents:
        """Return incidents, newest first.

        Raises:
            ControlError: a word of the question makes no sense (400).
        """
        since, until = _span(asked.since, asked.until, self._wall(), _LAST_DAYS)
        found, more = await self._incidents(asked.uplink, since, until)
        return Incidents(
            schema=SCHEMA, incidents=tuple(found[:MOST_INCIDENTS]), more=more or len(found) > MOST_INCIDENTS
        )

    async def volumes(self, asked: OfMonth) -> Volumes:
        """Return bytes by month.

        Raises:
            ControlError: that is no month (400).
        """
        try:
            months = [month_of(asked.month)] if asked.month is not None else await self._months()
            spans = [(start, following(start)) for start in months]
            sums = await self._measurer.volumes((a.timestamp(), b.timestamp()) for a, b in spans)
            clients = await self._measurer.clients([name_of(month) for month in months])
        except (DatabaseError, TimeoutError) as error:
            return Volumes(schema=SCHEMA, uplinks=(), clients=(), problem=_why(error))
        return Volumes(
            schema=SCHEMA,
            uplinks=tuple(
                UplinkVolume(
                    month=name_of(start), uplink=name, rx_bytes=one.rx, tx_bytes=one.tx, probe_bytes=one.probes
                )
                for start, volumes in zip(months, sums, strict=True)
                for name, one in volumes.items()
            ),
            clients=tuple(
                ClientVolume(month=month, client=client, rx_bytes=one.rx, tx_bytes=one.tx)
                for month, client, one in clients
            ),
            problem=self._measurer.clients_problem,
        )

    async def _months(self) -> list[datetime]:
        """Return the months of which there are bytes, newest first."""
        now, first = self._wall(), await self._measurer.first_hour()
        return months_since(now if first is None else first, now)

    async def _found(self, step: int, since: float, until: float, names: Iterable[str]) -> tuple[list[Measured], str]:
        return await self._measurer.measured(step, since, until, frozenset(names))

    async def _incidents(self, uplink: str | None, since: float, until: float) -> tuple[list[Incident], bool]:
        """Return the incidents that touch a span, and whether there may be others."""
        entries: list[LinkEvent] = []
        wanted = EventQuery(uplink=None, since=since, after=None, most=_MOST_ENTRIES)
        for _ in range(_MOST_READS):
            found = await self._recorder.events(wanted)
            entries += found
            if len(found) < _MOST_ENTRIES:
                break
            wanted = wanted._replace(after=found[-1].id)
        now = self._wall()
        running = journal.lasting(self._state().done.standings, entries, now - time.monotonic(), now)
        incidents = await asyncio.to_thread(lambda: journal.incidents(entries, now))
        every = [one for one in (*running, *incidents) if uplink in (None, one.uplink)]
        return journal.touching(every, since, until), len(entries) >= _MOST_READS * _MOST_ENTRIES

    def _names(self, uplink: str | None) -> tuple[str, ...]:
        config = self._state().known.config
        names = tuple(config.uplinks) if config is not None else ()
        if uplink is not None and uplink not in names:
            raise unknown("uplink", uplink, names)
        return names if uplink is None else (uplink,)


def _written(
    head: Measurements, found: Iterable[Measured], names: Iterable[str], since: float, until: float, step: int
) -> Iterable[bytes]:
    """Yield a document as JSON in pieces, one for each uplink: the loop gets its turn between them."""
    before, key, after = json.dumps(encode(head)).partition('"series": [')
    comma = (before + key).encode()
    for one in series(found, names, since, until, step):
        yield comma + json.dumps(encode(one)).encode()
        comma = b", "
    yield (comma if comma != b", " else b"") + after.encode()


def _span(since: str | None, until: str | None, now: float, usual: float) -> tuple[float, float]:
    end = now if until is None else min(now, since_of(until, now))
    begin = end - usual if since is None else since_of(since, now)
    if begin > end:
        raise ControlError("since: expected a moment before `until`, and not in the future", 400)
    return max(0.0, begin), end


def _points(text: str | None) -> int:
    if text is None:
        return POINTS
    if not (text.isascii() and text.isdigit() and len(text) <= 4 and 1 <= int(text) <= MOST_POINTS):
        raise ControlError(f"points: expected a whole number from 1 to {MOST_POINTS}, got {shown(text)}", 400)
    return int(text)


def _why(error: Exception) -> str:
    return str(error) or "their disk does not answer"
