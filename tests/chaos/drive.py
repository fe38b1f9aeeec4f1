"""One chaos run over a standing lab: carries out a plan under load, and records everything. Judges nothing."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from statistics import median
from typing import Final

from chaos import acts
from chaos.history import Deed, Ending, History, Life, Repair, Rules, Sample, Span, Vitals
from chaos.load import Load, serving
from chaos.plan import BURST, TAMPERING, Action, Kind, Plan, Settings
from polywan.api.status import Status
from polywan.core.errors import ConfigError, ControlError
from polywan.lab.daemon import DaemonProcess
from polywan.lab.network import Lab
from polywan.lab.sandbox import LabError
from polywan.lab.topology import SERVERS
from polywan.lab.traffic import SteadyLoad, deviation, open_connections, shares
from support.busy_lines import loaded

INTERVAL: Final = 0.05
"""Seconds between two new connections of the steady load."""

_READY: Final = re.compile(r"\bready: ")
_START_LIMIT: Final = 20.0
_STALL, _TICK, _SAMPLE, _POLL = 0.3, 0.05, 1.0, 0.05
_SHARED: Final = 30
_LOOKS: Final = 10
_NOMINAL: Final = 0.025
_TIMES: Final = 1.5


def speed() -> float:
    """Return how much slower than a quiet machine this one is now: 1 for as fast, 4 at most."""
    taken = []
    for _ in range(5):
        begun = time.perf_counter()
        subprocess.run([sys.executable, "-I", "-S", "-c", "sum(range(300000))"], check=True)
        taken.append(time.perf_counter() - begun)
    return min(4.0, max(1.0, median(taken) / _NOMINAL))


def rules(factor: float) -> Rules:
    """Return what the checker allows on a machine of that speed, from the probing of `acts`."""
    silence = acts.INTERVAL + (acts.FALL - 1) * acts.INTERVAL / 4 + acts.TIMEOUT
    return Rules(
        loss=0.4 * factor,
        silence=silence + 0.6 * factor,
        flood=acts.FLOOD,
        repair=2.0 * factor,
        answer=silence + acts.INTERVAL + 0.6 * factor,
        back=acts.HOLD_MAX + acts.RISE * acts.INTERVAL + acts.TIMEOUT + 2.0 * factor,
        hold=acts.HOLD_DOWN - 0.1,
        free=3.5 + 0.5 * factor,
        hang=3.0 + 1.0 * factor,
        patience=1.5 * factor,
    )


class Run:
    """Carries out one plan; `history` is what came of it."""

    def __init__(self, lab: Lab, plan: Plan, directory: Path, say: Callable[[str], None], factor: float) -> None:
        self.lab, self.plan, self.say = lab, plan, say
        self.daemon = DaemonProcess(lab.router, self._text(plan.first), directory)
        self.history = History(plan=plan, rules=rules(factor), begun=time.monotonic())
        self._tables: dict[int, int] = {}
        self._watch: asyncio.Task[None] | None = None
        self._loads: dict[int, asyncio.Task[None]] = {}
        self._side: set[asyncio.Task[None]] = set()
        self._killing = False

    def _text(self, settings: Settings) -> str:
        return acts.config_text(self.lab.topology, settings, both_methods=self.plan.both_methods)

    async def play(self) -> History:
        """Run it from the first start of the daemon to its `down`.

        Raises:
            LabError: the lab itself failed, or the daemon could not be started at all.
        """
        acts.furnish(self.lab)
        found = acts.kernel(self.lab)
        async with serving(self.lab):
            await self._start()
            await self._watched()
            if await self._all_up() is None:
                raise LabError("the daemon never found every uplink up")
            self._tables = {
                int(name.removeprefix("isp")): table for name, (_, table) in self.history.marks[0][1].items()
            }
            await self._under_load()
            await self._end(found)
        return self.history

    async def _under_load(self) -> None:
        history = self.history
        watchers = [asyncio.create_task(work()) for work in (self._notice_stalls, self._sample)]
        steady = SteadyLoad(self.lab, interval=INTERVAL)
        try:
            async with Load(self.lab, history), steady:
                history.begun = time.monotonic()
                for action in self.plan.actions:
                    await asyncio.sleep(history.begun + action.at - time.monotonic())
                    await self._carry_out(action)
                await asyncio.gather(*self._side)
                await self._watched()
                await asyncio.sleep(history.rules.back)
                history.ended = time.monotonic()
        finally:
            history.attempts = steady.attempts
            tasks = [*watchers, *self._loads.values()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _carry_out(self, action: Action) -> None:
        self.say(str(action))
        begun = time.monotonic()
        done = await self._do(action)
        deed = Deed(action, begun, done)
        self.history.deeds.append(deed)
        if action.kind in TAMPERING:
            task = asyncio.create_task(self._see_back(deed))
            self._side.add(task)
            task.add_done_callback(self._side.discard)

    async def _do(self, action: Action) -> float:
        """Do it, and return when it was done."""
        match action.kind:
            case Kind.KILL:
                await self._kill()
            case Kind.START:
                await self._start()
            case Kind.RELOAD | Kind.BURST:
                await asyncio.to_thread(self._reload, action)
            case Kind.FILL:
                done = await asyncio.to_thread(acts.slow, self.lab, action)
                self._loads[action.uplink] = asyncio.create_task(self._fill(action))
                return done
            case Kind.DRAIN:
                load = self._loads.pop(action.uplink)
                load.cancel()
                await asyncio.wait([load])
                return await asyncio.to_thread(acts.slow, self.lab, action)
            case _:
                return await asyncio.to_thread(acts.change, self.lab, action, self._tables.get(action.uplink, 0))
        return time.monotonic()

    async def _fill(self, action: Action) -> None:
        assert action.queue is not None
        async with loaded(self.lab, action.queue[1], [action.uplink], times=_TIMES):
            await asyncio.Event().wait()

    def _reload(self, action: Action) -> None:
        assert action.settings is not None
        texts = [self._text(self.plan.first), self._text(action.settings)]
        for turn in range(BURST if action.kind is Kind.BURST else 1):
            # The last one is that of the action.
            self.daemon.config.write_text(texts[(turn + 1) % 2], encoding="utf-8")
            try:
                self.daemon.reload()
            except ConfigError as error:
                self.history.troubles.append((time.monotonic(), f"refused a good file: {error}"))
            except ControlError:
                # Nobody is there to read it; the next daemon will.
                break
        self.daemon.config.write_text(texts[1], encoding="utf-8")

    async def _kill(self) -> None:
        self._killing = True
        moment = time.monotonic()
        await asyncio.to_thread(self.daemon.kill)
        await self._watched()
        if self.history.lives[-1].ended is None:
            self.history.lives[-1].ended = moment

    async def _start(self) -> None:
        if self.daemon.process is not None:
            # It ended by itself, which was noted; or the plan never killed it.
            if self.daemon.process.poll() is None:
                return
            await self._kill()
        self._killing = False
        heard = len(self.daemon.log)
        life = Life(time.monotonic())
        self.history.lives.append(life)
        self.daemon.launch()
        self._watch = asyncio.create_task(self._await_ready(life, heard))

    async def _watched(self) -> None:
        if self._watch is not None:
            await self._watch
            self._watch = None

    async def _await_ready(self, life: Life, heard: int) -> None:
        wanted = _READY.search
        line = await asyncio.to_thread(self.daemon.wait_log, lambda text: wanted(text) is not None, _START_LIMIT, heard)
        if line is not None:
            life.ready = line.at
            await self._note_marks()
        elif not self._killing:
            self.history.troubles.append((time.monotonic(), "was never ready"))

    async def _status(self) -> Status | None:
        try:
            return await asyncio.to_thread(self.daemon.status)
        except ControlError:
            return None

    async def _note_marks(self) -> None:
        for _ in range(10):
            if (status := await self._status()) is not None:
                marks = {u.name: (u.mark, u.table) for u in status.uplinks}
                self.history.marks.append((time.monotonic(), marks))
                return
            # The socket opens a moment after the daemon says "ready".
            await asyncio.sleep(_POLL)

    async def _see_back(self, deed: Deed) -> None:
        deadline = deed.done + self.history.rules.repair + 1.0
        table = self._tables.get(deed.action.uplink, 0)
        while (now := time.monotonic()) < deadline:
            if await asyncio.to_thread(acts.is_back, self.lab, deed.action.kind, table):
                self.history.repairs.append(Repair(deed, now))
                return
            await asyncio.sleep(_POLL)
        self.history.repairs.append(Repair(deed, None))

    async def _notice_stalls(self) -> None:
        """Note when this process itself did not get the processor: what it measured then is worth nothing."""
        last = time.monotonic()
        while True:
            await asyncio.sleep(_TICK)
            now = time.monotonic()
            if now - last > _STALL:
                self.history.stalls.append(Span(last, now + _STALL))
            last = now

    async def _sample(self) -> None:
        foreign: dict[int, frozenset[str]] = {}
        while True:
            seen = await asyncio.to_thread(self.lab.all_seen)
            kept = await asyncio.to_thread(acts.forbidden, self.lab)
            spoofed = {number: counts.spoofed for number, counts in seen.items()}
            if self.history.samples and spoofed != self.history.samples[-1].spoofed:
                foreign = await asyncio.to_thread(acts.foreign, self.lab)
            self.history.samples.append(Sample(time.monotonic(), spoofed, kept, foreign))
            self.history.vitals.append((time.monotonic(), self._vitals()))
            process, life = self.daemon.process, self.history.lives[-1]
            if process is not None and process.poll() is not None and not self._killing and life.ended is None:
                life.ended = time.monotonic()
            await asyncio.sleep(_SAMPLE)

    async def _all_up(self) -> float | None:
        """Wait until every uplink is up and return how many seconds that took."""
        begun = time.monotonic()
        while time.monotonic() - begun < 3 * self.history.rules.back:
            status = await self._status()
            if status is not None and all(u.state == "up" for u in status.uplinks):
                return time.monotonic() - begun
            await asyncio.sleep(_POLL)
        return None

    async def _end(self, found: dict[str, list[str]]) -> None:
        """Look at what is left after all that, restart once more, and leave."""
        at, settings = time.monotonic(), self.plan.first
        self.daemon.config.write_text(self._text(settings), encoding="utf-8")
        with suppress(ControlError):
            await asyncio.to_thread(self.daemon.reload)
        back = await self._all_up()
        status = await self._status()
        off = await self._deviation(settings)
        reload_writes = await self._writes_of_reload()
        changes = await self._changes()
        old, before = await self._quiet_vitals(), acts.kernel(self.lab)
        await self._kill()
        await self._start()
        await self._watched()
        await self._all_up()
        await asyncio.sleep(1.0)
        after, young = acts.kernel(self.lab), await self._quiet_vitals()
        shown = await self._status()
        writes = -1 if shown is None else shown.generation
        self._killing = True
        with suppress(ControlError):
            await asyncio.to_thread(self.daemon.down)
        await asyncio.to_thread(self.daemon.stop)
        complaints = set(self.daemon.troubles)
        self.history.troubles += [(line.at, line.text) for line in self.daemon.log if line.text in complaints]
        self.history.ending = Ending(
            at=at,
            back=back,
            states={u.name: f"{u.state}: {u.reason}" for u in (status.uplinks if status else ())},
            differences=changes,
            reload_writes=reload_writes,
            restart_writes=writes,
            restart_changes=acts.differences(before, after),
            deviation=off,
            old=old,
            young=young,
            left_behind=acts.differences(found, acts.kernel(self.lab)),
        )

    async def _changes(self) -> tuple[str, ...]:
        config, state = str(self.daemon.config), str(self.daemon.state)
        code, text = await asyncio.to_thread(acts.polywan, self.lab, "plan", "--config", config, "--state-dir", state)
        return () if code == 0 else tuple(text.splitlines())

    async def _writes_of_reload(self) -> int:
        try:
            before = (await asyncio.to_thread(self.daemon.status)).generation
            return int((await asyncio.to_thread(self.daemon.reload)).generation - before)
        except ControlError:
            return -1

    async def _deviation(self, settings: Settings) -> float:
        worst = 0.0
        for family in self.lab.topology.families:
            opened = await open_connections(self.lab, _SHARED, SERVERS[family][0])
            opened.close()
            for attempt in opened.attempts:
                if attempt.uplink is None:
                    self.say(f"never answered: {attempt}")
            seen = shares(a.uplink for a in opened.attempts)
            worst = max(worst, deviation(seen, settings.weights) + _SHARED - seen.total())
        return worst

    async def _quiet_vitals(self) -> Vitals:
        """Return the least of several looks: a round of probes needs sockets for a moment."""
        looks = []
        for _ in range(_LOOKS):
            looks.append(self._vitals())
            await asyncio.sleep(_POLL)
        return min(looks, key=lambda vitals: vitals.descriptors)

    def _vitals(self) -> Vitals:
        process = self.daemon.process
        if process is None or process.poll() is not None:
            return Vitals(0, 0, 0.0)
        home = Path("/proc", str(process.pid))
        try:
            fields = dict(line.split(":", 1) for line in (home / "status").read_text().splitlines())
            descriptors = len(list((home / "fd").iterdir()))
        except (OSError, KeyError):
            return Vitals(0, 0, 0.0)
        return Vitals(descriptors, int(fields["Threads"]), int(fields["VmRSS"].split()[0]) / 1024)
