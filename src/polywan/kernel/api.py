"""What polywan needs of a kernel, in core types; `linux.py` is the real one, `fake/kernel.py` its shipped stand-in."""

from __future__ import annotations

from asyncio import Future
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from polywan.core.net import Family
from polywan.core.plan.plan import ActualState, ApplyReport, Plan
from polywan.core.ruleset.model import NftTable
from polywan.core.state.events import KernelEvent, NewConnections
from polywan.core.trace.route_query import RouteAnswer, RouteQuery
from polywan.core.words import counted
from polywan.core.world.affinity import AffinityEntry
from polywan.core.world.conntrack import Flow
from polywan.core.world.observed import Observed
from polywan.core.world.shared_device import NextHop


@dataclass(frozen=True, slots=True, kw_only=True)
class Freed:
    """What became of the connections that were to be let go.

    Attributes:
        forgotten: those whose next packet chooses again.
        challenged: TCP whose ends inside were made to speak, so that they meet a reset.
        silent: of these, how many were still open in the end.
        ended: sockets of this box.
        problems: what could not be done, for people.
    """

    forgotten: int = 0
    challenged: int = 0
    silent: int = 0
    ended: int = 0
    problems: tuple[str, ...] = ()

    def __add__(self, other: Freed) -> Freed:
        return Freed(
            forgotten=self.forgotten + other.forgotten,
            challenged=self.challenged + other.challenged,
            silent=self.silent + other.silent,
            ended=self.ended + other.ended,
            problems=tuple(dict.fromkeys((*self.problems, *other.problems))),
        )

    @property
    def summary(self) -> str:
        """What there is to tell people of it."""
        parts = []
        if self.challenged:
            parts.append(f"{self.challenged - self.silent} of {counted(self.challenged, 'TCP client')} reset")
        if self.ended:
            parts.append(f"{counted(self.ended, 'socket')} of this box ended")
        if self.forgotten:
            parts.append(f"{counted(self.forgotten, 'other')} to choose again")
        return ", ".join(parts)


class Kernel(Protocol):
    """What forwards packets; all is synchronous and short, and all but `watch` may be called from a worker thread."""

    def missing(self, *, multipath: bool = False) -> list[str]:
        """Return what the machine lacks, one line each with the package or kernel option that brings it.

        Args:
            multipath: ask for what the algorithm "multipath" needs as well.
        """
        ...

    def observe(self, hops: Collection[NextHop] = ()) -> Observed:
        """Read links, addresses, and the default routes and policy rules of others.

        Args:
            hops: routers whose hardware addresses matter: they are read, too, and `watch` tells when one changes.

        Raises:
            KernelError: the kernel refused to show them.
        """
        ...

    def read(self, sysctls: Sequence[str], kinds: frozenset[str] | None = None) -> ActualState:
        """Read what is ours, and the named settings that exist.

        Args:
            sysctls: paths of settings.
            kinds: of queueing disciplines, devices and actions that shaping needs: returned are those that the kernel
                lacks, and what is at the devices. With None nothing of that is read.

        Raises:
            KernelError: the kernel refused to show them.
            MissingFeature: libnftables is not there.
        """
        ...

    def hear_queues(self, *, wanted: bool) -> None:
        """Have `watch` tell of changes of queueing disciplines as well, or no more; at first it does not."""
        ...

    def counters(self) -> Mapping[str, tuple[int, int]]:
        """Return bytes received and sent by every device since it was made, by name; cheap enough for every second.

        Raises:
            KernelError: the kernel does not show them.
        """
        ...

    def apply(self, plan: Plan) -> ApplyReport:
        """Carry out the plan in order; an operation that fails is reported and the others go on.

        A route whose device is gone is a `Failure` with its errno(3); a rule that exists already, and the
        removal of something that is not there, count as done.
        """
        ...

    def hold(self, name: str, table: NftTable | None) -> None:
        """Make this a table that others cannot flush, for as long as this object is open; None removes it.

        Args:
            name: its family and name (nft(8)).
            table: what is in it; connections that were in a flowtable of it leave that.

        Raises:
            KernelError: the kernel refused; what was there stays.
            MissingFeature: libnftables is not there.
        """
        ...

    def ask(self, query: RouteQuery) -> RouteAnswer:
        """Return what the kernel's own routing would do with a packet: ``ip route get`` (ip-route(8)).

        Raises:
            KernelError: the question makes no sense: no such device (ENODEV), for one.
        """
        ...

    def watch(self, tell: Callable[[KernelEvent], None]) -> Future[None]:
        """Tell of every change made by anyone but this object, from now on and in the thread of the running loop.

        Returns:
            What is done after `close`; whoever cancels it hears nothing more.

        Raises:
            KernelError: the kernel does not let us listen; of the future: it does so no more.
            Exception: of the future: what `tell` raised, after which it hears nothing more.
        """
        ...

    def close(self) -> None:
        """Release sockets; the kernel's state stays."""
        ...


