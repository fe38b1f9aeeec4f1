"""A timeline language over the engine, FakeKernel and a clock that jumps: tests/scenario/*.txt are written in it.

One command a line, blank lines and ``#`` comments are skipped. Before the first ``at``::

    uplinks 3                   u1, u2, u3 on wan1, wan2, wan3; addresses and gateways as in the lab
    weights 3 2 1
    set health.hold_down 3s     any key of the file

Then, each line beginning with ``at SECONDS``::

    carrier wan1 off|on         link wan1 down|up            remove wan1
    silent u1 [ipv4|ipv6]       answer u1                    (whether probes are answered)
    discard u1                  what is on its way and would be answered is lost as well
    loss u1 30                  latency u1 600ms             (percent of the probes; round trip: 10ms before)
    queue u1 5s [2]             a queue fills until it takes so long, so many seconds a second; "queue u1 0s" empties it
    traffic u1 14               kilobytes a second that come back for connections of that uplink, as long as it answers
    flood u1 375                kilobytes a second that leave by it and bring nothing back
    mute 1.1.1.1 [u2]           unmute 1.1.1.1               (one target, for everybody or by one uplink)
    layer u1 dns no answer      what a check of that layer finds from now on, for both families ("ok": it is well)
    test u1                     somebody asks how it is
    uplink drain u1 30s         by hand: also disable, enable
    flow u1 tcp                 a connection by that uplink; it never pauses
    suspend 3600                nothing runs for so many seconds; what was on its way is lost
    flush nft|rules             lose events                  fail next AddRule EPERM
    restart                     the daemon is killed and started again; kernel and memory stay
    reload weights 1 1 1        reload without u3
    expect serving ipv4 u1 u2   who shares the default policy (nobody: "expect serving ipv4")
    expect share ipv4 u1 10     percent of new connections, give or take half a point
    expect state u1 down        expect reason u1 WORDS       expect warning WORDS
    expect cut u1               expect no cut                expect never cut (since the start)
    expect emptied u1           (names of all that were, since the start)     expect connections u1 2
    expect no writes            (since the last line with an effect)   expect plans 10
    expect log WORDS            expect told 1 WORDS          (in so many lines of the log, since the start)
"""

from __future__ import annotations

import errno
import heapq
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from polywan.config import Config
from polywan.config.kinds.scalars import Duration
from polywan.core.engine import agenda
from polywan.core.engine import step as engine
from polywan.core.health.layers import CheckOrder, CheckResult, Layer
from polywan.core.health.life import LISTEN, Moved
from polywan.core.health.probes import ProbeOrder, ProbeResult
from polywan.core.net import FAMILIES, PROTOCOLS, Family
from polywan.core.plan import plan
from polywan.core.policy.operator import Verb
from polywan.core.state.effects import (
    Apply,
    Effect,
    ForgetAll,
    ForgetUntranslated,
    ForgetWrongSource,
    InspectDrain,
    Log,
    Read,
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
    OperatorCommand,
    ReadDone,
    TestRequested,
    Tick,
    TrafficSampled,
)
from polywan.core.state.memory import Memory
from polywan.core.state.state import State
from polywan.core.status.document import document
from polywan.core.world.conntrack import stray, translated_to
from polywan.kernel.fake.kernel import FakeKernel
from polywan.kernel.fake.tracker import Connection
from support.engine_world import world

FAMILY = {"ipv4": Family.V4, "ipv6": Family.V6}


@dataclass(frozen=True, slots=True)
class Line:
    """One command of a timeline: file line number, time, words."""

    number: int
    at: float
    words: tuple[str, ...]


