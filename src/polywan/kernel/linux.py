"""The Linux kernel behind `Kernel` and `Tracker`: rtnetlink, libnftables, ctnetlink and /proc/sys together."""

from __future__ import annotations

import errno
import os
import socket
import threading
from asyncio import Future
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from itertools import groupby
from time import perf_counter
from typing import Final, TypeAlias, TypeGuard, assert_never

from polywan.core.affinity import Kept
from polywan.core.ask import RouteAnswer, RouteQuery
from polywan.core.errors import KernelError, MissingFeature
from polywan.core.events import KernelEvent, Signs
from polywan.core.flows import Flow
from polywan.core.foreign import ForeignRule
from polywan.core.keep import hold_texts
from polywan.core.net import FAMILIES, TABLE_MAIN, UNBOUND_SOURCE, Family
from polywan.core.nexthops import Nexthop
from polywan.core.nft import NftTable
from polywan.core.observed import Address, Link, Observed, links_by_name
from polywan.core.plan import (
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
)
from polywan.kernel import ask as asking
from polywan.kernel import chains, conntrack, counters, foreign, freeing, ipsec, needs, rules, sysctl
from polywan.kernel import nexthops as nh
from polywan.kernel import rtnetlink as rt
from polywan.kernel.affinity import AffinityMaps
from polywan.kernel.api import Freed
from polywan.kernel.kept import KeptRoutes, Memo, Names, Routes
from polywan.kernel.netlink import ROUTE, Message, NetlinkSocket, Refusal, Request
from polywan.kernel.nftables import Nftables
from polywan.kernel.passive import Ear
from polywan.kernel.vanished import Vanished
from polywan.kernel.watch import Watch

_RoutingOp: TypeAlias = PutNexthop | DelNexthop | PutRoute | DelRoute | AddRule | DelRule

_GONE: Final = frozenset({errno.ESRCH, errno.ENOENT, errno.ENODEV, errno.EAFNOSUPPORT, errno.EOPNOTSUPP})
"""Refusals of a removal that mean: it is not there, which is what was wanted."""


LOUD: Final = 1 << 14
"""Characters of an nft transaction of ours from which its notifications are too many to be worth hearing."""


