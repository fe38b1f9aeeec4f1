"""The story of `polywan lab`: real traffic through a real daemon while links die and the daemon is killed."""

from __future__ import annotations

import asyncio
import re
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final, Literal, Protocol, TypeAlias

from polywan.api.status import Status, UplinkStatus
from polywan.core.errors import ControlError
from polywan.lab.daemon import DaemonProcess
from polywan.lab.network import Lab
from polywan.lab.sandbox import LabError
from polywan.lab.servers import serve
from polywan.lab.topology import SERVERS, Topology
from polywan.lab.traffic import SteadyLoad, deviation, open_connections, shares, udp_flows
from polywan.lab.verdict import Event, Promise, Step, judge, promises
from polywan.lab.witness import Witnesses

LAB_HOME: Final = Path("/run/polywan")
"""Directory of the lab's daemon, in the sandbox's own /run."""

_Act: TypeAlias = Callable[[int], float]
_IN_USE: Final = ("up", "degraded")
_POLL, _SHOW, _RECENT = 0.02, 0.25, 5.0
_SETTLE: Final = 1.5
_PATIENCE: Final = 30.0
_FLOWS: Final = 30
_APPLIED: Final = re.compile(r"applied \d+ operations? in ([\d.]+) ms")


class Audience(Protocol):
    """Who watches the story; see `view`."""

    def say(self, text: str) -> None:
        """Tell what happens next, or what came of it."""
        ...

    def show(self, status: Status, recent: Counter[int], failed: int) -> None:
        """Show the uplinks as the daemon reports them, and what became of the last new connections."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """How one kind of connection was spread: wanted by weight, counted at the servers, lost on the way."""

    what: str
    weights: tuple[int, ...]
    seen: tuple[int, ...]
    lost: int
    deviation: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Everything a run has shown.

    Attributes:
        timings: milliseconds by what took them.
        troubles: log lines of the daemon that no healthy run has.
    """

    uplinks: int
    seconds: float
    shares: tuple[Share, ...]
    events: tuple[Event, ...]
    promises: tuple[Promise, ...]
    timings: Mapping[str, float]
    troubles: tuple[str, ...]

    @property
    def held(self) -> bool:
        """Every promise was held, and the daemon never complained."""
        return all(promise.held for promise in self.promises)


def weights_of(count: int) -> tuple[int, ...]:
    """Return the story's weights: 3, 2, 1 where that is easy to see, equal ones above eight uplinks."""
    return tuple(max(1, 3 - n) for n in range(count)) if count <= 8 else (1,) * count


def configuration(topology: Topology, weights: Sequence[int]) -> str:
    """Return a configuration for the lab's router; the lab's servers are the health targets."""
    targets = ", ".join(f'"{address}"' for family in topology.families for address in SERVERS[family])
    lines = [
        "[global]",
        "forwarding = true",
        "",
        "[health]",
        f"targets = [{targets}]",
        'hold_down = "3s"',
        'slow_start = "0s"',
        "",
    ]
    for uplink, weight in zip(topology.uplinks, weights, strict=True):
        lines += [f"[uplinks.{uplink.name}]", f'interface = "{uplink.interface}"', f"weight = {weight}", ""]
    return "\n".join(lines)


