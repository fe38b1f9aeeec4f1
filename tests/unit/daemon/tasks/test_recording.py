"""Recording beside the loop: numbers, times, bytes, and a disk that takes nothing."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import TypeVar

import pytest

from polywan.core.evolve import replace
from polywan.core.journal.changes import Change, Standing, What
from polywan.core.policy.uplink_state import UplinkState
from polywan.core.status.rates import Counters, Sample
from polywan.core.status.stored_standing import StoredStanding
from polywan.daemon import database
from polywan.daemon.journal import JOURNAL_FILE, EventQuery, Journal, JournalError, recorded
from polywan.daemon.tasks import recording
from polywan.daemon.tasks.recording import Recorder
from support.daemons import running

T = TypeVar("T")

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
    monkeypatch.setattr(database, "LOCK_TIMEOUT", 0.01)


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


def test_a_disk_that_hangs_is_said_and_written_to_once_when_it_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recording, "DISK_TIMEOUT", 0.2)
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


@contextmanager
def locked(tmp_path: Path) -> Iterator[None]:
    """Another program holds the file."""
    with closing(sqlite3.connect(tmp_path / JOURNAL_FILE, isolation_level=None)) as database:
        database.execute("BEGIN EXCLUSIVE")
        yield
        database.execute("ROLLBACK")


async def well(recorder: Recorder) -> None:
    while recorder.problem:
        await asyncio.sleep(0.01)


def filled(tmp_path: Path, count: int) -> None:
    """A journal of a daemon before."""
    recorder = Recorder(Journal(tmp_path))

    async def story() -> None:
        await recorder.load()
        recorder.record(tuple(change() for _ in range(count)))
        await recorder.arrival(count - 1)
        await recorder.close()

    play(recorder, story)


def test_a_question_that_failed_is_no_trouble_once_the_file_can_be_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    filled(tmp_path, 2)
    recorder = Recorder(Journal(tmp_path))

    async def story() -> None:
        await recorder.load()
        with locked(tmp_path):
            await recorder.events(LATEST)
            assert recorder.problem.endswith("database is locked")
        assert [e.id for e in await recorder.events(LATEST)] == [1, 2]
        assert not recorder.problem
        with locked(tmp_path):
            await recorder.events(LATEST)
        # Nobody asks again.
        await well(recorder)

    with caplog.at_level(logging.INFO, "polywan"):
        play(recorder, story)
    assert caplog.records[-1].message == "journal.written: the journal is on disk again"


def test_a_file_that_can_be_read_too_late_is_gone_on_with(tmp_path: Path) -> None:
    filled(tmp_path, 3)
    recorder = Recorder(Journal(tmp_path))

    async def story() -> None:
        with locked(tmp_path):
            await recorder.load()
            recorder.record((change("late"), change("later")))
            await recorder.arrival(1)
            early = recorder.name
        while recorder.problem:
            await asyncio.sleep(0.01)
        assert [(e.id, e.reason) for e in await recorder.events(LATEST)][2:] == [
            (3, "no carrier"),
            (4, "late"),
            (5, "later"),
        ]
        assert recorder.position(1, early) == 4
        assert recorder.last == 5

    play(recorder, story)
    assert [e.id for e in Journal(tmp_path).read(LATEST)] == [1, 2, 3, 4, 5]


def test_what_never_reached_the_disk_is_not_counted_on_and_another_file_neither(tmp_path: Path) -> None:
    filled(tmp_path, 3)
    recorder = Recorder(Journal(tmp_path))

    async def story() -> None:
        await recorder.load()
        recorder.record((change(), change()))
        await recorder.arrival(4)
        of_this_file = recorder.name.partition(".")[0]
        assert recorder.position(2, f"{of_this_file}.earlier") == 2
        assert recorder.position(5, f"{of_this_file}.killed") == 3
        assert recorder.position(1, "0badcafe.other") == 3
        assert recorder.position(4, recorder.name) == 4
        assert recorder.position(5, None) == 5
        assert recorder.position(5000, None) == 3

    play(recorder, story)


class Clock:
    def __init__(self) -> None:
        self.unix = 1_767_225_600.0

    def __call__(self) -> float:
        return self.unix + time.monotonic()


@pytest.mark.parametrize("stop", [True, False])
def test_a_clock_that_is_set_makes_no_state_older(tmp_path: Path, stop: bool) -> None:
    clock = Clock()
    recorder = Recorder(Journal(tmp_path), wall=clock)
    tell_devices(recorder, {"u1": "wan1"}, lambda: 0)

    async def story() -> None:
        await recorder.load()
        recorder.record((change(at=time.monotonic()),))
        await recorder.arrival(0)
        # Not by a second journal, which would make the file, too.
        while not patiently(lambda: recorded(tmp_path, LATEST)):
            await asyncio.sleep(0.01)
        # The disk is asked one thing after the other: by then it is known that the entry is there.
        await recorder.events(LATEST)
        clock.unix += 300 * 86400.0
        if stop:
            await recorder.close()
        else:
            recorder.sampled(Sample(0.0, {}))
            while kept()[0].since < clock.unix:
                await asyncio.sleep(0.01)

    def kept() -> list[StoredStanding]:
        return patiently(lambda: Journal(tmp_path).load().standings)

    play(recorder, story)
    assert kept()[0].since - clock() == pytest.approx(0.0, abs=10.0)


def patiently(read: Callable[[], T]) -> T:
    """Read a file that a busy disk keeps locked for longer than a reader waits."""
    while True:
        with suppress(JournalError):
            return read()


def tell_devices(recorder: Recorder, devices: dict[str, str], count: Callable[[], int]) -> None:
    """Have the recorder find these uplinks in the file, and their devices' counters."""
    uplinks = {name: SimpleNamespace(interface=device) for name, device in devices.items()}
    sharing = {name for name, device in devices.items() if [*devices.values()].count(device) > 1}

    async def look() -> Sample:
        return Sample(0.0, {device: Counters(3, count(), count()) for device in devices.values()})

    known = SimpleNamespace(config=SimpleNamespace(uplinks=uplinks, sharing=sharing), observed=True)
    daemon = SimpleNamespace(state=SimpleNamespace(known=known), meter=SimpleNamespace(look=look))
    recorder._daemon = daemon  # type: ignore[assignment]


