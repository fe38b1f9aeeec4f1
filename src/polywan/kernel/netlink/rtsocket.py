"""Everything that is asked of rtnetlink(7), in core types: whoever asks sees no message.

Links, addresses, policy rules, routes and next hops are read and written by one socket; notifications come by others
(`kernel/events.py`), and so do tables of others (`foreign_routing.py`).
"""

from __future__ import annotations

import errno
import os
import socket
import threading
from asyncio import Future
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Final, NamedTuple, TypeAlias, assert_never

from polywan.core.errors import KernelError
from polywan.core.net import FAMILIES, TABLE_MAIN, UNBOUND_SOURCE, Family, IPAddress
from polywan.core.plan.plan import AddRule, DelNexthop, DelRoute, DelRule, Failure, PutNexthop, PutRoute
from polywan.core.routing.nexthops import Nexthop, NexthopObject
from polywan.core.routing.routes import IpRule, Route
from polywan.core.shaping.changes import ShapingOp
from polywan.core.state.events import KernelEvent
from polywan.core.trace.route_query import RouteAnswer, RouteQuery
from polywan.core.world.foreign_chains import IngressChain
from polywan.core.world.foreign_routing import ForeignRule
from polywan.core.world.observed import Address, Link, Router
from polywan.core.world.queues import Queues
from polywan.core.world.shared_device import NextHop
from polywan.kernel import requirements
from polywan.kernel.events import NetlinkWatch
from polywan.kernel.netlink import foreign_routing as foreign
from polywan.kernel.netlink import neighbours as near
from polywan.kernel.netlink import nexthops as nh
from polywan.kernel.netlink import policy_rules as rules
from polywan.kernel.netlink import route_query as asking
from polywan.kernel.netlink import rtnetlink as rt
from polywan.kernel.netlink.device_settings import DeviceSettings, decode_settings
from polywan.kernel.netlink.kept_routes import KeptRoutes, Memo, Names, Routes
from polywan.kernel.netlink.socket import ROUTE, Message, NetlinkSocket, Refusal, Request
from polywan.kernel.nft.libnftables import Nftables
from polywan.kernel.tc.control import TrafficControl

RoutingOp: TypeAlias = PutNexthop | DelNexthop | PutRoute | DelRoute | AddRule | DelRule

_GONE: Final = frozenset({errno.ESRCH, errno.ENOENT, errno.ENODEV, errno.EAFNOSUPPORT, errno.EOPNOTSUPP})
"""Refusals of a removal that mean: it is not there, which is what was wanted."""


class Ours(NamedTuple):
    """What is ours in the kernel's routing."""

    rules: frozenset[IpRule]
    nexthops: frozenset[NexthopObject]
    routes: frozenset[Route]


