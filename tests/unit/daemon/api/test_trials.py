"""Reloads, trials and the history over the kernel in memory."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from polywan.api.requests import Nothing, OfPast, OfSession, OfTrial, ToReload, ToTry
from polywan.config import load_with_warnings
from polywan.core.errors import ConfigError, ControlError
from polywan.core.trial.texts import received
from polywan.daemon.api import trials as module
from polywan.daemon.api.trials import Trials
from polywan.daemon.history import History
from polywan.daemon.lookups.resolver import SystemResolver
from polywan.daemon.lookups.watcher import LookupWatcher
from polywan.daemon.loop import Daemon
from polywan.daemon.reloading import Reloader
from support.daemons import running

OLD = '[uplinks.u1]\ninterface = "wan1"\n[uplinks.u2]\ninterface = "wan2"\n'
BOTH = OLD.replace('"wan1"\n', '"wan1"\nweight = 1\n') + "weight = 3\n"
WANTED = ToTry(id="a1", by="alice", until="2026-11-30T12:00:00+00:00", seconds=90.0, files={"polywan.toml": BOTH})


class Box:
    """What a story needs: the file, the history's file, the daemon and what it answers with."""

    def __init__(self, directory: Path, daemon: Daemon, trials: Trials) -> None:
        self.file, self.history = directory / "polywan.toml", directory / "state" / "history.json"
        self.daemon, self.trials = daemon, trials

    @property
    def weights(self) -> list[int]:
        config = self.daemon.state.known.config
        assert config is not None
        return [*config.weights.values()]

    async def hows(self) -> list[str]:
        return [entry.how for entry in (await self.trials.history(Nothing())).entries]


def playing(tmp_path: Path, story: Callable[[Box], Awaitable[None]], *, reload: bool = True) -> None:
    (tmp_path / "polywan.toml").write_text(OLD)

    async def play() -> None:
        async with running(tmp_path / "state") as (daemon, kernel):
            reloader = Reloader(daemon, kernel, LookupWatcher(daemon, SystemResolver()), tmp_path / "polywan.toml")
            history = History(tmp_path / "state")
            await history.load()
            trials = Trials(daemon, kernel, reloader, history)
            if reload:
                await trials.reload(ToReload(by="alice"))
            await story(Box(tmp_path, daemon, trials))

    asyncio.run(play())


def test_a_trial_is_in_force_and_in_no_history_until_it_is_confirmed(tmp_path: Path) -> None:
    async def story(box: Box) -> None:
        await box.trials.begin_trial(WANTED)
        assert (box.weights, await box.hows()) == ([1, 3], ["reload"])
        assert re.match("on trial until ..:00:00 by alice", box.trials.warnings[0])
        assert received((await box.trials.past(OfPast(number="0"))).files) == {"polywan.toml": OLD}
        box.file.write_text(BOTH)
        state = await box.trials.confirm(OfTrial(id="a1", by="alice"))
        assert (state.pending, state.last and state.last.confirmed) == (None, True)
        assert (box.weights, await box.hows()) == ([1, 3], ["trial", "reload"])
        assert box.trials.warnings == ()

    playing(tmp_path, story)


def test_a_rollback_takes_what_the_place_says(tmp_path: Path) -> None:
    async def story(box: Box) -> None:
        await box.trials.begin_trial(WANTED)
        for _ in range(2):
            state = await box.trials.roll_back(OfTrial(id="a1", by="polywan", reason="time is up"))
            assert state.last is not None
            assert (state.pending, state.last.confirmed, state.last.reason) == (None, False, "time is up")
        assert (box.weights, await box.hows()) == ([1, 1], ["reload"])

    playing(tmp_path, story)


def test_a_place_that_says_something_else_is_not_confirmed(tmp_path: Path) -> None:
    async def story(box: Box) -> None:
        await box.trials.begin_trial(WANTED)
        with pytest.raises(ControlError, match="is not what is on trial"):
            await box.trials.confirm(OfTrial(id="a1", by="alice"))
        assert (await box.trials.state(Nothing())).pending is not None

    playing(tmp_path, story)


def test_a_daemon_that_was_started_in_between_takes_what_was_confirmed(tmp_path: Path) -> None:
    async def story(box: Box) -> None:
        box.file.write_text(BOTH)
        await box.trials.confirm(OfTrial(id="a1", by="alice"))
        assert box.weights == [1, 3]

    playing(tmp_path, story)


def test_nothing_else_is_put_in_force_meanwhile(tmp_path: Path) -> None:
    async def story(box: Box) -> None:
        await box.trials.begin_trial(WANTED)
        box.file.write_text(OLD.replace("u2", "another"))
        for refused in (
            lambda: box.trials.reload(ToReload()),
            lambda: box.trials.begin_trial(WANTED),
            lambda: box.trials.roll_back(OfTrial(id="other", by="bob")),
            lambda: box.trials.confirm(OfTrial(id="other", by="bob")),
        ):
            with pytest.raises(ControlError, match=r"on trial until ..:00:00 by alice"):
                await refused()
        await box.trials.hangup()
        assert box.weights == [1, 3]

    playing(tmp_path, story)


def test_a_bad_configuration_does_not_begin(tmp_path: Path) -> None:
    async def story(box: Box) -> None:
        with pytest.raises(ConfigError):
            await box.trials.begin_trial(
                ToTry(id="a", by="b", until="2026-11-30", seconds=9.0, files={"polywan.toml": "x"})
            )
        assert (await box.trials.state(Nothing())).pending is None

    playing(tmp_path, story)


