"""A kernel in memory, held to the same contract as Linux: for tests, simulation and trying things out."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import assert_never

from polywan.core.errors import KernelError
from polywan.core.net import FAMILIES, Family, IPAddress, IPNetwork, TableId, family_of
from polywan.core.plan.plan import (
    ActualState,
    AddRule,
    ApplyReport,
    DelNexthop,
    DelRoute,
    DelRule,
    Failure,
    NftBatch,
    Op,
    Plan,
    PutNexthop,
    PutRoute,
    SetSysctl,
    anywhere,
)
from polywan.core.routing.nexthops import Nexthop, NexthopId, NexthopObject
from polywan.core.routing.routes import IpRule, Route
from polywan.core.ruleset.model import NftState
from polywan.core.shaping.changes import ShapingOp
from polywan.core.state.events import (
    EventsLost,
    ForeignStateChanged,
    KernelEvent,
    LinkChanged,
    LinkRemoved,
    OwnStateChanged,
)
from polywan.core.trace.route_query import RouteAnswer, RouteQuery
from polywan.core.world.foreign_chains import ForwardChain
from polywan.core.world.foreign_routing import Destination, ForeignRule
from polywan.core.world.observed import Address, DefaultRoute, Link, Observed, Router, WideRoute, is_wide, links_by_name
from polywan.core.world.shared_device import NextHop
from polywan.kernel.fake.listener import Listener
from polywan.kernel.fake.nexthops import FakeNexthops, refusal
from polywan.kernel.fake.nft import FakeHeld, transact
from polywan.kernel.fake.queues import FakeQueues
from polywan.kernel.fake.routing import Tables, answer, lost, named
from polywan.kernel.fake.settings import FakeSettings
from polywan.kernel.fake.tracker import FakeTracker


class FakeKernel(FakeHeld, FakeQueues, FakeSettings, FakeTracker):
    """Behaves like Linux where the contract tests look; tests change the world by its further methods.

    Attributes:
        routes: ours, by the kernel's own key of a default route.
        nexthops: ours, and the groups of them.
        writes: operations of plans carried out or refused so far.
    """

    def __init__(
        self,
        *,
        links: Iterable[Link] = (),
        addresses: Iterable[Address] = (),
        defaults: Iterable[DefaultRoute] = (),
        sysctls: Mapping[str, str] | None = None,
        missing: Sequence[str] = (),
    ) -> None:
        super().__init__()
        self.links = links_by_name(links)
        self.addresses = list(addresses)
        self.defaults = list(defaults)
        self.wide: list[tuple[IPNetwork, str]] = []
        self.routes: dict[tuple[Family, int, int], Route] = {}
        self.nexthops = FakeNexthops()
        self.foreign_nexthops: list[NexthopObject] = []
        self.rules: list[IpRule] = []
        self.foreign_rules: list[ForeignRule] = []
        self.tables: dict[TableId, tuple[Destination, ...]] = {}
        self.routers: list[Router] = []
        self._hops: frozenset[NextHop] = frozenset()
        self.chains: list[ForwardChain] = []
        self.nft: NftState | None = None
        self.sysctls = dict(sysctls or {})
        self.writes, self._missing = 0, list(missing)
        self._listeners: list[Listener] = []
        self._failures: list[tuple[type[Op], int]] = []

    def missing(self, *, multipath: bool = False) -> list[str]:  # noqa: ARG002 - the constructor knows
        """Return what it was told."""
        return list(self._missing)

    def counters(self) -> Mapping[str, tuple[int, int]]:
        """Return what the links say; see `Kernel.counters`."""
        return {link.name: (link.rx_bytes, link.tx_bytes) for link in self.links.values()}

    def observe(self, hops: Collection[NextHop] = ()) -> Observed:
        """Return the world; see `Kernel.observe`."""
        self._hops = frozenset(hops)
        return Observed(
            links=dict(self.links),
            addresses=tuple(self.addresses),
            defaults=tuple(self.defaults),
            wide=frozenset(link for to, link in self.wide if is_wide(to)),
            rules=tuple(sorted(self.foreign_rules, key=lambda rule: rule.priority)),
            tables=named(self.tables, self.foreign_rules),
            parts=tuple(WideRoute(to, link) for to, link in self.wide if is_wide(to)),
            flowtable=True,
            routers=tuple(router for router in self.routers if NextHop(router.link, router.via) in hops),
        )

    def read(self, sysctls: Sequence[str], kinds: frozenset[str] | None = None) -> ActualState:
        """Return what is ours; see `Kernel.read`."""
        return ActualState(
            nexthops=frozenset(self.nexthops.objects.values()),
            routes=frozenset(self.routes.values()),
            rules=frozenset(self.rules),
            nft=self.nft,
            sysctls={path: self.sysctls[path] for path in sysctls if path in self.sysctls},
            devices={link.name: link.index for link in self.links.values()} if sysctls else {},
            chains=tuple(self.chains),
            queues=None if kinds is None else self.queues_of(self.links, kinds),
        )

    def apply(self, plan: Plan) -> ApplyReport:
        """Carry out the plan; see `Kernel.apply`. It takes no time."""
        failed = tuple(f for op in plan.ops if (f := self._try(op)) is not None)
        return ApplyReport(plan=plan, done=len(plan.ops) - len(failed), failures=failed)

    def _try(self, op: Op) -> Failure | None:
        self.writes += 1
        for index, (kind, number) in enumerate(self._failures):
            if isinstance(op, kind):
                del self._failures[index]
                return Failure(op, number, os.strerror(number))
        try:
            self._carry_out(op)
        except KernelError as e:
            return Failure(op, e.errno, str(e))
        return None

    def _carry_out(self, op: Op) -> None:
        if isinstance(op, ShapingOp):
            self.shape(op, self.links)
            return
        match op:
            case SetSysctl(sysctl):
                if sysctl.path not in self.sysctls:
                    raise refusal(errno.ENOENT)
                self.sysctls[sysctl.path] = sysctl.value
            case PutNexthop() | DelNexthop() | PutRoute() | DelRoute():
                self._route(op)
            case AddRule(rule):
                if rule.goto is not None and rule.goto <= rule.priority:
                    raise refusal(errno.EINVAL)
                if not any(anywhere(r) == anywhere(rule) for r in self.rules):
                    self.rules.append(rule)
            case DelRule(rule):
                self.rules = [r for r in self.rules if anywhere(r) != anywhere(rule)]
            case NftBatch(text):
                self.nft = transact(self.nft, text)
            case _:
                assert_never(op)

    def _route(self, op: PutNexthop | DelNexthop | PutRoute | DelRoute) -> None:
        match op:
            case PutNexthop(nexthop):
                if isinstance(nexthop, Nexthop):
                    self._check_nexthop(nexthop)
                self.nexthops.put(nexthop)
            case DelNexthop(nexthop):
                self._drop_nexthops([nexthop.id])
            case PutRoute(route):
                self._check_route(route)
                self.routes[_key(route)] = route
            case DelRoute(route):
                there = self.routes.get(_key(route))
                if there is not None and (there.link, there.nexthop) == (route.link, route.nexthop):
                    del self.routes[_key(route)]
            case _:
                assert_never(op)

    def _check_nexthop(self, nexthop: Nexthop) -> None:
        link = self.links.get(nexthop.link)
        if link is None:
            raise refusal(errno.ENODEV)
        if not link.usable:
            raise refusal(errno.ENETDOWN)
        if nexthop.via is not None and not nexthop.onlink:
            self._check_gateway(nexthop.via, link)

    def _check_route(self, route: Route) -> None:
        if route.nexthop is not None and route.nexthop not in self.nexthops.objects:
            raise refusal(errno.EINVAL)
        if route.link is None or route.local is not None:
            return
        link = self.links.get(route.link)
        if link is None:
            raise refusal(errno.ENODEV)
        if route.via is not None and not route.onlink:
            self._check_gateway(route.via, link)
        if not link.up:
            raise refusal(errno.ENETDOWN)
        here = {a.ip.ip for a in self.addresses} | {r.local for r in self.routes.values()}
        if route.source is not None and route.source not in here:
            raise refusal(errno.EINVAL)

    def _check_gateway(self, via: IPAddress, link: Link) -> None:
        v6 = family_of(via) is Family.V6
        if v6 and any(a.ip.ip == via for a in self.addresses):
            raise refusal(errno.EINVAL)
        connected = link.up and any(a.link == link.name and via in a.ip.network for a in self.addresses)
        if not (connected or link.point_to_point or (v6 and via.is_link_local)):
            raise refusal(errno.EHOSTUNREACH if v6 else errno.ENETUNREACH)

    def ask(self, query: RouteQuery) -> RouteAnswer:
        """Look up a packet in the routes there are; see `Kernel.ask`."""
        tables = Tables(
            links=self.links,
            addresses=self.addresses,
            defaults=self.defaults,
            routes=self.routes.values(),
            rules=self.rules,
            foreign_rules=self.foreign_rules,
            tables=self.tables,
            nexthops=self.nexthops.objects,
        )
        return answer(query, tables)

    def watch(self, tell: Callable[[KernelEvent], None]) -> asyncio.Future[None]:
        """Subscribe; see `Kernel.watch`."""
        listener = Listener(tell)
        self._listeners.append(listener)
        return listener.ended

    def close(self) -> None:
        """Tell nobody of anything any more."""
        for listener in self._listeners:
            listener.close()
        self._listeners.clear()

    def emit(self, event: KernelEvent) -> None:
        """Let every listener receive the event."""
        for listener in self._listeners:
            listener.put(event)

    def set_link(self, link: Link) -> None:
        """Add or change a link. One that goes down loses its routes: those of IPv4 without a word.

        Without carrier already it loses its nexthops, all without a word.
        """
        if link.index != (self.links[link.name].index if link.name in self.links else None):
            self.begin_settings(link.name)
        self.links[link.name] = link
        self.emit(LinkChanged(link))
        if not link.usable:
            self._drop_nexthops(self.nexthops.of_link(link.name))
        if not link.up:
            self._drop_routes(link.name)

    def remove_link(self, name: str) -> None:
        """Remove a link with its addresses and routes."""
        del self.links[name]
        self.end_settings(name)
        self.addresses = [a for a in self.addresses if a.link != name]
        self.lose_queues(name)
        self.emit(LinkRemoved(name))
        self._drop_nexthops(self.nexthops.of_link(name))
        self._drop_routes(name)

    def _drop_nexthops(self, idents: Collection[NexthopId]) -> None:
        gone = self.nexthops.delete(idents)
        lost = [r for r in self.routes.values() if r.nexthop in gone]
        self.routes = {key: r for key, r in self.routes.items() if r.nexthop not in gone}
        if any(r.family is Family.V6 for r in lost):
            self.emit(OwnStateChanged("route"))

    def _drop_routes(self, link: str, *families: Family) -> None:
        families = families or FAMILIES
        lost = [r for r in self.routes.values() if r.link == link and r.family in families]
        gone = [d for d in self.defaults if d.link == link and d.family in families]
        self.routes = {key: r for key, r in self.routes.items() if r not in lost}
        self.defaults = [d for d in self.defaults if d not in gone]
        self.wide = [(to, device) for to, device in self.wide if device != link or family_of(to) not in families]
        if any(r.family is Family.V6 for r in lost):
            self.emit(OwnStateChanged("route"))
        if any(d.family is Family.V6 for d in gone):
            self.emit(ForeignStateChanged("route"))

    def add_address(self, address: Address) -> None:
        """Give a link an address."""
        self.addresses.append(address)
        self.emit(ForeignStateChanged("address"))

    def remove_address(self, address: Address) -> None:
        """Take an address away; IPv4 routes that prefer it as their source go with it, silently.

        With its last address of IPv4, a link loses all routes of IPv4, as silently.
        """
        self.addresses.remove(address)
        if family_of(address.ip) is Family.V4:
            self.routes = {key: r for key, r in self.routes.items() if r.source != address.ip.ip}
            if not any(a.link == address.link and family_of(a.ip) is Family.V4 for a in self.addresses):
                self._drop_routes(address.link, Family.V4)
        self.emit(lost(address))

    def set_router(self, hop: NextHop, mac: str) -> None:
        """Have a router answer with a hardware address, or with none."""
        others = [r for r in self.routers if (r.link, r.via) != hop]
        changed = [*others, *([Router(*hop, mac)] if mac else [])]
        if changed != self.routers:
            self.routers = changed
            if hop in self._hops:
                self.emit(ForeignStateChanged("neighbour", hop.link))

    def add_default(self, default: DefaultRoute) -> None:
        """Install somebody else's default route."""
        self.defaults.append(default)
        self.emit(ForeignStateChanged("route"))

    def add_wide(self, to: IPNetwork, link: str) -> None:
        """Install somebody else's route that is no default."""
        self.wide.append((to, link))
        if is_wide(to):
            self.emit(ForeignStateChanged("route"))

    def remove_default(self, default: DefaultRoute) -> None:
        """Remove somebody else's default route."""
        self.defaults.remove(default)
        self.emit(ForeignStateChanged("route"))

    def add_foreign_nexthop(self, nexthop: NexthopObject) -> None:
        """Make somebody else's nexthop object."""
        self.foreign_nexthops.append(nexthop)
        self.emit(ForeignStateChanged("nexthop"))

    def add_destination(self, table: TableId, to: Destination) -> None:
        """Let a table of others know a destination; the kernel tells of it, and who asks hears where a rule leads."""
        self.tables[table] = (*self.tables.get(table, ()), to)
        if any((rule.family, rule.table) == (family_of(to.prefix), table) for rule in self.foreign_rules):
            self.emit(ForeignStateChanged("route"))

    def add_foreign_rule(self, rule: ForeignRule) -> None:
        """Install somebody else's policy rule."""
        self.foreign_rules.append(rule)
        self.emit(ForeignStateChanged("rule"))

    def tamper_flush_rules(self) -> None:
        """Do what ``ip rule flush`` does to us."""
        self.rules.clear()
        self.emit(OwnStateChanged("rule"))

    def tamper_delete_rule(self, rule: IpRule) -> None:
        """Remove one of our rules behind our back."""
        self.rules.remove(rule)
        self.emit(OwnStateChanged("rule"))

    def tamper_delete_route(self, route: Route) -> None:
        """Remove one of our routes behind our back."""
        del self.routes[_key(route)]
        self.emit(OwnStateChanged("route"))

    def tamper_delete_nexthop(self, ident: NexthopId) -> None:
        """Remove one of our nexthops behind our back; IPv4 routes that go with it go without a word."""
        self._drop_nexthops([ident])
        self.emit(OwnStateChanged("nexthop"))

    def tamper_flush_nft(self, by: str = "nft (pid 4242)") -> None:
        """Do what ``nft flush ruleset`` does to us."""
        self.nft = None
        self.emit(OwnStateChanged("table", by))

    def tamper_nft(self, text: str, by: str = "nft (pid 4242)") -> None:
        """Run somebody else's transaction on our table.

        Raises:
            KernelError: it makes no sense.
        """
        self.nft = transact(self.nft, text)
        self.emit(OwnStateChanged("table", by))

    def lose_events(self) -> None:
        """Let every listener know that notifications were dropped."""
        self.emit(EventsLost())

    def fail_next(self, op_type: type[Op], number: int, times: int = 1) -> None:
        """Refuse the next operations of the type with an errno(3)."""
        self._failures += [(op_type, number)] * times

    def unconsumed_failures(self) -> int:
        """Return how many refusals of `fail_next` no operation has met yet; a test should end with none."""
        return len(self._failures)


def _key(route: Route) -> tuple[Family, int, int]:
    return route.family, route.table, route.metric