class RouteSocket:
    """rtnetlink in the network namespace of the calling thread. Safe to use from several threads, but for `watch`.

    Every method that asks the kernel raises `KernelError` when it refuses.

    Raises:
        KernelError: no netlink socket could be opened.
    """

    def __init__(self) -> None:
        self._netlink = NetlinkSocket(ROUTE)
        self._traffic_control = TrafficControl(self._netlink)
        self._lock = threading.Lock()
        self._watches: list[NetlinkWatch] = []
        self._hears_queues = False
        self._tables = foreign.Tables()
        self._watched: frozenset[foreign.TableKey] = frozenset()
        self._hops: frozenset[NextHop] = frozenset()
        self._routes_kept = KeptRoutes()
        self._links_read: Memo[Link | None] = Memo()
        self._addresses_read: Memo[Address | None] = Memo()

    def missing(self, nft: Nftables, *, multipath: bool) -> list[str]:
        """Return what the machine lacks; see `needs.missing`."""
        with self._lock:
            return requirements.missing(self._netlink, nft, multipath=multipath)

    def links(self) -> list[Link]:
        """Return every link."""
        found = self._links_read.decode(self._dump(rt.GETLINK, rt.get_links()), rt.decode_link)
        return [link for link in found if link is not None]

    def settings(self) -> DeviceSettings:
        """Return settings of devices, each with the index of its device."""
        return decode_settings(m.body for m in self._dump(rt.GETLINK, rt.get_links()))

    def addresses(self, names: Mapping[int, str]) -> tuple[Address, ...]:
        """Return every address that can be used, each once; `names` are those of the links by number."""
        text = self._dump(rt.GETADDR, rt.get_addresses())
        found = self._addresses_read.decode(text, lambda body: rt.decode_address(body, names), names)
        return tuple(dict.fromkeys(a for a in found if a is not None))

    def own(self, family: Family) -> frozenset[bytes]:
        """Return the addresses of this box in a family, packed; the source of sockets without one counts as well."""
        names = Names()
        found = (rt.decode_address(m.body, names) for m in self._dump(rt.GETADDR, rt.get_addresses()))
        addresses = {a.ip.ip for a in found if a is not None} | {UNBOUND_SOURCE}
        return frozenset(address.packed for address in addresses if address.version == family)

    def routers(self, hops: Collection[NextHop]) -> tuple[Router, ...]:
        """Return the hardware addresses of these routers, as far as they are known, and hear of them from now on."""
        self._hops = frozenset(hops)
        for watch in self._watches:
            watch.know_hops(self._hops)
        indices = _Indices()
        macs = {
            hop: mac
            for hop in sorted(hops, key=str)
            if (index := indices.of(hop.link)) is not None and (mac := self._mac(hop.via, index))
        }
        for watch in self._watches:
            watch.know_macs(macs)
        return tuple(Router(*hop, mac) for hop, mac in macs.items())

    def _mac(self, address: IPAddress, index: int) -> str:
        with self._lock:
            reply = self._netlink.query(near.GETNEIGH, near.get_neighbour(address, index))
        found = None if isinstance(reply, Refusal) else near.decode_neighbour(reply.kind, reply.body)
        return "" if found is None else found.mac

    def ours(self) -> Ours:
        """Return the rules, next hops and routes that are ours."""
        names = Names()
        found = (
            (family, rules.decode_rule(m.body))
            for family in FAMILIES
            for m in self._dump(rt.GETRULE, rules.get_rules(family))
        )
        kept = frozenset(r.rule for family, r in found if r is not None and r.ours and r.rule.family is family)
        nexthops = (nh.decode_nexthop(m.body, names) for m in self._dump(nh.GETNEXTHOP, nh.get_nexthops()))
        return Ours(
            rules=kept,
            nexthops=frozenset(n for n in nexthops if n is not None),
            routes=frozenset(
                route
                for family in FAMILIES
                for m in self._routes(family, ours=True)
                for route in rt.decode_routes(m.body, names)
            ),
        )

    def foreign_rules(self) -> tuple[ForeignRule, ...]:
        """Return the policy rules of others."""
        found = (
            (family, foreign.decode_rule(m.body))
            for family in FAMILIES
            for m in self._dump(rt.GETRULE, rules.get_rules(family))
        )
        return tuple(rule for family, rule in found if rule is not None and rule.family is family)

    def foreign_routes(self, theirs: Iterable[ForeignRule], names: Mapping[int, str]) -> Routes:
        """Return the routes of others that count, as they were last read as long as nothing has touched them."""
        wanted = frozenset((rule.family, rule.table) for rule in theirs if rule.table is not None) - foreign.APART
        # Of main's routes the specific ones count, too: nft cannot be asked for them
        # (core/ruleset/neighbours/specific_routes.py).
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

    def apply(self, ops: Sequence[RoutingOp]) -> list[Failure]:
        """Carry out operations in order by few system calls; return those that failed. Never raises."""
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

    def queues(self, kinds: frozenset[str] | None, chains: Collection[IngressChain]) -> Queues | None:
        """Return the queues of all devices; see `Kernel.read`."""
        if kinds is None:
            return None
        with self._lock:
            return self._traffic_control.read(kinds, chains)

    def hear_queues(self, *, wanted: bool) -> None:
        """Hear of queueing disciplines, or no more; see `Kernel.hear_queues`."""
        self._hears_queues = wanted
        for watch in self._watches:
            watch.hear_queues(wanted=wanted)

    def shape(self, op: ShapingOp) -> Failure | None:
        """Carry out one operation on queues. Never raises."""
        try:
            with self._lock:
                refusal = self._traffic_control.carry_out(op, _Indices().of)
        except KernelError as e:
            return Failure(op, e.errno, str(e))
        return None if refusal is None else Failure(op, refusal.errno, refusal.text)

    def ask(self, query: RouteQuery) -> RouteAnswer:
        """Ask the kernel's routing; see `Kernel.ask`."""
        index = _Indices().of(query.in_interface) if query.in_interface is not None else 0
        if index is None:
            raise KernelError("query a route", *_NO_DEVICE)
        with self._lock:
            reply = self._netlink.query(rt.GETROUTE, asking.question(query, index))
            matching = self._netlink.query(rt.GETROUTE, asking.question(query, index, match=True))
        return replace(asking.answer(query, reply, _name), prefix=asking.prefix_of(matching))

    def watch(self, tell: Callable[[KernelEvent], None]) -> Future[None]:
        """Subscribe; see `Kernel.watch`."""
        watch = NetlinkWatch(self._netlink.port, self.links, self._routes_kept.touch, tell)
        watch.know_tables(self._watched)
        watch.know_hops(self._hops)
        watch.hear_queues(wanted=self._hears_queues)
        self._watches.append(watch)
        return watch.ended

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Have nobody who watches hear of nftables meanwhile; see `NetlinkWatch.paused`."""
        with ExitStack() as meanwhile:
            for watch in self._watches:
                meanwhile.enter_context(watch.paused())
            yield

    def close(self) -> None:
        """Release sockets and end what listens."""
        for watch in self._watches:
            watch.close()
        self._watches.clear()
        with self._lock:
            self._netlink.close()

    def _routes(self, family: Family, *, ours: bool, keep: Callable[[bytes], bool] | None = None) -> Iterable[Message]:
        found = self._dump(rt.GETROUTE, rt.get_routes(family, ours=ours), keep)
        return (m for m in found if rt.family_of(m.body) is family)

    def _dump(self, kind: int, body: bytes, keep: Callable[[bytes], bool] | None = None) -> list[Message]:
        with self._lock:
            return self._netlink.snapshot(kind, body, keep)


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


def _request(op: RoutingOp, indices: _Indices) -> Request | Refusal:
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


def _as_wanted(op: RoutingOp, refusal: Refusal) -> bool:
    """True when the kernel refused only because the state is as wanted already."""
    if isinstance(op, DelNexthop | DelRoute | DelRule):
        return refusal.errno in _GONE
    return isinstance(op, AddRule) and refusal.errno == errno.EEXIST
