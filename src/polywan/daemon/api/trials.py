"""Reloads, trials and what was in force before: may a configuration be put in force now, and who asks for it?"""

from __future__ import annotations

import asyncio
import logging
import os
import pwd
import time
from collections.abc import Coroutine, Mapping
from contextlib import suppress
from datetime import datetime
from ipaddress import ip_address
from typing import Any, Final

from polywan.api.requests import Nothing, OfPast, OfSession, OfTrial, ToReload, ToTry
from polywan.api.running import Reloaded
from polywan.api.trials import EndedTrial, PastConfigurations, SessionPath, Texts, Trial, TrialState
from polywan.config import Config, Loaded, load_texts, names_below, paths_beside, readable_texts
from polywan.core.errors import ConfigError, ControlError, KernelError
from polywan.core.status.config_changes import changes
from polywan.core.status.times import iso
from polywan.core.trace.route_query import RouteQuery
from polywan.core.trial import cutting
from polywan.core.trial.deciding import HOW_IT_ENDS
from polywan.core.trial.history import Entry, How, is_newest, shown
from polywan.core.trial.record import RECORD_SUFFIX
from polywan.core.trial.session import Session, parse
from polywan.core.trial.texts import different, digest_of_all, sent
from polywan.core.words import printable
from polywan.core.world.paths import NoPath
from polywan.daemon.api import plan as planning
from polywan.daemon.api.peers import asking
from polywan.daemon.history import History
from polywan.daemon.loop import Daemon
from polywan.daemon.reloading import Reloader
from polywan.kernel.api import Machine
from polywan.presence import namespace

log = logging.getLogger("polywan")

SCHEMA: Final = 1
"""Version of the history's document; fields are added, never changed."""

OVERDUE: Final = 10.0
"""Seconds after the end of a trial at which the daemon ends it itself: the supervisor does it before, unless it was
killed together with everything else."""

_LONGEST_NAME: Final = 64


