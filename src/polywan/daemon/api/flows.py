"""Lists connections and clients for the control socket, beside the loop.

There may be tens of thousands. They are read, chosen and written as JSON by a worker thread in small pieces: one call
of the JSON library for all of them would keep the interpreter, and with it every probe, waiting for its whole length.
Connections are sent while they are read, so that the client reads them meanwhile.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from functools import partial
from ipaddress import ip_network
from typing import Final

from polywan.api import calls
from polywan.api.affinity import Affinity, Forgotten, KeptClient
from polywan.api.codec import encode
from polywan.api.flows import Flows
from polywan.api.requests import OfClients, OfPolicy, WhomToForget, Words
from polywan.api.views.clients import Clients
from polywan.api.views.flow_rows import FlowRow
from polywan.config.faults import shown
from polywan.core.errors import ControlError
from polywan.core.net import Family, IPNetwork
from polywan.core.state.state import State
from polywan.core.status.flow_list import MOST_SORTED, OTHER, PROBE, FlowQuery, Pairs, Totals, flow_query_of, listed
from polywan.core.views.clients import MOST_LISTED_CLIENTS, clients
from polywan.core.world.affinity import AffinityEntry
from polywan.core.world.paths import Path
from polywan.daemon.api.http import Written
from polywan.daemon.api.pieces import with_rows
from polywan.daemon.api.unknown import unknown
from polywan.daemon.api.words import whole
from polywan.daemon.views.recent import RecentFlows
from polywan.kernel.api import Tracker

log = logging.getLogger("polywan")

SCHEMA: Final = 1
"""Version of the documents' shape; fields are added, never changed."""


MOST_LISTED: Final = 100
"""Clients of an answer where nobody says how many."""


