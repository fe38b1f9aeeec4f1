"""Wire the daemon: kernel, prober, engine, socket, signals. The only place that names the real ones."""

from __future__ import annotations

import asyncio
import json
import logging
import signal
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from starlette.routing import Route

import polywan.config.loading.toml_lines  # noqa: F401 - an upgrade may replace the file before it is first needed
from polywan import __version__, library_log, log_handler, presence
from polywan.api import calls
from polywan.api.openapi import openapi
from polywan.api.requests import Nothing, OfUplink, What, WhatToPlan, Words
from polywan.api.running import Planned, Removed, Shown
from polywan.api.status import Status
from polywan.api.uplinks import ViaGroup
from polywan.api.why import Explanation
from polywan.config import Loaded, load_with_warnings
from polywan.core.errors import ControlError, KernelError, MissingFeature, NotPermitted, PolywanError
from polywan.core.journal.changes import Standings
from polywan.core.plan.plan import describe_nexthop, describe_route, describe_rule
from polywan.core.quota.limits import Quotas
from polywan.core.routing.sysctls import wants_multipath
from polywan.core.ruleset.conditions import dnsmasq_lines
from polywan.core.ruleset.model import HELD
from polywan.core.state.memory import Memory
from polywan.core.state.state import Done, Known, State
from polywan.core.trace.question import QuestionError
from polywan.core.words import counted, printable
from polywan.daemon.api import exec_via, why
from polywan.daemon.api import plan as planning
from polywan.daemon.api.events import Journalled
from polywan.daemon.api.flows import Tracking
from polywan.daemon.api.http import route, stream_route, written_route
from polywan.daemon.api.listening import listening
from polywan.daemon.api.quotas import QuotaEntries
from polywan.daemon.api.trials import Trials
from polywan.daemon.api.uplinks import Uplinks
from polywan.daemon.history import History
from polywan.daemon.journal import Journal
from polywan.daemon.lookups.resolver import SystemResolver
from polywan.daemon.lookups.watcher import LookupWatcher
from polywan.daemon.loop import Daemon
from polywan.daemon.measurements.answering import Measuring
from polywan.daemon.measurements.measuring import Measurer
from polywan.daemon.measurements.store import Store
from polywan.daemon.reloading import Reloader
from polywan.daemon.removing import recalled, remove
from polywan.daemon.rundir import DirectoryLock, locked
from polywan.daemon.tasks.quotas import QuotaKeeper
from polywan.daemon.tasks.recording import Recorder
from polywan.daemon.tasks.settings import SettingsWatch
from polywan.daemon.views.composing import Composer
from polywan.daemon.views.effects import Effects
from polywan.daemon.views.pending import Pending
from polywan.daemon.views.streaming import Streamer
from polywan.kernel import heap
from polywan.kernel.api import Machine
from polywan.kernel.linux import LinuxKernel
from polywan.kernel.privilege import NET_ADMIN, keep_to_ourselves
from polywan.notify import notify
from polywan.probe.prober import NetProber

log = logging.getLogger("polywan")


@dataclass(frozen=True, slots=True)
class Places:
    """Where the daemon reads, writes and listens."""

    config: Path
    runtime_dir: Path
    state_dir: Path


