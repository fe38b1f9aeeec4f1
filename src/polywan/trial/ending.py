"""How a trial ends: confirmed, or rolled back and verified. Each may be done again after a crash at any point."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

from polywan import presence
from polywan.api import calls
from polywan.api.requests import Nothing, OfTrial, WhatToPlan
from polywan.api.status import Status
from polywan.api.trials import TrialState
from polywan.client import Client
from polywan.config import paths_beside
from polywan.core.errors import ControlError, PolywanError
from polywan.core.trial.deciding import Place as Holds
from polywan.core.trial.deciding import lost
from polywan.core.trial.record import Record
from polywan.core.trial.texts import different, digest_of_all
from polywan.trial import processes
from polywan.trial.asking import in_force
from polywan.trial.place import REJECTED, Place

T = TypeVar("T")

END_TIMEOUT: Final = 15.0
"""Seconds that the daemon may take to put a configuration in force: with 254 uplinks and large lists some."""

START_TIMEOUT: Final = 20.0
"""Seconds that a daemon may take to start."""

RESTORED_WITHIN: Final = 30.0
"""Seconds that uplinks may take to be up again: five answers, a hold-down of 10 s and their turn."""

_POLL: Final = 0.1


def complete(place: Place, record: Record, by: str) -> TrialState:
    """Bring a confirmed trial to its end: the new text is in its place, the daemon has it, the record goes.

    Raises:
        PolywanError: the daemon does not take it; the place holds the new text, and this may be called again.
    """
    state = _client(record).ask(calls.CONFIRM, OfTrial(id=record.id, by=by))
    place.drop()
    return state


def confirm(place: Place, record: Record, by: str) -> TrialState:
    """Put the new text into its place, which confirms it, and have the daemon know.

    Raises:
        PolywanError: a file was changed since the trial began, or the place cannot be written; or as `complete`.
    """
    holds = place.holds(record)
    if holds is not Holds.NEW:
        names = {*different(in_force(_client(record), place), place.texts())} - {record.name}
        if holds is Holds.OTHER:
            names.add(record.name)
        if names:
            paths = ", ".join(str(place.path(name)) for name in sorted(names))
            raise PolywanError(
                f"changed since the trial began: {paths}; nothing was confirmed: put back what was there and confirm "
                "again, or end the trial with `polywan rollback`"
            )
        place.write(record.name, record.text)
    return complete(place, record, by)


def restore(place: Place, record: Record, by: str, reason: str, words_to: int | None = None) -> tuple[str, ...]:
    """Roll a trial back, and verify that what was in force is: file, daemon, kernel and uplinks.

    Args:
        place: where the configuration is; it holds what was in force all along.
        record: the trial.
        by: user who ends it.
        reason: why, for people.
        words_to: descriptor for what a daemon says that has to be started; None leaves that to the supervisor.

    Returns:
        What was up before and is not, for people; nothing is left to do about it here.

    Raises:
        PolywanError: something is not as it was, and says what; this may be called again.
    """
    if not record.armed:
        forget(place, record)
        return ()
    if place.holds(record) is Holds.NEW:
        # It was confirmed a moment ago, and whoever did that was killed then.
        raise PolywanError(f"it was confirmed already: {place.path(record.name)} says it")
    client, was_on_trial = _client(record), False
    try:
        pending = client.ask(calls.TRIAL, Nothing()).pending
        was_on_trial = pending is not None and pending.id == record.id
        client.ask(calls.ROLL_BACK, OfTrial(id=record.id, by=by, reason=reason))
    except ControlError as error:
        if words_to is None:
            raise
        was_on_trial = False
        _start(record, str(error), words_to)
        client.ask(calls.ROLL_BACK, OfTrial(id=record.id, by=by, reason=reason))
    _verify(place, record, was_on_trial=was_on_trial)
    down = _wait_for(lambda: not _down(record), lambda: _down(record), RESTORED_WITHIN)
    forget(place, record)
    return down or ()


def forget(place: Place, record: Record) -> None:
    """Forget a trial; a text that was edited in its place stays there, or is beside it from now on."""
    if record.edited and place.holds(record) is not Holds.NEW:
        place.write(record.name + REJECTED, record.text)
    place.drop()


def _start(record: Record, why: str, words_to: int) -> None:
    """Start the daemon again, and wait until it answers."""
    processes.start_again(record.daemon, words_to)
    client = _client(record)

    def answers() -> bool:
        try:
            return client.ask(calls.STATUS, Nothing()).ready
        except ControlError:
            return False

    if _wait_for(answers, lambda: True, START_TIMEOUT):
        raise PolywanError(f"the daemon did not answer ({why}), and one that was started in its place does not either")


def _verify(place: Place, record: Record, *, was_on_trial: bool) -> None:
    """Demand that daemon and kernel have what was in force, or what a new daemon has found in the file's place.

    Raises:
        PolywanError: they have not.
    """
    client = _client(record)
    texts, digest = in_force(client, place), client.ask(calls.TRIAL, Nothing()).digest
    if digest != digest_of_all(texts) or (was_on_trial and digest != record.in_force):
        raise PolywanError("the daemon does not have the old configuration")
    asked = WhatToPlan(files=paths_beside(place.file, texts), namespace=presence.namespace())

    def differs() -> tuple[str, ...]:
        return tuple(op.text for op in client.ask(calls.PLAN, asked).ops)

    if ops := _wait_for(lambda: not differs(), differs, RESTORED_WITHIN):
        raise PolywanError(f"the kernel still differs from the old configuration: {'; '.join(ops[:3])}")


def _down(record: Record) -> tuple[str, ...]:
    status = _client(record).ask(calls.STATUS, Nothing())
    return lost(record.up, states(status), {one.name: one.reason for one in status.uplinks})


def states(status: Status) -> dict[str, str]:
    """Return the state of each uplink."""
    return {one.name: one.state for one in status.uplinks}


def _wait_for(good: Callable[[], bool], otherwise: Callable[[], T], seconds: float) -> T | None:
    """Wait until something is good, and return None; after so many seconds return what there is otherwise."""
    until = time.monotonic() + seconds
    while not good():
        if time.monotonic() > until:
            return otherwise()
        time.sleep(_POLL)
    return None


def _client(record: Record) -> Client:
    return Client(Path(record.runtime_dir), END_TIMEOUT)
