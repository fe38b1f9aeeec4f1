"""A network for benchmarks: one client, one router with up to 200 uplinks, one far end, all cables of their own.

::

    client ── lan0 router wan1 ── isp1 far
                          wan2 ── isp2
                          …

Link-layer addresses are known everywhere beforehand and IPv6 is off, so that nothing but the traffic under test
is ever sent. UDP is dropped and counted on arrival at both ends, before their own stacks could cost anything;
TCP and ICMP pass.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Final, NamedTuple, Self

from polywan.lab.namespaces import Namespace, ip_batch
from polywan.lab.sandbox import LabError

LAN: Final = "lan0"
CLIENT: Final = "192.168.15.10"
ROUTER: Final = "192.168.15.1"
NETWORK: Final = "192.168.15.0/24"
SERVER: Final = "198.51.100.1"
ROUTER_MAC: Final = "02:00:00:15:00:01"

HERE: Final = Path(__file__).resolve().parent
BUILT: Final = HERE.parent / "build" / "bench"

_CLIENT_MAC: Final = "02:00:00:15:00:0a"
_QUIET: Final = {
    "ipv6/conf/all/disable_ipv6": 1,
    "ipv6/conf/default/disable_ipv6": 1,
    "ipv4/conf/all/rp_filter": 0,
    "ipv4/conf/default/rp_filter": 0,
}
# Two ends of a cable with the same index look like one device to the kernel's link watcher.
_NEAR, _FAR = 1000, 3000


class Flow(NamedTuple):
    """A UDP connection as the router tracks it: the client's port, and what the far end sees of it."""

    port: int
    to_port: int
    address: str
    seen_port: int
    mark: int


class Sent(NamedTuple):
    """What the generator did: frames, and seconds by the clock and of its thread's CPU time."""

    frames: int
    wall: float
    cpu: float


def interface(number: int) -> str:
    """Return the router's device of an uplink; the first is 1."""
    return f"wan{number}"


def address(number: int) -> str:
    """Return the router's address on an uplink, a /24."""
    return f"100.64.{number}.2"


def gateway(number: int) -> str:
    """Return the far end of an uplink."""
    return f"100.64.{number}.1"


def mac(number: int, end: int) -> str:
    """Return the link-layer address of the router's end (0) or the far end (1) of an uplink."""
    return f"02:00:00:64:{end:02x}:{number:02x}"


