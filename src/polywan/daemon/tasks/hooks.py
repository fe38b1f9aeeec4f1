"""Call the administrator's programs for what becomes of uplinks, beside the loop: nothing ever waits for one.

Calls of one uplink follow each other in order; those of several run side by side, a few at a time. A program is started
in a thread, since its file may be on a disk that hangs.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from polywan.api.events import LinkEvent
from polywan.child import TALKATIVE, Child, manner, start
from polywan.core.journal.hooks import ALL_DOWN, ANY_UP
from polywan.core.state.state import State
from polywan.core.status.link_events import variables
from polywan.core.words import counted, printable
from polywan.threads import Threads

log = logging.getLogger("polywan")

MOST_WAITING: Final = 16
"""Calls of one uplink that wait for the one before them: more only tell of a hook that hangs while the link flaps."""

MOST_RUNNING: Final = 8
"""Hooks that run side by side, whatever many uplinks do at once."""

MOST_OUTPUT: Final = 20
"""Lines that one call may put into the log."""

LONGEST_LINE: Final = 200
"""Characters of such a line."""

GRACE: Final = 1.0
"""Seconds that hooks have to end when the daemon does, before they are killed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Call:
    """A hook to call: its key, its command, what it is told, and how long it may take (seconds)."""

    hook: str
    uplink: str
    command: tuple[str, ...]
    environment: dict[str, str]
    timeout: float

    @property
    def name(self) -> str:
        return f"{self.hook} of {self.uplink}"