class LinuxKernel:
    """The kernel of the calling thread's network namespace.

    Raises:
        KernelError: no netlink socket could be opened.
    """

    def __init__(self) -> None:
        self._netlink = NetlinkSocket(ROUTE)
        self._lock = threading.Lock()
        self._nft = Nftables()
        self._clients = AffinityMaps()
        self._watches: list[Watch] = []
        self._tables = foreign.Tables()
        self._watched: frozenset[foreign.TableKey] = frozenset()
        self._routes_kept = KeptRoutes()
        self._links_read: Memo[Link | None] = Memo()
        self._addresses_read: Memo[Address | None] = Memo()
        self._vanished = Vanished()
        self._ear = Ear(self._vanished)

    def missing(self, *, multipath: bool = False) -> list[str]:
        """Return what the machine lacks; see `Kernel.missing`."""
        with self._lock:
            return needs.missing(self._netlink, self._nft, multipath=multipath)

    def counters(self) -> Mapping[str, tuple[int, int]]:
        """Read /proc/net/dev; see `Kernel.counters`."""
        return counters.read()

    def observe(self) -> Observed:
        """Read links first, then what refers to them; see `Kernel.observe`."""
        links = self._links()
        names = {link.index: link.name for link in links}
        told = self._dump(rt.GETADDR, rt.get_addresses())
        addresses = self._addresses_read.decode(told, lambda body: rt.decode_address(body, names), names)
        theirs = self._foreign_rules()
        routes = self._foreign_routes(theirs, names)
        return Observed(
            links=links_by_name(links),
            addresses=tuple(dict.fromkeys(a for a in addresses if a is not None)),
            defaults=routes.defaults,
            wide=frozenset(part.link for part in routes.parts),
            parts=routes.parts,
            xfrm=sysctl.read("net/core/xfrm_acq_expires") is not None,
            ipsec=ipsec.in_use(),
            compared=chains.after_routing(),
            rules=theirs,
            tables=routes.tables,
        )

    def _foreign_rules(self) -> tuple[ForeignRule, ...]:
        found = (
            (family, foreign.decode_rule(m.body))
            for family in FAMILIES
            for m in self._dump(rt.GETRULE, rules.get_rules(family))
        )
        return tuple(rule for family, rule in found if rule is not None and rule.family is family)

    def _foreign_routes(self, rules: Iterable[ForeignRule], names: Mapping[int, str]) -> Routes:
        """Return the routes of others that count, as they were last read as long as nothing has touched them."""
        wanted = frozenset((rule.family, rule.table) for rule in rules if rule.table is not None) - foreign.APART
        # Of main's routes the specific ones count, too: nft cannot be asked for them (core/specific.py).
        wanted |= {(family, TABLE_MAIN) for family in FAMILIES}
        heard = any(watch.listening for watch in self._watches)
        return self._routes_kept.get(wanted, lambda: self._read_routes(wanted, names), heard=heard)

    def _read_routes(self, wanted: frozenset[foreign.TableKey], names: Mapping[int, str]) -> Routes:
        """Read the defaults and the tables that rules of others name, and hear of their routes from before that on."""
        self._watch_tables(wanted)
        bodies = [m.body for family in FAMILIES for m in self._routes(family, ours=False, keep=rt.maybe_wide)]
        defaults = tuple(dict.fromkeys(d for body in bodies for d in rt.decode_defaults(body, names)))
        tables = self._tables.read(wanted, names, defaults)
        # Of a table with too many routes, the defaults count; those are heard of anyway.
        self._watch_tables(frozenset(key for key in wanted if not foreign.large(tables.get(key[1], ()), key[0])))
        return Routes(
            defaults=defaults,
            parts=tuple(dict.fromkeys(part for body in bodies for part in rt.decode_wide(body, names))),
            tables=tables,
            supports=frozenset(rt.supports_of(bodies)) | self._tables.supports(),
        )

    def _watch_tables(self, wanted: frozenset[foreign.TableKey]) -> None:
        self._watched = wanted
        for watch in self._watches:
            watch.know_tables(wanted)

    def read(self, sysctls: Sequence[str]) -> ActualState:
        """Read what is ours; see `Kernel.read`."""
        names = Names()
        found = [
            rule
            for family in FAMILIES
            for m in self._dump(rt.GETRULE, rules.get_rules(family))
            if (rule := rules.decode_rule(m.body)) is not None and rule.rule.family is family
        ]
        nexthops = (nh.decode_nexthop(m.body, names) for m in self._dump(nh.GETNEXTHOP, nh.get_nexthops()))
        return ActualState(
            nexthops=frozenset(n for n in nexthops if n is not None),
            routes=frozenset(
                route
                for family in FAMILIES
                for m in self._routes(family, ours=True)
                for route in rt.decode_routes(m.body, names)
            ),
            rules=frozenset(r.rule for r in found if r.ours),
            nft=self._nft.list_table(),
            chains=chains.dropping(),
            sysctls={path: value for path in sysctls if (value := sysctl.read(path)) is not None},
        )

    def apply(self, plan: Plan) -> ApplyReport:
        """Carry out the plan; neighbouring nexthops, routes and rules share a batch. See `Kernel.apply`."""
        start = perf_counter()
        failures: list[Failure] = []
        for _, neighbours in groupby(plan.ops, key=_is_routing):
            ops = list(neighbours)
            routing = [op for op in ops if _is_routing(op)]
            failures += self._apply_routing(routing) if routing else filter(None, map(self._apply_one, ops))
        done = len(plan.ops) - len(failures)
        return ApplyReport(plan=plan, done=done, failures=tuple(failures), seconds=perf_counter() - start)

    def hold(self, table: NftTable | None) -> None:
        """Keep a table that others cannot flush; see `Kernel.hold`."""
        first, second = hold_texts(table)
        try:
            self._nft.run(first)
        except KernelError as e:
            if e.errno != errno.EOPNOTSUPP:
                raise
            self._nft.run(second)

    def _apply_one(self, op: Op) -> Failure | None:
        try:
            if isinstance(op, SetSysctl):
                sysctl.write(op.sysctl.path, op.sysctl.value)
            elif isinstance(op, NftBatch):
                with ExitStack() as meanwhile:
                    for watch in self._watches if len(op.text) > LOUD else ():
                        meanwhile.enter_context(watch.looking_away())
                    self._nft.run(op.text)
        except KernelError as e:
            return Failure(op, e.errno, str(e))
        except MissingFeature as e:
            return Failure(op, 0, str(e))
        return None

    def _apply_routing(self, ops: Sequence[_RoutingOp]) -> list[Failure]:
        indices = _Indices()
        requests = [_request(op, indices) for op in ops]
        try:
            with self._lock:
                answers = iter(self._netlink.batch([r for r in requests if isinstance(r, Request)]))
        except KernelError as e:
            return [Failure(op, e.errno, str(e)) for op in ops]
        refusals = (next(answers) if isinstance(r, Request) else r for r in requests)
        return [
            Failure(op, refusal.errno, refusal.text)
            for op, refusal in zip(ops, refusals, strict=True)
            if refusal is not None and not _as_wanted(op, refusal)
        ]

    def cut(
        self, mark: int, mask: int, family: Family, *, tcp: bool = True, clients: bool = True, inbound: bool = True
    ) -> Freed:
        """Let go of connections and clients; see `Tracker.cut`."""
        own = self._own(family)
        freed = freeing.free(mark, mask, family, own, tcp=tcp, inbound=inbound)
        if clients:
            wanted = mark & mask
            self.forget(k for k in self.affinities() if k.family is family and k.mark & mask == wanted)
        return freed + freeing.free_vanished(self._vanished, mark, mask, family, own) if tcp else freed

    def release(self, mark: int, mask: int, family: Family) -> Freed:
        """End what the kernel forgot by itself; see `Tracker.release`."""
        own = self._own(family)
        return freeing.free_vanished(self._vanished, mark, mask, family, own, spared=own)

    def drop(self, mark: int, mask: int, family: Family, doomed: Callable[[Flow], bool]) -> int:
        """Forget connections; see `Tracker.drop`."""
        return conntrack.drop(mark, mask, family, doomed)

    def connections(self, mask: int) -> Mapping[int, int]:
        """Count connections by mark; see `Tracker.connections`."""
        return conntrack.counts(mask)

    def flows(self, mask: int, mark: int | None = None) -> Iterator[Flow]:
        """Yield connections; see `Tracker.flows`."""
        return conntrack.flows(mask, mark)

    def listen(self, mask: int) -> None:
        """Hear of new connections from now on; see `Tracker.listen`."""
        self._ear.listen(mask)

    def signs(self) -> AsyncIterator[Signs]:
        """Return the stream of what is heard; see `Tracker.signs`."""
        return self._ear.stream()

    def affinities(self) -> list[Kept]:
        """Return the clients that keep their uplink; see `Tracker.affinities`."""
        return self._clients.read()

    def forget(self, doomed: Iterable[Kept]) -> int:
        """Forget clients; see `Tracker.forget`."""
        return self._clients.forget(doomed)

    def ask(self, query: RouteQuery) -> RouteAnswer:
        """Ask the kernel's routing; see `Kernel.ask`."""
        index = _Indices().of(query.in_interface) if query.in_interface is not None else 0
        if index is None:
            raise KernelError("ask for a route", *_NO_DEVICE)
        with self._lock:
            reply = self._netlink.query(rt.GETROUTE, asking.question(query, index))
            matching = self._netlink.query(rt.GETROUTE, asking.question(query, index, match=True))
        return replace(asking.answer(query, reply, _name), prefix=asking.prefix_of(matching))

    def watch(self, tell: Callable[[KernelEvent], None]) -> Future[None]:
        """Subscribe; see `Kernel.watch`."""
        watch = Watch(self._netlink.port, self._links, self._routes_kept.touch, tell)
        watch.know_tables(self._watched)
        self._watches.append(watch)
        return watch.ended

    def close(self) -> None:
        """Release sockets and end what listens; the kernel's state stays."""
        for watch in self._watches:
            watch.close()
        self._watches.clear()
        self._ear.close()
        with self._lock:
            self._netlink.close()
        self._nft.close()
        self._clients.close()

    def _own(self, family: Family) -> frozenset[bytes]:
        names = Names()
        found = (rt.decode_address(m.body, names) for m in self._dump(rt.GETADDR, rt.get_addresses()))
        addresses = {a.ip.ip for a in found if a is not None} | {UNBOUND_SOURCE}
        return frozenset(address.packed for address in addresses if address.version == family)

    def _links(self) -> list[Link]:
        found = self._links_read.decode(self._dump(rt.GETLINK, rt.get_links()), rt.decode_link)
        return [link for link in found if link is not None]

    def _routes(self, family: Family, *, ours: bool, keep: Callable[[bytes], bool] | None = None) -> Iterable[Message]:
        found = self._dump(rt.GETROUTE, rt.get_routes(family, ours=ours), keep)
        return (m for m in found if rt.family_of(m.body) is family)

    def _dump(self, kind: int, body: bytes, keep: Callable[[bytes], bool] | None = None) -> list[Message]:
        with self._lock:
            return self._netlink.snapshot(kind, body, keep)