def test_the_daemon_ends_a_trial_that_nobody_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "OVERDUE", 0.01)

    async def story(box: Box) -> None:
        asked = ToTry(id="a1", by="alice", until="2026-11-30T12:00:00+00:00", seconds=0.0, files={"polywan.toml": BOTH})
        await box.trials.begin_trial(asked)
        while (await box.trials.state(Nothing())).pending is not None:
            await asyncio.sleep(0)
        assert box.weights == [1, 1]

    playing(tmp_path, story)


def test_what_is_not_in_the_history_is_refused(tmp_path: Path) -> None:
    async def story(box: Box) -> None:
        for number in ("1", "-1", "x", "99999999999999999999"):
            with pytest.raises(ControlError, match="see `polywan history`"):
                await box.trials.past(OfPast(number=number))

    playing(tmp_path, story)


def test_a_session_is_read_or_refused(tmp_path: Path) -> None:
    async def story(box: Box) -> None:
        with pytest.raises(ControlError, match="session: expected"):
            await box.trials.session(OfSession(session="nonsense"))
        found = await box.trials.session(OfSession(session="203.0.113.9 5 100.64.1.2 22"))
        assert found.uplink is None

    playing(tmp_path, story)


def test_the_history_outlives_the_daemon(tmp_path: Path) -> None:
    async def first(box: Box) -> None:
        box.file.write_text(BOTH)
        await box.trials.reload(ToReload(by="alice"))

    async def second(box: Box) -> None:
        entries = (await box.trials.history(Nothing())).entries
        assert [(entry.how, entry.user) for entry in entries][1:] == [("reload", "alice"), ("reload", "alice")]

    playing(tmp_path, first)
    playing(tmp_path, second)


def test_a_start_is_in_the_history_only_where_the_file_says_something_new(tmp_path: Path) -> None:
    seen: list[tuple[str, tuple[str, ...]]] = []

    def started(text: str) -> None:
        async def story(box: Box) -> None:
            box.file.write_text(text)
            await box.trials.begin(load_with_warnings(box.file))
            await asyncio.gather(*box.trials._tasks)
            seen[:] = [(entry.how, entry.changes) for entry in (await box.trials.history(Nothing())).entries]

        playing(tmp_path, story, reload=False)

    started(OLD)
    assert seen == [("start", ())]
    started(OLD)
    assert seen == [("start", ())]
    started(BOTH)
    assert [how for how, _ in seen] == ["start", "start"]
    assert "u2" in "; ".join(seen[0][1])


def test_a_history_of_a_newer_version_stays_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    text = json.dumps({"version": 2, "secret": "kept"})
    (tmp_path / "state" / "history.json").write_text(text)

    async def story(box: Box) -> None:
        found = await box.trials.history(Nothing())
        assert "was written by a newer polywan (version 2; this polywan reads up to version 1)" in found.problem
        assert [entry.how for entry in found.entries] == ["reload"]
        assert box.history.read_text() == text

    playing(tmp_path, story)


@pytest.mark.parametrize(
    "text", ["{", "[]", "{}", '{"version": "1"}', '{"version": 1}', '{"version": 1, "entries": [{}]}', "\0"]
)
def test_a_damaged_history_is_set_aside_and_told(tmp_path: Path, text: str, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "history.json").write_text(text)

    async def story(box: Box) -> None:
        assert await box.hows() == ["reload"]
        assert box.history.with_name("history.json.aside").read_text() == text

    playing(tmp_path, story)
    assert "history.aside" in caplog.text


def test_a_link_in_the_place_of_the_history_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    secret = tmp_path / "secret"
    secret.write_text('{"version": 1, "entries": []}')
    (tmp_path / "state" / "history.json").symlink_to(secret)

    async def story(box: Box) -> None:
        assert await box.hows() == ["reload"]
        assert not box.history.is_symlink()
        assert secret.read_text() == '{"version": 1, "entries": []}'

    playing(tmp_path, story)


@pytest.mark.parametrize("text", ["[half", OLD.replace("u2", "another")], ids=["bad", "another"])
def test_a_rollback_does_not_ask_a_file_that_was_edited_meanwhile(tmp_path: Path, text: str) -> None:
    async def story(box: Box) -> None:
        await box.trials.begin_trial(WANTED)
        box.file.write_text(text)
        for _ in range(2):
            state = await box.trials.roll_back(OfTrial(id="a1", by="polywan", reason="time is up"))
            assert state.pending is None
        assert box.weights == [1, 1]
        assert received((await box.trials.past(OfPast(number="0"))).files) == {"polywan.toml": OLD}

    playing(tmp_path, story)


@pytest.mark.parametrize("text", ["[half", "[uplinks.u1]\nweight = 9\n"], ids=["bad", "good"])
def test_what_another_file_says_by_now_does_not_stop_a_confirmation(tmp_path: Path, text: str) -> None:
    async def story(box: Box) -> None:
        await box.trials.begin_trial(WANTED)
        box.file.write_text(BOTH)
        (tmp_path / "conf.d").mkdir()
        (tmp_path / "conf.d" / "a.toml").write_text(text)
        for _ in range(2):
            state = await box.trials.confirm(OfTrial(id="a1", by="alice"))
            assert (state.pending, state.last and state.last.confirmed) == (None, True)
        assert box.weights == [1, 3]

    playing(tmp_path, story)