class Service:
    """Carries out what the control socket and signals ask for."""

    def __init__(
        self,
        daemon: Daemon,
        kernel: Machine,
        lookups: LookupWatcher,
        places: Places,
        recorder: Recorder,
        measurer: Measurer,
        quotas: QuotaKeeper,
    ) -> None:
        self._daemon = daemon
        self._kernel = kernel
        self._lookups = lookups
        self._places = places
        self._tracking = Tracking(kernel, lambda: daemon.state)
        self._uplinks = Uplinks(daemon)
        self._effects = Effects(daemon, self._tracking)
        self._reloader = Reloader(daemon, kernel, lookups, places.config)
        self._trials = Trials(daemon, kernel, self._reloader, History(places.state_dir))
        self._pending = Pending(daemon, kernel, self._reloader)
        self._measuring = Measuring(measurer, recorder, lambda: daemon.state)
        self._entries = QuotaEntries(daemon, quotas)
        self.stop = asyncio.Event()
        self._journalled = Journalled(recorder, lambda: daemon.state, self.stop)
        self._composer = Composer(
            lambda: daemon.state,
            lambda: (
                *self._trials.warnings,
                *daemon.troubles,
                *recorder.troubles,
                *measurer.troubles,
                *quotas.troubles,
            ),
            lambda: daemon.notes,
            lambda: self._reloader.in_force,
        )
        self._streamer = Streamer(lambda: daemon.state, self._composer, kernel, self.stop)
        daemon.on_step = self._streamer.stepped
        daemon.meter.listeners.append(self._streamer.looked)
        recorder.entry_listeners.append(self._streamer.entered)

    def routes(self) -> list[Route]:
        """Return who answers each call."""
        return [
            route(calls.STATUS, self.status),
            route(calls.WHY, self.why),
            route(calls.FLOWS, self._tracking.flows),
            route(calls.JOURNAL, self._journalled.events, waits=True),
            route(calls.MEASURED, self._measuring.measurements),
            route(calls.AVAILABILITY, self._measuring.availability),
            route(calls.INCIDENTS, self._measuring.incidents),
            route(calls.VOLUMES, self._measuring.volumes),
            route(calls.AFFINITY, self._tracking.affinity),
            route(calls.SHOW, self.show),
            route(calls.CLIENT_TOTALS, self._tracking.clients),
            route(calls.EFFECT, self._effects.effect),
            route(calls.PENDING, self._pending.pending),
            route(calls.CLEAR_AFFINITY, self._tracking.clear),
            route(calls.DISABLE, self._uplinks.disable),
            route(calls.DRAIN, self._uplinks.drain),
            route(calls.ENABLE, self._uplinks.enable),
            route(calls.TEST, self._uplinks.test),
            route(calls.QUOTA, self._entries.enter),
            route(calls.EXEC_VIA, self.via),
            route(calls.PLAN, self.plan),
            route(calls.RELOAD, self._trials.reload),
            route(calls.TRIAL, self._trials.state),
            route(calls.TRY, self._trials.begin_trial),
            route(calls.CONFIRM, self._trials.confirm),
            route(calls.ROLL_BACK, self._trials.roll_back),
            route(calls.HISTORY, self._trials.history),
            route(calls.PAST_TEXTS, self._trials.past),
            route(calls.SESSION, self._trials.session),
            route(calls.DOWN, self.down),
            stream_route(calls.LIVE, self._streamer.follow),
            written_route(calls.OPENAPI, lambda: described().encode()),
        ]

    async def status(self, _: Nothing) -> Status:
        """Return the status document."""
        return await self._composer.compose(await self._daemon.meter.traffic())

    async def show(self, asked: What) -> Shown:
        """Return what the daemon wants the kernel to hold, the configuration in force, or the calls of this socket.

        Raises:
            ControlError: there is no such thing to show (404).
        """
        if asked.what == "openapi":
            return Shown(text=await asyncio.to_thread(described))
        return Shown(text=_in_force(self._daemon.state, asked.what))

    async def why(self, asked: Words) -> Explanation:
        """Explain which way a connection would take; words as in `core/trace/question.py`.

        Raises:
            ControlError: they make no sense (400), or the kernel refused to answer (502).
        """
        state, now = self._daemon.state, int(time.time())
        try:
            return await asyncio.to_thread(why.live, state, self._kernel, asked.words, now)
        except QuestionError as error:
            raise ControlError(str(error), 400) from error
        except KernelError as error:
            raise ControlError(str(error), 502) from error

    async def plan(self, asked: WhatToPlan) -> Planned:
        """Tell what a configuration would change now; errors as `daemon/api/plan.py`."""
        return await planning.plan(self._daemon, self._kernel, asked)

    async def begin(self, loaded: Loaded) -> None:
        """Put the first configuration in force, once what it refers to is known."""
        await self._trials.begin(loaded)

    async def down(self, _: Nothing) -> Removed:
        """Stop deciding, then remove what is ours; the answer is sent before the process ends, whatever it is.

        A daemon that goes on would put back what was removed, and one that decides nothing must not seem to run.
        """
        self._daemon.halt()
        try:
            return await asyncio.to_thread(
                remove, self._kernel, self._places.state_dir, self._daemon.state.known.memory
            )
        except Exception as error:
            text = str(error) if isinstance(error, PolywanError) else f"{type(error).__name__}: {error}".strip(": ")
            log.error("down.failed: %s", printable(text))
            log.debug("down.failed: where it failed", exc_info=error)
            raise ControlError(
                f"not everything could be removed: {text}; the daemon ends: run `polywan down` again", 500
            ) from error
        finally:
            asyncio.get_running_loop().call_later(0.05, self.stop.set)

    async def via(self, asked: OfUplink) -> ViaGroup:
        """Look at the control group of an uplink's programs; answer when the kernel asks for it.

        Raises:
            ControlError: there is no such uplink (404), or control groups cannot be asked for here (501).
        """
        async with self._reloader.busy:
            try:
                return await exec_via.look(self._daemon, self._lookups.refresh, asked.name)
            except MissingFeature as error:
                raise ControlError(str(error), 501) from error

    def end(self) -> None:
        """SIGTERM, SIGINT: stop, and say what stays."""
        log.info("stopped: the kernel keeps forwarding; `polywan down` removes everything")
        self.stop.set()

    async def hangup(self) -> None:
        """SIGHUP: reload; why it was refused is in the log already."""
        await self._trials.hangup()


