"""`polywan confirm` and `polywan rollback`."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from polywan.api import calls
from polywan.api.requests import ToReload
from polywan.api.running import Reloaded
from polywan.client import Client
from polywan.core.errors import ControlError, NotPermitted, PolywanError
from polywan.core.trial.deciding import Place as Holds
from polywan.core.trial.deciding import refusal
from polywan.core.trial.record import Record
from polywan.core.trial.texts import different
from polywan.trial import asking, begin, ending, session
from polywan.trial.place import Place

RELOAD_TIMEOUT: Final = 60.0
NO_TRIAL: Final = (
    "no configuration is on trial; `polywan history` lists those that were in force, `polywan rollback N` goes back"
)


def confirm(file: Path, *, force: bool, here: bool) -> Record:
    """Keep the configuration on trial.

    Args:
        file: the daemon's configuration.
        force: also when another user tries it.
        here: also from a connection that is older than the change.

    Raises:
        NotPermitted: this user or this connection may not confirm it.
        PolywanError: there is no trial, or it could not be confirmed.
    """
    place = Place(file.absolute())
    with place.held():
        record = place.pending()
        if record is None or (begin.abandoned(record) and place.holds(record) is not Holds.NEW):
            raise PolywanError(NO_TRIAL if record is None else _gone(record))
        if why := refusal(record, session.confirmer(), force=force, here=here):
            raise NotPermitted(f"not confirmed: {why}")
        ending.confirm(place, record, session.user())
    return record


def end(file: Path) -> tuple[Record, tuple[str, ...]]:
    """End the trial, and return what it was, and which uplinks are not up as they were before.

    Raises:
        PolywanError: there is none, or it could not be ended yet; its supervisor goes on trying.
    """
    place, by = Place(file.absolute()), session.user()
    with place.held():
        record = place.pending()
        if record is None:
            raise PolywanError(NO_TRIAL)
        if record.armed and place.holds(record) is Holds.NEW:
            ending.complete(place, record, record.user)
            raise PolywanError(f"it was confirmed already; {NO_TRIAL.partition('; ')[2]}")
        return record, ending.restore(place, record, by, f"ended by {by}")


class Past:
    """A configuration of the history, to go back to."""

    def __init__(self, runtime_dir: Path, file: Path, number: int) -> None:
        self._client = Client(runtime_dir, RELOAD_TIMEOUT)
        self._place = Place(file.absolute())
        asking.here(self._client, self._place.file)
        self._texts = asking.in_force(self._client, self._place, number)
        self.before = self._place.texts()

    @property
    def after(self) -> dict[str, str]:
        """The texts of its files by name."""
        return self._texts

    @property
    def names(self) -> tuple[str, ...]:
        """The files that would change."""
        return different(self.before, self._texts)

    def put_back(self, *, force: bool) -> Reloaded:
        """Put its texts into their places and have the daemon take them; refused, all is as it was.

        Raises:
            ConfigError: it is no good configuration any more.
            ControlError: the daemon refuses it.
            PolywanError: a trial is under way, a file was changed since `before` was read, or cannot be written.
        """
        with self._place.held():
            if (record := self._place.pending()) is not None and not begin.abandoned(record):
                raise PolywanError(begin.under_way(record.user, record.until))
            if changed := different(self.before, self._place.texts()):
                paths = ", ".join(str(self._place.path(name)) for name in changed)
                raise PolywanError(f"changed since the difference was shown: {paths}; look at it again")
            connection = session.here()
            try:
                self._put(self.before, self._texts)
                return self._client.ask(
                    calls.RELOAD,
                    ToReload(
                        by=session.user(),
                        session=None if connection is None else str(connection),
                        force="true" if force else None,
                        how="rollback",
                    ),
                )
            except BaseException as error:
                # Without an answer it may be in force: then the files say so.
                if isinstance(error, PolywanError) and (not isinstance(error, ControlError) or error.status):
                    self._put(self._texts, self.before)
                raise

    def _put(self, before: dict[str, str], after: dict[str, str]) -> None:
        there = self._place.texts()
        for name in different(before, after):
            if there.get(name) == after.get(name):
                continue
            if name in after:
                self._place.write(name, after[name])
            else:
                self._place.remove(name)


def _gone(record: Record) -> str:
    return (
        f"the trial of {record.user} is over: nothing watches it, and it was not confirmed; run `polywan rollback` to "
        "tidy up, then try again"
    )
