"""Bytes of clients by month: looks at connection tracking beside the loop, and the tables of the measurements' file."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final, TypeAlias

from polywan.core.errors import KernelError
from polywan.core.measurements.clients import ClientCounter, Surroundings, added
from polywan.core.net import IPNetwork
from polywan.core.state.state import State
from polywan.core.status.tally import Bytes
from polywan.core.world.conntrack import Flow
from polywan.kernel.api import Tracker

log = logging.getLogger("polywan")

CLIENT_TABLES: Final = (
    "CREATE TABLE clients (month TEXT, client TEXT, rx INTEGER, tx INTEGER, PRIMARY KEY (month, client)) WITHOUT ROWID",
)

MOST_CLIENTS: Final = 2000
"""Clients of a month; of more, those with the fewest bytes are "others". 14 months take 2 MB."""

MOST_MONTHS: Final = 14

LOOK: Final = 60.0
"""Seconds between two looks: half of what the kernel keeps a connection after its end."""

SHARE: Final = 0.05
"""Part of a CPU that looking may take: where there are many connections, looks are rarer."""

_PIECE: Final = 256
_PAUSE: Final = 0.002
"""Connections after which the loop gets a turn, and for how many seconds."""

_MOST_OF_MONTH: Final = 1 << 60
"""Of a client in a month: an exabyte."""

ByMonth: TypeAlias = Mapping[str, Mapping[str, Bytes]]
"""Bytes by month, and client."""


class ClientWatch:
    """Looks at connections again and again.

    Args:
        kernel: what is asked.
        state: returns the engine's state.
        enter: gets the bytes of clients after each look.

    Attributes:
        connections: by uplink at the last look; empty before.
        problem: why clients are not counted, or not all, for people; empty when they are.
    """

    def __init__(
        self, kernel: Tracker, state: Callable[[], State], enter: Callable[[Mapping[str, Bytes]], None]
    ) -> None:
        self._kernel = kernel
        self._state = state
        self._enter = enter
        self._counter = ClientCounter()
        self._began = time.monotonic()
        self.connections: Mapping[str, int] = {}
        self.problem = ""

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            took = await self.look()
            await asyncio.sleep(max(LOOK, took / SHARE))

    async def look(self) -> float:
        """Look once, and return the CPU seconds that it took."""
        around, mask = surroundings(self._state())
        if not mask:
            return 0.0
        try:
            moved, took = await asyncio.to_thread(self._look, around, mask)
        except KernelError as error:
            self.connections, self.problem = {}, f"connections cannot be read: {error}"
            log.debug("clients.unknown: %s", error)
            return 0.0
        self.connections = {name: self._counter.connections.get(name, 0) for name in around.marks.values()}
        beyond = self._counter.beyond
        self.problem = f"{beyond} connections are too many to count their clients" if beyond else ""
        self._enter(moved)
        return took

    def _look(self, around: Surroundings, mask: int) -> tuple[dict[str, Bytes], float]:
        began = time.thread_time()
        moved = self._counter.look(_slowly(self._kernel.flows(mask)), around, time.monotonic() - self._began)
        return moved, time.thread_time() - began


def _slowly(flows: Iterable[Flow]) -> Iterator[Flow]:
    for number, flow in enumerate(flows, 1):
        yield flow
        if number % _PIECE == 0:
            time.sleep(_PAUSE)


def surroundings(state: State) -> tuple[Surroundings, int]:
    """Return what tells clients from servers, and the bits of the mark that are ours; 0 before anything is known."""
    config, observed = state.known.config, state.known.observed
    if config is None or observed is None:
        return Surroundings((), (), {}), 0
    devices = {uplink.interface for uplink in config.uplinks.values()}
    lans: list[IPNetwork] = [a.ip.network for a in observed.addresses if a.link not in devices]
    return Surroundings(
        own=frozenset(str(address.ip.ip) for address in observed.addresses),
        lans=[lan for lan in lans if not lan.is_link_local],
        marks={int(numbers.mark): name for name, numbers in state.known.numbers.items()},
    ), config.layout.mask


def add(database: sqlite3.Connection, more: ByMonth) -> None:
    """Add bytes of clients, within the bound of each month, and drop the months before the last ones."""
    for month, clients in more.items():
        sums = {c: b for _, c, b in read(database, [month])}
        database.execute("DELETE FROM clients WHERE month = ?", (month,))
        rows = [(month, client, *one) for client, one in added(sums, clients, MOST_CLIENTS).items()]
        database.executemany("INSERT INTO clients VALUES (?, ?, ?, ?)", rows)
    query = "SELECT DISTINCT month FROM clients ORDER BY month DESC LIMIT 1 OFFSET ?"
    for (month,) in database.execute(query, (MOST_MONTHS,)).fetchall():
        database.execute("DELETE FROM clients WHERE month <= ?", (month,))


def read(database: sqlite3.Connection, months: Iterable[str]) -> Iterator[tuple[str, str, Bytes]]:
    """Yield month, client and bytes, those with most first."""
    query = "SELECT client, rx, tx FROM clients WHERE month = ? ORDER BY rx + tx DESC, client"
    for month in months:
        for client, *numbers in database.execute(query, (month,)):
            # What somebody else has written there is left out.
            if isinstance(client, str) and all(isinstance(n, int) and 0 <= n < _MOST_OF_MONTH for n in numbers):
                yield month, client, Bytes(*numbers)
