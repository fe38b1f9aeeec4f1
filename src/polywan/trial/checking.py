"""What is looked at after the change, before the user is asked: daemon, uplinks, and the user's own connection."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeAlias

from polywan.api import calls
from polywan.api.requests import Nothing, OfSession
from polywan.client import Client
from polywan.core.errors import ControlError, KernelError
from polywan.core.net import IPAddress
from polywan.core.trial.deciding import WELL, lost
from polywan.core.trial.record import Record
from polywan.core.trial.session import Session
from polywan.kernel.conntrack.progress import Progress
from polywan.trial.ending import states

UNANSWERED: Final = 2.0
"""Seconds after which a client that answers nothing has lost its connection; a satellite answers within one."""

Measure: TypeAlias = Callable[[IPAddress, int, IPAddress, int], Progress | None]
"""How far a connection is, as `kernel.conntrack.progress.progress` tells."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """What was found.

    Attributes:
        failures: what is not as before, for people; empty when all is.
        seen: what was checked and is well, for people.
        final: what is not as before does not get better by waiting.
        proven: the peer of the session has acknowledged what was sent since the change, or there is no session.
    """

    failures: tuple[str, ...]
    seen: tuple[str, ...]
    final: bool = False
    proven: bool


class Checks:
    """Looks again and again after one change.

    Args:
        client: of the daemon.
        session: the administrator's connection; None on a console.
        measure: tells how far that is.
    """

    def __init__(self, client: Client, session: Session | None, measure: Measure) -> None:
        self._client = client
        self._session = session
        self._measure = measure
        self._before = self._progress()

    def look(self, record: Record, since: float) -> Findings:
        """Return what is well and what is not, so many seconds after the change."""
        try:
            status = self._client.ask(calls.STATUS, Nothing())
            session = self._look_at_session(since)
        except ControlError as error:
            return Findings(failures=(str(error),), seen=(), proven=False)
        found = states(status)
        down = lost(record.up, found, {one.name: one.reason for one in status.uplinks})
        serving = [name for name, state in found.items() if state in WELL]
        up = [] if down else [f"up: {', '.join(serving) or 'no uplink, as before'}"]
        return Findings(
            failures=(*down, *session.failures),
            seen=(*up, *session.seen),
            final=session.final or any(found.get(name) == "missing" for name in record.up),
            proven=session.proven,
        )

    def _look_at_session(self, since: float) -> Findings:
        session = self._session
        if session is None:
            return Findings(failures=(), seen=(), proven=True)
        path = self._client.ask(calls.SESSION, OfSession(session=str(session)))
        by = f" by {path.uplink or path.interface}" if path.uplink or path.interface else ""
        name = f"your connection from {session.peer}{by}"
        if path.problem:
            return Findings(failures=(f"{name} is cut: {path.problem}",), seen=(), final=True, proven=False)
        before, now = self._before, self._progress()
        if before is None:
            return Findings(failures=(), seen=(f"{name} has its path; its answers cannot be seen here",), proven=False)
        if now is None:
            return Findings(failures=(f"{name} ended with the change",), seen=(), final=True, proven=False)
        if now.acknowledged > before.acknowledged and now.silent < since:
            return Findings(failures=(), seen=(f"{name} still has answers",), proven=True)
        if now.waiting and now.silent > max(since, UNANSWERED):
            return Findings(failures=(f"{name} has had no answer since the change",), seen=(), proven=False)
        return Findings(failures=(), seen=(f"{name} has its path; nothing was sent on it since",), proven=False)

    def _progress(self) -> Progress | None:
        if self._session is None:
            return None
        try:
            s = self._session
            return self._measure(s.local, s.local_port, s.peer, s.peer_port)
        except KernelError:
            return None
