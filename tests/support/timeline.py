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
    carry u1 3GB                bytes that its device carries; it is 2026-11-30 23:00:00 at the start, UTC
    used u1 46GB                somebody enters what the provider says; bought u1 10GB
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
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from polywan.config import Config
from polywan.config.kinds.scalars import Duration
from polywan.config.kinds.volumes import Volume
from polywan.core.engine import step as engine
from polywan.core.health.layers import Layer
from polywan.core.net import FAMILIES, Family
from polywan.core.plan import plan
from polywan.core.policy.operator import Verb
from polywan.core.quota.counting import Seen
from polywan.core.state.effects import Apply, Effect, ForgetAll, ReleaseConnections
from polywan.core.state.events import BytesCounted, ConfigLoaded, OperatorCommand, QuotaEntered, TestRequested
from polywan.core.status.document import document
from polywan.kernel.fake.tracker import Connection
from polywan.sim.simulation import Simulation
from support.engine_world import world

EPOCH = datetime(2026, 11, 30, 23, tzinfo=UTC).timestamp()
FAMILY = {"ipv4": Family.V4, "ipv6": Family.V6}


@dataclass(frozen=True, slots=True)
class Line:
    """One command of a timeline: file line number, time, words."""

    number: int
    at: float
    words: tuple[str, ...]


class Sim(Simulation):
    """Runs commands; times are seconds since the start."""

    def __init__(self, settings: dict[str, Any], count: int) -> None:
        super().__init__(world(count))
        self.settings = settings
        self.cuts: list[str] = []
        self.ever_cut = False
        self.emptied: list[str] = []
        self.carried: dict[str, int] = {}
        self.plans = 0
        self.writes = 0
        self.listeners.append(self.note)
        self.start(Config.model_validate(settings))

    def note(self, effect: Effect) -> None:
        """Remember what expectations are about."""
        match effect:
            case Apply(value):
                self.writes += len(value.ops)
                self.plans += 1
            case ReleaseConnections() if not effect.vanished:
                self.cuts.append(effect.uplink)
                self.ever_cut = True
            case ForgetAll():
                self.emptied.append(effect.uplink)

    @property
    def lines(self) -> list[str]:
        """The log, as text."""
        return [f"{line.event}: {line.text}" for _, line in self.log]

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
                self.start(Config.model_validate(self.settings))
            case ("flow", name, protocol):
                mark = self.state.known.numbers[name].mark
                self.kernel.connections_list.append(Connection(mark=mark, protocol=protocol))
            case ("uplink", verb, name, *deadline):
                self.take(
                    OperatorCommand(name, Verb(verb), Duration(0, 86400).parse(deadline[0]) if deadline else 600.0)
                )
            case ("test", name):
                self.take(TestRequested(name))
            case ("reload", *change):
                self._reload(change)
            case _:
                self._change_answers(words)

    def _count(self, words: tuple[str, ...]) -> None:
        what, name, amount = words[0], words[1], Volume(0).parse(words[2])
        if what == "carry":
            self.carried[name] = self.carried.get(name, 0) + amount
            seen = {f"u{n}": Seen(f"wan{n}", n, "", self.carried.get(f"u{n}", 0), 0) for n in range(1, 10)}
            self.take(BytesCounted(seen, EPOCH + self.now, UTC))
            return
        reading, bought = (amount, None) if what == "used" else (None, amount)
        self.take(QuotaEntered(uplink=name, reading=reading, bought=bought, unix=EPOCH + self.now, zone=UTC))

    def _change_answers(self, words: tuple[str, ...]) -> None:
        net = self.internet
        match words:
            case ("silent", name, *families):
                net.silent |= {(name, FAMILY[f]) for f in families or FAMILY}
            case ("answer", name):
                net.silent -= {(name, f) for f in FAMILIES}
            case ("loss", name, percent):
                net.loss[name] = float(percent) / 100
            case ("layer", name, layer, "ok"):
                net.layers.pop((name, Layer(layer)), None)
            case ("layer", name, layer, *found):
                net.layers[name, Layer(layer)] = " ".join(found)
            case ("latency", name, value):
                net.latency[name] = float(value.removesuffix("ms")) / 1000
            case ("mute", target, *names):
                net.muted |= {(ip_address(target), name) for name in names or (None,)}
            case ("unmute", target):
                net.muted = {(t, name) for t, name in net.muted if t != ip_address(target)}
            case ("suspend", seconds):
                self.suspend(float(seconds))
            case _:
                self._change_load(words)

    def _change_load(self, words: tuple[str, ...]) -> None:
        net = self.internet
        match words:
            case ("queue", name, seconds, *speed):
                net.queues[name] = (self.now, float(seconds.removesuffix("s")), float(speed[0]) if speed else 1.0)
            case ("flood", name, rate):
                net.floods[name] = (self.now, float(rate))
            case ("traffic", name, rate):
                net.traffic[name] = float(rate)
            case ("discard", name):
                self.discard(name)
            case ("carry" | "used" | "bought", *_):
                self._count(words)
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
        self.take(ConfigLoaded(Config.model_validate(self.settings)))

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
                seen = self.state.decision.views[name]
                assert seen.state == wanted, f"{name} is {seen.state}: {seen.reason}"
            case ("reason", name, *text):
                assert " ".join(text) in self.state.decision.views[name].reason, self.state.decision.views[name].reason
            case ("warning", *text):
                found = document(self.state, "", 0.0, 0.0, {}).warnings
                assert any(" ".join(text) in line for line in found), found
            case ("cut", name):
                assert name in self.cuts, f"cut: {self.cuts}"
            case ("settled",):
                assert self.state.decision.desired is not None
                actual = self.kernel.read(
                    engine.sysctl_paths(self.state, self.kernel.observe()), engine.queue_kinds(self.state)
                )
                assert not plan.diff(self.state.decision.desired, actual)
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
                mark = self.state.known.numbers[name].mark
                assert self.kernel.connections(0x3F000000).get(mark, 0) == int(count)
            case ("never", "cut"):
                assert not self.ever_cut
            case ("no", "writes"):
                assert self.writes == 0
            case ("plans", count):
                assert self.plans == int(count), self.plans
            case ("told", count, *text):
                found = [line for line in self.lines if " ".join(text) in line]
                assert len(found) == int(count), self.lines
            case ("log", *text):
                assert any(" ".join(text) in line for line in self.lines), self.lines
            case _:
                raise ValueError(f"no such expectation: {' '.join(words)}")

    def _members(self, family: str) -> dict[str, int]:
        assert self.state.decision.selection is not None
        return dict(self.state.decision.selection.choices["default", FAMILY[family]].members)


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
