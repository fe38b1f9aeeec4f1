"""A hundred clients follow the stream while uplinks flap: memory, processor time, and how late anything is.

The clients are one process of their own. Short questions that are asked meanwhile show how late the daemon is.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TypeAlias

from footprint import cpu_seconds, fields
from report import cell, summary, table
from world import World, configuration, standing, until_up

from polywan.api import calls
from polywan.api.requests import Nothing
from polywan.client import Client
from polywan.files import SOCKET
from polywan.lab.daemon import DaemonProcess
from polywan.lab.sandbox import LabError

Progress: TypeAlias = Callable[[str], None]

UPLINKS: Final = 53
CLIENTS: Final = 100
SECONDS: Final = 40.0
SETTLE: Final = 10.0
"""Seconds after which memory has its level: snapshots of all clients were made and sent."""

FLAP: Final = 2.0
"""Seconds between a carrier that goes and one that comes back."""

ASK_EVERY: Final = 0.05

_HOME: Final = Path("/run/polywan-bench")
_QUICK_BACK: Final[dict[str, str | int]] = {"rise": 1, "hold_down": "0s", "slow_start": "0s"}

FOLLOW: Final = """
import asyncio, json, sys, time
path, number = sys.argv[1], int(sys.argv[2])
heard, said, gaps, ended, snapshots = {}, {}, [], 0, 0
async def follow():
    global ended, snapshots
    reader, writer = await asyncio.open_unix_connection(path, limit=1 << 24)
    writer.write(b"GET /v1/stream HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n")
    last, kind = None, b""
    while line := await reader.readline():
        now = time.monotonic()
        if line.startswith(b"event: "):
            kind = line[7:].strip()
        elif line.startswith(b"data: ") and kind == b"snapshot":
            snapshots += 1
        elif line.startswith(b"data: ") and kind == b"sample":
            if last is not None:
                gaps.append(now - last)
            last = now
        elif line.startswith(b"data: ") and kind == b"change":
            # All of them get the same one: it is looked into once.
            if line not in said:
                said[line] = [u["name"] for u in json.loads(line[6:])["uplinks"] if u["state"] != "up"]
            for name in said[line]:
                heard.setdefault(name, []).append(now)
    ended += 1
