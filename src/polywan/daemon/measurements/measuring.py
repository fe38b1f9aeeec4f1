"""Take in what is measured, second by second, and write it every ten seconds, in a thread of its own.

Nothing here may delay a decision: the loop only adds up; a disk that hangs holds up nothing but this thread.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from math import inf
from typing import Final, TypeVar

from polywan.core.journal.changes import Change
from polywan.core.measurements.clients import added as added_clients
from polywan.core.measurements.points import Point
from polywan.core.measurements.readings import reading_of
from polywan.core.measurements.seconds import Seconds, taken
from polywan.core.measurements.series import Measured
from polywan.core.measurements.tiers import TIERS
from polywan.core.measurements.volumes import (
    NO_VOLUME,
    DeviceCounts,
    UplinkBytes,
    Volumes,
    added,
    hour_of,
    renamed,
    without,
)
from polywan.core.resolved import Resolved
from polywan.core.status.rates import Sample
from polywan.core.status.tally import Bytes
from polywan.daemon.database import DatabaseError
from polywan.daemon.loop import Daemon
from polywan.daemon.measurements.clients import MOST_CLIENTS, ClientWatch
from polywan.daemon.measurements.store import Batch, Names, Store
from polywan.kernel import counters
from polywan.kernel.api import Tracker
from polywan.threads import Threads

log = logging.getLogger("polywan")

T = TypeVar("T")

FLUSH: Final = 10.0
"""Seconds between two writes: what a crash costs of rates. Of bytes it costs nothing while the device stays."""

ANSWER_TIMEOUT: Final = 2.0
"""Seconds that a question, a start or a stop waits for the disk."""

MOST_UNWRITTEN: Final = 600
"""Seconds of measurements that wait for a disk that takes nothing: 12 MB with 53 uplinks."""

CLOCK_WRONG_BEFORE: Final = 1_767_225_600.0
"""2026-01-01: an earlier clock is one that was never set, as on a box without a battery. Nothing is written by it, and
bytes wait in memory for the right time."""


class Measurer:
    """Keeps measurements.

    Args:
        store: the file.
        wall: tells Unix seconds.

    Attributes:
        problem: why nothing can be written or read, for people; empty when it can.
        moved: bytes of every uplink since this daemon counts it.
    """

    def __init__(self, store: Store, wall: Callable[[], float] = time.time) -> None:
        self._store = store
        self._wall = wall
        self._daemon: Daemon | None = None
        self._thread = Threads(1, "measurements")
        self._boot = counters.boot()
        self._counts = DeviceCounts()
        self._spent: dict[str, int] = {}
        self._volumes: Volumes = {}
        self._homeless: dict[str, UplinkBytes] = {}
        self._clients: dict[str, dict[str, Bytes]] = {}
        self._seconds = Seconds()
        self._points: dict[int, dict[str, Point]] = {}
        self._watch: ClientWatch | None = None
        self._renamings: list[Names] = []
        self._sampled = self._resumed = False
        self._writing: asyncio.Future[None] | None = None
        self.moved: dict[str, UplinkBytes] = {}
        self.problem = ""

    def follow(self, daemon: Daemon, kernel: Tracker) -> None:
        """Take in what a daemon measures and decides, for as long as it runs."""
        self._daemon = daemon
        daemon.meter.listeners.append(self.sampled)
        self._watch = ClientWatch(kernel, lambda: daemon.state, self.clients_moved)
        daemon.feeds += [self.keep, self._watch.run]

    def changed(self, changes: Iterable[Change]) -> None:
        """Take in what became of uplinks in one decision: other names."""
        names = {
            change.before.uplink: change.after.uplink
            for change in changes
            if change.before and change.after and change.before.uplink != change.after.uplink
        }
        if names:
            self._renamings.append(names)
            self._volumes = renamed(self._volumes, names)
            self.moved = {names.get(name, name): one for name, one in self.moved.items()}
            self._homeless = {names.get(name, name): one for name, one in self._homeless.items()}
            self._points = {s: {names.get(n, n): p for n, p in each.items()} for s, each in self._points.items()}
            self._spent = {names.get(name, name): spent for name, spent in self._spent.items()}

    def sampled(self, sample: Sample) -> None:
        """Take in a look at the counters of all devices; before the kernel was read it shows none."""
        known = self._daemon.state.known if self._daemon else None
        if known is None or known.config is None or known.observed is None:
            return
        self._sampled = True
        moved = self._count(known.config, sample)
        self._measure(known.config.uplinks, moved)

    def _count(self, config: Resolved, sample: Sample) -> dict[str, Bytes]:
        """Count bytes, and return those since the look before by uplink."""
        # Of a device that several uplinks have nobody knows whose its bytes are.
        owners = {uplink.interface: name for name, uplink in config.uplinks.items() if name not in config.sharing}
        self._counts, moved = self._counts.looked(sample.counters, owners)
        spent = self._probed(config.uplinks)
        more = {
            name: UplinkBytes(*moved.get(device, (0, 0)), spent.get(name, 0))
            for device, name in owners.items()
            if device in moved or name in spent
        }
        self._enter(more)
        return {name: moved[device] for device, name in owners.items() if device in moved}

    def _measure(self, names: Iterable[str], moved: Mapping[str, Bytes]) -> None:
        """Give the seconds since the look before their points."""
        unix = self._wall()
        if unix < CLOCK_WRONG_BEFORE or self._daemon is None:
            self._seconds = Seconds()
            return
        state, counts = self._daemon.state, self._watch.connections if self._watch else {}
        readings = {name: reading_of(state, name, counts.get(name)) for name in names if name in state.decision.views}
        self._seconds, points = taken(self._seconds, unix, readings, moved)
        self._points |= points
        while len(self._points) > MOST_UNWRITTEN:
            del self._points[next(iter(self._points))]

    def clients_moved(self, moved: Mapping[str, Bytes]) -> None:
        """Take in the bytes of clients; before the clock is set nobody knows their month."""
        unix = self._wall()
        if unix >= CLOCK_WRONG_BEFORE and moved:
            month = time.strftime("%Y-%m", time.localtime(unix))
            self._clients[month] = added_clients(self._clients.get(month, {}), moved, MOST_CLIENTS)

    def _probed(self, names: Iterable[str]) -> dict[str, int]:
        """Return what probes have cost each uplink since the look before."""
        checks = self._daemon.state.health.checks.spent if self._daemon else {}
        now = {name: checks[name].total for name in names if name in checks}
        before, self._spent = self._spent, now
        # Counted anew from zero when the uplink is probed anew.
        return {
            name: total - (before.get(name, 0) if total >= before.get(name, 0) else 0) for name, total in now.items()
        }

    def _enter(self, more: Mapping[str, UplinkBytes]) -> None:
        self.moved = {**self.moved, **{name: self.moved.get(name, NO_VOLUME).plus(one) for name, one in more.items()}}
        unix = self._wall()
        waiting = {*more, *self._homeless}
        whole = {n: more.get(n, NO_VOLUME).plus(self._homeless.get(n, NO_VOLUME)) for n in waiting}
        if unix < CLOCK_WRONG_BEFORE:
            self._homeless = whole
            return
        self._homeless = {}
        hour = hour_of(unix, time.localtime(unix).tm_gmtoff)
        self._volumes = added(self._volumes, {(hour, n): one for n, one in whole.items() if one != NO_VOLUME})

    @property
    def troubles(self) -> tuple[str, ...]:
        """What people should know."""
        return (f"measurements are not on disk: {self.problem}",) if self.problem else ()

    @property
    def clients_problem(self) -> str:
        """Why clients are not counted, or not all; empty when they are."""
        return self._watch.problem if self._watch else ""

    async def keep(self) -> None:
        """Write what was taken in, again and again, until cancelled."""
        while True:
            await asyncio.sleep(FLUSH)
            await self.flush()

    async def flush(self) -> None:
        """Write what there is; what cannot be written now is tried again."""
        # One write at a time: a disk that hangs has taken the last one, or will.
        writing = self._writing = self._writing or asyncio.ensure_future(self._write())
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT):
                await asyncio.shield(writing)
        except TimeoutError as error:
            self._failed(error)
            return
        except DatabaseError as error:
            self._failed(error)
        else:
            self._worked()
        if self._writing is writing:
            self._writing = None

    async def _write(self) -> None:
        if not self._sampled:
            return
        if not self._resumed:
            stored = await self._done(self._store.devices)
            self._resumed, owners = True, self._owners()
            gap = self._counts.gap(stored, self._boot)
            self._enter({owners[device]: UplinkBytes(*one) for device, one in gap.items() if device in owners})
        renamings, batch = tuple(self._renamings), self._batch()
        self._clients, waiting = {}, self._clients
        try:
            await self._done(lambda: self._store.write(batch))
        except DatabaseError:
            for month, clients in waiting.items():
                self._clients[month] = added_clients(clients, self._clients.get(month, {}), MOST_CLIENTS)
            raise
        del self._renamings[: len(renamings)]
        for second, points in batch.seconds.items():
            if self._points.get(second) is points:
                del self._points[second]
        written = batch.volumes
        for names in self._renamings:
            written = renamed(written, names)
        self._volumes = without(self._volumes, written)

    def _batch(self) -> Batch:
        return Batch(
            renamings=tuple(self._renamings),
            seconds=dict(self._points),
            volumes=self._volumes,
            clients=self._clients,
            boot=self._boot,
            devices=self._counts.last,
        )

    def _owners(self) -> dict[str, str]:
        config = self._daemon.state.known.config if self._daemon else None
        return {uplink.interface: name for name, uplink in config.uplinks.items()} if config else {}

    async def close(self) -> None:
        """Write what there is, as far as the disk takes it soon."""
        await self.flush()
        if not self.problem:
            with suppress(TimeoutError, DatabaseError):
                await self._soon(self._store.close)

    async def volumes(self, spans: Iterable[tuple[float, float]]) -> list[dict[str, UplinkBytes]]:
        """Return the bytes of all uplinks in the hours that begin in each span (Unix seconds), up to this moment.

        Raises:
            DatabaseError: the file cannot be read.
            TimeoutError: its disk does not answer soon.
        """
        return (await self._summed(spans))[0]

    async def measured(
        self, step: int, since: float, until: float, names: Collection[str]
    ) -> tuple[list[Measured], str]:
        """Return what was measured of uplinks in the intervals of a tier that touch a span, up to this second.

        Args:
            step: seconds of the tier's intervals.
            since: begin of the span, Unix seconds.
            until: its end.
            names: the uplinks.

        Returns:
            The points, and why there is nothing but what is in memory, for people; empty when that is not so.
        """
        tier, found, problem = next(t for t in TIERS if t.step == step), list[Measured](), ""
        try:
            await self._settled()
            waiting = dict(self._points)
            rows = await self._soon(lambda: self._store.points(tier, since, until, names))
            found = [Measured(*row) for row in rows]
        except (DatabaseError, TimeoutError) as error:
            waiting, problem = dict(self._points), _why(error)
        for second, points in waiting.items():
            if since <= second <= until:
                found += [Measured(tier.start(second), name, point) for name, point in points.items() if name in names]
        return found, problem

    async def clients(self, months: Iterable[str]) -> list[tuple[str, str, Bytes]]:
        """Return month, client and bytes of months, those with most first; errors as `volumes`."""
        wanted = [*months]
        await self._settled()
        waiting = dict(self._clients)
        found = await self._soon(lambda: self._store.clients(wanted))
        sums = {month: {c: b for m, c, b in found if m == month} for month in wanted}
        for month in wanted:
            sums[month] = added_clients(sums[month], waiting.get(month, {}), MOST_CLIENTS)
        return [
            (month, client, sums[month][client])
            for month in wanted
            for client in sorted(sums[month], key=lambda c: (-sum(sums[month][c]), c))
        ]

    async def first_hour(self) -> int | None:
        """Return the first hour of which there are bytes; errors as `volumes`."""
        await self._settled()
        return await self._soon(self._store.first_hour)

    async def bases(self, since: Mapping[str, float]) -> dict[str, UplinkBytes]:
        """Return what has to be added to `moved` to know an uplink's bytes since a moment, from now on.

        Args:
            since: moments by uplink, Unix seconds; what counts is the first hour of local time that begins there.

        Raises:
            DatabaseError: the file cannot be read.
            TimeoutError: its disk does not answer soon.
        """
        found, moved = await self._summed((at, inf) for at in since.values())
        return {
            name: volumes.get(name, NO_VOLUME).minus(moved.get(name, NO_VOLUME))
            for name, volumes in zip(since, found, strict=True)
        }

    async def _summed(
        self, spans: Iterable[tuple[float, float]]
    ) -> tuple[list[dict[str, UplinkBytes]], dict[str, UplinkBytes]]:
        """Return bytes by span, and what `moved` was at that moment; both without what is written later."""
        wanted = [*spans]
        await self._settled()
        waiting, moved = self._volumes, self.moved
        found = await self._soon(lambda: self._store.volumes(wanted))
        for (since, until), volumes in zip(wanted, found, strict=True):
            for (hour, name), one in waiting.items():
                if since <= hour < until:
                    volumes[name] = volumes.get(name, NO_VOLUME).plus(one)
        return found, moved

    async def _settled(self) -> None:
        """Wait for a write that is under way: what it writes would be counted twice, or not at all."""
        if self._writing is not None or self._renamings or not self._resumed:
            await self.flush()
            if self._writing is not None or self._renamings:
                raise DatabaseError(self.problem)

    async def _soon(self, work: Callable[[], T]) -> T:
        async with asyncio.timeout(ANSWER_TIMEOUT):
            return await asyncio.shield(self._done(work))

    async def _done(self, work: Callable[[], T]) -> T:
        """Have something done in the thread of the file."""
        try:
            return await asyncio.wrap_future(self._thread.submit(work))
        except RuntimeError as error:
            # Such as at the limit of threads.
            raise DatabaseError(str(error)) from error
        finally:
            while self._store.notices:
                log.warning("measurements.aside: %s", self._store.notices.pop(0))

    def _worked(self) -> None:
        if self.problem:
            log.info("measurements.written: measurements are on disk again")
        self.problem = ""

    def _failed(self, error: Exception) -> None:
        text = _why(error)
        if text != self.problem:
            log.error(
                "measurements.unwritable: measurements cannot be kept: %s; bytes are counted until they can", text
            )
        self.problem = text


def _why(error: Exception) -> str:
    return str(error) or f"their disk has not answered for {ANSWER_TIMEOUT:g} s"
