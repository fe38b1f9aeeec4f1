"""Sixty reloads under load: the real daemon changes weights while thousands of packets a second pass.

Usage: python bench/hitless.py [--quick]

Long-lived UDP flows send both ways, and new ones, of one packet each, come on top. Every packet sent has to
arrive, by the uplink of its flow, with that uplink's address; every new connection has to get a mark. The far
end counts by itself what came how: it knows which uplink each long flow had before the first reload.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from designs import defaults, polywan_config
from stats import environment, median, spread
from wires import Flow, Sent, Wires, address, build, flood, lacking, parse_sent, sink

from polywan.lab import sandbox
from polywan.lab.daemon import DaemonProcess
from polywan.lab.sandbox import LabError

UPLINKS: Final = 8
LONG, NEW = 7, 9
WEIGHTS: Final = ((1,), (5, 1, 3, 2))
TARGETS: Final = ("203.0.113.10", "198.51.100.10", "198.51.100.11")
HOME: Final = Path("/run/polywan-hitless")

PROMISES: Final = {
    "lost_out": "packets of long flows lost on the way out",
    "lost_in": "packets of long flows lost on the way in",
    "lost_new": "first packets of new connections lost",
    "wrong_uplink": "packets of long flows by another uplink than their first",
    "wrong_source": "packets with a source address that is not their uplink's",
    "untracked": "new connections that the router no longer knows",
    "unmarked": "connections without a mark",
}
"""Counts that have to be 0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """How much traffic, and how many reloads.

    Attributes:
        long, new: packets a second, each way, and new flows a second.
        flows: long-lived flows.
        pause: seconds from one reload to the next, if it is done by then.
        seconds: the traffic ends after that time at the latest.
    """

    reloads: int
    long: int
    new: int
    flows: int
    pause: float
    seconds: float


FULL: Final = Load(reloads=60, long=10_000, new=5_000, flows=500, pause=0.1, seconds=12.0)
QUICK: Final = Load(reloads=4, long=1_000, new=500, flows=50, pause=0.1, seconds=8.0)


class Traffic:
    """The generators, running; their commands are told to end, and then say how much they have sent."""

    def __init__(self, wires: Wires, load: Load, targets: Path) -> None:
        long, new = int(load.long * load.seconds), int(load.new * load.seconds)
        self._running = {
            "out": wires.client.start(
                wires.send(long, flows=load.flows, port=LONG, rate=load.long), stdout=subprocess.PIPE
            ),
            "in": wires.far.start(wires.reply(long, file=str(targets), rate=load.long), stdout=subprocess.PIPE),
            "new": wires.client.start(
                wires.send(new, flows=new, port=NEW, hosts=200, rate=load.new), stdout=subprocess.PIPE
            ),
        }

    @property
    def alive(self) -> bool:
        """All of them still send."""
        return all(process.poll() is None for process in self._running.values())

    def stop(self) -> dict[str, Sent]:
        """End the generators and return what each has sent."""
        for process in self._running.values():
            process.terminate()
        return {name: parse_sent(process.communicate(timeout=10)[0]) for name, process in self._running.items()}


def file_of(config: dict[str, Any]) -> str:
    """Write a configuration as TOML; numbers, strings and lists of them look the same in JSON."""
    lines: list[str] = []

    def section(path: str, table: dict[str, Any]) -> None:
        lines.append(f"[{path}]")
        lines.extend(f"{key} = {json.dumps(value)}" for key, value in table.items() if not isinstance(value, dict))
        for key, value in table.items():
            if isinstance(value, dict):
                section(f"{path}.{key}", value)

    for name, table in config.items():
        section(name, table)
    return "\n".join([*lines, ""])


def witness(numbers: Iterable[int]) -> str:
    """Return the far end's nft table, which knows what may arrive where."""
    listed = list(numbers)
    sources = ", ".join(f'"isp{n}" . {address(n)}' for n in listed)
    rules = f"""
        meta l4proto != udp accept
        iifname . ip saddr != {{ {sources} }} counter name wrong_source
        udp dport {LONG} iifname . udp sport != @owners counter name wrong_uplink
        udp dport {LONG} counter name long drop
        udp dport {NEW} counter name arrived drop"""
    extra = "counter wrong_source { }\ncounter wrong_uplink { }\ncounter long { }\n"
    extra += "set owners { type ifname . inet_service; }\n"
    return sink((f"isp{n}" for n in listed), rules).replace("chain arriving", f"{extra}chain arriving", 1)


def owners(flows: Iterable[Flow], numbers: Iterable[int]) -> str:
    """Return the nft command that tells the witness which uplink each long flow has."""
    by_address = {address(n): n for n in numbers}
    elements = ", ".join(f'"isp{by_address[flow.address]}" . {flow.seen_port}' for flow in flows)
    return f"add element netdev sink owners {{ {elements} }}\n"


