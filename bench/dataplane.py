"""What a packet costs the router: CPU time per packet under several rule sets, and TCP connections a second.

Usage: python bench/dataplane.py [--quick] [--n 2,53] [--designs bare,polywan] [--rounds 5] [--only packets]

The generator stays on one processor, and all that the router does with a frame happens in a softirq of its
thread: the thread's CPU time per frame is the measure. The generator's own share is measured with a router that
drops on arrival, and subtracted. Designs take turns, there and back, and only ratios within a round count: what
slows the machine down for a while slows all down.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any, Final, TypeAlias

from designs import DESIGNS
from stats import environment, median, ratios, spread, turns
from wires import SERVER, Wires, build, flood, lacking, parse_sent

from polywan.core.errors import PolywanError
from polywan.lab import sandbox
from polywan.lab.sandbox import LabError

Progress: TypeAlias = Callable[[str], None]

KINDS: Final = {"new": "new connection", "out": "established, out", "in": "established, in"}
PARTS: Final = ("packets", "tcp")
PORT: Final = 9
TCP_DESIGNS: Final = ("bare", "polywan", "mwan3", "nth")
TCP_PORT: Final = 8080
_INFLIGHT: Final = 64
_FORGETFUL: Final = 1.2
_HOSTS: Final = 200
_ABOUT: Final = (
    "CPU time of the router per packet, relative to bare forwarding with masquerade: 1.00 is bare, more is worse. "
    "Median (least..most), then nanoseconds, which depend on the machine: only ratios count."
)
_ABOUT_TCP: Final = (
    "TCP connections a second through client, router and server on the same processors, relative to bare: 1.00 is "
    "bare, less is worse."
)
_NOT_CHARGED: Final = (
    "this kernel does not charge a thread for the softirqs it runs (CONFIG_IRQ_TIME_ACCOUNTING), so that the cost of a "
    "packet cannot be told by this method"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How much of each.

    Attributes:
        counts: numbers of uplinks.
        rounds: how often each design is measured.
        new, packets: packets that open a connection, and packets of established flows, in a round.
        flows: established flows.
        tcp_uplinks, tcp_rounds, tcp_seconds: uplinks, rounds, and seconds of a round, of the TCP part.
    """

    counts: tuple[int, ...]
    rounds: int
    new: int
    packets: int
    flows: int
    tcp_uplinks: int
    tcp_rounds: int
    tcp_seconds: float


FULL: Final = Size(
    counts=(2, 8, 53, 200),
    rounds=9,
    new=15_000,
    packets=30_000,
    flows=1_000,
    tcp_uplinks=53,
    tcp_rounds=7,
    tcp_seconds=1.0,
)
COARSE: Final = replace(FULL, counts=(2, 53, 200), rounds=4, new=40_000, packets=100_000)
"""The same where processor time is counted in ticks of the clock, as in a guest."""

_TICK: Final = 0.001
"""Seconds of processor time from which on it is."""

QUICK: Final = Size(
    counts=(2, 8), rounds=2, new=300, packets=600, flows=100, tcp_uplinks=8, tcp_rounds=2, tcp_seconds=0.1
)


@dataclass(frozen=True, slots=True)
class Shot:
    """One measurement.

    Attributes:
        cost: nanoseconds of CPU time per packet, the generator's included.
        lost: packets that did not arrive at the other end.
    """

    cost: float
    lost: int


def full() -> Size:
    """Return how much of each gives steady numbers here."""
    began = now = time.thread_time()
    while now == began:
        now = time.thread_time()
    return FULL if now - began < _TICK else COARSE


