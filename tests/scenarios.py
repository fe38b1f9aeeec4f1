"""A timeline language over the engine, FakeKernel and a clock that jumps: tests/scenario/*.txt are written in it.

One command a line, blank lines and ``#`` comments are skipped. Before the first ``at``::

    uplinks 3                   u1, u2, u3 on wan1, wan2, wan3; addresses and gateways as in the lab
    weights 3 2 1
    set health.hold_down 3s     any key of the file

Then, each line beginning with ``at SECONDS``::

    carrier wan1 off|on         link wan1 down|up            remove wan1
    silent u1 [ipv4|ipv6]       answer u1                    (whether probes are answered)
    flush nft|rules             lose events                  fail next AddRule EPERM
    restart                     the daemon is killed and started again; kernel and memory stay
    reload weights 1 1 1        reload without u3
    expect serving ipv4 u1 u2   who shares the default policy (nobody: "expect serving ipv4")
    expect state u1 down        expect cut u1                expect no cut
    expect no writes            (since the last line with an effect)   expect log WORDS
"""

from __future__ import annotations

import errno
import heapq
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from polywan.config import Config
from polywan.core import engine, plan
from polywan.core.compile import Memory
from polywan.core.effects import Apply, Cut, Effect, Note, Read, Remember, StartProbe
from polywan.core.events import Applied, ConfigLoaded, Event, KernelEvent, ProbeResult, ReadDone, Tick
from polywan.core.net import FAMILIES, Family
from polywan.core.state import State
from polywan.kernel.fake import FakeKernel
from worlds import world

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
        given = world(count)
        self.kernel = FakeKernel(links=given.links.values(), addresses=given.addresses, defaults=given.defaults)
        self.kernel.emit = self._emit  # type: ignore[method-assign]  # straight into our queue, no asyncio
        self.memory = Memory()
        self.state = State()
        self.now = 0.0
        self.silent: set[tuple[str, Family]] = set()
        self.cuts: list[str] = []
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
            at = min(self._queue[0][0] if self._queue else end + 1, max(self.now, engine.deadline(self.state)))
            if at > end:
                break
            self.now = max(self.now, at)
            due = self._queue and self._queue[0][0] <= self.now
            self._step(heapq.heappop(self._queue)[2] if due else Tick())
        self.now = max(self.now, end)

    def _step(self, event: Event) -> None:
        self.state, effects = engine.step(self.state, event, self.now)
        for effect in effects:
            self._perform(effect)

    def _perform(self, effect: Effect) -> None:
        match effect:
            case Apply(given):
                self.writes += len(given.ops)
                self._post(self.now, Applied(self.kernel.apply(given)))
            case Read():
                observed = self.kernel.observe()
                actual = self.kernel.read(engine.sysctl_paths(self.state, observed))
                self._post(self.now + 0.005, ReadDone(observed, actual))
            case StartProbe(order):
                usable = order.interface in (links := self.kernel.observe().links) and links[order.interface].usable
                answered = usable and (order.uplink, order.family) not in self.silent
                for target in order.targets:
                    result = ProbeResult(
                        uplink=order.uplink,
                        family=order.family,
                        round=order.round,
                        target=target.address,
                        rtt=0.01 if answered else None,
                    )
                    self._post(self.now + (0.01 if answered else order.timeout), result)
            case Cut():
                self.kernel.cut(effect.mark, effect.mask, effect.family)
                self.cuts.append(effect.uplink)
            case Remember(memory):
                self.memory = memory
            case Note(_, event, text):
                self.log.append(f"{event}: {text}")

    def command(self, words: tuple[str, ...]) -> None:
        """Carry out one command other than `expect`."""
        self.cuts.clear()
        self.writes = 0
        match words:
            case ("carrier", name, value):
                self.kernel.set_link(replace(self.kernel.observe().links[name], carrier=value == "on"))
            case ("link", name, value):
                up = value == "up"
                self.kernel.set_link(replace(self.kernel.observe().links[name], up=up, carrier=up))
            case ("remove", name):
                self.kernel.remove_link(name)
            case ("silent", name, *families):
                self.silent |= {(name, FAMILY[f]) for f in families or FAMILY}
            case ("answer", name):
                self.silent -= {(name, f) for f in FAMILIES}
            case ("flush", what):
                (self.kernel.tamper_flush_nft if what == "nft" else self.kernel.tamper_flush_rules)()
            case ("lose", "events"):
                self.kernel.lose_events()
            case ("fail", "next", op, number):
                self.kernel.fail_next(getattr(plan, op), getattr(errno, number))
            case ("restart",):
                self.start()
            case ("reload", *change):
                self._reload(change)
            case _:
                raise ValueError(f"no such command: {' '.join(words)}")

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
                assert self.state.selection is not None
                choice = self.state.selection.choices["default", FAMILY[family]]
                assert [name for name, _ in choice.members] == list(names)
            case ("state", name, wanted):
                seen = self.state.views[name]
                assert seen.state == wanted, f"{name} is {seen.state}: {seen.reason}"
            case ("cut", name):
                assert name in self.cuts, f"cut: {self.cuts}"
            case ("no", "cut"):
                assert self.cuts == []
            case ("no", "writes"):
                assert self.writes == 0
            case ("log", *text):
                assert any(" ".join(text) in line for line in self.log), self.log
            case ("settled",):
                assert self.state.desired is not None
                actual = self.kernel.read(engine.sysctl_paths(self.state, self.kernel.observe()))
                assert not plan.diff(self.state.desired, actual)
                assert self.kernel.unconsumed_failures() == 0
            case _:
                raise ValueError(f"no such expectation: {' '.join(words)}")


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
    settings[path[-1]] = {"true": True, "false": False}.get(value, int(value) if value.isdigit() else value)