def of(name: str, state: UplinkState, at: float, *, gone: bool = False) -> Change:
    before = replace(standing(), uplink=name)
    after = None if gone else replace(standing(state, at), uplink=name)
    return Change(what=What.REMOVED if gone else What.STATE, at=at, before=before, after=after, reason="", lasted=at)


def test_bytes_of_a_device_that_several_uplinks_share_are_nobodys(tmp_path: Path) -> None:
    bytes_so_far = [1000]
    alone, shared = {"u1": "wan1"}, {"u1": "wan1", "u2": "wan1"}
    down, up = UplinkState.DOWN, UplinkState.UP
    stories: list[tuple[dict[str, str], list[tuple[Change, int | None]]]] = [
        (alone, [(of("u1", down, 5.0), None), (of("u1", up, 6.0), 1000)]),
        (shared, [(of("u1", down, 7.0), None), (of("u2", down, 7.5), None), (of("u1", up, 8.0), None)]),
        # Once it has the device for itself, nobody knows what it had moved before.
        (alone, [(of("u2", down, 9.0, gone=True), None), (of("u1", down, 9.5), None), (of("u1", up, 10.0), 1000)]),
    ]
    recorder = Recorder(Journal(tmp_path))
    handed: list[int | None] = []
    recorder.on_entry = lambda entry, hooks, serving: handed.append(entry.rx_bytes)

    async def story() -> None:
        await recorder.load()
        for devices, changes in stories:
            tell_devices(recorder, devices, lambda: bytes_so_far[0])
            for one, moved in changes:
                recorder.record((one,))
                await recorder.arrival(recorder.last)
                assert handed.pop() == moved
                bytes_so_far[0] += 1000

    play(recorder, story)


@pytest.mark.parametrize("then", [{"u1": "wan1"}, {"u1": "wan1", "u2": "wan1"}])
@pytest.mark.parametrize("first", [{"u1": "wan1"}, {"u1": "wan1", "u2": "wan1"}])
def test_bytes_over_a_restart_are_known_where_the_device_was_never_shared(
    tmp_path: Path, first: dict[str, str], then: dict[str, str]
) -> None:
    found: list[int | None] = []
    for number, devices in enumerate((first, then)):
        recorder = Recorder(Journal(tmp_path))
        recorder.on_entry = lambda entry, hooks, serving: found.append(entry.rx_bytes)
        tell_devices(recorder, devices, lambda number=number: 1000 * (1 + number))  # type: ignore[misc]

        async def story(recorder: Recorder = recorder, at: float = 5.0 + number) -> None:
            await recorder.load()
            recorder.record((of("u1", UplinkState.DOWN, at),))
            await recorder.arrival(recorder.last)
            await recorder.close()

        play(recorder, story)
    assert found == [None, 1000 if len(first) == len(then) == 1 else None]


def test_an_uplink_that_leaves_the_file_leaves_its_bytes_in_its_last_entry(tmp_path: Path) -> None:
    recorder, counted = Recorder(Journal(tmp_path)), [1000]

    async def story() -> None:
        await recorder.load()
        tell_devices(recorder, {"u1": "wan1", "u2": "wan2"}, lambda: counted[0])
        recorder.record((of("u1", UplinkState.DOWN, 5.0),))
        await recorder.arrival(0)
        counted[0] = 5000
        daemon = recorder._daemon
        assert daemon is not None
        del daemon.state.known.config.uplinks["u1"]  # type: ignore[union-attr]
        recorder.record((of("u1", UplinkState.DOWN, 9.0, gone=True),))
        await recorder.arrival(1)
        assert (await recorder.events(LATEST))[-1].rx_bytes == 4000

    play(recorder, story)