class Stand:
    """One design in namespaces of its own."""

    def __init__(self, name: str, wires: Wires) -> None:
        self.design = DESIGNS[name]
        self.wires = wires
        self.forwards = name != "generator"

    def round(self, size: Size, cpu: int) -> dict[str, Shot]:
        """Measure each kind of packet once.

        Raises:
            LabError: a connection was not tracked, or has no mark although this design marks all.
        """
        wires = self.wires
        wires.forget()
        new = self._out(wires.send(size.new, flows=size.new, port=PORT, hosts=_HOSTS, cpu=cpu), size.new)
        self._check(size.new)
        wires.forget()
        if self.design.offloads:
            # A flowtable looks once a second which of its connections are forgotten, and takes none twice.
            time.sleep(_FORGETFUL)
        targets = self._establish(size, cpu)
        out = self._out(wires.send(size.packets, flows=size.flows, port=PORT, cpu=cpu), size.packets)
        return {"new": new, "out": out, "in": self._in(size.packets, targets, cpu)}

    def _check(self, count: int) -> None:
        # In a long run a packet may be lost, which the report tells; more would mean that something is wrong.
        if self.forwards and (tracked := self.wires.tracked()) < 0.999 * count:
            raise LabError(f"{self.wires.name}: {tracked} connections tracked of {count}")
        if self.design.marks and (unmarked := self.wires.unmarked()):
            raise LabError(f"{self.wires.name}: {unmarked} connections without a mark")

    def _establish(self, size: Size, cpu: int) -> str:
        """Send one packet each way in every flow; return the flows as targets of replies."""
        wires = self.wires
        if not self.forwards:
            return wires.invented(PORT)
        self._out(wires.send(size.flows, flows=size.flows, port=PORT, cpu=cpu), size.flows)
        self._check(size.flows)
        targets = wires.targets(wires.flows())
        self._in(size.flows, targets, cpu)
        return targets

    def _out(self, argv: list[str], count: int) -> Shot:
        before = self.wires.arrived()[0]
        sent = parse_sent(self.wires.client.run(argv).stdout)
        return Shot(1e9 * sent.cpu / sent.frames, before + count - self.wires.arrived()[0])

    def _in(self, count: int, targets: str, cpu: int) -> Shot:
        before = self.wires.arrived()[1]
        sent = parse_sent(self.wires.far.run(self.wires.reply(count, cpu=cpu), text=targets).stdout)
        return Shot(1e9 * sent.cpu / sent.frames, before + count - self.wires.arrived()[1])


@contextmanager
def standing(count: int, names: Sequence[str], left_out: dict[str, str]) -> Iterator[dict[str, Stand]]:
    """Build every design, each in namespaces of its own; those that need what is not there go to `left_out`."""
    with ExitStack() as stack:
        stands: dict[str, Stand] = {}
        for name in names:
            design = DESIGNS[name]
            if missing := design.missing():
                left_out[name] = f"absent: {missing}"
                continue
            wires = stack.enter_context(build(name, count))
            try:
                design.furnish(wires)
            except PolywanError as error:
                if not design.needs and not design.optional:
                    raise
                left_out[name] = str(error).partition("\n")[0]
            else:
                stands[name] = Stand(name, wires)
        yield stands


def compare(
    count: int, names: Sequence[str], size: Size, note: Progress, left_out: dict[str, str]
) -> list[dict[str, Any]]:
    """Measure designs with that many uplinks in turns; return a row for each design and kind of packet."""
    shots: dict[str, list[dict[str, Shot]]] = {}
    cpus = sorted(os.sched_getaffinity(0))
    with standing(count, names, left_out) as stands:
        for number, name in turns(list(stands), size.rounds):
            note(f"{count} uplinks, round {number + 1} of {size.rounds}: {name}")
            shots.setdefault(name, []).append(stands[name].round(size, cpus[number % len(cpus)]))
    costs = {name: {kind: [shot[kind].cost for shot in shots[name]] for kind in KINDS} for name in shots}
    lost = {name: {kind: sum(shot[kind].lost for shot in shots[name]) for kind in KINDS} for name in shots}
    return [
        {
            "uplinks": count,
            "design": name,
            "kind": kind,
            **_own(costs[name][kind], costs["bare"][kind], costs["generator"][kind]),
            "lost": lost[name][kind],
        }
        for kind in KINDS
        for name in shots
        if name != "generator"
    ]


