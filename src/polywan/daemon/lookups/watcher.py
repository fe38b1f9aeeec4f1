"""Keep `Lookups` true: look at files and control groups every other second, ask names when their time is over."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final, Protocol

from polywan.config import Config
from polywan.core.state.events import Event, LookupsChanged
from polywan.core.words import printable
from polywan.core.world import domains
from polywan.core.world.domains import Domain
from polywan.core.world.lookups import NOTHING, Lookups, PrefixList, References, users, wanted
from polywan.daemon import clock
from polywan.daemon.lookups.machine import FILE_QUIET, Local, look
from polywan.daemon.lookups.resolver import Resolver
from polywan.kernel import cgroups

log = logging.getLogger("polywan")

POLL: Final = 2.0
"""Seconds between looks. Not inotify(7): it would have to follow every folder and link on the way to a file, which
editors replace and which may not exist yet, and control groups and clocks would need the looks all the same."""

FIRST_LOOKUP_WAIT: Final = 1.0
"""Seconds that the first decision waits for names, so that a restart does not empty sets that are full."""

REPLY_FOLD: Final = 0.05
"""Seconds in which replies are gathered into one event."""

CONCURRENT_NAMES: Final = 8
"""Names that are being asked at the same time."""


class Sink(Protocol):
    """Takes events; `daemon/loop.py` is the one."""

    def post(self, event: Event) -> None:
        """Hand over an event."""
        ...

    async def settle(self, event: Event) -> None:
        """Hand over an event and wait until it is in force."""
        ...

    async def stage(self, lists: Iterable[PrefixList]) -> None:
        """Prepare for an event with these lists."""
        ...


class LookupWatcher:
    """Follows what the rules of a configuration refer to, and posts `LookupsChanged` when something differs."""

    def __init__(self, sink: Sink, resolver: Resolver, mounts: Path = cgroups.MOUNTS) -> None:
        self._sink = sink
        self._resolver = resolver
        self._mounts = mounts
        self._wanted = References()
        self._users: Mapping[str, tuple[int, ...]] = {}
        self._local = Local()
        self._domains: dict[str, Domain] = {}
        self._known = NOTHING
        self._looking = asyncio.Lock()
        self._asking: dict[str, asyncio.Task[None]] = {}
        self._slots = asyncio.Semaphore(CONCURRENT_NAMES)
        self._news = asyncio.Event()
        self._gathering: asyncio.TimerHandle | None = None

    async def follow(self, config: Config, patience: float = 0.0) -> Lookups:
        """Turn to a configuration and return what is known for it; the caller posts it with the configuration.

        Args:
            config: about to be in force; what it no longer refers to is forgotten.
            patience: seconds to wait for names that were never asked; later replies come by themselves.
        """
        async with self._looking:
            needed = wanted(config)
            local = await self._look(needed)
            # All at once: a reply that comes meanwhile is still put together for the old configuration.
            self._wanted, self._users, self._local = needed, users(config), local
            self._domains = {name: self._domains.get(name, Domain()) for name in needed.domains}
            self._ask_due()
            if patience and self._asking:
                await asyncio.wait(self._asking.values(), timeout=patience)
            self._news.set()
            return self._update()

    async def refresh(self) -> None:
        """Look at what is on this machine now, and return when that is in force."""
        async with self._looking:
            self._local = await self._look(self._wanted)
        await self._sink.settle(LookupsChanged(self._update()))

    async def run(self) -> None:
        """Watch until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._watch())
                group.create_task(self._renew())
        finally:
            for task in self._asking.values():
                task.cancel()
            if self._gathering is not None:
                self._gathering.cancel()

    async def _watch(self) -> None:
        while True:
            await clock.turn(FILE_QUIET if self._local.busy else POLL)
            async with self._looking:
                self._local = await self._look(self._wanted)
                self._publish()

    async def _look(self, needed: References) -> Local:
        if needed.lists:
            found = await asyncio.to_thread(look, needed, self._local, self._mounts)
        else:
            # Files may be on a slow disk; all else is the kernel's, and asked faster than a thread is.
            found = look(needed, self._local, self._mounts)
        for path, state in found.lists.items():
            old = self._local.lists.get(path)
            if state.good is not None and (old is None or state.good is not old.good):
                counts = f"{len(state.good.v4)} IPv4 and {len(state.good.v6)} IPv6 prefixes"
                log.info("list.read: %s: %s", printable(path), counts)
        await self._sink.stage(state.good for state in found.lists.values() if state.good is not None)
        return found

    async def _renew(self) -> None:
        clock = asyncio.get_running_loop().time
        while True:
            self._news.clear()
            self._ask_due()
            idle = [known.due for name, known in self._domains.items() if name not in self._asking]
            try:
                async with asyncio.timeout_at(max(min(idle), clock()) if idle else None):
                    await self._news.wait()
            except TimeoutError:
                continue

    def _ask_due(self) -> None:
        now = asyncio.get_running_loop().time()
        for name, known in self._domains.items():
            if known.due <= now and name not in self._asking:
                self._asking[name] = asyncio.create_task(self._ask(name))

    async def _ask(self, name: str) -> None:
        try:
            async with self._slots:
                reply = await self._resolver.ask(name)
        finally:
            del self._asking[name]
            self._news.set()
        loop = asyncio.get_running_loop()
        if name in self._domains:
            self._domains[name] = domains.learn(self._domains[name], name, reply, loop.time())
            if self._gathering is None:
                self._gathering = loop.call_later(REPLY_FOLD, self._publish)

    def _publish(self) -> None:
        self._gathering = None
        before = self._known
        if self._update() != before:
            self._sink.post(LookupsChanged(self._known))

    def _update(self) -> Lookups:
        """Put together what is known, and log what has become wrong or right."""
        before = self._known.problems
        self._known = _together(self._users, self._local, self._domains)
        for problem in self._known.problems:
            if problem not in before:
                log.warning("lookup.failed: %s", problem)
        for problem in before:
            if problem not in self._known.problems:
                log.info("lookup.recovered: no longer the case: %s", problem)
        return self._known


