"""Recording beside the loop: numbers, times, bytes, and a disk that takes nothing."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from polywan.core.evolve import replace
from polywan.core.journal.changes import Change, Standing, What
from polywan.core.policy.uplink_state import UplinkState
from polywan.daemon.journal import EventQuery, Journal, JournalError
from polywan.daemon.tasks import recording
from polywan.daemon.tasks.recording import Recorder
from support.daemons import running

LATEST = EventQuery(uplink=None, since=None, after=None, most=1000)


def standing(state: UplinkState = UplinkState.UP, at: float = 0.0) -> Standing:
    return Standing(
        uplink="u1",
        interface="wan1",
        state=state,
        reason="",
        families={},
        ends={},
        since=at,
        ends_since=at,
    )


def change(reason: str = "no carrier", at: float = 5.0) -> Change:
    return Change(
        what=What.STATE,
        at=at,
        before=standing(),
        after=standing(UplinkState.DOWN, at),
        reason=reason,
        lasted=at,
        hooks=("down",),
    )


def play(recorder: Recorder, story: Callable[[], Awaitable[None]]) -> None:
    async def whole() -> None:
        tasks = [asyncio.create_task(recorder.run()), asyncio.create_task(recorder.keep())]
        try:
            async with asyncio.timeout(10):
                await story()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(whole())


class Stuck(Journal):
    """A file on a disk that takes nothing, or hangs."""

    def __init__(self, state_dir: Path) -> None:
        super().__init__(state_dir)
        self.full = True
        self.hang = threading.Event()
        self.hang.set()

    def append(self, *args: object, **more: object) -> None:
        self.hang.wait()
        if self.full:
            raise JournalError("disk is full")
        super().append(*args, **more)  # type: ignore[arg-type]  # whatever it is


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recording, "WRITTEN", 0.01)
    monkeypatch.setattr(recording, "RETRY", 0.02)
    monkeypatch.setattr(recording, "DISK_TIMEOUT", 0.2)


def test_times_are_those_of_the_clock_on_the_wall_at_that_moment(tmp_path: Path) -> None:
    recorder = Recorder(Journal(tmp_path), wall=lambda: 1_800_000_000.0)

    async def story() -> None:
        now = asyncio.get_running_loop().time()
        recorder.record((change(at=now - 3.0),))
        await recorder.arrival(0)
        (entry,) = await recorder.events(LATEST)
        assert entry.time.startswith("2027-01-15T07:59:57.0") or entry.time.startswith("2027-01-15T07:59:56.9")
        assert entry.lasted_s == pytest.approx(now - 3.0, abs=0.01)

    play(recorder, story)


def test_entries_are_known_before_they_are_written_and_handed_on_with_their_hooks(tmp_path: Path) -> None:
    recorder = Recorder(Stuck(tmp_path))
    handed: list[tuple[int, tuple[str, ...]]] = []
    recorder.on_entry = lambda entry, hooks, serving: handed.append((entry.id, hooks))

    async def story() -> None:
        recorder.record((change(), change()))
        await recorder.arrival(1)
        assert handed == [(1, ("down",)), (2, ("down",))]
        assert [e.id for e in await recorder.events(LATEST)] == [1, 2]
        assert [e.id for e in await recorder.events(LATEST._replace(after=1))] == [2]

    play(recorder, story)


def test_a_full_disk_is_told_once_and_caught_up(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = Stuck(tmp_path)
    recorder = Recorder(file)

    async def story() -> None:
        for _ in range(5):
            recorder.record((change(),))
            await asyncio.sleep(0.05)
        assert recorder.troubles == ("the journal is not on disk: disk is full",)
        file.full = False
        while recorder.problem:
            await asyncio.sleep(0.01)
        assert [e.id for e in Journal(tmp_path).read(LATEST)] == [1, 2, 3, 4, 5]

    with caplog.at_level(logging.INFO, "polywan"):
        play(recorder, story)
    assert [r.message.partition(":")[0] for r in caplog.records] == ["journal.unwritable", "journal.written"]


def test_what_waits_for_a_disk_has_a_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(recording, "MOST_UNSAVED", 10)
    file = Stuck(tmp_path)
    recorder = Recorder(file)

    async def story() -> None:
        for _ in range(25):
            recorder.record((change(),))
        while not recorder.problem:
            await asyncio.sleep(0.01)
        file.full = False
        while recorder.problem:
            await asyncio.sleep(0.01)
        assert [e.id for e in Journal(tmp_path).read(LATEST)] == list(range(16, 26))

    with caplog.at_level(logging.INFO, "polywan"):
        play(recorder, story)
    assert caplog.records[-1].message.endswith("the journal is on disk again; 15 changes could not be kept")


def test_a_disk_that_hangs_is_said_and_written_to_once_when_it_goes_on(tmp_path: Path) -> None:
    file = Stuck(tmp_path)
    file.full = False
    recorder = Recorder(file)

    async def story() -> None:
        file.hang.clear()
        recorder.record((change(),))
        while not recorder.problem:
            await asyncio.sleep(0.01)
        assert recorder.problem == "its disk has not answered for 0.2 s"
        assert [e.id for e in await recorder.events(LATEST)] == [1]
        file.hang.set()
        while recorder.problem:
            await asyncio.sleep(0.01)
        assert [e.id for e in Journal(tmp_path).read(LATEST)] == [1]

    play(recorder, story)


def test_a_stop_writes_what_there_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recording, "WRITTEN", 60.0)
    recorder = Recorder(Journal(tmp_path))

    async def story() -> None:
        recorder.record((change("one"),))
        await recorder.arrival(0)
        recorder.record((change("two"),))
        await recorder.close()

    play(recorder, story)
    assert [e.reason for e in Journal(tmp_path).read(LATEST)] == ["one", "two"]


def test_text_of_others_is_escaped_and_cut(tmp_path: Path) -> None:
    recorder = Recorder(Journal(tmp_path))

    async def story() -> None:
        recorder.record((change("bad\x1b[2Jthing\0" + "x" * 5000),))
        await recorder.arrival(0)
        (entry,) = await recorder.events(LATEST)
        assert entry.reason.startswith("bad\\x1b[2Jthing\\x00xxx")
        assert len(entry.reason) == 500

    play(recorder, story)


def test_a_daemon_tells_the_recorder_what_becomes_of_its_uplinks(tmp_path: Path) -> None:
    async def story() -> None:
        recorder = Recorder(Journal(tmp_path))
        async with running(tmp_path, prepare=lambda _: None, recorder=recorder) as (daemon, kernel):
            kernel.set_link(replace(kernel.observe().links["wan1"], carrier=False))
            await recorder.arrival(2)
            found = await recorder.events(LATEST)
            assert [(e.uplink, e.state) for e in found] == [("u1", "up"), ("u2", "up"), ("u1", "down")]
            assert found[-1].rx_bytes is not None
            assert daemon.state.done.standings["u1"].state is UplinkState.DOWN

    asyncio.run(story())
