"""Control plane: how long a decision takes to reach the kernel, for 2 to 200 uplinks, and what it writes there.

Each round is a process of its own (plane.py) in the router of a world; Shorewall, where it is installed, takes turns
with it in a second world of the same shape. Last, the real daemon: from the lost carrier to the changed slots.
"""

from __future__ import annotations

import json
import select
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TypeAlias

from peers import STUDY, Shorewall, shorewall, why_no_shorewall
from report import cell, summary, table
from world import World, configuration, standing, until_up

from polywan.kernel.netlink.socket import NETFILTER, NetlinkSocket, attributes, messages, text
from polywan.lab.daemon import DaemonProcess
from polywan.lab.sandbox import LabError

Progress: TypeAlias = Callable[[str], None]

ROUNDS: Final = {2: 7, 8: 5, 53: 5, 200: 3}
PEER_ROUNDS: Final = {2: 3, 8: 3, 53: 2}
WATCHED: Final = {2: 7, 53: 7}
"""Carrier losses of the real daemon, by number of uplinks."""

STEPS: Final = {
    "full_ms": "everything from nothing (read, decide, apply)",
    "apply_ms": "of that, the apply alone",
    "read_ms": "read back",
    "down_ms": "one uplink down: event to kernel (decide, apply)",
    "down_apply_ms": "of that, the apply alone",
    "weight_ms": "one weight changed (decide, apply)",
    "weight_apply_ms": "of that, the apply alone",
    "reload_ms": "reload without a change (parse, decide, read back)",
    "load_ms": "of that, the parse alone",
}
SHARED: Final = {
    "full_ms": "start, from nothing",
    "down_ms": "one uplink down",
    "weight_ms": "one weight changed",
    "reload_ms": "reload without a change",
}
"""Steps that Shorewall has as well."""

_PLANE: Final = Path(__file__).with_name("plane.py")
_HOME: Final = Path("/run/polywan-bench")
_QUICK_BACK: Final[dict[str, str | int]] = {
    "interval": "200ms",
    "timeout": "200ms",
    "rise": 1,
    "hold_down": "0s",
    "slow_start": "0s",
}
_NFTABLES_GROUP, _NEWSETELEM, _DELSETELEM, _NEWGEN = 7, 0x0A0C, 0x0A0E, 0x0A0F


def measure(*, quick: bool, note: Progress) -> dict[str, Any]:
    """Measure all; `quick` makes one round of few sizes and no comparison.

    Raises:
        PolywanError: a network could not be built, or the kernel refused what polywan wanted.
    """
    rounds = {2: 1, 53: 1} if quick else ROUNDS
    reason = "not in a quick run" if quick else why_no_shorewall()
    result: dict[str, Any] = {"sizes": {}, "shorewall": {}, "no_shorewall": reason, "daemon": {}}
    for uplinks, times in rounds.items():
        peer_rounds = 0 if reason else PEER_ROUNDS.get(uplinks, 0)
        own, peer = _in_turns(uplinks, times, peer_rounds, note)
        result["sizes"][str(uplinks)] = _own(own)
        if peer:
            result["shorewall"][str(uplinks)] = {step: summary([each[step] for each in peer]) for step in SHARED}
    for uplinks, times in ({2: 1} if quick else WATCHED).items():
        note(f"the daemon with {uplinks} uplinks: {times} carriers lost")
        result["daemon"][str(uplinks)] = _watch(uplinks, times)
    return result


