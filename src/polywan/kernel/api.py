"""What polywan needs of a kernel, in core types; `linux.py` is the real one, `fake.py` its shipped stand-in."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from typing import Protocol

from polywan.core.affinity import Kept
from polywan.core.ask import RouteAnswer, RouteQuery
from polywan.core.events import KernelEvent
from polywan.core.flows import Flow
from polywan.core.net import Family
from polywan.core.observed import Observed
from polywan.core.plan import ActualState, ApplyReport, Plan


class Kernel(Protocol):
    """What forwards packets; all but `events` are synchronous and short, and may be called from a worker thread."""

    def missing(self, *, multipath: bool = False) -> list[str]:
        """Return what the machine lacks, one line each with the package or kernel option that brings it.

        Args:
            multipath: ask for what the algorithm "multipath" needs as well.
        """
        ...

    def observe(self) -> Observed:
        """Read links, addresses and the default routes of others.

        Raises:
            KernelError: the kernel refused to show them.
        """
        ...

    def read(self, sysctls: Sequence[str]) -> ActualState:
        """Read what is ours, the policy rules of others, and the named settings that exist.

        Raises:
            KernelError: the kernel refused to show them.
            MissingFeature: libnftables is not there.
        """
        ...

    def apply(self, plan: Plan) -> ApplyReport:
        """Carry out the plan in order; an operation that fails is reported and the others go on.

        A route whose device is gone is a `Failure` with its errno(3); a rule that exists already, and the
        removal of something that is not there, count as done.
        """
        ...

    def ask(self, query: RouteQuery) -> RouteAnswer:
        """Return what the kernel's own routing would do with a packet: ``ip route get`` (ip-route(8)).

        Raises:
            KernelError: the question makes no sense: no such device (ENODEV), for one.
        """
        ...

    def events(self) -> AsyncIterator[KernelEvent]:
        """Yield changes made by anyone but this object, from the moment of the call on; ends with `close`."""
        ...

    def close(self) -> None:
        """Release sockets; the kernel's state stays."""
        ...


class Tracker(Protocol):
    """What the kernel remembers of connections and clients; synchronous, for a worker thread: there may be many."""

    def cut(self, mark: int, mask: int, family: Family) -> int:
        """Forget connections of the mark in one family so that their next packet chooses again; return how many.

        Cut are all that are not TCP, and TCP that was never answered (SYN_SENT). Established TCP stays:
        it meets the reset of the dead mark, which carries its sequence numbers. Clients that keep the mark's
        uplink are forgotten as well, and not counted.
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

    def affinities(self) -> list[Kept]:
        """Return every client that keeps its uplink.

        Raises:
            KernelError: the kernel refused.
        """
        ...

    def forget(self, doomed: Iterable[Kept]) -> int:
        """Forget these clients; return how many were known still.

        Raises:
            KernelError: the kernel refused.
        """
        ...


class Machine(Kernel, Tracker, Protocol):
    """Both in one object, as the daemon is given them."""
