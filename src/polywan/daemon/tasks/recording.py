"""Record what becomes of uplinks: number the changes, add what went by meanwhile, keep it on disk, and hand it on.

Nothing here may delay a decision. Changes wait in a queue, and reach the disk 2 s later in a thread of their own: while
a file is forced to disk, the kernel may take longer to release the connections of a lost uplink.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from itertools import islice
from typing import Final, TypeVar

from polywan.api.events import LinkEvent
from polywan.core.errors import KernelError
from polywan.core.journal.changes import Change, Standing, Standings
from polywan.core.policy.uplink_state import SERVING
from polywan.core.state.outages import WRITTEN
from polywan.core.status.link_events import link_event, spans_of
from polywan.core.status.rates import Sample
from polywan.core.status.stored_standing import StoredStanding, restored, restored_count, stored
from polywan.core.status.tally import Count, Tally, resumed, taken
from polywan.core.status.times import iso
from polywan.core.words import counted
from polywan.daemon.journal import EventQuery, Journal, JournalError
from polywan.daemon.loop import Daemon
from polywan.daemon.tasks.hooks import HookRunner
from polywan.kernel import counters
from polywan.threads import Threads

log = logging.getLogger("polywan")

T = TypeVar("T")

MOST_UNSAVED: Final = 1000
"""Changes that wait for a disk that takes nothing, and that are answered without a disk: two megabytes."""

DISK_TIMEOUT: Final = 2.0
"""Seconds that a start, a stop or a question waits for the disk."""

RETRY: Final = 10.0
"""Seconds until the next try to write what could not be written."""

CLOCK_SET: Final = 5.0
"""Seconds by which the clock on the wall is set that make what is on disk wrong: as on a machine without one of its own
that hears the time from a server."""


class Recorder:
    """Keeps the journal.

    Args:
        journal: the file.
        wall: tells Unix seconds; the loop's own clock is `time.monotonic`.

    Attributes:
        problem: why the journal is not on disk, for people; empty when it is.
        change_listeners: get the changes of every decision, and must return at once.
        on_entry: gets every entry, the hooks that are called for it, and the uplinks that serve by then.
        entry_listeners: get every entry, and must return at once.
    """

    def __init__(self, journal: Journal, wall: Callable[[], float] = time.time) -> None:
        self._journal = journal
        self._wall = wall
        self._daemon: Daemon | None = None
        self._hooks: HookRunner | None = None
        self.change_listeners: list[Callable[[tuple[Change, ...]], None]] = []
        self.on_entry: Callable[[LinkEvent, tuple[str, ...], tuple[str, ...]], None] = lambda *_: None
        self.entry_listeners: list[Callable[[LinkEvent], None]] = []
        self._thread = Threads(1, "journal")
        self._changes: deque[tuple[Change, ...]] = deque()
        self._news = asyncio.Event()
        self._arrival = asyncio.Event()
        self._recent: deque[LinkEvent] = deque(maxlen=MOST_UNSAVED)
        self._unsaved: deque[tuple[float, LinkEvent]] = deque()
        self._waiting = asyncio.Event()
        self._dropped = 0
        self._standings: dict[str, Standing] = {}
        self._saved_offset = self._offset
        self._tally: Tally = {}
        self._before: dict[str, Count] | None = None
        self._boot = counters.boot()
        self._loaded = False
        self._run = secrets.token_hex(4)
        self._start = 0
        self._last = 0
        self.problem = ""

    def follow(self, daemon: Daemon) -> None:
        """Take in what a daemon decides and measures, for as long as it runs."""
        self._daemon = daemon
        daemon.on_changes = self.record
        daemon.meter.listeners.append(self.sampled)
        self._hooks = HookRunner(lambda: daemon.state)
        self.on_entry = self._hooks.call
        daemon.feeds += [self.run, self.keep, self._hooks.run]

    async def load(self) -> Standings:
        """Return what the daemon before has recorded; nothing of it where the file cannot be read soon."""
        found: list[StoredStanding] = []
        try:
            found = await self._take_up()
        except (JournalError, TimeoutError) as error:
            self._failed(error)
        self._before = {one.interface: count for one in found if (count := restored_count(one, self._boot)) is not None}
        for one in found:
            with suppress(ValueError, OverflowError):
                self._standings[one.uplink] = restored(one, self._offset)
        return dict(self._standings)

    async def _take_up(self, *, patient: bool = False) -> list[StoredStanding]:
        """Go on behind the last number of the file, also where it could not be read before this daemon's first entries.

        Returns:
            What the daemon before has left.
        """
        found, start = await self._done(self._journal.load, patient=patient)
        if self._loaded:
            # A question and a try to write have both waited for it.
            return found
        self._start, self._loaded = start, True
        self._last += self._start
        self._recent = deque((self._moved(entry) for entry in self._recent), maxlen=MOST_UNSAVED)
        self._unsaved = deque((unix, self._moved(entry)) for unix, entry in self._unsaved)
        self._arrival.set()
        self._arrival = asyncio.Event()
        return found

    def _moved(self, entry: LinkEvent) -> LinkEvent:
        values = {name: getattr(entry, name) for name in LinkEvent.__fields__}
        return LinkEvent(**{**values, "id": entry.id + self._start})

    @property
    def name(self) -> str:
        """Whose numbers those of entries are now: the file's, as this daemon goes on with them."""
        return f"{self._journal.name:08x}.{self._run}" if self._loaded else f".{self._run}"

    def position(self, number: int, name: str | None) -> int:
        """Return behind which number there is all that comes behind an entry that `name` has numbered.

        A daemon before may have told of entries that never reached the disk; another file may have been here.
        """
        if name is not None and name != self.name:
            file, _, run = name.partition(".")
            if run == self._run:
                number += self._start
            else:
                number = min(number, self._start) if file == self.name.partition(".")[0] else self._start
        return number if number <= self._last else self._start

    @property
    def _offset(self) -> float:
        return self._wall() - time.monotonic()

    @property
    def troubles(self) -> tuple[str, ...]:
        """What people should know, of hooks too."""
        own = (f"the journal is not on disk: {self.problem}",) if self.problem else ()
        return (*own, *(self._hooks.troubles if self._hooks else ()))

    @property
    def last(self) -> int:
        """The number of the last entry; 0 before the first."""
        return self._last

    def record(self, changes: tuple[Change, ...]) -> None:
        """Take in the changes of one decision, and return at once."""
        self._changes.append(changes)
        self._news.set()
        for listener in self.change_listeners:
            listener(changes)

    def sampled(self, sample: Sample) -> None:
        """Take in a look at the counters of all devices; before the kernel was read it shows none."""
        known = self._daemon.state.known if self._daemon else None
        if known is None or known.config is None or known.observed is None:
            return
        if self._before is not None:
            self._tally = resumed(self._before, sample)
            self._before = None
        uplinks = known.config.uplinks
        shared = {uplinks[name].interface for name in known.config.sharing}
        # One that has just left the file is looked at once more, for its last entry.
        devices = {*(uplink.interface for uplink in uplinks.values()), *(s.interface for s in self._standings.values())}
        self._tally = taken(self._tally, sample, devices - shared)
        if abs(self._offset - self._saved_offset) > CLOCK_SET:
            self._waiting.set()

    async def run(self) -> None:
        """Enter changes as they come, until cancelled."""
        while True:
            await self._news.wait()
            self._news.clear()
            await self._enter()

    async def keep(self) -> None:
        """Write what is entered, again and again until it can be written, until cancelled."""
        while True:
            await self._waiting.wait()
            await asyncio.sleep(WRITTEN)
            self._waiting.clear()
            await self._save()
            while self._unsaved or self.problem:
                if self.problem:
                    await asyncio.sleep(RETRY)
                await self._save()

    async def close(self) -> None:
        """Enter and write what there is, as far as the disk takes it soon."""
        await self._enter()
        with suppress(TimeoutError, JournalError):
            async with asyncio.timeout(DISK_TIMEOUT):
                await self._save()
                await self._done(self._journal.close)

    async def events(self, wanted: EventQuery) -> list[LinkEvent]:
        """Return entries, oldest first: from the disk, or without one what this daemon remembers."""
        since = "" if wanted.since is None else iso(wanted.since)
        if wanted.after is not None and self._recent and wanted.after >= self._recent[0].id - 1:
            return [*islice((e for e in self._recent if _fits(e, wanted, since)), wanted.most)]
        try:
            if not self._loaded:
                name = self.name
                await self._take_up()
                after = None if wanted.after is None else self.position(wanted.after, name)
                wanted = wanted._replace(after=after)
            waiting = [entry for _, entry in self._unsaved]
            found = await self._done(lambda: self._journal.read(wanted))
            self._worked()
        except (JournalError, TimeoutError) as error:
            self._failed(error)
            found, waiting = [], [*self._recent]
        known = found[-1].id if found else 0
        found += [e for e in waiting if e.id > known and _fits(e, wanted, since)]
        return found[-wanted.most :] if wanted.newest else found[: wanted.most]

    async def arrival(self, after: int) -> None:
        """Wait until there is an entry behind that number."""
        while self._last <= after:
            await self._arrival.wait()

    async def _enter(self) -> None:
        if not self._changes:
            return
        if self._daemon is not None:
            with suppress(KernelError):
                self.sampled(await self._daemon.meter.look())
        while self._changes:
            changes = self._changes.popleft()
            # Names may be exchanged.
            for change in changes:
                self._standings.pop(change.before.uplink if change.before else "", None)
            self._standings |= {change.after.uplink: change.after for change in changes if change.after is not None}
            for change in changes:
                self._enter_one(change)
        self._arrival.set()
        self._arrival = asyncio.Event()
        self._waiting.set()

    def _enter_one(self, change: Change) -> None:
        device, unix = change.standing.interface, change.at + self._offset
        ended, begun = spans_of(change)
        count = self._tally.get(device)
        moved = count.since(ended) if count else None
        self._last += 1
        entry = link_event(self._last, change, unix, moved)
        if count is not None and change.after is not None:
            self._tally = {**self._tally, device: count.marked(begun)}
        self._recent.append(entry)
        self._unsaved.append((unix, entry))
        if len(self._unsaved) > MOST_UNSAVED:
            self._unsaved.popleft()
            self._dropped += 1
        serving = tuple(name for name, one in self._standings.items() if one.state in SERVING)
        self.on_entry(entry, change.hooks, serving)
        for listener in self.entry_listeners:
            listener(entry)

    async def _save(self) -> None:
        """Write what waits, and how each uplink is.

        Until something happens and the devices were looked at, what the file says of both is better: then only see
        whether it can be used.
        """
        try:
            if not self._loaded:
                await self._take_up(patient=True)
            entries, standings = [*self._unsaved], self._to_leave()
            if entries or (standings and not self._before):
                await self._done(lambda: self._journal.append(entries, standings), patient=True)
            else:
                await self._done(self._journal.load, patient=True)
        except (JournalError, TimeoutError) as error:
            self._failed(error)
            return
        while entries and self._unsaved and self._unsaved[0][1].id <= entries[-1][1].id:
            self._unsaved.popleft()
        self._worked(saved=True)

    def _to_leave(self) -> list[StoredStanding]:
        """Return what the next daemon has to know."""
        self._saved_offset, nothing = self._offset, Count(now=None)
        return [
            stored(one, self._tally.get(one.interface, nothing), self._boot, self._saved_offset)
            for one in self._standings.values()
        ]

    def _worked(self, *, saved: bool = False) -> None:
        if self._unsaved and not saved:
            return
        if self.problem:
            lost = f"; {counted(self._dropped, 'change')} could not be kept" if self._dropped else ""
            log.info("journal.written: the journal is on disk again%s", lost)
        self.problem, self._dropped = "", 0

    async def _done(self, work: Callable[[], T], *, patient: bool = False) -> T:
        """Have the journal's thread do something; where its disk hangs, give up soon, or be `patient` and say so."""
        try:
            future = asyncio.wrap_future(self._thread.submit(work))
        except RuntimeError as error:
            # Such as at the limit of threads.
            raise JournalError(str(error)) from error
        try:
            async with asyncio.timeout(DISK_TIMEOUT):
                return await asyncio.shield(future)
        except TimeoutError as error:
            if not patient:
                raise
            self._failed(error)
            return await asyncio.shield(future)
        finally:
            while self._journal.notices:
                log.warning("journal.aside: %s", self._journal.notices.pop(0))

    def _failed(self, error: Exception) -> None:
        text = str(error) or f"its disk has not answered for {DISK_TIMEOUT:g} s"
        if text != self.problem:
            kept = f"the last {MOST_UNSAVED} changes stay in memory until it can"
            log.error("journal.unwritable: the journal cannot be kept: %s; %s", text, kept)
        self.problem = text
        self._waiting.set()


def _fits(entry: LinkEvent, wanted: EventQuery, since: str) -> bool:
    return (
        wanted.uplink in (None, entry.uplink)
        and (wanted.after is None or entry.id > wanted.after)
        and entry.time >= since
    )