@dataclass(frozen=True, slots=True)
class Wires:
    """A standing network; a context manager that takes it down. Methods raise `LabError` when refused.

    Attributes:
        ends: what else is closed with it.
    """

    name: str
    count: int
    ends: list[Callable[[], None]] = field(default_factory=list)

    @property
    def client(self) -> Namespace:
        """The host behind the router."""
        return Namespace(f"{self.name}-client")

    @property
    def router(self) -> Namespace:
        """The machine under test."""
        return Namespace(f"{self.name}-router")

    @property
    def far(self) -> Namespace:
        """All providers and the server in one."""
        return Namespace(f"{self.name}-far")

    @property
    def numbers(self) -> range:
        """Numbers of the uplinks."""
        return range(1, self.count + 1)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Take it down."""
        while self.ends:
            self.ends.pop()()
        ip_batch(f"netns del {end.name}" for end in (self.router, self.client, self.far) if end.path.exists())

    def forget(self) -> None:
        """Make the router forget every connection."""
        self.router.run(["conntrack", "--flush"])

    def tracked(self) -> int:
        """Return the number of connections the router tracks."""
        return int(self.router.run(["conntrack", "--count"]).stdout)

    def unmarked(self) -> int:
        """Return how many UDP connections have no mark at all."""
        return len(self.router.run(["conntrack", "--dump", "--proto", "udp", "--mark", "0"]).stdout.splitlines())

    def flows(self) -> list[Flow]:
        """Return the UDP connections the router tracks."""
        return [_flow(line) for line in self.router.run(["conntrack", "--dump", "--proto", "udp"]).stdout.splitlines()]

    def arrived(self) -> tuple[int, int]:
        """Return how many UDP packets have arrived at the far end and at the client so far."""
        return self.far.counters("netdev sink")["arrived"], self.client.counters("netdev sink")["arrived"]

    def send(
        self, count: int, *, flows: int, port: int, first: int = 1024, hosts: int = 1, rate: float = 0, cpu: int = 0
    ) -> list[str]:
        """Return the command that sends from the client to UDP `port`, `flows` source ports in turn."""
        numbers = (count, first, flows, port, hosts, rate, cpu)
        return [str(flood()), "send", "eth0", ROUTER_MAC, *map(str, numbers)]

    def reply(self, count: int, *, file: str = "/dev/stdin", rate: float = 0, cpu: int = 0) -> list[str]:
        """Return the command that replies from the far end to the flows in the file (`targets`)."""
        return [str(flood()), "reply", file, str(count), str(rate), str(cpu)]

    def targets(self, flows: Iterable[Flow]) -> str:
        """Return the flows as `reply` reads them, each by the uplink that has its address."""
        by_address = {address(number): number for number in self.numbers}
        rows = ((by_address[flow.address], flow) for flow in flows)
        return "".join(f"{_FAR + k} {mac(k, 0)} {flow.address} {flow.seen_port} {flow.to_port}\n" for k, flow in rows)

    def invented(self, port: int) -> str:
        """Return one target for each uplink, for a router that lets nothing arrive."""
        return self.targets(Flow(0, port, address(number), port, 0) for number in self.numbers)


def parse_sent(text: str) -> Sent:
    """Read what ``flood send`` and ``flood reply`` print."""
    frames, wall, cpu = text.split()
    return Sent(int(frames), float(wall), float(cpu))


def _flow(line: str) -> Flow:
    """Read a line of conntrack(8): each key comes twice, in the original and in the reply direction."""
    pairs = [word.split("=", 1) for word in line.split() if "=" in word]
    values = {key: [v for k, v in pairs if k == key] for key in ("dst", "sport", "dport", "mark")}
    return Flow(
        port=int(values["sport"][0]),
        to_port=int(values["dport"][0]),
        address=values["dst"][1],
        seen_port=int(values["dport"][1]),
        mark=int(values["mark"][0]) if values["mark"] else 0,
    )


def lacking() -> str:
    """Name what the benchmarks of the data plane need and do not find; empty when all is there."""
    needed = {"gcc": "gcc", "conntrack": "conntrack"}
    return ", ".join(f"{tool} (package {package})" for tool, package in needed.items() if shutil.which(tool) is None)


def flood() -> Path:
    """Return the traffic generator, compiled when its source is newer.

    Raises:
        LabError: the compiler refused.
    """
    source, program = HERE / "flood.c", BUILT / "flood"
    if program.exists() and program.stat().st_mtime >= source.stat().st_mtime:
        return program
    BUILT.mkdir(parents=True, exist_ok=True)
    argv = ["gcc", "-O2", "-Wall", "-Wextra", "-o", str(program), str(source)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise LabError(f"gcc: {done.stderr.strip()}")
    return program


def build(name: str, count: int, *, sinks: bool = True) -> Wires:
    """Build a network of 1 to 200 uplinks; the router forwards, but has no way to the server yet.

    Raises:
        LabError: the kernel or a tool refused; what had been built is taken down again.
    """
    wires = Wires(name, count)
    try:
        for namespace in (wires.router, wires.client, wires.far):
            namespace.create()
            namespace.sysctl(_QUIET)
        wires.router.sysctl({"ipv4/ip_forward": 1})
        wires.router.ip(_router(wires))
        wires.client.ip(_client())
        wires.far.ip(_far(wires))
        if sinks:
            wires.client.nft(sink(["eth0"]))
            wires.far.nft(sink(f"isp{number}" for number in wires.numbers))
    except BaseException:
        wires.close()
        raise
    return wires


def sink(devices: Iterable[str], rules: str = "meta l4proto udp counter name arrived drop") -> str:
    """Return an nft table that treats packets on arrival, and counts in `arrived`."""
    hook = f"type filter hook ingress devices = {{ {', '.join(devices)} }} priority 0; policy accept;"
    return f"table netdev sink {{\ncounter arrived {{ }}\nchain arriving {{ {hook}\n{rules}\n}}\n}}\n"


def _router(wires: Wires) -> Iterator[str]:
    client, far = wires.client.name, wires.far.name
    yield f"link add {LAN} index 50 address {ROUTER_MAC} type veth peer name eth0 netns {client} index 60"
    yield f"link set {LAN} up"
    yield f"address add {ROUTER}/24 dev {LAN}"
    yield f"neighbour replace {CLIENT} lladdr {_CLIENT_MAC} dev {LAN} nud permanent"
    for number in wires.numbers:
        device, peer = interface(number), f"isp{number}"
        here = f"{device} index {_NEAR + number} address {mac(number, 0)}"
        yield f"link add {here} type veth peer name {peer} netns {far} index {_FAR + number}"
        yield f"link set {device} up"
        yield f"address add {address(number)}/24 dev {device}"
        yield f"neighbour replace {gateway(number)} lladdr {mac(number, 1)} dev {device} nud permanent"


def _client() -> Iterator[str]:
    yield f"link set eth0 address {_CLIENT_MAC} up"
    yield f"address add {CLIENT}/24 dev eth0"
    yield f"neighbour replace {ROUTER} lladdr {ROUTER_MAC} dev eth0 nud permanent"
    yield f"route add default via {ROUTER}"


def _far(wires: Wires) -> Iterator[str]:
    yield f"address add {SERVER}/32 dev lo"
    for number in wires.numbers:
        device = f"isp{number}"
        yield f"link set {device} address {mac(number, 1)} up"
        yield f"address add {gateway(number)}/24 dev {device}"
        yield f"neighbour replace {address(number)} lladdr {mac(number, 0)} dev {device} nud permanent"
