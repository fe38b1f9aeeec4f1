"""How a trial begins: checked, on disk, watched; only then is the new configuration in force."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from polywan.api import calls
from polywan.api.requests import Nothing, ToTry
from polywan.api.running import Reloaded
from polywan.api.status import Status
from polywan.api.trials import TrialState
from polywan.client import Client
from polywan.config import load_texts, paths_beside
from polywan.core.errors import ConfigError, ControlError, PolywanError
from polywan.core.status.times import iso
from polywan.core.trial.deciding import HOW_IT_ENDS, WELL
from polywan.core.trial.deciding import Place as Holds
from polywan.core.trial.record import Daemon, Record
from polywan.core.trial.texts import different, digest_of
from polywan.trial import ending, processes
from polywan.trial.arming import arm
from polywan.trial.asking import in_force
from polywan.trial.moments import boot, now
from polywan.trial.place import Place


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One file that is to be another.

    Attributes:
        name: below the configuration's directory.
        text: what it would say.
        before: what it says in force; None when there is none.
        edited: the text is in the file's place already.
    """

    name: str
    text: str
    before: str | None
    edited: bool


def tidy(place: Place, state: TrialState, by: str, tell: Callable[[str], None]) -> None:
    """Refuse a second trial; tell of one that nothing watches any more, and end it.

    Raises:
        PolywanError: one is under way, or cannot be ended.
    """
    old = place.pending()
    if old is not None and not abandoned(old):
        raise PolywanError(under_way(old.user, old.until))
    if old is None and state.pending is not None:
        raise PolywanError(f"{state.pending.by} tries a configuration until {state.pending.until}: wait for its end")
    if old is None:
        return
    if old.armed and place.holds(old) is Holds.NEW:
        ending.complete(place, old, old.user)
        return
    tell(f"the change that {old.user} tried at {_local(old.since)} was not confirmed and is not in force")
    if state.pending is None:
        ending.forget(place, old)
    else:
        ending.restore(place, old, by, "nothing watches it any more")


def abandoned(record: Record) -> bool:
    """True when nothing watches a trial any more."""
    return record.boot != boot() or record.supervisor is None or not processes.runs(record.supervisor)


def under_way(user: str, until: float) -> str:
    """Say that a configuration is on trial."""
    return f"on trial until {_local(until)} by {user}: {HOW_IT_ENDS}"


def change_of(place: Place, client: Client, file: Path | None, text: str | None) -> Change:
    """Return what is to be tried.

    Args:
        place: the configuration's directory.
        client: of the daemon, which knows what is in force.
        file: the new text of the main file; None or that file itself: what was edited in its place.
        text: what the file says.

    Raises:
        PolywanError: nothing is different, or more than one file.
        ConfigError: a file cannot be read.
    """
    before, there = in_force(client, place), place.texts()
    names = different(before, there)
    if file is not None and text is not None and file.resolve() != place.file.resolve():
        if names:
            raise PolywanError(
                f"{_listed(place, names)} differs from what is in force: run `polywan try` without FILE to try that, "
                "or `polywan reload`, first"
            )
        name = place.file.name
        if any(file.resolve() == place.path(part).resolve() for part in there):
            raise PolywanError(f"{file} is a part of the configuration already: edit it, then run `polywan try` alone")
        if there.get(name) == text:
            raise PolywanError(f"{file} says what is in force: there is nothing to try")
        return Change(name=name, text=text, before=there.get(name), edited=False)
    if not names:
        raise PolywanError(
            f"{place.file} and conf.d say what is in force: edit one of them, or name another file to try"
        )
    if len(names) > 1:
        raise PolywanError(f"{_listed(place, names)} differ from what is in force, and a trial is about one file")
    (name,) = names
    if name not in there:
        raise PolywanError(
            f"{place.path(name)} was removed, and a trial is about what a file says: use `polywan reload`"
        )
    return Change(name=name, text=there[name], before=before.get(name), edited=True)


def check(place: Place, change: Change, shown_as: str) -> None:
    """Demand that a change makes a good configuration.

    Raises:
        ConfigError: with every problem that was found, those of the file under the name that the user gave it.
    """
    texts = paths_beside(place.file, {**place.texts(), change.name: change.text})
    path = str(place.path(change.name))
    load_texts({shown_as if name == path else name: text for name, text in texts.items()})


def begin(
    place: Place, client: Client, change: Change, *, by: str, seconds: float, runtime_dir: Path
) -> tuple[Record, Reloaded]:
    """Put a checked change in force on trial; whatever fails before that leaves all as it was.

    Args:
        place: the configuration's directory, held.
        client: of the daemon.
        change: what is tried.
        by: user who tries it.
        seconds: until it ends unless it is confirmed.
        runtime_dir: where the daemon listens.

    Returns:
        The record as it is on disk, and what the daemon did.

    Raises:
        PolywanError: it did not come to that.
    """
    daemon = processes.daemon_at(runtime_dir)
    if daemon is None:
        raise PolywanError(
            "the daemon could not be started again: its process cannot be seen, or has another user and no systemd "
            "unit; run this command as the daemon's user or root, where /proc shows all processes"
        )
    status, digest = client.ask(calls.STATUS, Nothing()), client.ask(calls.TRIAL, Nothing()).digest
    record = _record(change, daemon, status, digest, by=by, seconds=seconds, runtime_dir=runtime_dir)
    place.keep(record)
    try:
        record = _armed(place, record, change)
        files = _ordered(place, {**place.texts(), change.name: change.text})
    except BaseException:
        _undo(place, change)
        raise
    try:
        done = client.ask(calls.TRY, ToTry(id=record.id, by=by, until=iso(record.until), seconds=seconds, files=files))
    except BaseException as error:
        if isinstance(error, ConfigError) or (isinstance(error, ControlError) and error.status):
            _undo(place, change)
        else:
            # It may be in force by now: the supervisor ends it.
            place.keep(replace(record, deadline=now()))
        raise
    record = replace(record, began=now())
    place.keep(record)
    return record, done


def _record(
    change: Change, daemon: Daemon, status: Status, digest: str, *, by: str, seconds: float, runtime_dir: Path
) -> Record:
    since = time.time()
    return Record(
        id=secrets.token_hex(4),
        user=by,
        since=since,
        until=since + seconds,
        boot=boot(),
        began=0.0,
        deadline=now() + seconds,
        runtime_dir=str(runtime_dir.absolute()),
        name=change.name,
        text=change.text,
        old="" if change.before is None else digest_of(change.before),
        in_force=digest,
        edited=change.edited,
        armed=not change.edited,
        up=tuple(one.name for one in status.uplinks if one.state in WELL),
        daemon=daemon,
    )


def _undo(place: Place, change: Change) -> None:
    """Leave all as it was before a trial that did not begin."""
    if change.edited and place.read(change.name) != change.text:
        place.write(change.name, change.text)
    place.drop()


def _armed(place: Place, record: Record, change: Change) -> Record:
    """Give the file's place what is in force, and have the trial watched."""
    if change.edited:
        if change.before is None:
            place.remove(change.name)
        else:
            place.write(change.name, change.before)
        record = replace(record, armed=True)
        place.keep(record)
    return arm(place, record)


def _ordered(place: Place, files: Mapping[str, str]) -> dict[str, str]:
    """Return texts in the order in which the loader reads files: the main one, then the others by name."""
    main = place.file.name
    return {name: files[name] for name in (main, *sorted(files.keys() - {main})) if name in files}


def _listed(place: Place, names: tuple[str, ...]) -> str:
    return ", ".join(str(place.path(name)) for name in names)


def _local(unix: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(unix))