class Sim:
    """Runs commands; times are seconds since the start."""

    def __init__(self, settings: dict[str, Any], count: int) -> None:
        self.settings = settings
        observed = world(count)
        self.kernel = FakeKernel(
            links=observed.links.values(), addresses=observed.addresses, defaults=observed.defaults
        )
        self.kernel.emit = self._emit  # type: ignore[method-assign]  # straight into our queue, no asyncio
        self.memory = Memory()
        self.state = State()
        self.now = 0.0
        self.silent: set[tuple[str, Family]] = set()
        self.loss: dict[str, float] = {}
        self.latency: dict[str, float] = {}
        self.queues: dict[str, tuple[float, float, float]] = {}
        self.traffic: dict[str, float] = {}
        self.floods: dict[str, tuple[float, float]] = {}
        self._looked = 0.0
        self.muted: set[tuple[str, str | None]] = set()
        self.layers: dict[tuple[str, str], str] = {}
        self.cuts: list[str] = []
        self.ever_cut = False
        self.emptied: list[str] = []
        self.plans = 0
        self._sent: Counter[tuple[str, str]] = Counter()
        self.log: list[str] = []
        self.writes = 0
        self._queue: list[tuple[float, int, Event]] = []
        self._count = 0
        self.start()

    def _emit(self, event: KernelEvent) -> None:
        self._post(self.now, event)

    def start(self) -> None:
        """Begin as a new process: only kernel and memory are left of the one before."""
        self._queue.clear()
        self.state = State(memory=self.memory)
        self._post(self.now, ConfigLoaded(Config.model_validate(self.settings)))
        self.run_until(self.now)

    def _post(self, at: float, event: Event) -> None:
        self._count += 1
        heapq.heappush(self._queue, (at, self._count, event))

    def run_until(self, end: float) -> None:
        """Let time pass until `end`, inclusive."""
        while True:
            at = min(self._queue[0][0] if self._queue else end + 1, max(self.now, agenda.deadline(self.state)))
            if at > end:
                break
            self.now = max(self.now, at)
            due = self._queue and self._queue[0][0] <= self.now
            self._step(heapq.heappop(self._queue)[2] if due else Tick())
        self.now = max(self.now, end)

    def _step(self, event: Event) -> None:
        self.state, effects = engine.step(self.state, event, self.now)
        for effect in effects:
            if isinstance(effect, SampleTraffic):
                self._post(self.now + 0.02, self._sampled(effect))
            else:
                self._perform(effect)

    def _perform(self, effect: Effect) -> None:
        match effect:
            case Apply(value):
                self.writes += len(value.ops)
                self.plans += 1
                self._post(self.now, Applied(self.kernel.apply(value)))
            case Read():
                observed = self.kernel.observe()
                actual = self.kernel.read(engine.sysctl_paths(self.state, observed))
                self._post(self.now + 0.005, ReadDone(observed, actual))
            case StartProbe(order):
                usable = order.interface in (links := self.kernel.observe().links) and links[order.interface].usable
                for place, target in enumerate(order.targets):
                    rtt = self._answer(order, place, str(target.address)) if usable else None
                    timely = rtt if rtt is not None and rtt <= order.timeout else None
                    result = ProbeResult(
                        uplink=order.uplink, family=order.family, round=order.round, target=target.address, rtt=timely
                    )
                    self._post(self.now + (order.timeout if timely is None else timely), result)
                    if timely is None and rtt is not None and rtt <= LISTEN:
                        self._post(self.now + rtt, replace(result, rtt=rtt, late=True))
            case StartCheck(order):
                self._post(*self._checked(order))
            case ReleaseConnections():
                self._cut(effect)
            case InspectDrain() | ForgetAll():
                self._carry_out_drain(effect)
            case ForgetUntranslated() | ForgetWrongSource():
                self._forget(effect)
            case SaveMemory(memory):
                self.memory = memory
            case Log(_, event, text):
                self.log.append(f"{event}: {text}")

    def _cut(self, effect: ReleaseConnections) -> None:
        if effect.vanished:
            self.kernel.release(effect.mark, effect.mask, effect.family)
            return
        self.kernel.cut(effect.mark, effect.mask, effect.family, tcp=effect.tcp)
        self.cuts.append(effect.uplink)
        self.ever_cut = True

    def _forget(self, effect: ForgetUntranslated | ForgetWrongSource) -> None:
        if isinstance(effect, ForgetWrongSource):
            wrong = partial(translated_to, addresses=effect.others)
            self.kernel.drop(effect.mark, effect.mask, effect.family, wrong)
            return
        for family in FAMILIES:
            self.kernel.drop(0, 0, family, partial(stray, 0.0))

    def _carry_out_drain(self, effect: InspectDrain | ForgetAll) -> None:
        """Nothing pauses here: connections of uplinks that are left stay until they are forgotten."""
        if isinstance(effect, ForgetAll):
            self.kernel.drop(effect.mark, effect.mask, effect.family, lambda _: True)
            self.emptied.append(effect.uplink)
        flows = [f for f in self.kernel.flows(effect.mask, effect.mark) if f.family is effect.family]
        movable = sum(f.protocol != PROTOCOLS["tcp"] for f in flows)
        seen = DrainInspected(
            uplink=effect.uplink, family=effect.family, since=effect.since, remaining=len(flows), movable=movable
        )
        self._post(self.now + 0.005, seen)

    def _checked(self, order: CheckOrder) -> tuple[float, CheckResult]:
        """Time and result of a check; layers above the gateway need an uplink that answers."""
        trouble = self.layers.get((order.uplink, order.layer), "ok")
        if order.layer is not Layer.GATEWAY and (order.uplink, order.family) in self.silent:
            trouble = "no answer"
        well = trouble == "ok"
        result = CheckResult(
            uplink=order.uplink,
            family=order.family,
            layer=order.layer,
            number=order.number,
            ok=well,
            detail="" if well else trouble,
            rtt=0.002 if well else None,
            sent=100,
            received=100 if well else 0,
        )
        return self.now + (0.002 if well else order.timeout), result

    def _answer(self, order: ProbeOrder, place: int, target: str) -> float | None:
        """Seconds until a probe's answer; losses are spread evenly, and never hit all targets of a round."""
        name = order.uplink
        sent = self._sent[name, target]
        self._sent[name, target] += 1
        share = self.loss.get(name, 0.0)
        lost = int((sent + 1) * share + place / 3) > int(sent * share + place / 3)
        muted = not self.muted.isdisjoint({(target, None), (target, name)})
        rtt = self.latency.get(name, 0.01) + self._waits(name)
        return None if lost or muted or (name, order.family) in self.silent else rtt

    def _waits(self, name: str) -> float:
        """Seconds that a packet waits which is sent now."""
        since, most, speed = self.queues.get(name, (0.0, 0.0, 1.0))
        return min(most, speed * (self.now - since))

    def _sampled(self, effect: SampleTraffic) -> TrafficSampled:
        """What is in a queue arrives: only silence ends the packets that come back."""
        since, self._looked = self._looked, self.now
        span = self.now - since
        moved = {}
        for w in effect.watched:
            back = 0.0 if (w.uplink, w.family) in self.silent else self.traffic.get(w.uplink, 0.0)
            began, rate = self.floods.get(w.uplink, (0.0, 0.0))
            total = int(1000 * rate * (self.now - began))
            moved[w.uplink, w.family] = Moved(
                received=int(1000 * back * span), sent=min(total, int(1000 * rate * span)), total=total
            )
        return TrafficSampled(moved=moved, since=since, took=0.02)

    def suspend(self, seconds: float) -> None:
        """Let time pass while nothing runs: answers on their way are lost, and timers are late."""
        self.now += seconds
        self._queue = [
            (max(at, self.now), n, replace(e, rtt=None) if isinstance(e, ProbeResult) else e)
            for at, n, e in self._queue
        ]
        heapq.heapify(self._queue)

    def command(self, words: tuple[str, ...]) -> None:
        """Carry out one command other than `expect`."""
        self.cuts.clear()
        self.writes = self.plans = 0
        match words:
            case ("carrier", name, value):
                self.kernel.set_link(replace(self.kernel.observe().links[name], carrier=value == "on"))
            case ("link", name, value):
                up = value == "up"
                self.kernel.set_link(replace(self.kernel.observe().links[name], up=up, carrier=up))
            case ("remove", name):
                self.kernel.remove_link(name)
            case ("flush", what):
                (self.kernel.tamper_flush_nft if what == "nft" else self.kernel.tamper_flush_rules)()
            case ("lose", "events"):
                self.kernel.lose_events()
            case ("fail", "next", op, number):
                self.kernel.fail_next(getattr(plan, op), getattr(errno, number))
            case ("restart",):
                self.start()
            case ("flow", name, protocol):
                mark = self.state.numbers[name].mark
                self.kernel.connections_list.append(Connection(mark=mark, protocol=protocol))
            case ("uplink", verb, name, *deadline):
                self._step(
                    OperatorCommand(name, Verb(verb), Duration(0, 86400).parse(deadline[0]) if deadline else 600.0)
                )
            case ("test", name):
                self._step(TestRequested(name))
            case ("reload", *change):
                self._reload(change)
            case _:
                self._change_answers(words)

    def _change_answers(self, words: tuple[str, ...]) -> None:
        match words:
            case ("silent", name, *families):
                self.silent |= {(name, FAMILY[f]) for f in families or FAMILY}
            case ("answer", name):
                self.silent -= {(name, f) for f in FAMILIES}
            case ("loss", name, percent):
                self.loss[name] = float(percent) / 100
            case ("layer", name, layer, *found):
                self.layers[name, layer] = " ".join(found)
            case ("latency", name, value):
                self.latency[name] = float(value.removesuffix("ms")) / 1000
            case ("mute", target, *names):
                self.muted |= {(target, name) for name in names} or {(target, None)}
            case ("unmute", target):
                self.muted = {(t, name) for t, name in self.muted if t != target}
            case ("suspend", seconds):
                self.suspend(float(seconds))
            case _:
                self._change_load(words)

    def _change_load(self, words: tuple[str, ...]) -> None:
        match words:
            case ("queue", name, seconds, *speed):
                self.queues[name] = (self.now, float(seconds.removesuffix("s")), float(speed[0]) if speed else 1.0)
            case ("flood", name, rate):
                self.floods[name] = (self.now, float(rate))
            case ("traffic", name, rate):
                self.traffic[name] = float(rate)
            case ("discard", name):
                self._discard(name)
            case _:
                raise ValueError(f"no such command: {' '.join(words)}")

    def _discard(self, name: str) -> None:
        self._queue = [
            entry
            for entry in self._queue
            if not (isinstance(entry[2], ProbeResult) and entry[2].late and entry[2].uplink == name)
        ]
        heapq.heapify(self._queue)

    def _reload(self, change: list[str]) -> None:
        match change:
            case ["weights", *weights]:
                for uplink, weight in zip(self.settings["uplinks"].values(), weights, strict=True):
                    uplink["weight"] = int(weight)
            case ["without", name]:
                del self.settings["uplinks"][name]
            case _:
                raise ValueError(f"no such reload: {' '.join(change)}")
        self._step(ConfigLoaded(Config.model_validate(self.settings)))

    def expect(self, words: tuple[str, ...]) -> None:
        """Check one expectation."""
        match words:
            case ("serving", family, *names):
                assert list(self._members(family)) == list(names)
            case ("share", family, name, percent):
                members = self._members(family)
                share = 100 * members.get(name, 0) / sum(members.values())
                assert abs(share - float(percent)) < 0.5, f"{share:.1f} %"
            case ("state", name, wanted):
                seen = self.state.views[name]
                assert seen.state == wanted, f"{name} is {seen.state}: {seen.reason}"
            case ("reason", name, *text):
                assert " ".join(text) in self.state.views[name].reason, self.state.views[name].reason
            case ("warning", *text):
                found = document(self.state, "", 0.0, 0.0, {}).warnings
                assert any(" ".join(text) in line for line in found), found
            case ("cut", name):
                assert name in self.cuts, f"cut: {self.cuts}"
            case ("settled",):
                assert self.state.desired is not None
                actual = self.kernel.read(engine.sysctl_paths(self.state, self.kernel.observe()))
                assert not plan.diff(self.state.desired, actual)
                assert self.kernel.unconsumed_failures() == 0
            case _:
                self._expect_doings(words)

    def _expect_doings(self, words: tuple[str, ...]) -> None:
        match words:
            case ("no", "cut"):
                assert self.cuts == []
            case ("emptied", *names):
                assert sorted(set(self.emptied)) == names, f"emptied: {self.emptied}"
            case ("connections", name, count):
                mark = self.state.numbers[name].mark
                assert self.kernel.connections(0x3F000000).get(mark, 0) == int(count)
            case ("never", "cut"):
                assert not self.ever_cut
            case ("no", "writes"):
                assert self.writes == 0
            case ("plans", count):
                assert self.plans == int(count), self.plans
            case ("told", count, *text):
                found = [line for line in self.log if " ".join(text) in line]
                assert len(found) == int(count), self.log
            case ("log", *text):
                assert any(" ".join(text) in line for line in self.log), self.log
            case _:
                raise ValueError(f"no such expectation: {' '.join(words)}")

    def _members(self, family: str) -> dict[str, int]:
        assert self.state.selection is not None
        return dict(self.state.selection.choices["default", FAMILY[family]].members)


