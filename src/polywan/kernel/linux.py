"""The Linux kernel behind `Kernel` and `Tracker`: rtnetlink, libnftables, ctnetlink and /proc/sys together."""

from __future__ import annotations

import errno
from asyncio import Future
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from itertools import groupby
from time import perf_counter
from typing import Final, TypeGuard

from polywan.core.errors import KernelError, MissingFeature
from polywan.core.net import Family
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
)
from polywan.core.ruleset.model import NftTable, held_texts
from polywan.core.shaping.changes import ShapingOp
from polywan.core.state.events import KernelEvent, NewConnections
from polywan.core.trace.route_query import RouteAnswer, RouteQuery
from polywan.core.world.affinity import AffinityEntry
from polywan.core.world.conntrack import Flow
from polywan.core.world.observed import Observed, links_by_name
from polywan.core.world.shared_device import NextHop
from polywan.kernel import counters, pppoe, requirements, sysctl
from polywan.kernel.api import Freed
from polywan.kernel.conntrack import release as freeing
from polywan.kernel.conntrack import table as conntrack
from polywan.kernel.conntrack.forgotten import ForgottenConnections
from polywan.kernel.conntrack.new_connections import NewConnectionListener
from polywan.kernel.netlink import ipsec
from polywan.kernel.netlink.rtsocket import RouteSocket, RoutingOp
from polywan.kernel.nft import filter_rules, foreign_chains
from polywan.kernel.nft.affinity_maps import AffinityMaps
from polywan.kernel.nft.libnftables import Nftables

LOUD: Final = 1 << 14
"""Characters of an nft transaction of ours from which its notifications are too many to be worth hearing."""


