"""A trial without a daemon: the real files, a daemon in memory, and programs that die where a test wants it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

from polywan.api import calls
from polywan.api.calls import Call
from polywan.api.running import Planned, Reloaded
from polywan.api.trials import EndedTrial, Texts, Trial, TrialState
from polywan.core.errors import ControlError, PolywanError
from polywan.core.trial.deciding import Next, Seen, following
from polywan.core.trial.record import Daemon, Process, Record
from polywan.core.trial.texts import different, digest_of_all, sent
from polywan.trial import arming, begin, ending, processes
from polywan.trial.place import Place
from support.documents import status

NAMESPACE = "net"
USER = "alice"


class Crash(BaseException):
    """A program was killed, or the power failed."""


class MemoryDaemon:
    """Answers as the daemon does, from a place; dead until it is started."""

    def __init__(self, place: Place, fuse: Fuse) -> None:
        self._place, self._fuse = place, fuse
        self.alive = False
        self.in_force: Mapping[str, str] = {}
        self.confirmed: Mapping[str, str] = {}
        self.pending: Trial | None = None
        self.last: EndedTrial | None = None
        self.start()

    def start(self) -> None:
        if not self.alive:
            self.alive, self.pending, self.last = True, None, None
            self.in_force = self.confirmed = self._place.texts()

    def kill(self) -> None:
        self.alive = False

    def ask(self, call: Call[Any, Any], asked: Any) -> Any:
        self._fuse.burn()
        if not self.alive:
            raise ControlError("no daemon answers")
        answer = self._answer(call, asked)
        self._fuse.burn()
        return answer

    def _answer(self, call: Call[Any, Any], asked: Any) -> Any:
        match call:
            case calls.PAST_TEXTS:
                return Texts(files=sent(self.confirmed))
            case calls.STATUS:
                return status()
            case calls.PLAN:
                return Planned(ops=(), warnings=())
            case calls.TRY:
                if self.pending is not None:
                    raise ControlError("on trial", 409)
                self.in_force = dict(asked.files)
                self.pending = Trial(id=asked.id, by=asked.by, since="", until=asked.until)
                return Reloaded(generation=1, changed=True, ms=0.0, changes=())
            case calls.CONFIRM:
                return self._confirm(asked.id)
            case calls.ROLL_BACK:
                if self.pending is not None:
                    self.in_force = self.confirmed
                self._over(asked.id, confirmed=False)
        return self.state()

    def _confirm(self, trial: str) -> TrialState:
        there = self._place.texts()
        if self.pending is None:
            self.in_force = there
        elif any(there.get(name) != self.in_force.get(name) for name in different(self.confirmed, self.in_force)):
            raise ControlError("the place says something else", 409)
        self.confirmed = self.in_force
        self._over(trial, confirmed=True)
        return self.state()

    def _over(self, trial: str, *, confirmed: bool) -> None:
        self.pending = None
        self.last = EndedTrial(id=trial, confirmed=confirmed, by=USER, at="", reason="")

    def state(self) -> TrialState:
        return TrialState(
            pending=self.pending,
            last=self.last,
            file=str(self._place.file),
            namespace=NAMESPACE,
            digest=digest_of_all(self.in_force),
        )


class Fuse:
    """Kills the program at its n-th step; a step is before and after every change of a file and every call."""

    def __init__(self) -> None:
        self.steps: int | None = None

    def burn(self) -> None:
        if self.steps is None:
            return
        if self.steps <= 0:
            raise Crash
        self.steps -= 1


class TrialWorld:
    """A configuration, its daemon, and what users and supervisors do; `now` is the time and `boot` the boot."""

    def __init__(self, directory: Path, text: str) -> None:
        self.place = Place(directory / "polywan.toml")
        self.place.file.write_text(text)
        self.fuse = Fuse()
        self.daemon = MemoryDaemon(self.place, self.fuse)
        self.now, self.boot = 1000.0, "boot 1"
        self.watching = False

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Have the modules of `polywan.trial` meet this world."""
        write, drop, remove = Place._write, Place.drop, Place.remove

        def burning(work: Any) -> Any:
            def careful(*words: Any) -> None:
                self.fuse.burn()
                work(*words)
                self.fuse.burn()

            return careful

        with ExitStack() as stack:
            for target, name, value in (
                (Place, "_write", burning(write)),
                (Place, "drop", burning(drop)),
                (Place, "remove", burning(remove)),
                (ending, "_client", lambda record: self.daemon),
                (ending, "RESTORED_WITHIN", 0.0),
                (processes, "start_again", lambda daemon, words_to: self.daemon.start()),
                (processes, "runs", lambda process: self.watching),
                (processes, "daemon_at", lambda directory: _DAEMON),
                (arming, "arm", self._arm),
                (begin, "arm", self._arm),
                (begin, "now", lambda: self.now),
                (begin, "boot", lambda: self.boot),
            ):
                stack.enter_context(patch.object(target, name, value))
            yield

    def _arm(self, place: Place, record: Record) -> Record:
        self.fuse.burn()
        self.watching = True
        armed = replace(record, supervisor=Process(pid=2, start=self._starts()))
        place.keep(armed)
        return armed

    def _starts(self) -> int:
        return int(self.now)

    def attempt(self, text: str | None, seconds: float = 90.0) -> None:
        """`polywan try` of a text, or of what was edited in its place."""
        file = None if text is None else Path("/elsewhere/new.toml")
        state = self.daemon.ask(calls.TRIAL, None)
        client: Any = self.daemon
        with self.place.held():
            begin.tidy(self.place, state, USER, lambda line: None)
            change = begin.change_of(self.place, client, file, text)
            begin.begin(self.place, client, change, by=USER, seconds=seconds, runtime_dir=Path("/run"))

    def confirm(self) -> None:
        """`polywan confirm`."""
        with self.place.held():
            if (record := self.place.pending()) is not None and not begin.abandoned(record):
                ending.confirm(self.place, record, USER)

    def roll_back(self) -> None:
        """`polywan rollback`."""
        with self.place.held():
            if (record := self.place.pending()) is not None:
                ending.restore(self.place, record, USER, "asked for", 2)

    def supervise(self) -> None:
        """One look of the supervisor, and what follows."""
        record = self.place.pending()
        if not self.watching or record is None:
            self.watching = False
            return
        pending = self.daemon.pending
        seen = Seen(
            boot=self.boot,
            now=self.now,
            place=self.place.holds(record),
            running=self.daemon.alive,
            answered=self.now,
            answers=self.daemon.alive,
            on_trial=pending.id if pending is not None else None,
        )
        step, why = following(record, seen)
        if step is Next.COMPLETE:
            ending.complete(self.place, record, record.user)
        elif step is Next.ROLL_BACK:
            ending.restore(self.place, record, "polywan", why, 2)

    def reboot(self) -> None:
        """Everything ends, and the daemon starts again."""
        self.watching = False
        self.boot += "+"
        self.now = 10.0
        self.daemon.kill()
        self.daemon.start()

    def tidy(self) -> None:
        """What the next `polywan try` does first."""
        with self.place.held():
            begin.tidy(self.place, self.daemon.ask(calls.TRIAL, None), USER, lambda line: None)


_DAEMON = Daemon(process=Process(pid=1, start=1), argv=("polywan", "run"), cwd="/", environment={}, unit="")

REFUSED = PolywanError