def _own(costs: Sequence[float], bare: Sequence[float], alone: Sequence[float]) -> dict[str, Any]:
    """Return nanoseconds without the generator's share, and times what the bare router needs, round by round."""
    # The share of all rounds: a round in which only the generator was disturbed would leave the router nothing.
    share = median(alone)
    own = [max(1.0, cost - share) for cost in costs]
    least = [max(1.0, cost - share) for cost in bare]
    times = ratios(own, least)
    return {
        "ns": round(median(own)),
        "ns_spread": [round(x) for x in spread(own)],
        "ratio": round(median(times), 3),
        "ratio_spread": [round(x, 3) for x in spread(times)],
    }


def connections(size: Size, note: Progress, left_out: dict[str, str]) -> list[dict[str, Any]]:
    """Count TCP connections a second through each design: connect, wait for the server's end, close."""
    rates: dict[str, list[float]] = {}
    failed: dict[str, int] = {}
    with standing(size.tcp_uplinks, TCP_DESIGNS, left_out) as stands, ExitStack() as stack:
        for stand in stands.values():
            stand.wires.client.sysctl({"ipv4/ip_local_port_range": "1024 65535"})
            stack.enter_context(_serving(stand.wires))
        for number, name in turns(list(stands), size.tcp_rounds):
            note(f"TCP, {size.tcp_uplinks} uplinks, round {number + 1} of {size.tcp_rounds}: {name}")
            good, bad, seconds = _dial(stands[name].wires, size.tcp_seconds)
            rates.setdefault(name, []).append(good / seconds)
            failed[name] = failed.get(name, 0) + bad
    return [
        {
            "uplinks": size.tcp_uplinks,
            "design": name,
            "per_second": round(median(rates[name])),
            "per_second_spread": [round(x) for x in spread(rates[name])],
            "ratio": round(median(shares), 3),
            "ratio_spread": [round(x, 3) for x in spread(shares)],
            "failed": failed[name],
        }
        for name in rates
        for shares in [ratios(rates[name], rates["bare"])]
    ]


@contextmanager
def _serving(wires: Wires) -> Iterator[None]:
    server = wires.far.start([str(flood()), "serve", str(TCP_PORT)], stdout=subprocess.PIPE)
    try:
        if server.stdout is None or server.stdout.readline() != "listening\n":
            raise LabError(f"{wires.name}: the server does not listen")
        yield
    finally:
        server.terminate()
        server.communicate()


def _dial(wires: Wires, seconds: float) -> tuple[int, int, float]:
    """Return connections that worked, those that did not, and the seconds it took."""
    wires.forget()
    argv = [str(flood()), "dial", SERVER, str(TCP_PORT), str(_INFLIGHT), str(seconds)]
    good, bad, took = wires.client.run(argv).stdout.split()
    return int(good), int(bad), float(took)


def measure(
    *,
    quick: bool,
    note: Progress,
    size: Size | None = None,
    designs: Sequence[str] = tuple(DESIGNS),
    parts: Sequence[str] = PARTS,
) -> dict[str, Any]:
    """Measure; `quick` sends a few packets only and insists that none is lost.

    Raises:
        LabError: a network could not be built, or something was lost or left unmarked that must not be.
    """
    size = size or (QUICK if quick else full())
    result: dict[str, Any] = {
        "environment": environment(),
        "size": {"rounds": size.rounds, "new": size.new, "packets": size.packets, "flows": size.flows},
        "absent": lacking(),
        "unmeasured": "",
        "left_out": {},
        "rows": [],
        "tcp": [],
    }
    if result["absent"]:
        return result
    names = list(dict.fromkeys(["generator", "bare", *designs]))
    for count in size.counts if "packets" in parts else ():
        result["rows"] += compare(count, names, size, note, result["left_out"])
    if "tcp" in parts:
        result["tcp"] = connections(size, note, result["left_out"])
    bad = [row for row in result["rows"] if row["lost"]] + [row for row in result["tcp"] if row["failed"]]
    if quick and bad:
        raise LabError(f"packets or connections were lost: {bad}")
    if any(row["ns"] <= 1 for row in result["rows"] if row["design"] == "bare"):
        # Ratios of nothing would look like good ones.
        result |= {"rows": [], "unmeasured": _NOT_CHARGED}
    return result