class LinuxKernel:
    """The kernel of the calling thread's network namespace.

    Args:
        trials: find out what the kernel can do by transactions of nft that come to nothing, which loads modules;
            without them it counts as having no flowtable, and libnftables as storing numbers in the usual order.

    Raises:
        KernelError: no netlink socket could be opened.
    """

    def __init__(self, *, trials: bool = True) -> None:
        self._route = RouteSocket()
        self._nft = Nftables()
        self._clients = AffinityMaps()
        self._flowtable: bool | None = None if trials else False
        self._swapped_keys: bool | None = None if trials else False
        self._watchers = filter_rules.Watchers(foreign_chains.OURS)
        self._vanished = ForgottenConnections()
        self._listener = NewConnectionListener(self._vanished)

    def missing(self, *, multipath: bool = False) -> list[str]:
        """Return what the machine lacks; see `Kernel.missing`."""
        return self._route.missing(self._nft, multipath=multipath)

    def counters(self) -> Mapping[str, tuple[int, int]]:
        """Read /proc/net/dev; see `Kernel.counters`."""
        return counters.read()

    def observe(self, hops: Collection[NextHop] = ()) -> Observed:
        """Read links first, then what refers to them; see `Kernel.observe`."""
        links = self._route.links()
        names = {link.index: link.name for link in links}
        addresses = self._route.addresses(names)
        theirs = self._route.foreign_rules()
        routes = self._route.foreign_routes(theirs, names)
        if self._flowtable is None:
            self._flowtable = requirements.has_flowtable(self._nft)
        if self._swapped_keys is None:
            self._swapped_keys = requirements.swaps_keys(self._nft)
        return Observed(
            links=links_by_name(links),
            addresses=addresses,
            defaults=routes.defaults,
            wide=frozenset(part.link for part in routes.parts),
            parts=routes.parts,
            sessions=pppoe.carriers(),
            flowtable=self._flowtable,
            swapped_keys=self._swapped_keys,
            watching=self._watchers.reason() if self._flowtable else "",
            xfrm=sysctl.read("net/core/xfrm_acq_expires") is not None,
            ipsec=ipsec.in_use(),
            compared=foreign_chains.after_routing(),
            rules=theirs,
            tables=routes.tables,
            routers=self._route.routers(hops),
        )

    def read(self, sysctls: Sequence[str], kinds: frozenset[str] | None = None) -> ActualState:
        """Read what is ours; see `Kernel.read`."""
        ours = self._route.ours()
        found = self._route.settings() if sysctls else None
        settings = found.values if found is not None else {}
        values = {path: value if (value := settings.get(path)) is not None else sysctl.read(path) for path in sysctls}
        chains = foreign_chains.read()
        return ActualState(
            nexthops=ours.nexthops,
            routes=ours.routes,
            rules=ours.rules,
            nft=self._nft.list_table(),
            chains=foreign_chains.dropping(chains),
            sysctls={path: value for path, value in values.items() if value is not None},
            devices=found.indexes if found is not None else {},
            queues=self._route.queues(kinds, foreign_chains.at_ingress(chains)),
        )

    def hear_queues(self, *, wanted: bool) -> None:
        """Hear of queueing disciplines, or no more; see `Kernel.hear_queues`."""
        self._route.hear_queues(wanted=wanted)

    def apply(self, plan: Plan) -> ApplyReport:
        """Carry out the plan; neighbouring nexthops, routes and rules share a batch. See `Kernel.apply`."""
        start = perf_counter()
        failures: list[Failure] = []
        with self._ahead(plan) as remainder:
            for _, neighbours in groupby(plan.ops, key=_is_routing):
                ops = list(neighbours)
                routing = [op for op in ops if _is_routing(op)]
                failures += (
                    self._route.apply(routing) if routing else filter(None, (self._do(op, remainder) for op in ops))
                )
        done = len(plan.ops) - len(failures)
        return ApplyReport(plan=plan, done=done, failures=tuple(failures), seconds=perf_counter() - start)

    def hold(self, name: str, table: NftTable | None) -> None:
        """Keep a table that others cannot flush; see `Kernel.hold`."""
        first, second = held_texts(name, table)
        try:
            self._nft.run(first)
        except KernelError as e:
            if e.errno != errno.EOPNOTSUPP:
                raise
            self._nft.run(second)

    @contextmanager
    def _ahead(self, plan: Plan) -> Iterator[Callable[[NftBatch], str]]:
        """Have the kernel take the inert part of a large transaction while the operations before it are carried out.

        Yields what waits for that, and returns what remains to be run; of a small one, a thread would cost more.
        """
        batch = next((op for op in plan.ops if isinstance(op, NftBatch) and op.inert > LOUD), None)
        if batch is None:
            yield lambda op: op.text
            return

        def remainder(op: NftBatch) -> str:
            early.result()
            return op.text[op.inert :]

        with self._route.paused(), ThreadPoolExecutor(1) as pool:
            early = pool.submit(self._nft.run, batch.text[: batch.inert])
            yield remainder

    def _do(self, op: Op, remainder: Callable[[NftBatch], str]) -> Failure | None:
        try:
            if isinstance(op, ShapingOp):
                return self._route.shape(op)
            if isinstance(op, SetSysctl):
                sysctl.write(op.sysctl.path, op.sysctl.value)
            elif isinstance(op, NftBatch):
                text = remainder(op)
                with self._route.paused() if len(text) > LOUD else nullcontext():
                    self._nft.run(text)
        except KernelError as e:
            return Failure(op, e.errno, str(e))
        except MissingFeature as e:
            return Failure(op, 0, str(e))
        return None

    def cut(
        self, mark: int, mask: int, family: Family, *, tcp: bool = True, clients: bool = True, inbound: bool = True
    ) -> Freed:
        """Let go of connections and clients; see `Tracker.cut`."""
        own = self._route.own(family)
        freed = freeing.free(mark, mask, family, own, tcp=tcp, inbound=inbound)
        if clients:
            wanted = mark & mask
            self.forget(k for k in self.affinities() if k.family is family and k.mark & mask == wanted)
        return freed + freeing.free_vanished(self._vanished, mark, mask, family, own) if tcp else freed

    def release(self, mark: int, mask: int, family: Family) -> Freed:
        """End what the kernel forgot by itself; see `Tracker.release`."""
        own = self._route.own(family)
        return freeing.free_vanished(self._vanished, mark, mask, family, own, exempt=own)

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
        self._listener.listen(mask)

    def new_connections(self) -> AsyncIterator[NewConnections]:
        """Return the stream of what is heard; see `Tracker.new_connections`."""
        return self._listener.stream()

    def affinities(self) -> list[AffinityEntry]:
        """Return the clients that keep their uplink; see `Tracker.affinities`."""
        return self._clients.read()

    def forget(self, doomed: Iterable[AffinityEntry]) -> int:
        """Forget clients; see `Tracker.forget`."""
        return self._clients.forget(doomed)

    def ask(self, query: RouteQuery) -> RouteAnswer:
        """Ask the kernel's routing; see `Kernel.ask`."""
        return self._route.ask(query)

    def watch(self, tell: Callable[[KernelEvent], None]) -> Future[None]:
        """Subscribe; see `Kernel.watch`."""
        return self._route.watch(tell)

    def close(self) -> None:
        """Release sockets and end what listens; the kernel's state stays."""
        self._listener.close()
        self._route.close()
        self._nft.close()
        self._clients.close()


_ROUTING: Final = frozenset({PutNexthop, DelNexthop, PutRoute, DelRoute, AddRule, DelRule})


def _is_routing(op: Op) -> TypeGuard[RoutingOp]:
    return type(op) in _ROUTING