class Tracker(Protocol):
    """What the kernel remembers of connections and clients; synchronous, for a worker thread: there may be many."""

    def cut(
        self, mark: int, mask: int, family: Family, *, tcp: bool = True, clients: bool = True, inbound: bool = True
    ) -> Freed:
        """Let go of the connections of a mark in one family; the dead mark must be in force. Takes up to 0.1 s.

        What is not TCP, and TCP that was never answered (SYN_SENT), is forgotten: its next packet chooses again.
        TCP that the kernel forgot by itself within the last seconds, as it does when a device goes down, is ended too.

        Args:
            mark: theirs, under `mask`.
            mask: bits of the mark that are ours.
            family: theirs.
            tcp: end established TCP as well. Forwarded connections are made to speak, and so meet the reset of the
                dead mark, which carries their sequence numbers; sockets of this box are ended.
            clients: forget clients that keep the mark's uplink, too; they are not counted.
            inbound: let go of what came in from outside to an address of this box, too.

        Raises:
            KernelError: the kernel refused to show connections.
        """
        ...

    def release(self, mark: int, mask: int, family: Family) -> Freed:
        """End TCP of a mark in one family that the kernel forgot by itself within the last seconds, and nothing else.

        The reserved mark of this mask (`MarkLayout.reserved`) must be dead. Connections of this box itself whose
        address is there, untranslated, are left alone: they need no entry to go on.

        Raises:
            KernelError: the kernel refused.
        """
        ...

    def drop(self, mark: int, mask: int, family: Family, doomed: Callable[[Flow], bool]) -> int:
        """Forget connections of the mark in one family for which `doomed` is true, of every protocol; return how many.

        With a mask of 0, those of all marks.

        Raises:
            KernelError: the kernel refused.
        """
        ...

    def connections(self, mask: int) -> Mapping[int, int]:
        """Count tracked connections by their mark's bits under `mask`; 0 counts those without a choice."""
        ...

    def flows(self, mask: int, mark: int | None = None) -> Iterator[Flow]:
        """Yield tracked connections while they are read: all, or those whose mark is `mark` under `mask`.

        Raises:
            KernelError: the kernel refused; while iterating.
        """
        ...

    def listen(self, mask: int) -> None:
        """Hear of new connections whose mark has a bit of the mask from now on, of none with 0; for the loop's thread.

        Args:
            mask: bits of the mark that are ours.
        """
        ...

    def new_connections(self) -> AsyncIterator[NewConnections]:
        """Yield a sample of new connections and of their answers until `close`; nothing while nothing begins.

        Told are TCP, and UDP to ports whose servers always answer (53, 443). A connection that is gone counts as
        answered: a refused one is forgotten at once.

        Raises:
            KernelError: the kernel does not let us listen; while iterating.
        """
        ...

    def affinities(self) -> list[AffinityEntry]:
        """Return every client that keeps its uplink.

        Raises:
            KernelError: the kernel refused.
        """
        ...

    def forget(self, doomed: Iterable[AffinityEntry]) -> int:
        """Forget these clients; return how many were known still.

        Raises:
            KernelError: the kernel refused.
        """
        ...


class Machine(Kernel, Tracker, Protocol):
    """Both in one object, as the daemon is given them."""
