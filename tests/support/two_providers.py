"""A router with two uplinks, each to a provider that has the same servers, in network namespaces."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

from polywan.core.health.probes import ProbeOrder, ProbeResult
from polywan.lab.namespaces import Namespace, ip_batch
from polywan.probe.prober import NetProber
from support.probe_orders import Method, ask, order

T = TypeVar("T")
SERVER = {4: "203.0.113.1", 6: "2001:db8:ff::1"}
SILENT = {4: "203.0.113.66", 6: "2001:db8:ff::66"}
OPEN, CLOSED, REJECTED = 53, 54, 55
EVERY: list[tuple[int, Method]] = [(4, "icmp"), (6, "icmp"), (4, "tcp"), (6, "tcp")]

_COUNT_IN = f"""
table inet seen {{
  counter probes {{ }}
  chain in {{
    type filter hook input priority 0;
    icmp type echo-request counter name probes
    icmpv6 type echo-request counter name probes
    tcp flags & (syn | ack) == syn counter name probes
    ip daddr {SILENT[4]} drop
    ip6 daddr {SILENT[6]} drop
    tcp dport {REJECTED} reject with icmpx port-unreachable
  }}
}}"""
_COUNT_OUT = """
table inet seen {
  counter stray { }
  chain out {
    type filter hook output priority 0;
    meta mark & 0x3f00 == 0x100 oifname "u1" accept
    meta mark & 0x3f00 == 0x200 oifname "u2" accept
    icmp type echo-request counter name stray
    icmpv6 type echo-request counter name stray
    meta l4proto tcp counter name stray
  }
}"""


@dataclass(frozen=True)
class World:
    """A router with two uplinks, u1 and u2 with marks 0x100 and 0x200; main points to u1 alone."""

    router: Namespace
    providers: dict[int, Namespace]

    def run(self, work: Callable[[NetProber], Awaitable[T]]) -> T:
        """Run a coroutine with a new prober in the router's namespace."""

        async def main() -> T:
            prober = NetProber()
            try:
                return await work(prober)
            finally:
                prober.close()

        with self.router.entered():
            return asyncio.run(main())

    def ask(self, *orders: ProbeOrder) -> list[ProbeResult]:
        return self.run(lambda prober: ask(prober, *orders))

    def seen(self) -> dict[int, int]:
        return {n: provider.counters("inet seen")["probes"] for n, provider in self.providers.items()}

    def plug(self, number: int) -> None:
        """Connect the router to a provider by u1 or u2, and route that uplink's mark."""
        n, provider = number, self.providers[number]
        ip_batch([f"link add u{n} netns {self.router.name} type veth peer name r netns {provider.name}"])
        provider.ip(
            [
                f"addr add 100.64.{n}.1/24 dev r",
                f"addr add 2001:db8:{n}::1/64 dev r nodad",
                "link set r up",
                f"route replace default via 100.64.{n}.2",
                f"route replace default via 2001:db8:{n}::2",
            ]
        )
        self.router.ip(
            [
                f"addr add 100.64.{n}.2/24 dev u{n}",
                f"addr add 2001:db8:{n}::2/64 dev u{n} nodad",
                f"link set u{n} up",
                f"route add default via 100.64.{n}.1 table {n}",
                f"route add default via 2001:db8:{n}::1 table {n}",
            ]
        )
        # Until the kernel has acted on the carrier, in its own time, packets are lost.
        deadline = time.monotonic() + 5.0
        while not (self.router.carrier(f"u{n}") and provider.carrier("r")):
            assert time.monotonic() < deadline


@contextmanager
def build() -> Iterator[World]:
    """Make the namespaces, and remove them at the end."""
    made = World(Namespace("p-router"), {n: Namespace(f"p-provider{n}") for n in (1, 2)})
    namespaces = (made.router, *made.providers.values())
    for namespace in namespaces:
        namespace.create()
    try:
        for n, provider in made.providers.items():
            provider.ip(f"addr add {a}/{b} dev lo" for s in (SERVER, SILENT) for a, b in ((s[4], 32), (s[6], 128)))
            provider.nft(_COUNT_IN)
            made.plug(n)
            for family in ("-4", "-6"):
                made.router.run(["ip", family, "rule", "add", "fwmark", f"{n << 8:#x}/0x3f00", "lookup", str(n)])
        made.router.ip(["route add default via 100.64.1.1", "route add default via 2001:db8:1::1"])
        made.router.nft(_COUNT_OUT)
        yield made
    finally:
        for namespace in namespaces:
            namespace.delete()


def by(
    uplink: int,
    *addresses: str,
    methods: tuple[Method, ...] = ("icmp",),
    port: int = OPEN,
    number: int = 1,
    timeout: float = 1.0,
) -> ProbeOrder:
    return order(
        *addresses,
        methods=methods,
        port=port,
        interface=f"u{uplink}",
        mark=uplink << 8,
        number=number,
        timeout=timeout,
    )
