"""What the loss of an uplink costs: a new connection every 20 ms through the real daemon, four uplinks, real packets.

Three faults: the carrier goes; the provider goes silent under default probing; the same with 200 ms probing. Each
run has a daemon that starts from nothing, and its own uplink fails.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeAlias

from peers import STUDY_FAILOVER
from report import cell, summary, table
from world import configuration, until_up

from polywan.lab.daemon import DaemonProcess
from polywan.lab.network import Lab, build
from polywan.lab.sandbox import LabError
from polywan.lab.servers import serve
from polywan.lab.traffic import Attempt, SteadyLoad

Progress: TypeAlias = Callable[[str], None]

UPLINKS: Final = 4
RUNS: Final = 3
INTERVAL: Final = 0.02
RETRIED: Final = 0.9
"""Seconds a handshake takes at least when its SYN was repeated: the first repetition comes after one (RFC 6298)."""

_BEFORE, _AFTER = 1.0, 1.5
_NOTICED: Final = 15.0
_HOME: Final = Path("/run/polywan-bench")
_ABOUT: Final = (
    f"One new TCP connection each {1000 * INTERVAL:.0f} ms over {UPLINKS} equal uplinks, families mixed; a quarter of "
    "them meets the fault. Times in ms after the fault: median (smallest..largest) of the runs; counts are sums. A "
    "connection was hurt when it failed or had to repeat its SYN."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One way to lose an uplink, and the probing that has to notice it; `interval` in seconds."""

    title: str
    carrier: bool
    interval: float = 1.0
    health: Mapping[str, str | int] = field(default_factory=dict)


FAULTS: Final = {
    "carrier": Fault(title="carrier loss", carrier=True),
    "silence": Fault(title="silent loss, default probing (every 1 s, 3 rounds)", carrier=False),
    "silence_fast": Fault(
        title="silent loss, probing every 200 ms, timeout 400 ms, 3 rounds",
        carrier=False,
        interval=0.2,
        health={"interval": "200ms", "timeout": "400ms"},
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One fault: monotonic times of the fault and of the daemon's reaction, and every connection that met it."""

    at: float
    verdict: float
    switched: float
    attempts: Sequence[Attempt]

    def as_data(self) -> dict[str, Any]:
        """Return the numbers of the report, times in milliseconds after the fault."""
        met = [a for a in self.attempts if a.ended > self.at]
        failed = [a for a in met if not a.ok]
        retried = [a for a in met if a.ok and a.connected is not None and a.connected - a.started > RETRIED]
        return {
            "verdict_ms": _after(self.verdict, self.at),
            "switched_ms": _after(self.switched, self.at),
            "tried": len(met),
            "failed": len(failed),
            "errors": dict(Counter(a.error for a in failed)),
            "last_failed_ms": max((_after(a.started, self.at) for a in failed), default=None),
            "retried": len(retried),
            "last_hurt_ms": max((_after(a.started, self.at) for a in (*failed, *retried)), default=0.0),
        }


def _after(moment: float, at: float) -> float:
    return round(max(0.0, 1000 * (moment - at)), 2)


def measure(*, quick: bool, note: Progress) -> dict[str, Any]:
    """Measure; `quick` makes one run of the two short faults.

    Raises:
        LabError: the lab could not be built, or the daemon never noticed.
    """
    kinds = ("carrier", "silence_fast") if quick else tuple(FAULTS)
    result: dict[str, Any] = {}
    with build(UPLINKS) as lab:
        for kind in kinds:
            runs = []
            times = 1 if quick else RUNS
            for number in range(1, times + 1):
                # Faults at the same point of the probes' rhythm would tell of that point only.
                phase = (number - 1) / times
                note(f"{FAULTS[kind].title}, run {number}")
                runs.append(_one(lab, FAULTS[kind], number, wait=_BEFORE + phase * FAULTS[kind].interval).as_data())
            result[kind] = sum_up(runs)
    return result


def sum_up(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the runs, and what they have in common."""
    times = {key: summary([run[key] for run in runs]) for key in ("verdict_ms", "switched_ms", "last_hurt_ms")}
    counts = {key: sum(run[key] for run in runs) for key in ("tried", "failed", "retried")}
    return {**times, **counts, "runs": list(runs)}


def _one(lab: Lab, fault: Fault, number: int, *, wait: float) -> Run:
    daemon = DaemonProcess(lab.router, configuration(UPLINKS, health=fault.health), _HOME / "failover")
    daemon.start()
    try:
        until_up(daemon, UPLINKS)
        return asyncio.run(_under_load(lab, daemon, fault, number, wait))
    finally:
        (lab.restore if fault.carrier else lab.unblackhole)(number)
        daemon.down()
        daemon.stop()


async def _under_load(lab: Lab, daemon: DaemonProcess, fault: Fault, number: int, wait: float) -> Run:
    servers = await serve(lab)
    try:
        async with SteadyLoad(lab, interval=INTERVAL) as load:
            await asyncio.sleep(wait)
            mark = len(daemon.log)
            at = time.monotonic()
            await asyncio.to_thread(lab.cut if fault.carrier else lab.blackhole, number)
            verdict = await asyncio.to_thread(daemon.wait_log, _names(number), _NOTICED, mark)
            await asyncio.sleep(_AFTER)
    finally:
        await servers.close()
    if verdict is None:
        raise LabError(f"{fault.title}: the daemon never noticed")
    # A loss is told after its plan was carried out. Both families of a fault are decided within one round of probes.
    switched = max(line.at for line in daemon.log[mark:] if _names(number)(line.text) and line.at < verdict.at + 0.5)
    return Run(at=at, verdict=verdict.at, switched=switched, attempts=load.attempts)


def _names(number: int) -> Callable[[str], bool]:
    wanted = re.compile(rf"uplink\.(down|degraded): isp{number} ")
    return lambda text: wanted.search(text) is not None


def markdown(result: Mapping[str, Any]) -> str:
    """Return the section of the report."""
    lines = ["### Failover", "", _ABOUT, ""]
    rows = [_row(FAULTS[kind].title, found) for kind, found in result.items()]
    heads = [
        "fault",
        "runs",
        "first verdict",
        "kernel switched",
        "tried",
        "failed",
        "SYN repeated",
        "last one hurt began",
    ]
    lines += [
        *table(heads, rows),
        "",
        "Other systems (study: figures of another run):",
        "",
    ]
    lines += table(["system", "fault", "until new connections stopped failing"], STUDY_FAILOVER)
    return "\n".join(lines) + "\n"


def _row(title: str, found: Mapping[str, Any]) -> list[str]:
    errors: Counter[str] = Counter()
    for run in found["runs"]:
        errors.update(run["errors"])
    named = f" ({', '.join(f'{count} {name}' for name, count in errors.items())})" if errors else ""
    return [
        title,
        str(len(found["runs"])),
        cell(found["verdict_ms"]),
        cell(found["switched_ms"]),
        str(found["tried"]),
        f"{found['failed']}{named}",
        str(found["retried"]),
        cell(found["last_hurt_ms"]),
    ]
