"""Read what polywan itself knows: its file, a running daemon, and the journal."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from polywan import presence
from polywan.api import calls
from polywan.api.events import LinkEvent
from polywan.api.requests import Nothing, OfEvents, What
from polywan.api.status import Status
from polywan.client import Client
from polywan.client import runtime_dir as resolve
from polywan.config import Config, load_with_warnings
from polywan.core.errors import ConfigError, ControlError, MissingFeature, NotPermitted, PolywanError
from polywan.core.routing.sysctls import wants_multipath
from polywan.doctor.box import OwnWarnings
from polywan.kernel.linux import LinuxKernel

DAY: Final = 86400.0
_PATIENCE: Final = 4.0
_MOST_EVENTS: Final = 1000


class File(NamedTuple):
    """The configuration: None with what is wrong with it; nothing is wrong with a file that is not there."""

    config: Config | None = None
    faults: tuple[str, ...] = ()


def file(path: Path) -> File:
    """Return the configuration."""
    if not path.exists():
        return File()
    try:
        return File(load_with_warnings(path).config)
    except ConfigError as error:
        return File(faults=tuple(map(str, error.problems)) or (str(error),))


def _client(chosen: Path | None) -> Client | None:
    here = presence.found()
    if here is None and chosen is None:
        return None
    return Client(here.runtime_dir if here and not chosen else resolve(chosen), _PATIENCE)


def status(chosen: Path | None) -> Status | None:
    """Return what the daemon of this network namespace says; None when none runs.

    Raises:
        ControlError: it runs and does not answer, or refuses.
    """
    client = _client(chosen)
    try:
        return client.ask(calls.STATUS, Nothing()) if client else None
    except ControlError as error:
        if presence.found() is None and error.status == 0:
            return None
        raise


def events(chosen: Path | None, state_dir: Path) -> Sequence[LinkEvent]:
    """Return what became of the uplinks during the last day; without a daemon, what the last one has recorded.

    Raises:
        ControlError: as `status`.
        PolywanError: no daemon runs, and its file cannot be read.
    """
    client = _client(chosen) if presence.found() is not None or chosen is not None else None
    if client is None:
        return _recorded(state_dir, time.time() - DAY, _MOST_EVENTS)
    return client.ask(calls.JOURNAL, OfEvents(since=f"{DAY / 3600:.0f}h")).events


def _recorded(state_dir: Path, since: float | None, most: int) -> Sequence[LinkEvent]:
    from polywan.daemon.journal import EventQuery, JournalError, recorded

    try:
        return recorded(state_dir, EventQuery(None, since, None, most))
    except JournalError as error:
        raise PolywanError(str(error)) from error


def last_events(chosen: Path | None, state_dir: Path, most: int) -> Sequence[LinkEvent]:
    """Return the last entries of the journal, oldest first; errors as `events`."""
    client = _client(chosen) if presence.found() is not None or chosen is not None else None
    if client is None:
        return _recorded(state_dir, None, most)
    document = client.ask(calls.JOURNAL, OfEvents())
    found: list[LinkEvent] = []
    after, more = max(0, document.last - most), True
    while more:
        document = client.ask(calls.JOURNAL, OfEvents(after=str(after), journal=document.journal))
        found += document.events
        after, more = document.last, document.more
    return found[-most:]


def in_force(chosen: Path | None) -> Mapping[str, Any] | None:
    """Return the configuration that a running daemon works by, as JSON has it; None without one.

    Raises:
        ControlError: as `status`.
    """
    client = _client(chosen) if presence.found() is not None else None
    if client is None:
        return None
    text = client.ask(calls.SHOW, What(what="config")).text
    return json.loads(text) if text else None


def warnings(config: Config | None, state_dir: Path, running: Status | None) -> OwnWarnings:
    """Return what polywan itself warns of, but for what checks find by themselves.

    Raises:
        PolywanError: the kernel cannot be read.
    """
    from polywan.daemon import offline

    said = running.warnings if running is not None else ()
    return OwnWarnings(*offline.own_warnings(config, state_dir, said)) if config else OwnWarnings(passing=said)


def lacking(config: Config) -> tuple[str, ...]:
    """Return what the kernel and the system lack of what polywan needs; its modules are loaded, as by polywan itself.

    Raises:
        NotPermitted: this user may not ask.
        PolywanError: a question failed in a way that does not tell.
    """
    try:
        kernel = LinuxKernel()
    except MissingFeature as error:
        return (str(error),)
    try:
        missing = kernel.missing(multipath=wants_multipath(config))
    finally:
        kernel.close()
    if any("CAP_NET_ADMIN" in text for text in missing):
        raise NotPermitted("what the kernel lacks is shown to root only")
    return tuple(missing)
