"""The engine over a kernel in memory: what it wants is carried out, and what comes of that is an event to come.

`daemon/loop.py` does the same with a real kernel, real probes and a real clock; where both decide something about an
effect, they decide alike. What takes the daemon a thread takes no time here, unless a constant says so.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Final, TypeAlias, assert_never

from polywan.config import Config
from polywan.core.engine import agenda, passive
from polywan.core.engine import step as engine
from polywan.core.health.probes import ProbeOrder, ProbeResult
from polywan.core.journal.changes import Change, Standings
from polywan.core.net import FAMILIES, PROTOCOLS
from polywan.core.plan.plan import Plan
from polywan.core.quota.limits import Quotas
from polywan.core.state import relevance
from polywan.core.state.effects import (
    MOST_READS,
    Apply,
    Effect,
    ForgetAll,
    ForgetUntranslated,
    ForgetWrongSource,
    Hold,
    InspectDrain,
    Log,
    Read,
    Record,
    ReleaseConnections,
    SampleTraffic,
    SaveMemory,
    StartCheck,
    StartProbe,
)
from polywan.core.state.events import (
    Applied,
    ConfigLoaded,
    DrainInspected,
    Event,
    KernelEvent,
    NewConnections,
    ReadDone,
    Tick,
)
from polywan.core.state.memory import Memory
from polywan.core.state.state import Done, Known, State
from polywan.core.world.conntrack import BLUR, stray, translated_to
from polywan.core.world.observed import Observed
from polywan.core.world.shared_device import next_hops
from polywan.sim.event_queue import Act, EventQueue
from polywan.sim.internet import ROUND_TRIP, Internet
from polywan.sim.kernel import SimulatedKernel

READ_TIME: Final = 0.005
"""Seconds that a read of the kernel takes, and a look at the connections of a drain."""

Connections: TypeAlias = ReleaseConnections | ForgetUntranslated | ForgetWrongSource | InspectDrain | ForgetAll


class Simulation:
    """The daemon, its kernel and the Internet; times are seconds since the beginning.

    Nothing happens before `start`. Whoever changes `kernel` or `internet` lets time pass afterwards, by `run_until`.

    Attributes:
        kernel: the box; its methods change links, addresses and rules, tamper, and refuse.
        internet: what is beyond it.
        state: what the daemon knows.
        memory: what it has written down, and finds when it starts again.
        now: the time.
        listeners: are called with each effect, before it is carried out.
        log: what people were told, each line with its time; `changes`: what the journal was told,
            and `standings` what it knows by that.
    """

    def __init__(self, observed: Observed, internet: Internet | None = None) -> None:
        self.kernel = SimulatedKernel(observed, self._hear)
        self.internet = internet or Internet()
        self.memory = Memory()
        self.state = State()
        self.now = 0.0
        self.listeners: list[Callable[[Effect], None]] = []
        self.log: list[tuple[float, Log]] = []
        self.changes: list[Change] = []
        self.standings: Standings = {}
        self._script = EventQueue()
        self._queue = EventQueue()
        self._reading = False
        self._refused = False
        self._writes = 0
        self._notices = 0

    def start(self, config: Config) -> None:
        """Begin as a new process: of one before it only kernel, memory, journal and the use of quotas remain."""
        self._queue.clear()
        self._reading = self._refused = False
        known = Known(memory=self.memory, quotas=Quotas(usages=self.state.known.quotas.usages))
        self.state = State(known=known, done=Done(standings=self.standings))
        self._queue.put(self.now, ConfigLoaded(config))
        self.run_until(self.now)

    def at(self, time: float, act: Act) -> None:
        """Do something at that time, before the daemon gets to do anything then."""
        self._script.put(time, act)

    def run_until(self, end: float) -> None:
        """Let time pass until `end`, inclusive."""
        while (at := min(self._script.next, self._queue.next, agenda.deadline(self.state))) <= end:
            self.now = max(self.now, at)
            entry = self._next()
            if callable(entry):
                entry()
            else:
                self.take(entry)
        self.now = max(self.now, end)

    def _next(self) -> Event | Act:
        """Take what is due now; when nothing is but a timer of the engine, that is its `Tick`."""
        for queue in (self._script, self._queue):
            if queue.next <= self.now:
                return queue.pop()
        return Tick()

    def suspend(self, seconds: float) -> None:
        """Let time pass while nothing runs: answers on their way are lost, and all else is late."""
        self.now += seconds
        self._queue.delay(self.now, lambda e: replace(e, rtt=None) if isinstance(e, ProbeResult) else e)

    def discard(self, uplink: str) -> None:
        """Lose late answers to probes by that uplink which are on their way."""
        self._queue.drop(lambda e: isinstance(e, ProbeResult) and e.late and e.uplink == uplink)

    def take(self, event: Event) -> tuple[Effect, ...]:
        """Hand the engine an event, carry out what it wants, and return that."""
        self.state, effects = engine.step(self.state, event, self.now)
        for effect in effects:
            for listener in self.listeners:
                listener(effect)
            self._perform(effect)
        if isinstance(event, ConfigLoaded):
            self.kernel.listen(passive.mask(self.state))
        return effects

    def _hear(self, event: KernelEvent | NewConnections) -> None:
        if isinstance(event, NewConnections):
            self._hear_connections(event)
            return
        self._notices += not relevance.foreign(self.state, event)
        self._queue.put(self.now, event)

    def _hear_connections(self, new: NewConnections) -> None:
        """Tell of the connections, and a round trip later which of them were answered."""
        self._queue.put(self.now, new)
        names: dict[int, str] = {numbers.mark: name for name, numbers in self.state.known.numbers.items()}
        for opening in new.opened:
            name = names.get(opening.mark)
            if name is not None and (name, opening.family) not in self.internet.silent:
                answered = NewConnections(answered=frozenset({opening.number}))
                self._queue.put(self.now + self.internet.latency.get(name, ROUND_TRIP), answered)

    def _perform(self, effect: Effect) -> None:
        match effect:
            case Apply(plan):
                self._apply(plan)
            case Hold(name, table):
                self.kernel.hold(name, table)
            case Read():
                if not self._reading:
                    self._reading = True
                    self._read(1)
            case StartProbe(order):
                self._probe(order)
            case StartCheck(order):
                after, result = self.internet.check(order)
                self._queue.put(self.now + after, result)
            case SampleTraffic():
                after, sampled = self.internet.sample(effect, self.now)
                self._queue.put(self.now + after, sampled)
            case ReleaseConnections() | ForgetUntranslated() | ForgetWrongSource() | InspectDrain() | ForgetAll():
                self._track(effect)
            case SaveMemory(memory):
                self.memory = memory
            case Log():
                self.log.append((self.now, effect))
            case Record(changes):
                self.changes += changes
                self.standings = self.state.done.standings
            case _:
                assert_never(effect)

    def _apply(self, plan: Plan) -> None:
        self._writes += 1
        report = self.kernel.apply(plan)
        self._refused = report.table_refused
        self._queue.put(self.now, Applied(report))

    def _read(self, attempt: int) -> None:
        """Read, and again if somebody wrote meanwhile: what was read then is worthless."""
        config = self.state.known.config
        observed = self.kernel.observe(next_hops(config) if config is not None else ())
        paths, kinds = engine.sysctl_paths(self.state, observed), engine.queue_kinds(self.state)
        self.kernel.hear_queues(wanted=bool(kinds))
        done = ReadDone(observed, self.kernel.read(paths, kinds))
        self._queue.put(self.now + READ_TIME, partial(self._have_read, done, attempt, self._writes, self._notices))

    def _have_read(self, done: ReadDone, attempt: int, writes: int, notices: int) -> None:
        if writes == self._writes and (notices == self._notices or attempt >= MOST_READS):
            self._reading = False
            self.take(done)
        else:
            self._read(attempt + 1)

    def _probe(self, order: ProbeOrder) -> None:
        link = self.kernel.links.get(order.interface)
        for after, result in self.internet.answers(order, self.now, connected=link is not None and link.usable):
            self._queue.put(self.now + after, result)

    def _track(self, effect: Connections) -> None:
        kernel = self.kernel
        match effect:
            case ReleaseConnections(_, mark, mask, family):
                # Without the dead marks nobody would meet a reset.
                if self._refused:
                    return
                if effect.vanished:
                    kernel.release(mark, mask, family)
                else:
                    kernel.cut(mark, mask, family, tcp=effect.tcp, clients=effect.clients, inbound=effect.inbound)
            case ForgetUntranslated():
                if not self._refused:
                    self._queue.put(self.now + BLUR, self._forget_untranslated)
            case ForgetWrongSource(_, mark, mask, family, others):
                kernel.drop(mark, mask, family, partial(translated_to, addresses=others))
            case ForgetAll():
                kernel.drop(effect.mark, effect.mask, effect.family, lambda _: True)
                self._inspect(effect)
            case InspectDrain():
                self._inspect(effect)
            case _:
                assert_never(effect)

    def _forget_untranslated(self) -> None:
        for family in FAMILIES:
            self.kernel.drop(0, 0, family, partial(stray, BLUR))

    def _inspect(self, effect: InspectDrain | ForgetAll) -> None:
        """Tell what there is; no connection ever pauses here, so that all stay until they are forgotten."""
        flows = [f for f in self.kernel.flows(effect.mask, effect.mark) if f.family is effect.family]
        seen = DrainInspected(
            uplink=effect.uplink,
            family=effect.family,
            since=effect.since,
            remaining=len(flows),
            movable=sum(flow.protocol != PROTOCOLS["tcp"] for flow in flows),
        )
        self._queue.put(self.now + READ_TIME, seen)
