"""The use of quotas on disk: kept, taken up again, set aside where it makes no sense."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from polywan.api.views.quota import SetQuota
from polywan.config import Config
from polywan.core.errors import ControlError
from polywan.core.quota.limits import Quotas
from polywan.core.state.events import ConfigLoaded
from polywan.daemon.api.quotas import QuotaEntries
from polywan.daemon.loop import Daemon
from polywan.daemon.tasks.quotas import QUOTA_FILE, QuotaKeeper, load_usages
from support.daemons import running
from support.engine_world import config

GB = 10**9


def limited(**quota: object) -> Config:
    plain = config(2)
    tables = {name: {"interface": link.interface} for name, link in plain.uplinks.items()}
    return Config.model_validate({"uplinks": {**tables, "u1": {**tables["u1"], "quota": quota}}})


def with_quota(state_dir: Path, story: Callable[[Daemon, QuotaKeeper], Awaitable[None]], **quota: object) -> None:
    async def run() -> None:
        async with running(state_dir) as (daemon, _):
            keeper = QuotaKeeper(state_dir)
            keeper.load()
            keeper.follow(daemon)
            await daemon.settle(ConfigLoaded(limited(**quota)))
            await story(daemon, keeper)
            await keeper.close()

    asyncio.run(run())


def test_an_entry_is_in_force_and_on_disk_when_it_is_answered(tmp_path: Path) -> None:
    async def story(daemon: Daemon, keeper: QuotaKeeper) -> None:
        answer = await QuotaEntries(daemon, keeper).enter(SetQuota(name="u1", reading="46GB"))
        assert (answer.uplink, answer.quota.state, answer.saved, answer.warnings) == ("u1", "soft", True, ())
        assert daemon.state.decision.selection is not None
        assert daemon.state.known.quotas.restrictions == {"u1": "less"}
        assert load_usages(tmp_path)["u1"].reading == 46 * GB

    with_quota(tmp_path, story, monthly="50GB")


@pytest.mark.parametrize(
    ("asked", "status", "text"),
    [
        (SetQuota(name="u1"), 400, "expected reading or bought"),
        (SetQuota(name="u1", reading="much"), 400, "reading: expected an amount of data"),
        (SetQuota(name="u1", reading="-1"), 400, "reading: expected an amount of data"),
        (SetQuota(name="u1", reading="9" * 5000), 400, "reading: expected an amount of data"),
        (SetQuota(name="u1", bought="0"), 400, "bought: expected an amount of data"),
        (SetQuota(name="u2", reading="1GB"), 404, 'uplink "u2" has no quota'),
        (SetQuota(name="u11", reading="1GB"), 404, 'did you mean "u1"'),
    ],
)
def test_an_entry_that_makes_no_sense_is_refused(tmp_path: Path, asked: SetQuota, status: int, text: str) -> None:
    async def story(daemon: Daemon, keeper: QuotaKeeper) -> None:
        with pytest.raises(ControlError, match=text) as caught:
            await QuotaEntries(daemon, keeper).enter(asked)
        assert caught.value.status == status
        assert daemon.state.known.quotas.restrictions == {}

    with_quota(tmp_path, story, monthly="50GB")


def test_a_disk_that_takes_nothing_is_told_and_counting_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "polywan")
    blocked = tmp_path / "file"

    async def story(daemon: Daemon, keeper: QuotaKeeper) -> None:
        keeper._path = blocked / QUOTA_FILE
        blocked.write_text("in the way")
        for _ in range(2):
            answer = await QuotaEntries(daemon, keeper).enter(SetQuota(name="u1", reading="1GB"))
            assert (answer.saved, answer.quota.used_bytes) == (False, GB)
            assert [text for text in answer.warnings if "lost on a restart" in text]
        assert keeper.troubles
        blocked.unlink()
        answer = await QuotaEntries(daemon, keeper).enter(SetQuota(name="u1", reading="2GB"))
        assert (answer.saved, keeper.troubles) == (True, ())

    with_quota(tmp_path, story, monthly="50GB")
    assert caplog.text.count("quota.unwritable") == 1
    assert "quota.written" in caplog.text


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{", "[" * 100_000, '{"version": 1}', '{"version": "x"}', '{"version": 1, "uplinks": {"u1": {}}}'],
)
def test_a_file_that_makes_no_sense_is_set_aside(
    tmp_path: Path, content: str, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / QUOTA_FILE).write_text(content)
    assert QuotaKeeper(tmp_path).load() == Quotas()
    assert (tmp_path / f"{QUOTA_FILE}.aside").read_text() == content
    assert "quota.aside" in caplog.text


def test_a_file_of_a_newer_polywan_is_left_alone(tmp_path: Path) -> None:
    text = json.dumps({"version": 99, "more": "x"})
    (tmp_path / QUOTA_FILE).write_text(text)

    async def story(daemon: Daemon, keeper: QuotaKeeper) -> None:
        answer = await QuotaEntries(daemon, keeper).enter(SetQuota(name="u1", reading="46GB"))
        assert (answer.quota.state, answer.saved) == ("soft", False)
        assert "written by a newer polywan" in keeper.problem

    with_quota(tmp_path, story, monthly="50GB")
    assert (tmp_path / QUOTA_FILE).read_text() == text


def test_a_daemon_takes_up_what_the_one_before_has_kept(tmp_path: Path) -> None:
    async def story(daemon: Daemon, keeper: QuotaKeeper) -> None:
        await QuotaEntries(daemon, keeper).enter(SetQuota(name="u1", reading="46GB"))

    with_quota(tmp_path, story, monthly="50GB")
    assert QuotaKeeper(tmp_path).load().usages["u1"].used >= 46 * GB


def test_the_end_of_the_daemon_writes_what_there_is(tmp_path: Path) -> None:
    async def story(daemon: Daemon, keeper: QuotaKeeper) -> None:
        await QuotaEntries(daemon, keeper).enter(SetQuota(name="u1", reading="1GB"))
        (tmp_path / QUOTA_FILE).unlink()
        keeper._saved = Quotas()

    with_quota(tmp_path, story, monthly="50GB")
    assert load_usages(tmp_path)["u1"].reading == GB