def _own(rounds: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Sum up rounds of plane.py: times as medians, writes as the largest number of any round."""
    times = {step: summary([each[step] for each in rounds]) for step in STEPS}
    writes = {
        what: {
            "writes": max(each[what]["writes"] for each in rounds),
            "nft": max(each[what]["nft"] for each in rounds),
            "verbs": sorted({verb for each in rounds for verb in each[what]["verbs"]}),
        }
        for what in ("full", "verify", "down", "weight", "reload")
    }
    return {**times, "writes": writes}


def _in_turns(
    uplinks: int, rounds: int, peer_rounds: int, note: Progress
) -> tuple[list[dict[str, Any]], list[dict[str, float]]]:
    """Let polywan and Shorewall take turns, the first one changing each round."""
    own: list[dict[str, Any]] = []
    peer: list[dict[str, float]] = []
    with standing(uplinks) as world, _rival(uplinks, wanted=peer_rounds > 0) as rival:
        for number in range(rounds):
            note(f"{uplinks} uplinks, round {number + 1} of {rounds}")
            down = 1 + number % uplinks
            peers_turn = rival is not None and number < peer_rounds
            if rival is not None and peers_turn and number % 2:
                peer.append(rival.one_round(down))
            own.append(_plane(world, down))
            if rival is not None and peers_turn and not number % 2:
                peer.append(rival.one_round(down))
    return own, peer


@contextmanager
def _rival(uplinks: int, *, wanted: bool) -> Iterator[Shorewall | None]:
    if not wanted:
        yield None
        return
    with standing(uplinks, "rival") as world, shorewall(world, _HOME / f"shorewall{uplinks}") as rival:
        yield rival


def _plane(world: World, down: int) -> dict[str, Any]:
    home = _HOME / f"plane{world.uplinks}"
    home.mkdir(parents=True, exist_ok=True)
    file, other = home / "polywan.toml", home / "other.toml"
    file.write_text(configuration(world.uplinks), encoding="utf-8")
    other.write_text(configuration(world.uplinks, weights={down: 2}), encoding="utf-8")
    argv = [sys.executable, str(_PLANE), str(file), str(other), str(home / "state"), f"wan{down}"]
    found: dict[str, Any] = json.loads(world.router.run(argv).stdout)
    return found


class Transactions:
    """Waits for nft transactions of a router that change the slots, by notifications of the kernel."""

    def __init__(self, world: World) -> None:
        with world.router.entered():
            self._socket = NetlinkSocket(NETFILTER, (_NFTABLES_GROUP,))

    def close(self) -> None:
        """Stop listening."""
        self._socket.close()

    def forget(self) -> None:
        """Drop what has come so far."""
        while self._receive(0.0):
            pass

    def slots_moved(self, timeout: float) -> float | None:
        """Return the monotonic time at which a transaction was done that changed slots; None when none came."""
        deadline, touched = time.monotonic() + timeout, False
        while (remaining := deadline - time.monotonic()) > 0:
            data = self._receive(remaining)
            now = time.monotonic()
            for message in messages(data):
                if message.kind in (_NEWSETELEM, _DELSETELEM):
                    touched |= text(attributes(message.body, 4).get(2, b"")).startswith("slots_")
                elif message.kind == _NEWGEN and touched:
                    return now
        return None

    def _receive(self, timeout: float) -> bytes:
        ready, _, _ = select.select([self._socket], [], [], timeout)
        return self._socket.receive_now() if ready else b""


def _watch(uplinks: int, times: int) -> dict[str, Any]:
    """Take carriers away from the real daemon, and let it reload a file that has not changed."""
    with standing(uplinks) as world:
        daemon = DaemonProcess(world.router, configuration(uplinks, health=_QUICK_BACK), _HOME / f"daemon{uplinks}")
        watcher = Transactions(world)
        try:
            daemon.start()
            until_up(daemon, uplinks)
            taken = [_lose(world, daemon, watcher, 1 + number % uplinks) for number in range(times)]
            reloads = [_reload(daemon) for _ in range(times)]
        finally:
            watcher.close()
            daemon.stop()
        return {
            "carrier_ms": summary(taken),
            "reload_ms": summary([ms for ms, _ in reloads]),
            "reload_writes": sum(changed for _, changed in reloads),
            "troubles": daemon.troubles,
        }


def _lose(world: World, daemon: DaemonProcess, watcher: Transactions, number: int) -> float:
    watcher.forget()
    began = time.monotonic()
    world.cut(number)
    moved = watcher.slots_moved(5.0)
    if moved is None:
        raise LabError(f"the slots of isp{number} never moved")
    world.restore(number)
    until_up(daemon, world.uplinks)
    return 1000 * (moved - began)


def _reload(daemon: DaemonProcess) -> tuple[float, int]:
    """Reload; return its milliseconds as a client sees them, and how many plans were carried out."""
    before = int(daemon.status().generation)
    began = time.perf_counter()
    after = int(daemon.reload().generation)
    return 1000 * (time.perf_counter() - began), after - before


def markdown(result: Mapping[str, Any]) -> str:
    """Return the section of the report."""
    sizes = list(result["sizes"])
    lines = ["### Control plane, in process", "", "Milliseconds: median (smallest..largest).", ""]
    times = [[name, *(cell(result["sizes"][n][step]) for n in sizes)] for step, name in STEPS.items()]
    lines += _by_size("step", sizes, times)
    lines += ["", "Operations that were written to the kernel:", ""]
    written = {
        "everything from nothing": "full",
        "the decision after reading that back": "verify",
        "one uplink down": "down",
        "one weight changed": "weight",
        "reload without a change": "reload",
    }
    writes = [[name, *(_writes(result["sizes"][n]["writes"][what]) for n in sizes)] for name, what in written.items()]
    lines += _by_size("step", sizes, writes)
    lines += ["", *_compared(result), "", *_daemon(result), "", *_study()]
    return "\n".join(lines) + "\n"


def _compared(result: Mapping[str, Any]) -> Iterator[str]:
    yield "### Control plane, against Shorewall in the same run"
    yield ""
    if not result["shorewall"]:
        yield f"Left out: {result['no_shorewall']}."
        return
    yield "Milliseconds: polywan / Shorewall = times as fast. polywan in process, Shorewall by its command."
    yield ""
    sizes = list(result["shorewall"])
    rows = []
    for step, name in SHARED.items():
        pairs = [(result["sizes"][n][step]["median"], result["shorewall"][n][step]["median"]) for n in sizes]
        rows.append([name, *(f"{own:.1f} / {peer:.0f} = {peer / own:.0f} x" for own, peer in pairs)])
    yield from _by_size("step", sizes, rows)


def _daemon(result: Mapping[str, Any]) -> Iterator[str]:
    yield "### Control plane, the real daemon from end to end"
    yield ""
    yield "Milliseconds; the kernel's own notification of the nft transaction is what is waited for."
    yield ""
    found = result["daemon"].values()
    rows = [
        ["far end goes down until the slots have moved", *(cell(each["carrier_ms"]) for each in found)],
        ["reload without a change, as its client sees it", *(cell(each["reload_ms"]) for each in found)],
        ["plans carried out by these reloads", *(str(each["reload_writes"]) for each in found)],
        ["log lines that no healthy run has", *(str(len(each["troubles"])) for each in found)],
    ]
    yield from _by_size("step", list(result["daemon"]), rows)


def _study() -> Iterator[str]:
    yield "### Control plane, other tools (study)"
    yield ""
    yield "Milliseconds from an earlier study, not from this run: for the order of magnitude, not for ratios."
    yield ""
    rows = [
        [step, tool, *(figures.get(n, "-") for n in (2, 8, 53, 200))]
        for step, tools in STUDY.items()
        for tool, figures in tools.items()
    ]
    yield from table(["step", "tool", "2 uplinks", "8 uplinks", "53 uplinks", "200 uplinks"], rows)


def _by_size(first: str, sizes: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    return table([first, *(f"{n} uplinks" for n in sizes)], rows)


def _writes(found: Mapping[str, Any]) -> str:
    kinds = f": {', '.join(found['verbs'])}" if found["verbs"] else ""
    return f"{found['writes']} ({found['nft']} nft{kinds})" if found["nft"] else str(found["writes"])
