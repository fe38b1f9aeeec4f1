"""The supervisor of a trial: a process of its own that ends it, whatever becomes of terminal, client and daemon."""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Final

from polywan.api import calls
from polywan.api.requests import Nothing
from polywan.api.trials import TrialState
from polywan.client import Client
from polywan.config.errors import ConfigError
from polywan.core.errors import ControlError, PolywanError
from polywan.core.trial.deciding import Next, Seen, following
from polywan.core.trial.deciding import Place as Holds
from polywan.core.trial.record import Record
from polywan.trial import ending, processes
from polywan.trial.moments import boot, now
from polywan.trial.place import Place

log = logging.getLogger("polywan.trial")

PERIOD: Final = 1.0
"""Seconds between two looks."""

LOOK_TIMEOUT: Final = 3.0
"""Seconds that the daemon may take to say what is on trial."""

NEXT_TRY: Final = 5.0
"""Seconds until the next try to roll back."""


def state_of(runtime_dir: Path) -> TrialState | None:
    """Return what the daemon says of trials; None when it does not answer."""
    with suppress(ControlError):
        return Client(runtime_dir, LOOK_TIMEOUT).ask(calls.TRIAL, Nothing())
    return None


def watch(file: Path) -> None:
    """Watch the trial of a configuration until it is confirmed or rolled back.

    Raises:
        PolywanError: there is no trial, or its record cannot be written.
    """
    for number in (signal.SIGHUP, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    os.chdir("/")
    place = Place(file)
    record = place.pending()
    if record is None:
        raise PolywanError(f"there is no trial of {file}")
    words_to = _words_of(record)
    if not processes.under_systemd():
        os.dup2(words_to, sys.stderr.fileno())
    place.keep(replace(record, supervisor=processes.me()))
    answered = now()
    while True:
        time.sleep(PERIOD)
        found = _record(place, record)
        if found is None:
            return
        record, seen = found, _look(place, found, answered)
        answered = seen.answered
        step, why = following(record, seen)
        if step is not Next.WATCH:
            if _carried_out(place, record, step, why, words_to):
                return
            time.sleep(NEXT_TRY)


def _record(place: Place, before: Record) -> Record | None:
    """Return the record of the trial; None when another program has ended it."""
    try:
        found = place.pending()
    except PolywanError as error:
        log.warning("trial.unreadable: %s", error)
        return before  # what was read of it is as good
    return found if found is not None and found.id == before.id else None


def _look(place: Place, record: Record, answered: float) -> Seen:
    """Return what there is to see of a trial."""
    state = state_of(Path(record.runtime_dir))
    at = now()
    try:
        holds = place.holds(record)
    except ConfigError:
        holds = Holds.OTHER
    return Seen(
        boot=boot(),
        now=at,
        place=holds,
        running=processes.runs(record.daemon.process),
        stopped=state is None and processes.stopped(record.daemon, Path(record.runtime_dir)),
        answered=at if state is not None else answered,
        answers=state is not None,
        on_trial=state.pending.id if state is not None and state.pending is not None else None,
    )


def _carried_out(place: Place, record: Record, step: Next, why: str, words_to: int) -> bool:
    """Complete or end a trial; False when that has to be tried again."""
    try:
        with place.held():
            if (found := place.pending()) is None or found.id != record.id:
                return True
            # Somebody may have confirmed it since the look.
            if step is Next.COMPLETE or (record.armed and place.holds(record) is Holds.NEW):
                ending.complete(place, record, record.user)
            elif step is Next.FORGET:
                log.warning("trial.dropped: %s", why)
                ending.forget(place, record)
            else:
                ending.restore(place, record, "polywan", why, words_to)
    except (PolywanError, OSError) as error:
        log.error("trial.stuck: %s; trying again in %g s", error, NEXT_TRY)
        return False
    return True


def _words_of(record: Record) -> int:
    """Return a descriptor for what a new daemon says: where the one before says it, if possible."""
    with suppress(OSError):
        return os.open(f"/proc/{record.daemon.process.pid}/fd/2", os.O_WRONLY | os.O_NOCTTY | os.O_CLOEXEC)
    return os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
