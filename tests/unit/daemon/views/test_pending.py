"""The files on disk beside what is in force."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

from polywan.api.requests import Nothing
from polywan.api.views.pending import PendingConfiguration
from polywan.daemon.lookups.resolver import SystemResolver
from polywan.daemon.lookups.watcher import LookupWatcher
from polywan.daemon.loop import Daemon
from polywan.daemon.reloading import Reloader
from polywan.daemon.views.pending import Pending
from support.daemons import running

FILE = '[uplinks.u1]\ninterface = "wan1"\n[uplinks.u2]\ninterface = "wan2"\n'


def with_pending(directory: Path, story: Callable[[Pending, Path, Daemon], Awaitable[None]]) -> None:
    file = directory / "polywan.toml"
    file.write_text(FILE)

    async def play() -> None:
        async with running(directory / "state") as (daemon, kernel):
            reloader = Reloader(daemon, kernel, LookupWatcher(daemon, SystemResolver()), file)
            await reloader.reload()
            await story(Pending(daemon, kernel, reloader), file, daemon)

    asyncio.run(play())


def put(file: Path, text: str | bytes) -> None:
    file.write_bytes(text.encode() if isinstance(text, str) else text)


async def answer_of(pending: Pending) -> PendingConfiguration:
    return await pending.pending(Nothing())


def test_files_that_say_what_is_in_force_are_no_difference(tmp_path: Path) -> None:
    async def story(pending: Pending, file: Path, daemon: Daemon) -> None:
        found = await answer_of(pending)
        assert not found.differs
        assert found.in_force == found.on_disk == {"polywan.toml": FILE}
        assert (found.files, found.problems, found.changes, found.operations) == ((), (), (), ())

    with_pending(tmp_path, story)


def test_a_changed_file_is_shown_with_what_a_reload_would_do_and_does_nothing(tmp_path: Path) -> None:
    async def story(pending: Pending, file: Path, daemon: Daemon) -> None:
        put(file, FILE + "weight = 3\n")
        generation = daemon.state.done.generation
        found = await answer_of(pending)
        assert found.differs
        assert found.files == ("polywan.toml",)
        assert found.on_disk["polywan.toml"] == FILE + "weight = 3\n"
        assert found.in_force["polywan.toml"] == FILE
        assert found.changes == ("weight changed for u2",)
        assert found.operations
        assert daemon.state.done.generation == generation

    with_pending(tmp_path, story)


def test_a_file_that_came_or_went_is_a_difference(tmp_path: Path) -> None:
    async def story(pending: Pending, file: Path, daemon: Daemon) -> None:
        (tmp_path / "conf.d").mkdir()
        (tmp_path / "conf.d" / "more.toml").write_text("[uplinks.u2]\nweight = 2\n")
        found = await answer_of(pending)
        assert found.files == ("conf.d/more.toml",)
        await asyncio.to_thread(file.unlink)
        found = await answer_of(pending)
        assert "polywan.toml" not in found.on_disk
        assert found.differs

    with_pending(tmp_path, story)


def test_a_bad_file_is_shown_with_its_problems(tmp_path: Path) -> None:
    async def story(pending: Pending, file: Path, daemon: Daemon) -> None:
        put(file, FILE + "weight = 0\n")
        found = await answer_of(pending)
        assert [(p.where, p.key) for p in found.problems] == [(f"{file}:5", "uplinks.u2.weight")]
        assert found.operations == ()

    with_pending(tmp_path, story)


def test_a_file_that_cannot_be_read_is_a_problem_and_what_is_in_force_is_shown(tmp_path: Path) -> None:
    async def story(pending: Pending, file: Path, daemon: Daemon) -> None:
        put(file, b"\xff\xfe")
        found = await answer_of(pending)
        assert found.differs
        assert found.problems
        assert found.in_force == {"polywan.toml": FILE}

    with_pending(tmp_path, story)
