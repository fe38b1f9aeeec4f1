"""A reload over FakeKernel: taken whole, or refused whole and the daemon goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from polywan.core.engine import step as engine
from polywan.core.errors import CapacityError, ConfigError, ControlError
from polywan.core.ruleset.fast_path import FAST_TABLE
from polywan.core.state.events import ConfigLoaded, Event
from polywan.core.state.state import State
from polywan.daemon.lookups.resolver import SystemResolver
from polywan.daemon.lookups.watcher import LookupWatcher
from polywan.daemon.loop import Daemon
from polywan.daemon.reloading import Reloader
from support.daemons import running

FILE = '[uplinks.u1]\ninterface = "wan1"\n[uplinks.u2]\ninterface = "wan2"\n'


def with_reloader(tmp_path: Path, story: Callable[[Daemon, Reloader], Awaitable[None]]) -> None:
    """Run a story beside a daemon of two uplinks that is ready; its file is `polywan.toml`."""
    file = tmp_path / "polywan.toml"
    file.write_text(FILE)

    async def play() -> None:
        async with running(tmp_path / "state") as (daemon, kernel):
            reloader = Reloader(daemon, kernel, LookupWatcher(daemon, SystemResolver()), file)
            await story(daemon, reloader)
            # Whatever was refused, the next good file is taken.
            file.write_text(FILE.replace("u2", "another"))
            await reloader.reload()
            assert daemon.state.known.config is not None
            assert set(daemon.state.known.config.uplinks) == {"u1", "another"}

    asyncio.run(play())


def refusing(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    """Let the next configuration that comes be one that cannot be prepared."""
    step = engine.step
    remaining = [error]

    def broken(state: State, event: Event, now: float) -> Any:
        if isinstance(event, ConfigLoaded) and state.ready and remaining:
            raise remaining.pop()
        return step(state, event, now)

    monkeypatch.setattr(engine, "step", broken)


def test_a_configuration_that_there_are_no_marks_for_is_refused_as_a_bad_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story(daemon: Daemon, reloader: Reloader) -> None:
        refusing(monkeypatch, CapacityError("no room"))
        before = daemon.state.known.config
        with pytest.raises(ConfigError, match=r"polywan.toml: global.mark_mask: no room"):
            await reloader.reload()
        assert daemon.state.known.config is before

    with_reloader(tmp_path, story)


def test_whatever_goes_wrong_in_preparing_a_configuration_is_told_and_ends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG", "polywan")

    async def story(daemon: Daemon, reloader: Reloader) -> None:
        refusing(monkeypatch, ZeroDivisionError("by nothing"))
        with pytest.raises(ControlError, match=r"the old configuration stays in force.*ZeroDivisionError: by nothing"):
            await reloader.reload()

    with_reloader(tmp_path, story)
    records = [r for r in caplog.records if r.getMessage().startswith("reload.refused")]
    assert [(r.levelname, r.exc_info is not None) for r in records] == [("ERROR", False), ("DEBUG", True)]


def test_a_file_with_more_uplinks_than_marks_names_the_line_and_changes_nothing(tmp_path: Path) -> None:
    async def story(daemon: Daemon, reloader: Reloader) -> None:
        text = "".join(f'[uplinks.u{n}]\ninterface = "m{n}"\n' for n in range(63))
        (tmp_path / "polywan.toml").write_text(text)
        with pytest.raises(ConfigError) as caught:
            await reloader.reload()
        (problem,) = caught.value.problems
        assert (problem.where, problem.key) == (f"{tmp_path}/polywan.toml:125", "uplinks.u62")

    with_reloader(tmp_path, story)


def test_a_reload_that_changes_only_what_the_daemon_holds_has_changed_the_kernel(tmp_path: Path) -> None:
    async def story(daemon: Daemon, reloader: Reloader) -> None:
        assert not (await reloader.reload()).changed
        for fastpath in (False, True):
            (tmp_path / "polywan.toml").write_text(("" if fastpath else "[global]\nfastpath = false\n") + FILE)
            done = await reloader.reload()
            assert (FAST_TABLE in daemon.state.decision.held) is fastpath
            assert done.changed

    with_reloader(tmp_path, story)


def test_it_is_known_since_when_a_configuration_is_in_force_and_whether_a_later_one_was_refused(tmp_path: Path) -> None:
    async def story(_: Daemon, reloader: Reloader) -> None:
        await reloader.reload()
        first = reloader.in_force
        assert first.since > 0
        assert not first.refused
        reloader.file.write_text("nonsense")
        with pytest.raises(ConfigError):
            await reloader.reload()
        assert (reloader.in_force.since, reloader.in_force.refused) == (first.since, True)
        reloader.file.write_text(FILE)
        await reloader.reload()
        assert not reloader.in_force.refused

    with_reloader(tmp_path, story)
