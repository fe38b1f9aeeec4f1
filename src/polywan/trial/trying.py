"""`polywan try` from its beginning to its end."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Self

from polywan.api.running import Reloaded
from polywan.client import Client
from polywan.config import file_text
from polywan.core.errors import PolywanError
from polywan.core.trial.record import Record
from polywan.trial import asking, begin, ending, session, waiting
from polywan.trial.checking import Checks, Findings, Measure
from polywan.trial.moments import now
from polywan.trial.place import Place
from polywan.trial.waiting import End, Outcome
from polywan.trial.watching import state_of

CLOCK_TICK: Final = 0.02
"""Seconds; the kernel counts those since an acknowledgement in ticks of 10 ms at most."""

RELOAD_TIMEOUT: Final = 60.0
"""Seconds that the daemon may take to put a configuration in force."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What the user asked for.

    Attributes:
        runtime_dir: where the daemon listens.
        config: its configuration.
        file: the new configuration; None for what was edited in its place.
        seconds: until it ends unless it is confirmed.
        auto_confirm: confirm when all checks are well.
        command: words by which the user confirms it.
    """

    runtime_dir: Path
    config: Path
    file: Path | None
    seconds: int
    auto_confirm: bool
    command: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """A trial that has begun."""

    wish: Wish
    by: str
    place: Place
    record: Record
    done: Reloaded
    checks: Checks


def run(
    wish: Wish, measure: Measure, tell: Callable[[str], None], tick: Callable[[float], None]
) -> tuple[Attempt, Outcome]:
    """Put the new configuration in force on trial, look whether all is well, and wait for its end.

    Args:
        wish: what is asked for.
        measure: tells how far a connection is.
        tell: takes lines for people.
        tick: is called with the seconds that remain.

    Raises:
        PolywanError: it did not begin; all is as it was.
    """
    with _terminal_may_go(), _Interrupts() as interrupts:
        attempt = _begun(wish, measure, tell, interrupts)
        try:
            interrupts.release()
            found = waiting.settled(attempt.checks, attempt.record)
            for line in (*found.seen, *found.failures):
                tell(line)
            if found.failures:
                return attempt, _roll_back(attempt, "; ".join(found.failures))
        except KeyboardInterrupt:
            return attempt, _roll_back(attempt, f"interrupted by {attempt.by}")
    try:
        if wish.auto_confirm and found.proven:
            with attempt.place.held():
                ending.confirm(attempt.place, attempt.record, attempt.by)
        else:
            tell(_question(wish, found))
    except PolywanError as error:
        return attempt, _roll_back(attempt, f"it could not be confirmed: {error}")
    except KeyboardInterrupt:
        return attempt, _roll_back(attempt, f"interrupted by {attempt.by}")
    try:
        return attempt, waiting.ended(attempt.place, attempt.record, lambda: state_of(wish.runtime_dir), tick)
    except KeyboardInterrupt:
        return attempt, _roll_back(attempt, f"interrupted by {attempt.by}")


def _begun(wish: Wish, measure: Measure, tell: Callable[[str], None], interrupts: _Interrupts) -> Attempt:
    client, by = Client(wish.runtime_dir, RELOAD_TIMEOUT), session.user()
    place, text = Place(wish.config.absolute()), None if wish.file is None else file_text(wish.file)
    state = asking.here(client, place.file)
    checks = Checks(client, session.here(), measure)
    with place.held():
        begin.tidy(place, state, by, tell)
        change = begin.change_of(place, client, wish.file, text)
        begin.check(place, change, str(wish.file or place.path(change.name)))
        interrupts.hold()
        record, done = begin.begin(place, client, change, by=by, seconds=wish.seconds, runtime_dir=wish.runtime_dir)
    # What is said now is to be acknowledged later than the change, as the kernel counts: in ticks of its clock.
    time.sleep(CLOCK_TICK)
    if change.edited:
        tell(f"{place.path(change.name)} has its old text again until the new one is confirmed")
    tell(f"on trial for {wish.seconds} s: {'; '.join(done.changes) or 'no change in what the file says'}")
    return Attempt(wish=wish, by=by, place=place, record=record, done=done, checks=checks)


@contextmanager
def _terminal_may_go() -> Iterator[None]:
    """Outlive a change that takes our terminal with it: that is what is to be noticed."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGHUP, before)


class _Interrupts:
    """Holds Ctrl-C back while a trial begins: in the middle of that nobody could say what is in force.

    A second Ctrl-C is not held back, should the daemon hang; then the supervisor ends the trial.
    """

    def __init__(self) -> None:
        self._came = False

    def __enter__(self) -> Self:
        self._before = signal.getsignal(signal.SIGINT)
        return self

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGINT, self._before)

    def hold(self) -> None:
        """Hold the next one back."""
        if self._before is not signal.SIG_IGN:
            signal.signal(signal.SIGINT, self._take)

    def release(self) -> None:
        """Let the one happen that came, and those to come.

        Raises:
            KeyboardInterrupt: one came.
        """
        signal.signal(signal.SIGINT, self._before)
        if self._came:
            raise KeyboardInterrupt

    def _take(self, *_: object) -> None:
        if self._came:
            raise KeyboardInterrupt
        self._came = True


def _roll_back(attempt: Attempt, reason: str) -> Outcome:
    """Roll back at once; where that does not work, leave it to the supervisor, which does not give up.

    Somebody else may have confirmed or ended it meanwhile; then that is how it ended.
    """
    place, record = attempt.place, attempt.record
    try:
        with place.held():
            found = place.pending()
            if found is not None and found.id == record.id:
                ending.restore(place, found, attempt.by, reason)
                return Outcome(end=End.ROLLED_BACK, by=attempt.by, reason=reason)
    except (PolywanError, OSError):
        with suppress(PolywanError):
            found = place.pending()
            if found is not None and found.id == record.id:
                place.keep(replace(found, deadline=now()))
    waited = waiting.ended(place, record, lambda: state_of(attempt.wish.runtime_dir), lambda _: None)
    return replace(waited, reason=reason) if waited.end is End.ROLLED_BACK else waited


def _question(wish: Wish, found: Findings) -> str:
    why = "" if found.proven or not wish.auto_confirm else "not confirmed by itself, as it is not proven; "
    where = ", from a new ssh session," if session.confirmer().remote else ""
    return f"{why}keep it with `{wish.command}`{where} within {wish.seconds} s"