async def look_once(config: Config, resolver: Resolver | None) -> Lookups:
    """Look everything up once and follow nothing, for `plan`; without a resolver names stay unknown."""
    needed = wanted(config)
    local = await asyncio.to_thread(look, needed, Local())
    names = needed.domains if resolver else ()
    replies = await asyncio.gather(*(resolver.ask(name) for name in names)) if resolver else []
    known = {name: domains.learn(Domain(), name, reply, 0.0) for name, reply in zip(names, replies, strict=True)}
    return _together(users(config), local, known)


def _together(rules: Mapping[str, tuple[int, ...]], local: Local, names: Mapping[str, Domain]) -> Lookups:
    return Lookups(
        lists={path: state.good for path, state in local.lists.items() if state.good is not None},
        domains={name: known.addresses for name, known in names.items() if known.seen},
        cgroups=local.cgroups,
        utc_offset=local.utc_offset,
        kernel_west=local.kernel_west,
        problems=tuple(map(printable, _problems(rules, local, names))),
    )


def _problems(rules: Mapping[str, tuple[int, ...]], local: Local, names: Mapping[str, Domain]) -> Iterator[str]:
    for path, state in local.lists.items():
        if state.problem:
            kept = "the last good contents stay in force" if state.good else _never(rules[path])
            yield f"{state.problem}; {kept}"
    for name, known in names.items():
        if known.problem:
            kept = "its last addresses stay in force" if known.seen else _never(rules[name])
            yield f"{name} does not resolve: {known.problem}; {kept}"


def _never(numbers: tuple[int, ...]) -> str:
    return f"this condition never matches (rule {', '.join(map(str, numbers))})"
