"""The two kernels under contract, each in a small world that tests change behind polywan's back.

The world has two uplinks, up1 and up2, with 100.64.N.2/24 and 2001:db8:N::2/64.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from ipaddress import ip_address, ip_interface
from itertools import count
from pathlib import Path
from typing import Protocol

from contract.entries import TCP_STATES, Entry, create
from polywan.core.net import TABLE_MAIN, Family, IPNetwork, TableId
from polywan.core.plan.plan import DesiredState, Op, Plan
from polywan.core.routing.nexthops import Nexthop, NexthopId, NexthopObject
from polywan.core.routing.routes import IpRule, Route
from polywan.core.ruleset.second_table import KEEP_TABLE
from polywan.core.state.events import KernelEvent, LinkChanged
from polywan.core.world.affinity import AffinityEntry
from polywan.core.world.foreign_routing import Destination, ForeignRule
from polywan.core.world.observed import Address, DefaultRoute, Link
from polywan.core.world.shared_device import NextHop
from polywan.kernel.api import Machine
from polywan.kernel.fake.kernel import FakeKernel
from polywan.kernel.fake.tracker import Connection
from polywan.kernel.linux import LinuxKernel
from polywan.lab.namespaces import Namespace
from support.event_watch import events

RP_FILTER = "net/ipv4/conf/up1/rp_filter"
SENTINEL = "sentinel0"
PATIENCE = 5.0


class World(Protocol):
    @property
    def kernel(self) -> Machine: ...
    def set_up(self, link: str, *, up: bool) -> None: ...
    def set_carrier(self, link: str, *, carrier: bool) -> None: ...
    def remove_link(self, link: str) -> None: ...
    def add_address(self, link: str, address: str) -> None: ...
    def remove_address(self, link: str, address: str) -> None: ...
    def add_link(self, name: str) -> None: ...
    def add_default(self, default: DefaultRoute) -> None: ...
    def add_foreign_route(self, to: IPNetwork, link: str, table: int = TABLE_MAIN) -> None: ...
    def add_foreign_rule(self, rule: ForeignRule) -> None: ...
    def add_destination(self, table: int, to: Destination) -> None: ...
    def add_foreign_nexthop(self, nexthop: Nexthop) -> None: ...
    def foreign_nexthops(self) -> list[int]: ...
    def delete_nexthop(self, ident: NexthopId) -> None: ...
    def delete_rule(self, rule: IpRule) -> None: ...
    def delete_route(self, route: Route) -> None: ...
    def add_queue(
        self, link: str, *, root: str | None = None, handle: str = "8001:", ingress: str | None = None
    ) -> None: ...
    def rename_ifb(self, ifb: str, name: str) -> None: ...
    def add_ingress_chain(self, link: str) -> None: ...
    def delete_ifb(self, ifb: str) -> None: ...
    def flush_ruleset(self) -> None: ...
    def held(self) -> bool: ...
    def set_rp_filter(self, value: str) -> None: ...
    def track(self, entries: Sequence[Entry]) -> None: ...
    def expire(self, entries: Sequence[Entry]) -> None: ...
    def keep(self, clients: Sequence[AffinityEntry]) -> None: ...
    def forward(self) -> None: ...
    def set_router(self, link: str, via: str, mac: str) -> None: ...


class FakeWorld:
    def __init__(self) -> None:
        self.kernel = FakeKernel(
            links=[Link(index=n, name=f"up{n}", up=True, carrier=True, kind="veth") for n in (1, 2)],
            addresses=[
                Address(f"up{n}", ip_interface(a)) for n in (1, 2) for a in (f"100.64.{n}.2/24", f"2001:db8:{n}::2/64")
            ],
            sysctls={RP_FILTER: "0"},
        )
        self._indexes = count(77)
        self.kernel.new_device = {"ipv4/ignore_routes_with_linkdown": "0"}

    def set_up(self, link: str, *, up: bool) -> None:
        self.kernel.set_link(replace(self.kernel.links[link], up=up, carrier=up))

    def set_carrier(self, link: str, *, carrier: bool) -> None:
        self.kernel.set_link(replace(self.kernel.links[link], carrier=carrier))

    def remove_link(self, link: str) -> None:
        self.kernel.remove_link(link)

    def add_link(self, name: str) -> None:
        self.kernel.set_link(Link(index=next(self._indexes), name=name, up=False, carrier=False))

    def add_address(self, link: str, address: str) -> None:
        self.kernel.add_address(Address(link, ip_interface(address)))

    def remove_address(self, link: str, address: str) -> None:
        self.kernel.remove_address(Address(link, ip_interface(address)))

    def add_default(self, default: DefaultRoute) -> None:
        self.kernel.add_default(default)

    def add_foreign_route(self, to: IPNetwork, link: str, table: int = TABLE_MAIN) -> None:
        self.kernel.add_wide(to, link)

    def add_foreign_rule(self, rule: ForeignRule) -> None:
        self.kernel.add_foreign_rule(rule)

    def add_destination(self, table: int, to: Destination) -> None:
        self.kernel.add_destination(TableId(table), to)

    def add_foreign_nexthop(self, nexthop: Nexthop) -> None:
        self.kernel.add_foreign_nexthop(nexthop)

    def foreign_nexthops(self) -> list[int]:
        return [nexthop.id for nexthop in self.kernel.foreign_nexthops]

    def delete_nexthop(self, ident: NexthopId) -> None:
        self.kernel.tamper_delete_nexthop(ident)

    def delete_rule(self, rule: IpRule) -> None:
        self.kernel.tamper_delete_rule(rule)

    def delete_route(self, route: Route) -> None:
        self.kernel.tamper_delete_route(route)

    def add_queue(
        self, link: str, *, root: str | None = None, handle: str = "8001:", ingress: str | None = None
    ) -> None:
        self.kernel.tamper_queues(link, root=f"{root} {handle}" if root else root, ingress=ingress)

    def rename_ifb(self, ifb: str, name: str) -> None:
        self.kernel.tamper_rename_ifb(ifb, name)

    def add_ingress_chain(self, link: str) -> None:
        self.kernel.tamper_ingress_chain(link, "chain filter of table netdev guard")

    def delete_ifb(self, ifb: str) -> None:
        self.kernel.tamper_delete_ifb(ifb)

    def held(self) -> bool:
        return bool(self.kernel.held)

    def flush_ruleset(self) -> None:
        self.kernel.tamper_flush_nft()

    def set_rp_filter(self, value: str) -> None:
        self.kernel.sysctls[RP_FILTER] = value

    def track(self, entries: Sequence[Entry]) -> None:
        self.kernel.begin(
            Connection(
                mark=e.mark,
                protocol=e.protocol,
                family=e.family,
                answered=e.state not in {1, 9},
                client_port=e.port,
                state=TCP_STATES[e.state] if e.protocol == "tcp" else "UNREPLIED",
            )
            for e in entries
        )

    def expire(self, entries: Sequence[Entry]) -> None:
        self.track(entries)
        self.kernel.expire(self.kernel.connections_list[-len(entries) :])

    def keep(self, clients: Sequence[AffinityEntry]) -> None:
        self.kernel.kept_list += clients

    def forward(self) -> None:
        pass

    def set_router(self, link: str, via: str, mac: str) -> None:
        self.kernel.set_router(NextHop(link, ip_address(via)), mac)


class LinuxWorld:
    """Inside a namespace of its own; `ip` and `nft` are the others on the machine."""

    def __init__(self) -> None:
        for name, value in (("addr_gen_mode", "1"), ("accept_dad", "0"), ("accept_ra", "0")):
            Path("/proc/sys/net/ipv6/conf/default", name).write_text(value)
        for n in (1, 2):
            self._ip(f"link add up{n} type veth peer name far{n}")
            self._ip(f"link set far{n} up")
            self._ip(f"link set up{n} up")
            self._ip(f"addr add 100.64.{n}.2/24 dev up{n}")
            self._ip(f"-6 addr add 2001:db8:{n}::2/64 dev up{n} nodad")
        self._settle()
        self.set_rp_filter("0")
        self.kernel = LinuxKernel()

    def _settle(self) -> None:
        """Wait until the kernel has told of the IPv6 addresses, in its own time; it adds their local routes next."""
        deadline = time.monotonic() + PATIENCE
        show = ["ip", "-6", "route", "show", "table", "local", "type", "local"]
        while subprocess.run(show, check=True, capture_output=True).stdout.count(b"local 2001:db8:") < 2:
            assert time.monotonic() < deadline

    def _ip(self, words: str) -> None:
        subprocess.run(["ip", *words.split()], check=True, capture_output=True)

    def set_up(self, link: str, *, up: bool) -> None:
        self._ip(f"link set {link} {'up' if up else 'down'}")

    def set_carrier(self, link: str, *, carrier: bool) -> None:
        self._ip(f"link set {link.replace('up', 'far')} {'up' if carrier else 'down'}")
        # The carrier follows the other end in the kernel's own time, and what depends on it comes later still.
        deadline = time.monotonic() + PATIENCE
        while self.kernel.observe().links[link].carrier is not carrier or (not carrier and self._leaves_by(link)):
            assert time.monotonic() < deadline
            time.sleep(0.001)

    def _leaves_by(self, link: str) -> bool:
        return any(isinstance(n, Nexthop) and n.link == link for n in self.kernel.read(()).nexthops)

    def remove_link(self, link: str) -> None:
        self._ip(f"link del {link}")

    def add_link(self, name: str) -> None:
        self._ip(f"link add {name} type veth peer name far-{name}")

    def add_address(self, link: str, address: str) -> None:
        self._ip(f"addr add {address} dev {link}")

    def remove_address(self, link: str, address: str) -> None:
        self._ip(f"addr del {address} dev {link}")

    def add_default(self, default: DefaultRoute) -> None:
        via = f"via {default.via}" if default.via else ""
        self._ip(f"-{default.family} route add default {via} dev {default.link} metric {default.metric}")

    def add_foreign_route(self, to: IPNetwork, link: str, table: int = TABLE_MAIN) -> None:
        self._ip(f"-{to.version} route add {to} dev {link} table {table}")

    def add_foreign_rule(self, rule: ForeignRule) -> None:
        words = rule.text().removeprefix("-6 ").partition(": ")[2].removesuffix(" [unresolved]")
        words = words.removesuffix(" lookup [l3mdev-table]")
        self._ip(f"-{rule.family} rule add pref {rule.priority} {words}")

    def add_destination(self, table: int, to: Destination) -> None:
        device = f"dev {to.link}" if to.link else ""
        self._ip(f"-{to.prefix.version} route add {to.kind} {to.prefix} {device} table {table}")

    def add_foreign_nexthop(self, nexthop: Nexthop) -> None:
        self._ip(f"-{nexthop.family} nexthop add id {nexthop.id} via {nexthop.via} dev {nexthop.link} protocol static")

    def foreign_nexthops(self) -> list[int]:
        shown = subprocess.run(["ip", "-j", "-N", "nexthop", "show"], check=True, capture_output=True).stdout
        return [found["id"] for found in json.loads(shown) if found["protocol"] != "200"]

    def delete_nexthop(self, ident: NexthopId) -> None:
        self._ip(f"nexthop del id {ident}")

    def delete_rule(self, rule: IpRule) -> None:
        self._ip(f"-{rule.family} rule del pref {rule.priority}")

    def delete_route(self, route: Route) -> None:
        self._ip(f"-{route.family} route del default table {route.table} metric {route.metric}")

    def rename_ifb(self, ifb: str, name: str) -> None:
        self._ip(f"link set {ifb} down")
        self._ip(f"link set {ifb} name {name} up")

    def add_queue(
        self, link: str, *, root: str | None = None, handle: str = "8001:", ingress: str | None = None
    ) -> None:
        words = ["del", "root"] if root == "" else ["add", f"root handle {handle} {root}" if root else ingress or ""]
        verb, what = words
        subprocess.run(["tc", "qdisc", verb, "dev", link, *what.split()], check=True, capture_output=True)

    def add_ingress_chain(self, link: str) -> None:
        chain = f"chain filter {{ type filter hook ingress device {link} priority 0; }}"
        text = f"table netdev guard {{ {chain}\n }}"
        subprocess.run(["nft", "-f", "-"], input=text, check=True, capture_output=True, text=True)

    def delete_ifb(self, ifb: str) -> None:
        self._ip(f"link del {ifb}")

    def held(self) -> bool:
        return (
            subprocess.run(["nft", "list", "table", *KEEP_TABLE.split()], check=False, capture_output=True).returncode
            == 0
        )

    def flush_ruleset(self) -> None:
        subprocess.run(["nft", "flush", "ruleset"], check=True, capture_output=True)

    def set_rp_filter(self, value: str) -> None:
        Path("/proc/sys", RP_FILTER).write_text(value)

    def track(self, entries: Sequence[Entry]) -> None:
        create(entries)

    def expire(self, entries: Sequence[Entry]) -> None:
        create([replace(entry, timeout=0) for entry in entries])
        for _ in self.kernel.flows(0):
            pass  # The kernel forgets what has expired when it meets it.

    def keep(self, clients: Sequence[AffinityEntry]) -> None:
        maps: dict[str, list[AffinityEntry]] = {}
        for kept in clients:
            maps.setdefault(kept.map, []).append(kept)
        blocks = "".join(_map(name, some) for name, some in maps.items())
        text = f"table inet polywan {{\n{blocks}}}\n"
        subprocess.run(["nft", "-f", "-"], input=text, check=True, capture_output=True, text=True)

    def forward(self) -> None:
        for path in ("ipv4/ip_forward", "ipv6/conf/all/forwarding"):
            Path("/proc/sys/net", path).write_text("1")

    def set_router(self, link: str, via: str, mac: str) -> None:
        about = f"lladdr {mac} nud permanent" if mac else "nud failed"
        self._ip(f"neighbour replace {via} dev {link} {about}")


def _map(name: str, clients: Sequence[AffinityEntry]) -> str:
    word = "ip" if clients[0].family is Family.V4 else "ip6"
    key = f"{word} saddr . {word} daddr" if clients[0].server is not None else f"{word} saddr"
    elements = [
        f"{k.client}{f' . {k.server}' if k.server is not None else ''} timeout {k.expires:g}s : {k.mark:#x}"
        for k in clients
    ]
    return (
        f"map {name} {{ typeof {key} : ct mark; flags dynamic,timeout; size 65536;"
        f" elements = {{ {', '.join(elements)} }} }}\n"
    )


@contextmanager
def linux_world() -> Iterator[LinuxWorld]:
    home = Namespace("kernel")
    home.create()
    try:
        with home.entered():
            world = LinuxWorld()
            try:
                yield world
            finally:
                world.kernel.close()
    finally:
        home.delete()


def events_of(world: World, action: Callable[[], object]) -> list[KernelEvent]:
    """Subscribe, act, and return what was received before the sentinel: a link, added last."""

    async def main() -> list[KernelEvent]:
        stream = events(world.kernel)
        action()
        world.add_link(SENTINEL)
        found: list[KernelEvent] = []
        async with asyncio.timeout(PATIENCE):
            async for event in stream:
                if isinstance(event, LinkChanged) and SENTINEL in event.link.name:
                    break
                found.append(event)
        return found

    return asyncio.run(main())


def apply(world: World, *ops: Op) -> None:
    report = world.kernel.apply(Plan(ops))
    assert report.failures == ()
    assert report.done == len(ops)


def refusals(world: World, *ops: Op) -> list[int]:
    return [failure.errno for failure in world.kernel.apply(Plan(ops)).failures]


def routes(world: World) -> frozenset[Route]:
    return world.kernel.read(()).routes


def nexthops(world: World) -> frozenset[NexthopObject]:
    return world.kernel.read(()).nexthops


def rules(world: World) -> frozenset[IpRule]:
    return world.kernel.read(()).rules


def settings(state: DesiredState) -> list[str]:
    return [sysctl.path for sysctl in state.sysctls]