class Story:
    """One run over a standing network. `play` is the whole of it."""

    def __init__(self, lab: Lab, daemon: DaemonProcess, audience: Audience, connections: int) -> None:
        self.lab, self.daemon, self.audience, self.connections = lab, daemon, audience, connections
        self.weights = weights_of(len(lab.topology.uplinks))
        self.shares: list[Share] = []
        self.timings: dict[str, float] = {}
        self._steps: list[Step] = []
        self._wall = time.time() - time.monotonic()
        self._witnesses = Witnesses(lab)
        self._load = SteadyLoad(lab)
        self._shown = 0.0

    @property
    def _all(self) -> range:
        return range(1, len(self.weights) + 1)

    async def play(self) -> Report:
        """Tell the story.

        Raises:
            LabError: the daemon could not be started at all, or an uplink never carried anything.
        """
        began = time.monotonic()
        servers = await serve(self.lab)
        try:
            await self._begin()
            async with self._witnesses:
                async with self._load:
                    await self._fail(1, "carrier", self.lab.cut, self.lab.restore)
                    await self._fail(2, "silence", self.lab.blackhole, self.lab.unblackhole)
                    await self._crash()
                    await self._reweigh()
                # Exact shares can be counted only while nothing else takes turns.
                turns = sum(self.weights)
                await self._share_out(turns * max(1, 60 // turns), 0, "after the reload: ")
        finally:
            await servers.close()
        return self._report(time.monotonic() - began)

    def _report(self, seconds: float) -> Report:
        events = tuple(judge(step, self._load.attempts, self._witnesses.flows) for step in self._steps)
        spoofed = sum(seen.spoofed for seen in self.lab.all_seen().values())
        troubles = tuple(self.daemon.troubles)
        verdict = (
            *promises(events, [share.deviation for share in self.shares], spoofed),
            Promise("the daemon logged no error", not troubles, f"{len(troubles)} lines"),
        )
        return Report(
            uplinks=len(self.weights),
            seconds=seconds,
            shares=tuple(self.shares),
            events=events,
            promises=verdict,
            timings={what: round(taken, 2) for what, taken in self.timings.items()},
            troubles=troubles,
        )

    async def _begin(self) -> None:
        weights = " ".join(map(str, self.weights)) if len(self.weights) <= 8 else "equal"
        self.audience.say(f"{len(self.weights)} uplinks, weights {weights}; starting the daemon")
        self.daemon.launch()
        self.timings["daemon ready"] = 1000 * await asyncio.to_thread(self.daemon.wait_ready)
        applied = [found for line in list(self.daemon.log) if (found := _APPLIED.search(line.text))]
        if applied:
            self.timings["full apply"] = float(applied[0][1])
        if await self._await(self._all, up=True) is None:
            raise LabError("the daemon never found every uplink up")
        self.audience.say(f"ready after {self.timings['daemon ready']:.0f} ms, every uplink up")
        await self._share_out(self.connections // len(self.lab.topology.families), _FLOWS)

    async def _share_out(self, tcp: int, udp: int, when: str = "") -> None:
        """Open connections, one family after the other so that each counts for itself, and count them."""
        for family in self.lab.topology.families:
            address = SERVERS[family][0]
            opened = await open_connections(self.lab, tcp, address)
            await self._look()
            self._count(f"{when}TCP over IPv{family:d}", [a.uplink for a in opened.attempts])
            opened.close()
            if udp:
                self._count(f"{when}UDP over IPv{family:d}", await udp_flows(self.lab, udp, address))

    def _count(self, what: str, uplinks: Sequence[int | None]) -> None:
        seen = shares(uplinks)
        lost = len(uplinks) - seen.total()
        off = deviation(seen, self.weights) + 2 * lost
        counted = tuple(seen[number] for number in self._all)
        self.shares.append(Share(what=what, weights=self.weights, seen=counted, lost=lost, deviation=off))
        listed = ":".join(map(str, counted)) if len(counted) <= 8 else f"{min(counted)} to {max(counted)} each"
        self.audience.say(
            f"{what}: {len(uplinks)} opened, {listed}, {lost} failed, at most {off:.2f} off the exact share"
        )

    async def _fail(self, number: int, kind: Literal["carrier", "silence"], fault: _Act, repair: _Act) -> None:
        """Break one uplink under load, wait until that is noticed, mend it, wait until it is in use again."""
        name = f"isp{number} {'loses its carrier' if kind == 'carrier' else 'goes silent, carrier stays'}"
        self.audience.say(name)
        mark = len(self.daemon.log)
        at = time.monotonic()
        done = await asyncio.to_thread(fault, number)
        known = await self._await([number], up=False)
        noticed = None if known is None else max(0.0, known - at)
        self.audience.say("not noticed" if noticed is None else f"isp{number} found down after {1000 * noticed:.0f} ms")
        await self._pause(_SETTLE)
        repaired = await asyncio.to_thread(repair, number)
        self.audience.say(f"isp{number} repaired")
        back = await self._await([number], up=True)
        self.audience.say(
            "it never came back" if back is None else f"isp{number} up again after {back - repaired:.1f} s"
        )
        await self._pause(_SETTLE)
        if noticed is not None:
            self._time_failover("carrier loss" if kind == "carrier" else "silent loss", at, noticed, mark)
        self._steps.append(
            Step(
                name=name,
                kind=kind,
                at=at,
                done=done,
                until=time.monotonic(),
                dead=number,
                noticed=noticed,
                returned=None if back is None else back - repaired,
            )
        )
        for family in self.lab.topology.uplink(number).addresses if back is not None else ():
            await self._witnesses.cover(family, [number])

    def _time_failover(self, loss: str, at: float, noticed: float, mark: int) -> None:
        """Note when the loss was known, and when the kernel had taken the change that follows from it."""
        self.timings[f"{loss} noticed"] = 1000 * noticed
        # The daemon's own moment has whole milliseconds only.
        known = at + noticed - 0.001
        lines = (line.at for line in self.daemon.log[mark:] if _APPLIED.search(line.text))
        if (switched := next((moment for moment in lines if moment >= known), None)) is not None:
            self.timings[f"{loss} switched"] = 1000 * (switched - at)

    async def _crash(self) -> None:
        self.audience.say("kill -9 of the daemon")
        at = time.monotonic()
        done = await asyncio.to_thread(self.daemon.kill)
        await asyncio.sleep(_SETTLE)
        self.daemon.launch()
        self.timings["restart ready"] = 1000 * await asyncio.to_thread(self.daemon.wait_ready)
        self.audience.say(f"started again, ready after {self.timings['restart ready']:.0f} ms")
        await self._await(self._all, up=True)
        await self._pause(_SETTLE)
        name = "daemon killed (-9) and started again"
        self._steps.append(Step(name=name, kind="crash", at=at, done=done, until=time.monotonic()))

    async def _reweigh(self) -> None:
        last, old = len(self.weights), self.weights[-1]
        self.weights = (*self.weights[:-1], old + 2)
        self.daemon.config.write_text(configuration(self.lab.topology, self.weights), encoding="utf-8")
        at = time.monotonic()
        await asyncio.to_thread(self.daemon.reload)
        done = time.monotonic()
        self.timings["reload"] = 1000 * (done - at)
        self.audience.say(
            f"weight of isp{last} changed from {old} to {old + 2}, reload took {self.timings['reload']:.0f} ms"
        )
        await self._pause(_SETTLE)
        name = "weight changed and reloaded"
        self._steps.append(Step(name=name, kind="reload", at=at, done=done, until=time.monotonic()))

    async def _await(self, numbers: Collection[int], *, up: bool) -> float | None:
        """Wait until these uplinks are all up, or none is in use; return the monotonic time of the last change."""
        names = {f"isp{number}" for number in numbers}
        deadline = time.monotonic() + _PATIENCE
        while time.monotonic() < deadline:
            uplinks = [u for u in await self._look() if u.name in names]
            reached = [u.state == "up" if up else u.state not in _IN_USE for u in uplinks]
            if len(uplinks) == len(names) and all(reached):
                return max(self._moment(u.since) for u in uplinks)
            await asyncio.sleep(_POLL)
        return None

    async def _pause(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while (rest := deadline - time.monotonic()) > 0:
            await self._look()
            await asyncio.sleep(min(_SHOW, rest))

    async def _look(self) -> Sequence[UplinkStatus]:
        """Ask the daemon for its uplinks and show them; none when it does not answer."""
        try:
            status = await asyncio.to_thread(self.daemon.status)
        except ControlError:
            return ()
        now = time.monotonic()
        if now - self._shown >= _SHOW:
            self._shown = now
            recent = [a for a in self._load.attempts[-500:] if a.ended > now - _RECENT]
            self.audience.show(status, shares(a.uplink for a in recent), sum(not a.ok for a in recent))
        return status.uplinks

    def _moment(self, since: str | None) -> float:
        """Turn the daemon's wall clock into monotonic seconds."""
        return datetime.fromisoformat(since).timestamp() - self._wall if since else time.monotonic()
