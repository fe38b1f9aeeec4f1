"""What the idle daemon costs: memory, processor time, start-up, and one `polywan status` from end to end."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, TypeAlias

from peers import STUDY_FOOTPRINT
from report import cell, summary, table
from world import configuration, installed, standing, until_up

from polywan.lab.daemon import DaemonProcess
from polywan.lab.sandbox import LabError

Progress: TypeAlias = Callable[[str], None]

SIZES: Final = (8, 53)
STARTS: Final = 3
STATUSES: Final = 10
SETTLE: Final = 4.0
IDLE: Final = 20.0
"""Seconds of watching: two of the full reads that the daemon makes each ten seconds when nothing happens."""

_HOME: Final = Path("/run/polywan-bench")


def measure(*, quick: bool, note: Progress) -> dict[str, Any]:
    """Measure; `quick` watches eight uplinks for a moment.

    Raises:
        LabError: the network could not be built, or the daemon did not start.
    """
    result: dict[str, Any] = {}
    for uplinks in SIZES[:1] if quick else SIZES:
        note(f"{uplinks} uplinks")
        result[str(uplinks)] = _one(uplinks, idle=1.0 if quick else IDLE, times=1 if quick else STARTS)
    return result


def _one(uplinks: int, *, idle: float, times: int) -> dict[str, Any]:
    with standing(uplinks) as world:
        daemon = DaemonProcess(world.router, configuration(uplinks), _HOME / f"footprint{uplinks}")
        try:
            daemon.start()  # once for the byte code
            starts = [_from_nothing(daemon) for _ in range(times)]
            restarts = [_again(daemon) for _ in range(times)]
            until_up(daemon, uplinks)
            time.sleep(SETTLE if idle > SETTLE else 0.0)
            found = watch(daemon, idle)
            statuses = _statuses(daemon)
            until_up(daemon, uplinks, timeout=1.0)
        finally:
            daemon.stop()
    return {
        **found,
        "start_ms": summary(starts),
        "restart_ms": summary(restarts),
        **statuses,
        "troubles": daemon.troubles,
    }


def _from_nothing(daemon: DaemonProcess) -> float:
    daemon.down()
    daemon.stop()
    return 1000 * daemon.start()


def _again(daemon: DaemonProcess) -> float:
    daemon.stop()
    return 1000 * daemon.start()


def watch(daemon: DaemonProcess, seconds: float) -> dict[str, Any]:
    """Watch a running daemon for that long: its share of one processor, then its memory and its threads.

    Raises:
        LabError: it has ended.
    """
    if daemon.process is None or daemon.process.poll() is not None:
        raise LabError("the daemon has ended")
    pid = daemon.process.pid
    began, before, user_before = time.monotonic(), cpu_seconds(pid), user_seconds(pid)
    time.sleep(seconds)
    used, user, passed = cpu_seconds(pid) - before, user_seconds(pid) - user_before, time.monotonic() - began
    state = fields(Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace"))
    shares = fields(Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii", errors="replace"))
    return {
        "cpu_percent": round(100 * used / passed, 3),
        "cpu_user_percent": round(100 * user / passed, 3),
        "watched_s": round(passed, 1),
        "rss_bytes": 1024 * int(state["VmRSS"].split()[0]),
        "pss_bytes": 1024 * int(shares["Pss"].split()[0]),
        "threads": int(state["Threads"]),
    }


def cpu_seconds(pid: int) -> float:
    """Return the processor time of all threads of a process, those that have ended too (clock_getcpuclockid(3))."""
    return time.clock_gettime((~pid << 3) | 2)


def user_seconds(pid: int) -> float:
    """Return how much of that was spent outside the kernel, to a clock tick (proc(5), utime)."""
    after_name = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2]
    return int(after_name.split()[11]) / os.sysconf("SC_CLK_TCK")


def fields(text: str) -> dict[str, str]:
    """Read lines of ``Name: value``, as in /proc/PID/status (proc(5))."""
    pairs = (line.partition(":") for line in text.splitlines())
    return {name: value.strip() for name, _, value in pairs}


def _statuses(daemon: DaemonProcess) -> dict[str, Any]:
    """Time whole processes: `polywan status`, and for scale a Python that does nothing."""
    status = [*installed(), "status", "--runtime-dir", str(daemon.runtime)]
    nothing = [sys.executable, "-c", "pass"]
    _process(status)
    _process(nothing)
    pairs = [(_process(status), _process(nothing)) for _ in range(STATUSES)]
    return {
        "status_ms": summary([ours for ours, _ in pairs]),
        "python_ms": summary([bare for _, bare in pairs]),
    }


def _process(argv: list[str]) -> float:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    began = time.perf_counter()
    done = subprocess.run(argv, capture_output=True, text=True, check=False, env=environment)
    taken = 1000 * (time.perf_counter() - began)
    if done.returncode != 0:
        raise LabError(f"{' '.join(argv)}: {done.stderr.strip() or done.returncode}")
    return taken


def markdown(result: Mapping[str, Any]) -> str:
    """Return the section of the report."""
    found = list(result.values())
    rows = [
        ["resident memory", *(f"{each['rss_bytes'] / 1e6:.1f} MB" for each in found)],
        ["its share of memory (PSS)", *(f"{each['pss_bytes'] / 1e6:.1f} MB" for each in found)],
        ["share of one processor", *(f"{each['cpu_percent']:.2f} % in {each['watched_s']:.0f} s" for each in found)],
        ["of that, outside the kernel", *(f"{each['cpu_user_percent']:.2f} %" for each in found)],
        ["threads", *(str(each["threads"]) for each in found)],
        ["start to ready, nothing in the kernel, ms", *(cell(each["start_ms"], 0) for each in found)],
        ["start to ready, all there already, ms", *(cell(each["restart_ms"], 0) for each in found)],
        ["`polywan status`, whole process, ms", *(cell(each["status_ms"], 0) for each in found)],
        ["a Python that does nothing, ms", *(cell(each["python_ms"], 0) for each in found)],
        ["log lines that no healthy run has", *(str(len(each["troubles"])) for each in found)],
    ]
    lines = ["### Footprint of the idle daemon", "", "Both families, six targets, one round of probes a second.", ""]
    lines += [*table(["what", *(f"{n} uplinks" for n in result)], rows), ""]
    lines += ["Monitors of other tools, 53 uplinks (study: figures of another run):", ""]
    lines += table(["monitor", "processes", "share of one processor", "resident memory"], STUDY_FOOTPRINT)
    return "\n".join(lines) + "\n"