class HookRunner:
    """Calls hooks as long as it runs.

    Args:
        state: returns what the daemon knows; its configuration names the hooks.
    """

    def __init__(self, state: Callable[[], State]) -> None:
        self._state = state
        self._queues: dict[str, deque[_Call]] = {}
        self._workers: dict[str, asyncio.Task[None]] = {}
        self._children: set[Child] = set()
        self._problems: dict[str, tuple[tuple[str, ...], str]] = {}
        self._room = asyncio.Semaphore(MOST_RUNNING)
        self._threads = Threads(2, "hooks")
        self._failed: asyncio.Future[None] | None = None
        self._ending = False

    @property
    def troubles(self) -> tuple[str, ...]:
        """Which hooks have failed the last time, for people; not those that the file has replaced since."""
        wanted = self._state().known.config
        return tuple(
            f"hook {hook} fails: {text}"
            for hook, (command, text) in self._problems.items()
            if wanted is not None and wanted.file.hooks.command(hook) == command
        )

    @property
    def busy(self) -> bool:
        """True while a hook runs, or waits for its turn."""
        return bool(self._workers or any(self._queues.values()))

    def call(self, entry: LinkEvent, hooks: Sequence[str], serving: Sequence[str]) -> None:
        """Have the hooks called that the configuration has for these keys, and return at once."""
        known = self._state().known
        if known.config is None or self._ending:
            return
        wanted = known.config.file.hooks
        for hook in hooks:
            command = wanted.command(hook)
            if command is None:
                continue
            numbers = known.numbers.get(entry.uplink)
            environment = variables(entry, hook, serving, numbers.table if numbers else None)
            self._add(
                # What is about all uplinks follows what was about all of them before.
                "" if hook in (ALL_DOWN, ANY_UP) else entry.uplink,
                _Call(hook=hook, uplink=entry.uplink, command=command, environment=environment, timeout=wanted.timeout),
            )

    def _add(self, line: str, call: _Call) -> None:
        waiting = self._queues.setdefault(line, deque())
        waiting.append(call)
        if len(waiting) > MOST_WAITING:
            # The newest say how it is now.
            dropped = waiting.popleft()
            log.warning("hook.dropped: %s: %d calls wait for the hook before them", dropped.name, MOST_WAITING)
        if line not in self._workers and self._failed is not None:
            self._begin(line)

    def _begin(self, line: str) -> None:
        self._workers[line] = task = asyncio.create_task(self._work(line))
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None and self._failed is not None:
            self._failed.set_exception(error)

    async def run(self) -> None:
        """Call hooks until cancelled; those that run then are ended within `GRACE`."""
        self._failed = asyncio.get_running_loop().create_future()
        for line in self._queues:
            self._begin(line)
        try:
            await self._failed
        finally:
            await self._end()

    async def _end(self) -> None:
        self._ending = True
        waiting = sum(map(len, self._queues.values()))
        if waiting:
            log.warning("hook.dropped: %s not made: the daemon ends", counted(waiting, "call"))
        self._queues.clear()
        for child in self._children:
            child.started.signal(signal.SIGTERM)
        if workers := [*self._workers.values()]:
            await asyncio.wait(workers, timeout=GRACE)
            for task in workers:
                task.cancel()
            await asyncio.gather(*workers, return_exceptions=True)

    async def _work(self, line: str) -> None:
        while self._queues.get(line):
            async with self._room:
                if waiting := self._queues.get(line):
                    await self._carry_out(waiting.popleft())
        self._queues.pop(line, None)
        del self._workers[line]

    async def _carry_out(self, call: _Call) -> None:
        began = asyncio.get_running_loop().time()
        try:
            problem = await self._run(call)
        except Exception as error:  # noqa: BLE001 - whatever is wrong with a hook, the daemon goes on
            problem = f"{printable(call.command[0])}: {type(error).__name__}: {printable(str(error))}"
        took = asyncio.get_running_loop().time() - began
        if self._ending:
            log.info("hook.ended: %s was ended after %.1f s: the daemon ends", call.name, took)
            return
        log.debug("hook: %s took %.3f s", call.name, took)
        if not problem:
            if self._problems.pop(call.hook, None):
                log.info("hook.recovered: %s ran without a fault", call.name)
        elif (call.command, problem) != self._problems.get(call.hook):
            # A hook that fails each time in the same way is told once; `status` shows it as long as it does.
            log.warning("hook.failed: %s: %s", call.name, problem)
            self._problems[call.hook] = call.command, problem

    async def _run(self, call: _Call) -> str:
        """Run a program to its end; return what is wrong with it, for people, and nothing when all is well."""
        program = printable(call.command[0]) or '""'
        deadline = asyncio.get_running_loop().time() + call.timeout
        try:
            async with asyncio.timeout_at(deadline):
                started = await start(call.command, call.environment, self._threads)
        except TimeoutError:
            return f"{program} did not start within {call.timeout:g} s"
        except (OSError, ValueError) as error:
            reason = error.strerror.lower() if isinstance(error, OSError) and error.strerror else str(error)
            return f"{program} cannot be run: {reason}"
        words = _Words(call.name)
        child = Child(started, words.take)
        self._children.add(child)
        late, companions = False, 0
        try:
            async with asyncio.timeout_at(deadline):
                await child.over.wait()
            if child.total <= TALKATIVE:
                companions = await asyncio.wrap_future(self._threads.submit(started.companions))
        except TimeoutError:
            late = True
        finally:
            self._children.discard(child)
            try:
                await child.kill(GRACE)
            finally:
                # What the kernel holds back even now ends later: the loop does not wait for it.
                status = child.end(0.0)
                words.close()
        if late:
            return f"{program} did not end within {call.timeout:g} s and was killed"
        if child.total > TALKATIVE:
            return f"{program} wrote more than {TALKATIVE >> 20} MiB and was killed"
        if status != 0:
            return f"{program}: {manner(status)}"
        return f"{program} left programs running in its background, which were killed" if companions else ""


class _Words:
    """What a hook says, as lines of the log."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._rest = b""
        self._lines = 0

    def take(self, data: bytes) -> None:
        """Log whole lines up to `MOST_OUTPUT`, and count the rest: one that floods must not keep the loop busy."""
        *lines, rest = (self._rest + data).split(b"\n", max(0, MOST_OUTPUT - self._lines))
        for line in lines:
            self._say(line)
        if self._lines >= MOST_OUTPUT:
            self._lines += rest.count(b"\n")
        self._rest = rest[: 4 * LONGEST_LINE] if self._lines < MOST_OUTPUT else b""

    def close(self) -> None:
        """Log what came without an end of line, and how much was not logged."""
        if self._rest:
            self._say(self._rest)
        if self._lines > MOST_OUTPUT:
            log.info("hook.output: %s: %s more", self._name, counted(self._lines - MOST_OUTPUT, "line"))

    def _say(self, line: bytes) -> None:
        self._lines += 1
        if text := printable(line.decode(errors="replace").strip()):
            log.info("hook.output: %s: %s", self._name, text[:LONGEST_LINE])
