"""One queue, one loop: events in, `engine.step`, effects out. Nothing is decided here."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, TypeAlias, assert_never

from polywan.core.engine import agenda, list_preload, passive
from polywan.core.engine import step as engine
from polywan.core.errors import KernelError, PolywanError
from polywan.core.journal.changes import Change
from polywan.core.net import FAMILIES, Family
from polywan.core.plan.plan import NftBatch, Plan
from polywan.core.ruleset.model import declare_texts
from polywan.core.state import events, relevance
from polywan.core.state.effects import (
    MOST_READS,
    Apply,
    Effect,
    ForgetAll,
    ForgetUntranslated,
    ForgetWrongSource,
    Hold,
    InspectDrain,
    Level,
    Log,
    Read,
    Record,
    ReleaseConnections,
    SampleTraffic,
    SaveMemory,
    StartCheck,
    StartProbe,
)
from polywan.core.state.events import Applied, ConfigLoaded, Event, KernelEvent, ListsPreloaded, ReadDone, Tick
from polywan.core.state.state import State
from polywan.core.words import counted, printable
from polywan.core.world.conntrack import BLUR, Flow, stray, translated_to
from polywan.core.world.lookups import PrefixList
from polywan.core.world.observed import Observed
from polywan.daemon.lookups import leases
from polywan.daemon.tasks.draining import DrainWorker
from polywan.daemon.tasks.holding import Holder
from polywan.daemon.tasks.keeping import Keeper
from polywan.daemon.tasks.seeking import TrafficSampler
from polywan.daemon.tasks.traffic import Meter
from polywan.kernel.api import Machine
from polywan.probe.api import Prober

log = logging.getLogger("polywan")

LEVELS = {Level.INFO: logging.INFO, Level.WARNING: logging.WARNING, Level.ERROR: logging.ERROR}

Doomed: TypeAlias = Callable[[float, Flow], bool]
"""Whether a connection is to be forgotten, given the seconds since that was decided."""


class Daemon:
    """Runs the engine over a kernel and a prober until it is told to stop.

    Attributes:
        feeds: further sources of events, which run as long as the loop does.
        meter: measures what goes by the uplinks.
        on_changes: takes what became of uplinks in one decision, and must return at once.
        on_step: called after every event, with its effects carried out, and must return at once.
    """

    def __init__(self, kernel: Machine, prober: Prober, state: State, state_dir: Path) -> None:
        self.state = state
        self._kernel = kernel
        self._prober = prober
        self._keeper = Keeper(state_dir)
        self._queue: deque[Event] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._failed: asyncio.Future[None] | None = None
        self._reading: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._cutting: set[ReleaseConnections] = set()
        self._refused = False
        self._halted = False
        self._writes = 0
        self._notices = 0
        self.meter = Meter(kernel, lambda: self.state)
        self._staging = asyncio.Lock()
        self._handed: list[tuple[Event, asyncio.Future[None]]] = []
        self._settling: list[asyncio.Future[None]] = []
        self._drain_worker = DrainWorker(kernel, time.monotonic, lambda: self.state.decision.drains)
        self._holder = Holder(kernel)
        self._seeker = TrafficSampler(kernel, time.monotonic)
        self.feeds: list[Callable[[], Coroutine[Any, Any, None]]] = []
        self.ready = asyncio.Event()
        self.on_settled: Callable[[], None] = lambda: None
        self.on_step: Callable[[], None] = lambda: None
        self.on_changes: Callable[[tuple[Change, ...]], None] = lambda _: None

    def post(self, event: Event) -> None:
        """Hand the loop an event."""
        self._queue.append(event)
        # Behind another one it is taken together with that.
        if self._failed is not None and len(self._queue) == 1:
            self._arm(float("-inf"))

    def halt(self) -> None:
        """Take events, but decide nothing any more: somebody is about to remove everything."""
        self._halted = True

    async def stage(self, lists: Iterable[PrefixList]) -> None:
        """Have the kernel hold large lists before the event that brings them into use; in a thread.

        What fails here is done again, and told, with the decision that needs it.
        """
        async with self._staging:
            sets = list_preload.ahead(lists, self.state)
            if not sets or self._halted:
                return
            self.post(ListsPreloaded(frozenset(sets)))
            seconds = 0.0
            # Each piece is asked for from here, so that a decision never waits for more than one.
            for text in (text for name, nftset in sets.items() for text in declare_texts(name, nftset)):
                report = await asyncio.to_thread(self._kernel.apply, Plan((NftBatch(text),)))
                seconds += report.seconds
                if report.failures:
                    self.post(ListsPreloaded(frozenset()))
                    return
            log.info("list.preloaded: preloaded %s in %.1f ms", counted(len(sets), "set"), 1000 * seconds)

    async def settle(self, event: Event) -> None:
        """Hand the loop an event and wait until the kernel was read back after it.

        Raises:
            Exception: what preparing a configuration raised, if the event is one; nothing has changed then.
        """
        self._notices += 1
        settled = asyncio.get_running_loop().create_future()
        self._handed.append((event, settled))
        self.post(event)
        await settled

    async def run(self) -> None:
        """Take events until cancelled; sockets stay open for whoever closes kernel and prober.

        Raises:
            Exception: whatever a step or an effect raised; the data plane stays as it is.
        """
        self._failed = asyncio.get_running_loop().create_future()
        self._prober.report_to(self.post)
        self._drain()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._feed_kernel())
                group.create_task(self._feed_new_connections())
                group.create_task(self.meter.run())
                for feed in self.feeds:
                    group.create_task(feed())
                await self._failed
        finally:
            # A probe may be answered still.
            self.halt()
            self._arm(None)

    async def _feed_kernel(self) -> None:
        await self._kernel.watch(self._notice)

    def _notice(self, event: KernelEvent) -> None:
        # What is read again a little later anyway makes no read that is under way worthless.
        self._notices += not relevance.foreign(self.state, event)
        self.post(event)

    async def _feed_new_connections(self) -> None:
        """Without them everything works, only slower."""
        try:
            async for new_connections in self._kernel.new_connections():
                self.post(new_connections)
        except KernelError as error:
            log.warning("passive.unavailable: %s; only probes notice silence", error)

    def _drain(self) -> None:
        """Handle every event that is there, then what is due, then sleep until the next deadline.

        A plain callback, not a task that waits: at a hundred events a second the waiting would cost more than
        the work.
        """
        clock = asyncio.get_running_loop().time
        try:
            while self._queue and not self._halted:
                self._step(events.first_of(self._queue), clock())
            at = agenda.deadline(self.state)
            if not self._halted and at <= clock():
                self._step(Tick(), clock())
                at = agenda.deadline(self.state)
        except Exception as error:  # noqa: BLE001 - handed to `run`, which raises it
            self._fail(error)
            return
        # What the last step has posted waits for nothing but its turn.
        at = float("-inf") if self._queue else at
        self._arm(None if self._halted else at)

    def _arm(self, at: float | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None
        if at is not None:
            loop = asyncio.get_running_loop()
            # A deadline that has passed lets others run once before it is taken up.
            self._timer = loop.call_at(min(max(at, loop.time()), loop.time() + 3600.0), self._drain)

    def _step(self, event: Event, now: float) -> None:
        try:
            self.state, effects = engine.step(self.state, event, now)
        except Exception as error:
            if not self._refuse(event, error):
                raise
            return
        for effect in effects:
            self._perform(effect)
        self.on_step()
        if isinstance(event, ConfigLoaded):
            self._kernel.listen(passive.mask(self.state))
        if self.state.ready:
            self.ready.set()
        if isinstance(event, ReadDone):
            self._keeper.again()
            self._holder.again()
            for settled in self._settling:
                if not settled.done():
                    settled.set_result(None)
            self._settling.clear()
            self.on_settled()
        # Only a read after the event itself says that it has settled.
        self._settling += [settled for handed, settled in self._handed if handed is event]
        self._handed = [(handed, settled) for handed, settled in self._handed if handed is not event]

    def _refuse(self, event: Event, error: Exception) -> bool:
        """Let whoever brings a configuration have what preparing it raised; the one in force goes on."""
        waiting = next((w for e, w in self._handed if e is event and isinstance(e, ConfigLoaded)), None)
        if waiting is None or not self.state.ready:
            return False
        self._handed = [(e, w) for e, w in self._handed if w is not waiting]
        if not waiting.done():
            waiting.set_exception(error)
        return True

    def _perform(self, effect: Effect) -> None:
        match effect:
            case Apply(plan):
                self._writes += 1
                report = self._kernel.apply(plan)
                self._refused = report.table_refused
                # Everything at first, then what the other lines are about.
                level = logging.INFO if self._writes == 1 else logging.DEBUG
                log.log(
                    level, "apply.done: applied %s in %.1f ms", counted(report.done, "operation"), 1000 * report.seconds
                )
                self.post(Applied(report))
            case Hold(name, table):
                self._holder.hold(name, table)
            case Read():
                if self._reading is None or self._reading.done():
                    self._reading = self._spawn(self._read())
            case StartProbe(order):
                self._prober.start(order)
            case StartCheck(order):
                self._prober.check(order)
            case SampleTraffic():
                self._spawn(self._seek(effect))
            case ReleaseConnections() | ForgetUntranslated() | ForgetWrongSource() | InspectDrain() | ForgetAll():
                self._track(effect)
            case SaveMemory(memory):
                self._keeper.remember(memory)
            case Log(level, event, text):
                log.log(LEVELS[level], "%s: %s", event, printable(text))
            case Record(changes):
                self.on_changes(changes)
            case _:
                assert_never(effect)

    def _track(
        self, effect: ReleaseConnections | ForgetUntranslated | ForgetWrongSource | InspectDrain | ForgetAll
    ) -> None:
        match effect:
            case ReleaseConnections():
                # Without the dead marks nobody would meet a reset; one that is under way finds what comes meanwhile.
                if not self._refused and effect not in self._cutting:
                    self._cutting.add(effect)
                    self._spawn(self._cut(effect)).add_done_callback(lambda _: self._cutting.discard(effect))
            case ForgetUntranslated():
                if not self._refused:
                    self._forget(0, 0, stray, "they began without a rule set")
            case ForgetWrongSource(uplink, mark, mask, family, others):
                text = f"they had another link's address on {uplink}"
                self._forget(mark, mask, lambda _, flow: translated_to(flow, others), text, family)
            case InspectDrain() | ForgetAll():
                self._spawn(self._carry_out_drain(effect))

    def _spawn(self, work: Awaitable[None]) -> asyncio.Task[None]:
        task = asyncio.ensure_future(work)
        assert isinstance(task, asyncio.Task)  # noqa: S101 - a coroutine always becomes a task
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        if self._failed is not None and not self._failed.done():
            self._failed.set_exception(error)

    async def _read(self) -> None:
        """Read in a thread; what was read while we wrote is worthless, while others write it is read a few times."""
        for attempt in count(1):
            writes, notices = self._writes, self._notices
            try:
                observed = await asyncio.to_thread(self._observe)
                if self._halted:
                    return
                paths = engine.sysctl_paths(self.state, observed)
                kinds = engine.queue_kinds(self.state)
                self._kernel.hear_queues(wanted=bool(kinds))
                actual = await asyncio.to_thread(self._kernel.read, paths, kinds)
            except PolywanError as error:
                log.error("read.failed: %s", error)
                return
            self._drain()  # What waits in the queue may write, too; after this, the result is the first in it.
            if writes == self._writes and (notices == self._notices or attempt >= MOST_READS):
                self.post(ReadDone(observed, actual))
                return

    def _observe(self) -> Observed:
        config = self.state.known.config
        return self._kernel.observe() if config is None else leases.observe(self._kernel, config)

    async def _carry_out_drain(self, effect: InspectDrain | ForgetAll) -> None:
        if (seen := await self._drain_worker.carry_out(effect)) is not None:
            self.post(seen)

    async def _seek(self, effect: SampleTraffic) -> None:
        self.post(await self._seeker.look(effect))

    async def _cut(self, cut: ReleaseConnections) -> None:
        whom = {"tcp": cut.tcp, "clients": cut.clients, "inbound": cut.inbound}
        work = partial(self._kernel.cut, cut.mark, cut.mask, cut.family, **whom)
        if cut.vanished:
            work = partial(self._kernel.release, cut.mark, cut.mask, cut.family)
        try:
            freed = await asyncio.to_thread(work)
        except KernelError as error:
            log.error("release.failed: %s", error)
            return
        for problem in freed.problems:
            log.warning("release.partial: %s", problem)
        if freed.forgotten or freed.challenged or freed.ended:
            log.info("release.done: released connections of %s (IPv%d): %s", cut.uplink, cut.family, freed.summary)

    def _forget(self, mark: int, mask: int, doomed: Doomed, reason: str, *families: Family) -> None:
        now = time.monotonic()

        def forget() -> int:
            time.sleep(BLUR)
            return sum(
                self._kernel.drop(mark, mask, family, partial(doomed, time.monotonic() - now))
                for family in families or FAMILIES
            )

        async def forgetting() -> None:
            try:
                if gone := await asyncio.to_thread(forget):
                    log.info("forget.done: forgot %s, which choose again: %s", counted(gone, "connection"), reason)
            except KernelError as error:
                log.error("forget.failed: %s", error)

        self._spawn(forgetting())

    @property
    def unsaved(self) -> str:
        """Why what is to be remembered is not on disk; empty when it is."""
        return self._keeper.unsaved

    @property
    def troubles(self) -> tuple[str, ...]:
        """What the engine cannot know: the prober has no right, or no means, to send; nothing can be remembered."""
        probes = (f"probes cannot be sent: {self._prober.problem}",) if self._prober.problem else ()
        unsaved = (f"a restart will lose the current state: {self.unsaved}",) if self.unsaved else ()
        return (*probes, *unsaved, *([self._holder.problem] if self._holder.problem else []))

    @property
    def notes(self) -> tuple[str, ...]:
        """What the engine cannot know, and nothing is wrong without."""
        return (self._holder.slow,) if self._holder.slow else ()