def markdown(result: dict[str, Any]) -> str:
    """Return the section of the report."""
    lines = ["### Cost of a packet", ""]
    if result["absent"]:
        return "\n".join([*lines, f"Not measured: {result['absent']} absent.", ""])
    size, rows, tcp = result["size"], result["rows"], result["tcp"]
    if result["unmeasured"]:
        lines += [f"Not measured: {result['unmeasured']}.", ""]
    if rows:
        lines += [
            (
                f"{_ABOUT} {size['rounds']} alternating rounds; in each {size['new']} new connections, and "
                f"{size['packets']} packets each way over {size['flows']} flows."
            ),
            "",
        ]
    for count in dict.fromkeys(row["uplinks"] for row in rows):
        lines += _table(count, [row for row in rows if row["uplinks"] == count])
    if tcp:
        lines += _tcp_table(tcp)
    lines += [f"Left out: {DESIGNS[name].title}: {reason}." for name, reason in result["left_out"].items()]
    return "\n".join([*lines, ""]) if result["left_out"] else "\n".join(lines)


def _table(count: int, rows: Sequence[dict[str, Any]]) -> list[str]:
    lines = [f"| {count} uplinks | " + " | ".join(KINDS.values()) + " |", "|---" * (1 + len(KINDS)) + "|"]
    for design in dict.fromkeys(row["design"] for row in rows):
        cells = [_cell(row, f"{row['ns']} ns", "lost") for row in rows if row["design"] == design]
        lines.append(f"| {DESIGNS[design].title} | " + " | ".join(cells) + " |")
    return [*lines, ""]


def _tcp_table(rows: Sequence[dict[str, Any]]) -> list[str]:
    lines = [
        _ABOUT_TCP,
        "",
        f"| {rows[0]['uplinks']} uplinks | connections |",
        "|---|---|",
    ]
    for row in rows:
        rate = f"{row['per_second']} a second"
        lines.append(f"| {DESIGNS[row['design']].title} | {_cell(row, rate, 'failed')} |")
    return [*lines, ""]


def _cell(row: dict[str, Any], absolute: str, trouble: str) -> str:
    low, high = row["ratio_spread"]
    text = f"{row['ratio']:.2f} ({low:.2f}..{high:.2f}), {absolute}"
    return f"{text}, {row[trouble]} {trouble}" if row[trouble] else text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a few packets only: does it work?")
    parser.add_argument("--n", default="", help="numbers of uplinks")
    parser.add_argument("--designs", default=",".join(DESIGNS), help="of " + ", ".join(DESIGNS))
    parser.add_argument("--rounds", type=int, default=0, help="rounds instead of the usual number")
    parser.add_argument("--only", choices=PARTS, help="one part")
    options = parser.parse_args()
    if sandbox.not_private():
        sandbox.enter([sys.executable, *sys.argv])
    sandbox.prepare()
    size = QUICK if options.quick else full()
    size = replace(
        size,
        counts=tuple(int(n) for n in options.n.split(",")) if options.n else size.counts,
        rounds=options.rounds or size.rounds,
        tcp_rounds=options.rounds or size.tcp_rounds,
    )
    # A choice of uplinks or designs is about packets.
    parts = (options.only,) if options.only else PARTS if not options.n else ("packets",)
    result = measure(
        quick=options.quick,
        note=lambda text: print(text, file=sys.stderr),
        size=size,
        designs=options.designs.split(","),
        parts=parts,
    )
    print(markdown(result))


if __name__ == "__main__":
    main()
