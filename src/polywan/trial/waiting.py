"""What `polywan try` does while the trial is under way: it looks, says what it sees, and waits for its end."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Final

from polywan.api.trials import TrialState
from polywan.core.errors import PolywanError
from polywan.core.trial.deciding import Place as Holds
from polywan.core.trial.record import Record
from polywan.trial import arming, processes
from polywan.trial.checking import Checks, Findings
from polywan.trial.moments import now
from polywan.trial.place import Place

SETTLE: Final = 20.0
"""Seconds that uplinks may take to be up under the new configuration: five answers, and a hold-down of 10 s."""

EARLIEST: Final = 3.0
"""Seconds after which all that needs no probe has settled; no success is told earlier."""

_POLL: Final = 0.25


class End(StrEnum):
    """How a trial ended; `STOPPED` with the daemon, and the kernel forwards by the new one until that is started."""

    CONFIRMED = "confirmed"
    ROLLED_BACK = "rolled back"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The end of a trial: how, by whom, and why it was rolled back."""

    end: End
    by: str
    reason: str


def settled(checks: Checks, record: Record) -> Findings:
    """Look until all is well, or for good is not."""
    bound = min(SETTLE, (record.deadline - record.began) / 2)
    while True:
        since = now() - record.began
        found = checks.look(record, since)
        well = not found.failures and since >= EARLIEST and (found.proven or since >= 2 * EARLIEST)
        if well or since >= bound or (found.final and since >= EARLIEST):
            return found
        time.sleep(_POLL)


def ended(place: Place, record: Record, ask: Callable[[], TrialState | None], tick: Callable[[float], None]) -> Outcome:
    """Wait until the trial is over, and return how it ended; start a supervisor again that was killed.

    Args:
        place: where the record is.
        record: the trial.
        ask: returns what the daemon says; None when it does not answer.
        tick: is called with the seconds that remain, below zero when it is overdue.
    """
    while True:
        state = ask()
        if state is not None and state.last is not None and state.last.id == record.id:
            end = End.CONFIRMED if state.last.confirmed else End.ROLLED_BACK
            if end is End.CONFIRMED or _gone(place, record):
                return Outcome(end=end, by=state.last.by, reason=state.last.reason)
        elif _gone(place, record):
            return Outcome(end=_without_daemon(place, record, state), by="polywan", reason="")
        else:
            record = _watched(place, record)
        tick(record.deadline - now())
        time.sleep(_POLL)


def _without_daemon(place: Place, record: Record, state: TrialState | None) -> End:
    """Return how a trial ended of which the daemon that is there now, if any, knows nothing."""
    if place.holds(record) is Holds.NEW:
        return End.CONFIRMED
    gone = state is None and processes.stopped(record.daemon, Path(record.runtime_dir))
    return End.STOPPED if gone else End.ROLLED_BACK


def _gone(place: Place, record: Record) -> bool:
    try:
        found = place.pending()
    except PolywanError:
        return False
    return found is None or found.id != record.id


def _watched(place: Place, record: Record) -> Record:
    """Return the record, with a supervisor that runs."""
    if record.supervisor is not None and processes.runs(record.supervisor):
        return record
    with suppress(PolywanError), place.held():
        found = place.pending()
        if found is not None and found.id == record.id:
            return arming.arm(place, replace(found, began=record.began))
    return record