async def main():
    tasks = [asyncio.create_task(follow()) for _ in range(number)]
    while snapshots < number:
        await asyncio.sleep(0.05)
        if any(task.done() for task in tasks):
            sys.exit("a client could not follow")
    print("following", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    early = ended
    for task in tasks:
        task.cancel()
    print(json.dumps({"ended": early, "gaps": gaps, "heard": heard}), flush=True)
asyncio.run(main())
"""
"""Follows so many times; when its input ends, prints when each client heard of each uplink that was not up."""


def measure(*, quick: bool, note: Progress) -> dict[str, Any]:
    """Measure; `quick` has few clients and uplinks for a moment.

    Raises:
        LabError: the network could not be built, or the daemon did not start.
    """
    uplinks, clients, seconds = (4, 5, 4.0) if quick else (UPLINKS, CLIENTS, SECONDS)
    note(f"{clients} clients, {uplinks} uplinks, {seconds:.0f} s")
    return soak(uplinks, clients, seconds)


def soak(uplinks: int, clients: int, seconds: float) -> dict[str, Any]:
    """Let clients follow for so long while one uplink after the other loses its carrier; return what was seen.

    Raises:
        LabError: as `measure`.
    """
    with standing(uplinks) as world:
        daemon = DaemonProcess(world.router, configuration(uplinks, health=_QUICK_BACK), _HOME / "streams")
        try:
            daemon.start()
            until_up(daemon, uplinks)
            return _followed(world, daemon, clients, seconds)
        finally:
            daemon.stop()


def _followed(world: World, daemon: DaemonProcess, clients: int, seconds: float) -> dict[str, Any]:
    if daemon.process is None:
        raise LabError("the daemon has ended")
    pid, asked = daemon.process.pid, threading.Event()
    cuts: list[tuple[str, float]] = []
    answers: list[float] = []
    memory: list[tuple[float, float]] = []
    with _following(daemon, clients) as following:
        asking = threading.Thread(target=_ask, args=(daemon, asked, answers))
        asking.start()
        time.sleep(min(SETTLE, seconds / 4))
        began, used = time.monotonic(), cpu_seconds(pid)
        while time.monotonic() < began + seconds:
            down = 1 + len(cuts) % world.uplinks
            cuts.append((f"isp{down}", world.cut(down)))
            time.sleep(FLAP)
            world.restore(down)
            time.sleep(FLAP / 4)
            memory.append((time.monotonic() - began, _resident(pid)))
        used, passed = cpu_seconds(pid) - used, time.monotonic() - began
        asked.set()
        asking.join()
        out, _ = following.communicate()
    return _found(json.loads(out), cuts, clients) | {
        "uplinks": world.uplinks,
        "clients": clients,
        "seconds": round(passed, 1),
        "flaps": len(cuts),
        "cpu_percent": round(100 * used / passed, 1),
        "memory_mb": [round(memory[0][1], 1), round(memory[len(memory) // 2][1], 1), round(memory[-1][1], 1)],
        "answer_ms": summary(answers),
        "troubles": daemon.troubles,
    }


@contextmanager
def _following(daemon: DaemonProcess, clients: int) -> Iterator[subprocess.Popen[str]]:
    argv = [sys.executable, "-c", FOLLOW, str(daemon.runtime / SOCKET), str(clients)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        if process.stdout is None or process.stdout.readline() != "following\n":
            raise LabError("the clients could not follow")
        yield process


def _ask(daemon: DaemonProcess, end: threading.Event, answers: list[float]) -> None:
    client = Client(daemon.runtime)
    while not end.wait(ASK_EVERY):
        began = time.perf_counter()
        client.ask(calls.TRIAL, Nothing())
        answers.append(1000 * (time.perf_counter() - began))


def _found(heard: Mapping[str, Any], cuts: Sequence[tuple[str, float]], clients: int) -> dict[str, Any]:
    """Sum up what clients heard: how long after a carrier was lost until the first one knew, and the last."""
    first, last, unheard = [], [], 0
    for uplink, at in cuts:
        moments = sorted(moment for moment in heard["heard"].get(uplink, ()) if at <= moment < at + FLAP)[:clients]
        unheard += clients - len(moments)
        if moments:
            first.append(1000 * (moments[0] - at))
            last.append(1000 * (moments[-1] - at))
    return {
        "ended": heard["ended"],
        "unheard": unheard,
        "first_ms": summary(first),
        "last_ms": summary(last),
        "sample_gap_ms": summary([1000 * gap for gap in heard["gaps"]]),
    }


def _resident(pid: int) -> float:
    state = fields(Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace"))
    return int(state["VmRSS"].split()[0]) * 1024 / 1e6


def markdown(result: Mapping[str, Any]) -> str:
    """Return the section of the report."""
    start, middle, end = result["memory_mb"]
    rows = [
        ["from the lost carrier to the first client, ms", cell(result["first_ms"])],
        ["to the last client, ms", cell(result["last_ms"])],
        ["between two samples, ms", cell(result["sample_gap_ms"])],
        ["a short question meanwhile, ms", cell(result["answer_ms"])],
        ["resident memory at the start, in the middle, at the end", f"{start} MB, {middle} MB, {end} MB"],
        ["share of one processor", f"{result['cpu_percent']:.1f} %"],
        ["clients that were sent away; changes that somebody did not hear", f"{result['ended']}; {result['unheard']}"],
        ["log lines that no healthy run has", str(len(result["troubles"]))],
    ]
    about = f"{result['clients']} clients follow {result['uplinks']} uplinks for {result['seconds']:.0f} s"
    heading = ["### The stream", "", f"{about}; {result['flaps']} carriers are lost, one after the other.", ""]
    return "\n".join([*heading, *table(["what", "measured"], rows)]) + "\n"