def parse(text: str) -> Iterator[Line]:
    """Yield the timeline's lines; those before the first ``at`` are at time -1."""
    for number, raw in enumerate(text.splitlines(), start=1):
        words = raw.split("#", 1)[0].split()
        if words[:1] == ["at"]:
            yield Line(number, float(words[1]), tuple(words[2:]))
        elif words:
            yield Line(number, -1.0, tuple(words))


def play(path: Path) -> None:
    """Run a timeline; the first expectation that fails is named by its line."""
    lines = list(parse(path.read_text()))
    settings: dict[str, Any] = {}
    count = 0
    for line in lines:
        match line.words:
            case ("uplinks", number) if line.at < 0:
                count = int(number)
                settings["uplinks"] = {f"u{n}": {"interface": f"wan{n}"} for n in range(1, count + 1)}
            case ("weights", *weights) if line.at < 0:
                for uplink, weight in zip(settings["uplinks"].values(), weights, strict=True):
                    uplink["weight"] = int(weight)
            case ("set", key, *value) if line.at < 0:
                _set(settings, key.split("."), " ".join(value))
            case _:
                assert line.at >= 0, f"{path.name}:{line.number}: needs a time"
    sim = Sim(settings, count)
    for line in (line for line in lines if line.at >= 0):
        sim.run_until(line.at)
        try:
            if line.words[0] == "expect":
                sim.expect(line.words[1:])
            else:
                sim.command(line.words)
                sim.run_until(line.at)
        except (AssertionError, ValueError) as failure:
            raise AssertionError(f"{path.name}:{line.number}: {' '.join(line.words)}: {failure}") from failure


def _set(settings: dict[str, Any], path: list[str], value: str) -> None:
    for part in path[:-1]:
        settings = settings.setdefault(part, {})
    words: dict[str, Any] = {"true": True, "false": False}
    values = [words.get(v, int(v) if v.isdigit() else v) for v in value.split(", ")]
    settings[path[-1]] = values if len(values) > 1 else values[0]