def _is_routing(op: Op) -> TypeGuard[_RoutingOp]:
    return isinstance(op, PutNexthop | DelNexthop | PutRoute | DelRoute | AddRule | DelRule)


class _Indices:
    """Numbers of links by name, each asked for once."""

    def __init__(self) -> None:
        self._known: dict[str, int | None] = {}

    def of(self, name: str) -> int | None:
        """Return the link's number, or None when there is no such link."""
        if name not in self._known:
            try:
                self._known[name] = socket.if_nametoindex(name)
            except (OSError, ValueError):  # ValueError: the name holds a NUL character
                self._known[name] = None
        return self._known[name]


def _name(index: int) -> str | None:
    try:
        return socket.if_indextoname(index)
    except OSError:
        return None


_NO_DEVICE: Final = Refusal(errno.ENODEV, os.strerror(errno.ENODEV))


def _request(op: _RoutingOp, indices: _Indices) -> Request | Refusal:
    match op:
        case PutNexthop(nexthop):
            index = indices.of(nexthop.link) if isinstance(nexthop, Nexthop) else 0
            return _NO_DEVICE if index is None else nh.put_nexthop(nexthop, index)
        case DelNexthop(nexthop):
            return nh.del_nexthop(nexthop.id)
        case PutRoute(route) | DelRoute(route):
            index = 0 if route.link is None else indices.of(route.link)
            if index is None:
                return _NO_DEVICE
            return rt.put_route(route, index) if isinstance(op, PutRoute) else rt.del_route(route, index)
        case AddRule(rule):
            return rules.add_rule(rule)
        case DelRule(rule):
            return rules.del_rule(rule)
        case _:
            assert_never(op)


def _as_wanted(op: _RoutingOp, refusal: Refusal) -> bool:
    """True when the kernel refused only because the state is as wanted already."""
    if isinstance(op, DelNexthop | DelRoute | DelRule):
        return refusal.errno in _GONE
    return isinstance(op, AddRule) and refusal.errno == errno.EEXIST