def _in_force(state: State, what: str) -> str:
    if state.decision.desired is None or state.known.config is None:
        return ""
    match what:
        case "nft":
            held = (table.render(name, HELD) for name, table in state.decision.held.items())
            return "".join((state.decision.desired.nft.render(), *held))
        case "routes":
            nexthops = [
                f"nexthop {describe_nexthop(n)}" for n in sorted(state.decision.desired.nexthops, key=lambda n: n.id)
            ]
            return "".join(
                f"{line}\n" for line in (*nexthops, *sorted(map(describe_route, state.decision.desired.routes)))
            )
        case "rules":
            rules = sorted(state.decision.desired.rules, key=lambda r: (r.family, r.priority, describe_rule(r)))
            return "".join(f"{describe_rule(rule)}\n" for rule in rules)
        case "dnsmasq":
            return "".join(f"{line}\n" for line in dnsmasq_lines(state.known.config))
        case "config":
            return state.known.config.file.model_dump_json(by_alias=True, indent=2) + "\n"
        case _:
            raise ControlError("there is nothing to show by that name", 404)


@cache
def described() -> str:
    """Return the OpenAPI document of the control socket."""
    return json.dumps(openapi(__version__), indent=2) + "\n"


def lack(lines: list[str]) -> PolywanError:
    """Return the error for what the machine lacks; missing rights have an exit code of their own."""
    kind = NotPermitted if any("CAP_NET_ADMIN" in line for line in lines) else MissingFeature
    return kind("\n".join(f"missing: {line}" for line in lines))


def setup_logging(*, verbose: bool = False) -> None:
    """Log to stderr.

    Args:
        verbose: add what helps to find a fault in polywan itself.
    """
    log.addHandler(log_handler.to_stderr())
    log.setLevel(logging.DEBUG if verbose else logging.INFO)
    library_log.borrow()


