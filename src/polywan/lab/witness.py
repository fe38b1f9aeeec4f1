"""Long-lived flows that tell whether anyone disturbed them: one TCP and one UDP per uplink and family."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Coroutine, Iterable
from contextlib import closing, suppress
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Final, Literal, Self

from polywan.core.net import Family, IPAddress
from polywan.lab.network import Lab
from polywan.lab.sandbox import LabError
from polywan.lab.topology import SERVERS
from polywan.lab.traffic import Connection, connect, error_name, exchange, udp_socket

BEAT: Final = 0.05
"""Seconds between two exchanges of a witness, for up to eight uplinks; more uplinks beat more slowly."""
_ROUNDS: Final = 12
_PATIENCE: Final = 60.0
_UDP_PATIENCE: Final = 0.5


@dataclass(frozen=True, slots=True)
class Move:
    """At that monotonic time the server saw a flow by another uplink than before (0: by a wrong address)."""

    at: float
    before: int
    after: int


@dataclass(slots=True, kw_only=True)
class Witness:
    """One flow and what it lived through; times are monotonic seconds.

    Attributes:
        uplink: number of the uplink it began on.
        born: time when it began.
        last: time of the last answer.
        worst_gap: longest time without an answer, in seconds.
        lost: datagrams that nobody answered (UDP).
        broken: time when the connection broke (TCP), None while it lives.
        error: what broke it.
        moves: when the server saw it change uplinks (UDP; a TCP connection would break).
    """

    protocol: Literal["tcp", "udp"]
    family: Family
    uplink: int
    born: float
    last: float
    worst_gap: float = 0.0
    lost: int = 0
    broken: float | None = None
    error: str = ""
    moves: list[Move] = field(default_factory=list)

    @property
    def label(self) -> str:
        """Short name, as ``tcp4 of isp1``."""
        return f"{self.protocol}{self.family:d} of isp{self.uplink}"

    @property
    def now_by(self) -> int:
        """Number of the uplink that carries it now."""
        return self.moves[-1].after if self.moves else self.uplink

    def carried_by(self, moment: float) -> int | None:
        """Return the uplink that carried it at that time; None before it began or after it broke."""
        if moment < self.born or (self.broken is not None and self.broken <= moment):
            return None
        return next((move.after for move in reversed(self.moves) if move.at <= moment), self.uplink)

    def freed(self, since: float, until: float) -> float | None:
        """Return when in that time it first broke or changed uplinks, so that its owner could go on; or None."""
        changes = [move.at for move in self.moves] + ([] if self.broken is None else [self.broken])
        return min((at for at in changes if since <= at < until), default=None)

    def answered(self) -> None:
        """Note an answer."""
        now = time.monotonic()
        self.worst_gap = max(self.worst_gap, now - self.last)
        self.last = now

    def disturbed(self, since: float, until: float, dead: int | None) -> str:
        """Say what happened to it in that time although its uplink was not the dead one; or nothing."""
        if self.broken is not None and since <= self.broken < until and self.uplink != dead:
            return f"{self.label} broke ({self.error})"
        for move in self.moves:
            if since <= move.at < until and move.before != dead:
                return f"{self.label} moved from isp{move.before} to isp{move.after}"
        return ""


class Witnesses:
    """All witnesses of a lab; an async context manager."""

    def __init__(self, lab: Lab) -> None:
        self.flows: list[Witness] = []
        self._lab = lab
        self._beat = BEAT * max(1.0, len(lab.topology.uplinks) / 8)
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        for family in self._lab.topology.families:
            await self.cover(family, [u.number for u in self._lab.topology.uplinks if family in u.addresses])
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def cover(self, family: Family, uplinks: Iterable[int]) -> None:
        """Open flows until every one of these uplinks carries a TCP and a UDP witness.

        Raises:
            LabError: an uplink got no connection however many were opened.
        """
        wanted, address = set(uplinks), SERVERS[family][1]
        for protocol, opener in (("tcp", self._tcp), ("udp", self._udp)):
            missing, tries = set(wanted), _ROUNDS * max(8, len(self._lab.topology.uplinks))
            while missing and tries:
                tries -= 1
                missing.discard(await opener(address, missing))
            if missing:
                names = ", ".join(f"isp{number}" for number in sorted(missing))
                raise LabError(f"no {protocol} connection over IPv{family:d} was ever given to {names}")

    def on(self, uplink: int) -> list[Witness]:
        """Return the witnesses of one uplink."""
        return [flow for flow in self.flows if flow.uplink == uplink]

    async def _tcp(self, address: IPAddress, missing: set[int]) -> int:
        attempt, connection = await connect(self._lab, address)
        if connection is None:
            return 0
        if attempt.uplink not in missing:
            connection.close()
            return 0
        now = time.monotonic()
        flow = Witness(protocol="tcp", family=attempt.family, uplink=attempt.uplink, born=now, last=now)
        self._watch(flow, self._converse(flow, connection))
        return attempt.uplink

    async def _udp(self, address: IPAddress, missing: set[int]) -> int:
        sock = udp_socket(self._lab, address)
        number = None
        with suppress(OSError):
            number = await exchange(self._lab, sock, "first")
        if number is None or number not in missing:
            sock.close()
            return 0
        now = time.monotonic()
        flow = Witness(protocol="udp", family=Family(address.version), uplink=number, born=now, last=now)
        self._watch(flow, self._beacon(flow, sock))
        return number

    def _watch(self, flow: Witness, work: Coroutine[Any, Any, None]) -> None:
        self.flows.append(flow)
        self._tasks.append(asyncio.create_task(work))

    async def _converse(self, flow: Witness, connection: Connection) -> None:
        with closing(connection):
            while True:
                try:
                    await connection.ask("beat", patience=_PATIENCE)
                except OSError as error:
                    flow.broken, flow.error = time.monotonic(), error_name(error)
                    return
                flow.answered()
                await asyncio.sleep(self._beat)

    async def _beacon(self, flow: Witness, sock: socket.socket) -> None:
        with sock:
            for beat in count():
                try:
                    seen = await exchange(self._lab, sock, f"beat {beat}", patience=_UDP_PATIENCE)
                except OSError:
                    flow.lost += 1
                else:
                    flow.answered()
                    if seen != flow.now_by:
                        flow.moves.append(Move(time.monotonic(), flow.now_by, seen or 0))
                await asyncio.sleep(self._beat)