class Tracking:
    """Connections and clients by uplink.

    Args:
        tracker: the kernel's memory.
        state: returns what the daemon knows now.
    """

    def __init__(self, tracker: Tracker, state: Callable[[], State]) -> None:
        self._tracker = tracker
        self._state = state
        self._recent = RecentFlows(tracker)
        self._one_at_a_time = asyncio.Lock()

    async def flows(self, asked: Words) -> Written[Flows]:
        """Return the document of connections; `asked` as `flow_query_of` reads it.

        Raises:
            ControlError: there is no such uplink (404), too much to sort, or words that make no sense (400).
            KernelError: the kernel refused.
        """
        try:
            wanted = flow_query_of(asked.words)
        except ValueError as error:
            raise ControlError(str(error), 400) from error
        if wanted.sort is not None and (wanted.limit is None or (wanted.offset or 0) + wanted.limit > MOST_SORTED):
            raise ControlError(f"sort: needs a limit of at most {MOST_SORTED}, together with the offset", 400)
        if wanted.offset is not None:
            self._recent.used()
        names, mask = self._names(), self._mask()
        if wanted.uplink is not None and wanted.uplink not in (OTHER, PROBE, *names.values()):
            raise unknown("uplink", wanted.uplink, (*names.values(), OTHER, PROBE))
        return Written(await self._sent(partial(self._flows, wanted, names, mask, probes_of(self._state()))))

    async def _sent(self, write: Callable[[], Iterator[bytes]]) -> AsyncIterator[bytes]:
        """Let a worker thread write a document; return its pieces, once the first is there.

        Raises:
            Exception: the first piece could not be written.
        """
        loop, pieces = asyncio.get_running_loop(), asyncio.Queue[bytes | Exception | None]()

        def work() -> None:
            last: Exception | None = None
            try:
                for piece in write():
                    loop.call_soon_threadsafe(pieces.put_nowait, piece)
            except Exception as error:  # noqa: BLE001 - whoever waits for the pieces raises it
                last = error
            loop.call_soon_threadsafe(pieces.put_nowait, last)

        await self._one_at_a_time.acquire()
        loop.run_in_executor(None, work).add_done_callback(lambda _: self._one_at_a_time.release())
        first = await pieces.get()
        if isinstance(first, Exception):
            raise first
        return _following(first, pieces)

    async def affinity(self, asked: OfPolicy) -> Written[Affinity]:
        """Return the document of clients that keep their uplink.

        Raises:
            ControlError: there is no such policy (404).
            KernelError: the kernel refused.
        """
        self._check_policy(asked.policy)
        names, mask = self._names(), self._mask()
        async with self._one_at_a_time:
            return Written(await asyncio.to_thread(self._affinity, asked.policy, names, mask))

    async def clients(self, asked: OfClients) -> Clients:
        """Return the clients that moved most.

        Raises:
            ControlError: the limit makes no sense (400).
            KernelError: the kernel refused.
        """
        limit = MOST_LISTED if asked.limit is None else whole("limit", asked.limit, MOST_LISTED_CLIENTS)
        names, mask = self._names(), self._mask()
        async with self._one_at_a_time:
            self._recent.used()
            return await asyncio.to_thread(lambda: clients(self._recent.read(mask), names, limit))

    async def of_uplink(self, name: str) -> dict[Family, int]:
        """Return the number of an uplink's connections in each family.

        Raises:
            KernelError: the kernel refused.
        """
        mark, mask = self._state().known.numbers[name].mark, self._mask()
        async with self._one_at_a_time:
            return await asyncio.to_thread(lambda: Counter(flow.family for flow in self._tracker.flows(mask, mark)))

    async def clear(self, asked: WhomToForget) -> Forgotten:
        """Forget clients: of an address or network, or all; of a policy, or of every one.

        Raises:
            ControlError: no such policy (404), no address, or neither an address nor all (400).
            KernelError: the kernel refused.
        """
        if (asked.address is not None) is (asked.all == "true"):
            raise ControlError("expected either address=ADDRESS or all=true", 400)
        self._check_policy(asked.policy)
        network = _network(asked.address)
        async with self._one_at_a_time:
            return Forgotten(forgotten=await asyncio.to_thread(self._clear, network, asked.policy))

    def _flows(self, wanted: FlowQuery, names: Mapping[int, str], mask: int, probes: Pairs) -> Iterator[bytes]:
        mark = next((mark for mark, name in names.items() if name == wanted.uplink), None)
        totals = Totals(names.values() if wanted.uplink is None else [wanted.uplink])
        # Who turns pages does not need each of them from another moment.
        flows = self._tracker.flows(mask, mark) if wanted.offset is None else self._recent.read(mask)
        found = listed(flows, wanted, names, totals, probes)

        # The totals are complete after the last row, and they stand behind the rows.
        def whole() -> Flows:
            columns = FlowRow._fields
            return Flows(schema=SCHEMA, columns=columns, flows=(), totals=totals.rows(), total=totals.number)

        return with_rows(whole, "flows", found)

    def _affinity(self, policy: str | None, names: Mapping[int, str], mask: int) -> list[bytes]:
        rows = (
            KeptClient(
                client=str(kept.client),
                server=None if kept.server is None else str(kept.server),
                policy=kept.policy,
                uplink=names.get(kept.mark & mask, OTHER),
                expires_s=kept.expires,
            )
            for kept in sorted(self._kept(policy), key=lambda k: (k.policy, k.family, k.client.packed))
        )
        return [*with_rows(lambda: Affinity(schema=SCHEMA, clients=()), "clients", map(encode, rows))]

    def _clear(self, network: IPNetwork | None, policy: str | None) -> int:
        return self._tracker.forget(k for k in self._kept(policy) if network is None or k.client in network)

    def _kept(self, policy: str | None) -> list[AffinityEntry]:
        return [kept for kept in self._tracker.affinities() if policy in (None, kept.policy)]

    def _names(self) -> dict[int, str]:
        return {int(numbers.mark): name for name, numbers in self._state().known.numbers.items()}

    def _mask(self) -> int:
        config = self._state().known.config
        return config.layout.mask if config is not None else 0

    def _check_policy(self, policy: str | None) -> None:
        config = self._state().known.config
        known = config.policies if config is not None else ()
        if policy is not None and policy not in known:
            raise unknown("policy", policy, known)


def probes_of(state: State) -> frozenset[tuple[str, str]]:
    """Return source and destination of every probe: an uplink's address, and its targets and gateway."""
    return frozenset(
        (str(source), str(to))
        for (name, family), path in state.decision.reach.items()
        if isinstance(path, Path) and name in state.known.probing
        for source in path.addresses
        for to in (*(t for t in state.known.probing[name].targets if t.version == family), path.via)
        if to is not None
    )


async def _following(piece: bytes | None, pieces: asyncio.Queue[bytes | Exception | None]) -> AsyncIterator[bytes]:
    """Yield pieces up to the last one; an error behind some of them ends the list, and is told in the document."""
    following: bytes | Exception | None = piece
    while isinstance(following, bytes):
        yield following
        following = await pieces.get()
    if following is not None:
        log.error("control.failed: %s: %s: %s", calls.FLOWS.path, type(following).__name__, following)
        yield f'],"error":{json.dumps(str(following))}}}'.encode()


def _network(text: str | None) -> IPNetwork | None:
    if text is None:
        return None
    try:
        return ip_network(text, strict=False)
    except ValueError:
        raise ControlError(f"expected an address or network, got {shown(text)}", 400) from None