def _establish(wires: Wires, load: Load) -> Path:
    """Open the long flows, both ways, and let the witness know them; return their file for the replies."""
    wires.client.run(wires.send(load.flows, flows=load.flows, port=LONG))
    flows = [flow for flow in wires.flows() if flow.to_port == LONG]
    if len(flows) != load.flows:
        raise LabError(f"{len(flows)} long flows tracked of {load.flows}")
    wires.far.nft(owners(flows, wires.numbers) + "reset counters table netdev sink\n")
    targets = HOME / "targets"
    targets.write_text(wires.targets(flows), encoding="ascii")
    wires.far.run(wires.reply(load.flows, file=str(targets)))
    wires.client.nft("reset counters table netdev sink\n")
    return targets


def _reload(daemon: DaemonProcess, files: tuple[str, ...], load: Load, traffic: Traffic) -> list[float]:
    """Reload with each file in turn; return how many milliseconds each reload took."""
    times: list[float] = []
    due = time.monotonic()
    for number in range(1, load.reloads + 1):
        due += load.pause
        time.sleep(max(0.0, due - time.monotonic()))
        daemon.config.write_text(files[number % len(files)], encoding="utf-8")
        start = time.monotonic()
        daemon.reload()
        times.append(1000 * (time.monotonic() - start))
        if not traffic.alive:
            raise LabError(f"the traffic ended after {number} of {load.reloads} reloads")
    time.sleep(load.pause)
    return times


def _counts(wires: Wires, sent: dict[str, Sent]) -> dict[str, int]:
    far = wires.far.counters("netdev sink")
    tracked = [flow for flow in wires.flows() if flow.to_port == NEW]
    return {
        "lost_out": sent["out"].frames - far["long"],
        "lost_in": sent["in"].frames - wires.client.counters("netdev sink")["arrived"],
        "lost_new": sent["new"].frames - far["arrived"],
        "wrong_uplink": far["wrong_uplink"],
        "wrong_source": far["wrong_source"],
        "untracked": sent["new"].frames - len(tracked),
        "unmarked": wires.unmarked(),
    }


def _run(wires: Wires, load: Load, note: Callable[[str], None]) -> dict[str, Any]:
    health = {"targets": list(TARGETS)}
    files = tuple(file_of(polywan_config(wires.count, weights, health=health)) for weights in WEIGHTS)
    daemon = DaemonProcess(wires.router, files[0], HOME)
    try:
        daemon.start()
        targets = _establish(wires, load)
        before = daemon.status().generation
        note(f"{load.reloads} reloads under {load.long} packets/s each way and {load.new} new connections/s")
        traffic = Traffic(wires, load, targets)
        try:
            times = _reload(daemon, files, load, traffic)
        finally:
            sent = traffic.stop()
        changes = daemon.status().generation - before
    finally:
        daemon.stop()
    return {
        "uplinks": wires.count,
        "reloads": load.reloads,
        "changes": changes,
        "seconds": round(sent["out"].wall, 1),
        "sent": {name: one.frames for name, one in sent.items()},
        "reload_ms": round(median(times), 1),
        "reload_ms_spread": [round(x, 1) for x in spread(times)],
        "counts": _counts(wires, sent),
        "troubles": daemon.troubles,
    }


def measure(*, quick: bool, note: Callable[[str], None]) -> dict[str, Any]:
    """Measure; `quick` makes four reloads under little load and insists that every count is 0.

    Raises:
        LabError: the network could not be built, the traffic ended early, or a count of `quick` is not 0.
    """
    result: dict[str, Any] = {"environment": environment(), "absent": lacking()}
    if result["absent"]:
        return result
    flood()
    with build("hitless", UPLINKS, sinks=False) as wires:
        wires.client.nft(sink(["eth0"]))
        wires.far.nft(witness(wires.numbers))
        wires.far.ip(f"address add {target}/32 dev lo" for target in TARGETS)
        wires.router.ip(defaults(wires))
        result |= _run(wires, QUICK if quick else FULL, note)
    if quick and (any(result["counts"].values()) or result["troubles"] or result["changes"] < result["reloads"]):
        raise LabError(f"reloads were noticed, or did nothing: {result}")
    return result


def markdown(result: dict[str, Any]) -> str:
    """Return the section of the report."""
    lines = ["### Reloads under load", ""]
    if result["absent"]:
        return "\n".join([*lines, f"Not measured: {result['absent']} absent.", ""])
    sent, (low, high) = result["sent"], result["reload_ms_spread"]
    lines += [
        (
            f"{result['reloads']} reloads in {result['seconds']} s, alternating between two sets of weights "
            f"({result['uplinks']} uplinks, {result['changes']} changes of the kernel), by the real daemon, while "
            f"{sent['out']} packets of long-lived flows went out, {sent['in']} came in and {sent['new']} "
            f"connections were made. A reload took {result['reload_ms']} ms ({low}..{high}), the reading back included."
        ),
        "",
        "| what must be 0 | count |",
        "|---|---|",
        *(f"| {text} | {result['counts'][name]} |" for name, text in PROMISES.items()),
        "",
    ]
    if result["troubles"]:
        lines += ["The daemon complained:", "", *(f"    {line}" for line in result["troubles"]), ""]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a few reloads only: does it work?")
    options = parser.parse_args()
    if sandbox.not_private():
        sandbox.enter([sys.executable, *sys.argv])
    sandbox.prepare()
    print(markdown(measure(quick=options.quick, note=lambda text: print(text, file=sys.stderr))))


if __name__ == "__main__":
    main()