def run(places: Places, *, verbose: bool = False) -> None:
    """Run the daemon in the foreground until SIGTERM, SIGINT or `down`; the data plane keeps forwarding.

    Raises:
        ConfigError: the file is bad.
        MissingFeature: the machine lacks something.
        BusyError: another daemon runs in this network namespace, or holds the runtime directory.
    """
    heap.share()
    setup_logging(verbose=verbose)
    keep_to_ourselves(NET_ADMIN)
    loaded = load_with_warnings(places.config)
    heap.settle()
    with presence.only_one(places.runtime_dir), locked(places.runtime_dir) as held:
        try:
            asyncio.run(_serve(loaded, places, held))
        except ExceptionGroup as group:
            raise _only_cause(group) from group


def _only_cause(group: ExceptionGroup[Exception]) -> Exception:
    """Return the error that a task group has wrapped, if there is one only: that one has words and an exit code."""
    error: Exception = group
    while isinstance(error, ExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


async def _serve(loaded: Loaded, places: Places, held: DirectoryLock) -> None:
    kernel = LinuxKernel()
    if lacking := kernel.missing(multipath=wants_multipath(loaded.config)):
        raise lack(lacking)
    memory = recalled(kernel, places.state_dir)
    prober = NetProber()
    recorder = Recorder(Journal(places.state_dir))
    quotas = QuotaKeeper(places.state_dir)
    daemon = Daemon(kernel, prober, _first(memory, await recorder.load(), quotas.load()), places.state_dir)
    recorder.follow(daemon)
    measurer = Measurer(Store(places.state_dir))
    measurer.follow(daemon, kernel)
    recorder.change_listeners.append(measurer.changed)
    quotas.follow(daemon)
    daemon.on_settled = lambda: notify("WATCHDOG=1")
    lookups = LookupWatcher(daemon, SystemResolver())
    daemon.feeds += [lookups.run, SettingsWatch(lambda: daemon.state, daemon.post).run]
    service = Service(daemon, kernel, lookups, places, recorder, measurer, quotas)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, service.end)
    tasks: set[asyncio.Task[None]] = set()

    def hangup() -> None:
        task = loop.create_task(service.hangup())
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    loop.add_signal_handler(signal.SIGHUP, hangup)
    # Announces a reload that `polywan reload` then makes (packaging/polywan-generator); systemd wants a handler.
    loop.add_signal_handler(signal.SIGCONT, lambda: None)
    try:
        await service.begin(loaded)
        await _until_stopped(daemon, service, places, held)
    finally:
        notify("STOPPING=1")
        await asyncio.gather(recorder.close(), measurer.close(), quotas.close())
        prober.close()
        kernel.close()


def _first(memory: Memory, standings: Standings, quotas: Quotas) -> State:
    """Return what a daemon knows that has just started."""
    unix = time.time() - time.monotonic()
    zone = float(time.localtime().tm_gmtoff)
    known = Known(memory=memory, quotas=quotas, unix=unix, zone=zone)
    return State(known=known, done=Done(standings=standings))


def _ready(daemon: Daemon) -> None:
    state = daemon.state
    log.info("ready: %s, generation %d", counted(len(state.decision.views), "uplink"), state.done.generation)
    notify("READY=1")


async def _until_stopped(daemon: Daemon, service: Service, places: Places, held: DirectoryLock) -> None:
    runner = asyncio.create_task(daemon.run())
    stopper = asyncio.create_task(service.stop.wait())
    ready = asyncio.create_task(daemon.ready.wait())
    try:
        await asyncio.wait({runner, stopper, ready}, return_when=asyncio.FIRST_COMPLETED)
        if ready.done():
            await listening(service.routes(), held, places.runtime_dir, {runner, stopper}, lambda: _ready(daemon))
        if runner.done() and not service.stop.is_set():
            await runner
    finally:
        for task in (runner, stopper, ready):
            task.cancel()
        await asyncio.gather(runner, stopper, ready, return_exceptions=True)
    if not service.stop.is_set():
        raise KernelError("run", 0, "the daemon's loop ended by itself")
