"""Connections and clients of the kernel in memory."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final

from polywan.core.health.passive import SAMPLE, Opening, telling
from polywan.core.net import PROTOCOLS, Family
from polywan.core.state.events import NewConnections
from polywan.core.world.affinity import AffinityEntry
from polywan.core.world.conntrack import Flow
from polywan.kernel.api import Freed

_ENDS: Final = {Family.V4: ("192.0.2.1", "203.0.113.9"), Family.V6: ("2001:db8::1", "2001:db8:9::9")}
_PORTS: Final = frozenset({"tcp", "udp", "sctp"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """A tracked connection; `answered` is False for TCP before the first answer.

    Attributes:
        protocol: its name.
        client_port, port: None for protocols without ports.
        state: see `Flow.state`.
        bytes_up, bytes_down: None when nobody counted.
    """

    mark: int
    protocol: str = "udp"
    family: Family = Family.V4
    answered: bool = True
    client: str = ""
    client_port: int | None = 1024
    destination: str = ""
    port: int | None = 53
    state: str = ""
    age: float | None = None
    bytes_up: int | None = None
    bytes_down: int | None = None


class FakeTracker:
    """The `Tracker` half of `FakeKernel`.

    Attributes:
        connections_list: tracked connections; append to it at will.
        expired_list: open TCP that the kernel forgot by itself of late.
        kept_list: clients that keep their uplink, likewise.
        here: addresses of this box that connections from outside were sent to.
        listening: mask of the connections that somebody wants to hear of.
    """

    def __init__(self) -> None:
        self.connections_list: list[Connection] = []
        self.expired_list: list[Connection] = []
        self.kept_list: list[AffinityEntry] = []
        self.here: frozenset[str] = frozenset()
        self.listening = 0
        self._new_connections: asyncio.Queue[NewConnections] = asyncio.Queue()
        self._serial = 0

    def cut(
        self, mark: int, mask: int, family: Family, *, tcp: bool = True, clients: bool = True, inbound: bool = True
    ) -> Freed:
        """Forget connections and clients; nobody is there to be made to speak. See `Tracker.cut`."""
        meant = [c for c in self.connections_list if c.family is family and c.mark & mask == mark & mask]
        meant = [c for c in meant if inbound or c.destination not in self.here]
        doomed = [c for c in meant if c.protocol != "tcp" or not c.answered]
        self.connections_list = [c for c in self.connections_list if not any(c is gone for gone in doomed)]
        if clients:
            self.forget([k for k in self.kept_list if k.family is family and k.mark & mask == mark & mask])
        challenged = len(meant) - len(doomed) if tcp else 0
        freed = Freed(forgotten=len(doomed), challenged=challenged, silent=challenged)
        return freed + self._forgotten(mark, mask, family) if tcp else freed

    def _forgotten(self, mark: int, mask: int, family: Family) -> Freed:
        ended = [c for c in self.expired_list if c.family is family and c.mark & mask == mark & mask]
        self.expired_list = [c for c in self.expired_list if not any(c is gone for gone in ended)]
        return Freed(challenged=len(ended), silent=len(ended))

    def release(self, mark: int, mask: int, family: Family) -> Freed:
        """End what the kernel forgot by itself; see `Tracker.release`."""
        return self._forgotten(mark, mask, family)

    def expire(self, connections: Iterable[Connection]) -> None:
        """Forget connections as the kernel does by itself; open TCP that somebody hears of is remembered for a cut."""
        gone = list(connections)
        self.connections_list = [c for c in self.connections_list if not any(c is g for g in gone)]
        self.expired_list += [c for c in gone if c.mark & self.listening and c.protocol == "tcp" and c.answered]

    def drop(self, mark: int, mask: int, family: Family, doomed: Callable[[Flow], bool]) -> int:
        """Forget connections; see `Tracker.drop`."""
        kept = [
            c
            for c in self.connections_list
            if c.family is not family or c.mark & mask != mark & mask or not doomed(_flow(c, mask))
        ]
        gone = len(self.connections_list) - len(kept)
        self.connections_list = kept
        return gone

    def connections(self, mask: int) -> Mapping[int, int]:
        """Count connections; see `Tracker.connections`."""
        return dict(Counter(c.mark & mask for c in self.connections_list))

    def flows(self, mask: int, mark: int | None = None) -> Iterator[Flow]:
        """Yield connections; see `Tracker.flows`."""
        return (_flow(c, mask) for c in list(self.connections_list) if mark is None or c.mark & mask == mark)

    def listen(self, mask: int) -> None:
        """Note who is wanted; see `Tracker.listen`."""
        self.listening = mask

    async def new_connections(self) -> AsyncIterator[NewConnections]:
        """Yield what `begin` makes heard; see `Tracker.new_connections`."""
        while True:
            yield await self._new_connections.get()

    def begin(self, connections: Iterable[Connection]) -> None:
        """Track new connections; whoever listens hears of some."""
        taken: Counter[tuple[int, Family]] = Counter()
        opened = []
        for connection in connections:
            self.connections_list.append(connection)
            flow = _flow(connection, self.listening)
            if flow.mark and telling(flow) and taken[flow.mark, flow.family] < SAMPLE:
                taken[flow.mark, flow.family] += 1
                self._serial += 1
                to = ip_address(flow.destination)
                opened.append(Opening(number=self._serial, mark=flow.mark, family=flow.family, destination=to))
        if opened:
            self.hear(NewConnections(opened=tuple(opened)))

    def hear(self, new_connections: NewConnections) -> None:
        """Let whoever listens hear of new connections."""
        self._new_connections.put_nowait(new_connections)

    def affinities(self) -> list[AffinityEntry]:
        """Return the clients that keep their uplink; see `Tracker.affinities`."""
        return list(self.kept_list)

    def forget(self, doomed: Iterable[AffinityEntry]) -> int:
        """Forget clients; see `Tracker.forget`."""
        keys = {(k.map, k.client, k.server) for k in doomed}
        remaining = [k for k in self.kept_list if (k.map, k.client, k.server) not in keys]
        gone = len(self.kept_list) - len(remaining)
        self.kept_list = remaining
        return gone


def _flow(connection: Connection, mask: int) -> Flow:
    ends = _ENDS[connection.family]
    client, destination = connection.client or ends[0], connection.destination or ends[1]
    ported = connection.protocol in _PORTS
    client_port, port = (connection.client_port, connection.port) if ported else (None, None)
    number = PROTOCOLS[connection.protocol]
    return Flow(
        family=connection.family,
        protocol=58 if number == 1 and connection.family is Family.V6 else number,
        client=client,
        client_port=client_port,
        destination=destination,
        port=port,
        reply_source=destination,
        reply_source_port=port,
        reply_destination=client,
        reply_destination_port=client_port,
        state=connection.state,
        mark=connection.mark & mask,
        age=connection.age,
        bytes_up=connection.bytes_up,
        bytes_down=connection.bytes_down,
    )