class Trials:
    """Puts configurations in force, for good or on trial.

    Args:
        daemon: the loop.
        kernel: asked about cutting.
        reloader: what puts a configuration in force.
        history: of what was.
    """

    def __init__(self, daemon: Daemon, kernel: Machine, reloader: Reloader, history: History) -> None:
        self._daemon = daemon
        self._kernel = kernel
        self._reloader = reloader
        self._history = history
        self._pending: Trial | None = None
        self._before: Mapping[str, str] = {}
        self._last: EndedTrial | None = None
        self._end: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._turn = asyncio.Lock()

    @property
    def warnings(self) -> tuple[str, ...]:
        """What people should know, for `status`."""
        if self._pending is None:
            return ()
        return (f"{_said(self._pending)}: {HOW_IT_ENDS}",)

    async def begin(self, loaded: Loaded) -> None:
        """Put the first configuration in force; the history comes from the disk meanwhile."""
        await self._reloader.begin(loaded)
        self._spawn(self._recall(loaded.config))

    async def _recall(self, config: Config) -> None:
        file = self._reloader.file
        record = file.with_name(file.name + RECORD_SUFFIX)
        if await asyncio.to_thread(os.path.lexists, record):
            log.warning("trial.left: %s: the daemon before ended in a trial; what %s says is in force", record, file)
        async with self._turn:
            await self._history.load()
            # As a rule it is what was in force before, and need not be compared.
            if not is_newest(self._history.entries, digest_of_all(self._reloader.texts)):
                before = await asyncio.to_thread(_before, self._history)
                await self._enter("start", "polywan", before, config)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def reload(self, asked: ToReload) -> Reloaded:
        """Read the file again, for good.

        Raises:
            ControlError: a trial is under way, or the session of whoever asks would be cut (409).
            ConfigError: the file is bad.
        """
        async with self._turn:
            self._demand_none()
            loaded = await self._reloader.read() if asked.session and asked.force != "true" else None
            if loaded is not None and asked.session and (why := await self._cut(asked.session, loaded.config)):
                raise ControlError(
                    f"your session {_peer(asked.session)} would be cut: {why}; use `polywan try` without FILE, which "
                    "brings the old configuration back, or --force",
                    409,
                )
            return await self._reload("rollback" if asked.how == "rollback" else "reload", _user(asked.by), loaded)

    async def hangup(self) -> None:
        """SIGHUP: reload; why it was refused is in the log already."""
        async with self._turn:
            if self._pending is not None:
                log.error("reload.refused: %s", printable(_said(self._pending)))
                return
            with suppress(ConfigError, ControlError):
                await self._reload("reload", "polywan")

    async def _reload(self, how: How, user: str, loaded: Loaded | None = None) -> Reloaded:
        before = self._in_force
        done = await self._reloader.reload(loaded)
        await self._enter(how, user, before, self._in_force)
        return done

    async def state(self, _: Nothing) -> TrialState:
        """Return what is on trial."""
        return TrialState(
            pending=self._pending,
            last=self._last,
            file=str(self._reloader.file),
            namespace=namespace(),
            digest=digest_of_all(self._reloader.texts),
        )

    async def begin_trial(self, asked: ToTry) -> Reloaded:
        """Put a configuration in force until it is confirmed, or rolled back.

        Raises:
            ControlError: another is on trial (409), or the end is no moment (400).
            ConfigError: it is bad.
        """
        _demand_moment(asked.until)
        loaded = await asyncio.to_thread(load_texts, paths_beside(self._reloader.file, asked.files))
        async with self._turn:
            self._demand_none()
            before = self._reloader.texts
            done = await self._reloader.reload(loaded)
            self._before = before
            self._pending = Trial(id=asked.id, by=_user(asked.by), since=iso(time.time()), until=asked.until)
        log.info("trial.begun: %s", printable(_said(self._pending)))
        loop = asyncio.get_running_loop()
        self._end = loop.call_later(max(0.0, asked.seconds) + OVERDUE, self._overdue)
        return done

    async def confirm(self, asked: OfTrial) -> TrialState:
        """Keep what is on trial; the file's place says it by now. May be asked again.

        What somebody has written into other files meanwhile is not in force, as without a trial.

        Raises:
            ControlError: that is not on trial here, or the place says something else (409).
            ConfigError: the file is bad.
        """
        async with self._turn:
            self._demand_no_other(asked.id)
            if self._pending is not None:
                await self._demand_in_place()
            elif not self._is_last(asked.id):
                # This daemon was started before the place said it, and after the trial began.
                await self._reloader.reload()
            by = _user(asked.by)
            if self._over(EndedTrial(id=asked.id, confirmed=True, by=by, at=iso(time.time()), reason="")):
                log.info("trial.confirmed: by %s", printable(by))
            await self._enter("trial", by, await asyncio.to_thread(_before, self._history), self._in_force)
        return await self.state(Nothing())

    async def roll_back(self, asked: OfTrial) -> TrialState:
        """Put in force what was before the trial, whatever the files say by now. May be asked again.

        Without the trial, as after a start, what is in force stays: it is what the file's place said.

        Raises:
            ControlError: another is on trial (409), or what was before cannot be put in force; then the trial goes on.
            ConfigError: that has become bad.
        """
        async with self._turn:
            self._demand_no_other(asked.id)
            if self._pending is not None:
                before = paths_beside(self._reloader.file, self._before)
                await self._reloader.reload(await asyncio.to_thread(load_texts, before))
            by, reason = _user(asked.by), asked.reason or ""
            if self._over(EndedTrial(id=asked.id, confirmed=False, by=by, at=iso(time.time()), reason=reason)):
                log.warning("trial.rolled_back: %s; the configuration before it is in force", printable(reason))
        return await self.state(Nothing())

    async def history(self, _: Nothing) -> PastConfigurations:
        """Return what was in force."""
        return PastConfigurations(schema=SCHEMA, entries=shown(self._history.entries), problem=self._history.problem)

    async def past(self, asked: OfPast) -> Texts:
        """Return the texts of a configuration of the history; 0 is in force, with a trial the one before it.

        Raises:
            ControlError: there is no such number (404), or its texts were not kept (410).
        """
        number = int(asked.number) if asked.number.isascii() and asked.number.isdigit() else -1
        if number == 0 and self._pending is None:
            return Texts(files=sent(self._reloader.texts))
        if not 0 <= number < len(self._history.entries):
            raise ControlError(f"there is no configuration {asked.number[:10]}: see `polywan history`", 404)
        texts = self._history.entries[number].files
        if texts is None:
            raise ControlError(f"the text of configuration {number} was too large to be kept", 410)
        return Texts(files=sent(texts))

    async def session(self, asked: OfSession) -> SessionPath:
        """Return how the packets of a connection to this box leave now.

        Raises:
            ControlError: it is none (400).
        """
        return await asyncio.to_thread(self._path, _parsed(asked.session))

    @property
    def _in_force(self) -> Config | None:
        config = self._daemon.state.known.config
        return None if config is None else config.file

    def _demand_none(self) -> None:
        if self._pending is not None:
            raise ControlError(f"{_said(self._pending)}: {HOW_IT_ENDS}; then try again", 409)

    def _demand_no_other(self, trial: str) -> None:
        if self._pending is not None and self._pending.id != trial:
            raise ControlError(_said(self._pending), 409)

    async def _demand_in_place(self) -> None:
        """Demand that the files which the trial changes say what is on trial."""
        there = await asyncio.to_thread(readable_texts, self._reloader.file)
        wanted, found = self._reloader.texts, names_below(self._reloader.file, there[0])
        if differing := [name for name in different(self._before, wanted) if found.get(name) != wanted.get(name)]:
            raise ControlError(f"{', '.join(differing)} is not what is on trial: nothing was confirmed", 409)

    def _is_last(self, trial: str) -> bool:
        return self._last is not None and self._last.id == trial

    def _over(self, ended: EndedTrial) -> bool:
        """Take in the end of a trial; False when it was known."""
        if self._end is not None:
            self._end.cancel()
        known = self._is_last(ended.id) and self._pending is None
        self._pending, self._end, self._before = None, None, {}
        if not known:
            self._last = ended
        return not known

    def _overdue(self) -> None:
        pending = self._pending
        if pending is None:
            return
        reason = "it was not confirmed in time, and its supervisor is gone"
        self._spawn(self._give_up(OfTrial(id=pending.id, by="polywan", reason=reason)))

    async def _give_up(self, asked: OfTrial) -> None:
        try:
            await self.roll_back(asked)
        except (ConfigError, ControlError) as error:
            log.error("trial.stuck: %s; trying again in %g s", error, OVERDUE)
            self._end = asyncio.get_running_loop().call_later(OVERDUE, self._overdue)

    async def _enter(self, how: How, user: str, before: Config | None, after: Config | None) -> None:
        texts = dict(self._reloader.texts)
        if after is None:
            return
        said = changes(before, after) if before is not None else ()
        digest = digest_of_all(texts)
        await self._history.add(
            Entry(time=time.time(), user=user, how=how, changes=tuple(said), digest=digest, files=texts)
        )

    async def _cut(self, text: str, config: Config) -> str:
        session = _parsed(text)
        mark = await asyncio.to_thread(self._mark, session)
        before = self._daemon.state
        if cutting.uplink_of(before, mark) is None:
            return ""
        _, after = await planning.rehearsed(self._daemon, self._kernel, config)
        return cutting.cut(before, after, session, mark)

    def _mark(self, session: Session) -> int:
        config = self._daemon.state.known.config
        if config is None:
            return 0
        flows = self._kernel.flows(config.layout.mask)
        return next((flow.mark for flow in flows if cutting.is_it(session, flow)), 0)

    def _path(self, session: Session) -> SessionPath:
        state, mark = self._daemon.state, 0
        with suppress(KernelError):
            mark = self._mark(session)
        name = cutting.uplink_of(state, mark)
        query = RouteQuery(family=session.family, destination=session.peer, source=session.local, mark=mark)
        try:
            answer = self._kernel.ask(query)
        except KernelError as error:
            return SessionPath(uplink=name, interface=None, problem=str(error))
        problem = "" if answer.kind in ("unicast", "local") else f"its answers have no route ({answer.kind})"
        if mark and name is None:
            problem = "the uplink by which it came in is not in the configuration in force"
        elif name is not None and state.known.config is not None:
            wanted = state.known.config.uplinks[name].interface
            reached = state.decision.reach.get((name, session.family))
            if reached is None or isinstance(reached, NoPath):
                problem = f"{name}, by which it came in, has no IPv{int(session.family)} path"
            elif answer.link != wanted:
                problem = f"its answers leave by {answer.link or 'no device'} instead of {wanted}"
        return SessionPath(uplink=name, interface=answer.link, problem=problem)


def _before(history: History) -> Config | None:
    """Return the configuration of the newest entry, as far as it still makes sense."""
    texts = history.entries[0].files if history.entries else None
    with suppress(ConfigError):
        return load_texts(texts).config if texts else None
    return None


def _parsed(text: str) -> Session:
    try:
        return parse(text)
    except ValueError as error:
        raise ControlError(f"session: {error}", 400) from error


def _demand_moment(text: str) -> None:
    try:
        datetime.fromisoformat(text).astimezone()
    except (ValueError, OverflowError) as error:
        raise ControlError(f"until: expected a moment in ISO 8601, got {text[:40]!r}", 400) from error


def _peer(text: str) -> str:
    return f"from {ip_address(_parsed(text).peer)}"


def _said(trial: Trial) -> str:
    until = datetime.fromisoformat(trial.until).astimezone()
    return f"on trial until {until:%H:%M:%S} by {trial.by}"


def _user(said: str | None) -> str:
    """Return who asks: as root's client says, or the user of the connection."""
    uid = asking.get()
    if said and uid == 0:
        return printable(said[:_LONGEST_NAME])
    try:
        return pwd.getpwuid(uid).pw_name
    except (KeyError, OverflowError):
        return f"user {uid}"
