"""Bytes of uplinks on disk: they survive daemons, and a disk that takes nothing for a while."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import threading
import time
from collections.abc import Awaitable, Callable
from contextlib import closing
from dataclasses import replace
from math import inf
from pathlib import Path
from types import SimpleNamespace

import pytest

from polywan.core.journal.changes import Change, Standing, What
from polywan.core.measurements.points import Point, Reading
from polywan.core.measurements.tiers import SECONDS
from polywan.core.measurements.volumes import UplinkBytes
from polywan.core.policy.uplink_state import UplinkState
from polywan.core.status.rates import Counters, Sample
from polywan.core.status.tally import Bytes
from polywan.daemon.database import DatabaseError
from polywan.daemon.measurements import measuring, volumes
from polywan.daemon.measurements.measuring import CLOCK_WRONG_BEFORE, Measurer
from polywan.daemon.measurements.store import MEASUREMENTS_FILE, Batch, Store
from polywan.kernel.fake.kernel import FakeKernel

NOON = 1_796_040_000.0
ALWAYS = [(0.0, inf)]


class Clock:
    def __init__(self, now: float = NOON) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class Stuck(Store):
    """A file on a disk that takes nothing, or hangs."""

    def __init__(self, state_dir: Path) -> None:
        super().__init__(state_dir)
        self.full = False
        self.hang = threading.Event()
        self.hang.set()

    def write(self, batch: Batch) -> None:
        self.hang.wait()
        if self.full:
            raise DatabaseError("disk is full")
        super().write(batch)


def daemon_with(**devices: str) -> SimpleNamespace:
    """Return what a measurer needs of a daemon whose uplinks have these devices."""
    uplinks = {name: SimpleNamespace(interface=device) for name, device in devices.items()}
    config = SimpleNamespace(uplinks=uplinks, sharing=frozenset())
    state = SimpleNamespace(
        known=SimpleNamespace(config=config, observed=object()),
        decision=SimpleNamespace(views={}),
        health=SimpleNamespace(checks=SimpleNamespace(spent={})),
    )
    return SimpleNamespace(state=state, meter=SimpleNamespace(listeners=[]), feeds=[])


def measurer(
    store: Store, clock: Clock | None = None, daemon: SimpleNamespace | None = None, boot: str = "boot"
) -> Measurer:
    made = Measurer(store, clock or Clock())
    made._boot = boot
    made.follow(daemon or daemon_with(fibre="eth1"), FakeKernel())  # type: ignore[arg-type]  # as much of one as is needed
    return made


def look(to: Measurer, rx: int, tx: int = 0, device: str = "eth1", ifindex: int = 5) -> None:
    to.sampled(Sample(0.0, {device: Counters(ifindex, rx, tx)}))


def renaming(**names: str) -> tuple[Change, ...]:
    one = Standing(
        uplink="",
        interface="eth1",
        state=UplinkState.UP,
        reason="",
        families={},
        ends={},
        since=0.0,
        ends_since=0.0,
    )
    return tuple(
        Change(
            what=What.RENAMED,
            at=0.0,
            before=replace(one, uplink=old),
            after=replace(one, uplink=new),
            reason="",
            lasted=None,
        )
        for old, new in names.items()
    )


def play(story: Callable[[], Awaitable[None]]) -> None:
    async def whole() -> None:
        async with asyncio.timeout(10):
            await story()

    asyncio.run(whole())


def test_bytes_are_answered_before_and_after_they_are_written_and_by_the_next_daemon(tmp_path: Path) -> None:
    async def story() -> None:
        first = measurer(Store(tmp_path))
        look(first, 1000, 100)
        look(first, 1500, 120)
        assert await first.volumes(ALWAYS) == [{"fibre": UplinkBytes(500, 20)}]
        await first.flush()
        assert await first.volumes(ALWAYS) == [{"fibre": UplinkBytes(500, 20)}]
        await first.close()
        then = measurer(Store(tmp_path))
        look(then, 1800, 130)
        assert await then.volumes(ALWAYS) == [{"fibre": UplinkBytes(800, 30)}]

    play(story)


def test_a_daemon_that_was_killed_costs_no_bytes_while_the_device_stays(tmp_path: Path) -> None:
    async def story() -> None:
        first = measurer(Store(tmp_path))
        look(first, 1000)
        await first.flush()
        look(first, 5000)  # never written
        then = measurer(Store(tmp_path))
        look(then, 9000)
        assert await then.volumes(ALWAYS) == [{"fibre": UplinkBytes(8000)}]

    play(story)


def test_after_a_boot_devices_have_counted_from_zero(tmp_path: Path) -> None:
    async def story() -> None:
        first = measurer(Store(tmp_path))
        look(first, 1000)
        look(first, 1100)
        await first.close()
        then = measurer(Store(tmp_path), boot="another")
        look(then, 5000)
        assert await then.volumes(ALWAYS) == [{"fibre": UplinkBytes(5100)}]

    play(story)


def test_a_disk_that_takes_nothing_costs_nothing_once_it_does(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

    async def story() -> None:
        file = Stuck(tmp_path)
        one = measurer(file)
        file.full = True
        look(one, 0)
        for rx in (100, 200, 300):
            look(one, rx)
            await one.flush()
        assert [*one.troubles] == ["measurements are not on disk: disk is full"]
        file.full = False
        await one.flush()
        assert [*one.troubles] == []
        assert Store(tmp_path).volumes(ALWAYS) == [{"fibre": UplinkBytes(300)}]

    play(story)
    assert [r.message.partition(":")[0] for r in caplog.records] == ["measurements.unwritable", "measurements.written"]


def test_a_disk_that_hangs_delays_nobody_and_gets_each_byte_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measuring, "ANSWER_TIMEOUT", 0.2)

    async def story() -> None:
        file = Stuck(tmp_path)
        one = measurer(file)
        look(one, 0)
        look(one, 100)
        file.hang.clear()
        await one.flush()
        look(one, 250)
        assert "has not answered" in one.problem
        with pytest.raises(DatabaseError):
            await one.volumes(ALWAYS)
        file.hang.set()
        monkeypatch.setattr(measuring, "ANSWER_TIMEOUT", 5.0)
        await one.flush()
        await one.flush()
        assert one.problem == ""
        assert Store(tmp_path).volumes(ALWAYS) == [{"fibre": UplinkBytes(250)}]

    play(story)


def test_what_an_uplink_moved_follows_it_to_its_other_name(tmp_path: Path) -> None:
    async def story() -> None:
        daemon = daemon_with(fibre="eth1", dsl="eth2")
        one = measurer(Store(tmp_path), daemon=daemon)
        sample = {"eth1": Counters(5, 0, 0), "eth2": Counters(6, 0, 0)}
        one.sampled(Sample(0.0, sample))
        one.sampled(Sample(0.0, {**sample, "eth1": Counters(5, 70, 0)}))
        await one.flush()
        one.sampled(Sample(0.0, {"eth1": Counters(5, 100, 0), "eth2": Counters(6, 7, 0)}))
        one.changed(renaming(fibre="dsl", dsl="fibre"))
        assert await one.volumes(ALWAYS) == [{"dsl": UplinkBytes(100), "fibre": UplinkBytes(7)}]
        assert one.moved == {"dsl": UplinkBytes(100), "fibre": UplinkBytes(7)}

    play(story)


def test_what_is_renamed_while_a_write_hangs_is_in_the_file_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measuring, "ANSWER_TIMEOUT", 0.2)

    async def story() -> None:
        file = Stuck(tmp_path)
        daemon = daemon_with(fibre="eth1")
        one = measurer(file, daemon=daemon)
        look(one, 0)
        look(one, 100)
        file.hang.clear()
        await one.flush()
        one.changed(renaming(fibre="line"))
        daemon.state.known.config.uplinks = {"line": SimpleNamespace(interface="eth1")}
        look(one, 150)
        file.hang.set()
        monkeypatch.setattr(measuring, "ANSWER_TIMEOUT", 5.0)
        await one.flush()
        await one.flush()
        assert Store(tmp_path).volumes(ALWAYS) == [{"line": UplinkBytes(150)}]

    play(story)


def test_bytes_of_clients_wait_for_a_disk_that_takes_nothing(tmp_path: Path) -> None:
    async def story() -> None:
        file = Stuck(tmp_path)
        one = measurer(file)
        look(one, 0)
        file.full = True
        for _ in range(2):
            one.clients_moved({"10.0.0.1": Bytes(3, 1)})
            await one.flush()
        file.full = False
        await one.flush()
        (month,) = {time.strftime("%Y-%m", time.localtime(NOON))}
        assert Store(tmp_path).clients([month]) == [(month, "10.0.0.1", Bytes(6, 2))]

    play(story)


def test_before_the_clock_is_set_nothing_is_measured_by_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "reading_of", lambda *_: Reading(UplinkState.UP, 20.0, 1.0, 0.0, 7))

    async def story() -> None:
        clock, daemon = Clock(1000.0), daemon_with(fibre="eth1")
        daemon.state.decision.views["fibre"] = object()
        one = measurer(Store(tmp_path), clock, daemon)
        for clock.now in (1000.0, 1001.0, NOON, NOON + 1):
            look(one, 0)
        await one.flush()
        assert (await one.measured(1, 0.0, 2000.0, ["fibre"])) == ([], "")
        found, _ = await one.measured(1, NOON, NOON + 1, ["fibre"])
        assert [(each.start, each.point.known) for each in found] == [(NOON, 0), (NOON + 1, 1)]

    play(story)


def test_how_far_a_device_was_counted_is_kept_while_it_is_not_there(tmp_path: Path) -> None:
    file = Store(tmp_path)
    file.write(Batch(devices={"ppp0": Counters(1, 2, 3)}, boot="boot"))
    file.write(Batch(devices={"ppp0": None}, boot="boot"))
    assert [*file.devices()] == ["ppp0"]
    file.write(Batch(devices={"eth1": None}, boot="boot"))
    assert [*file.devices()] == []


def test_a_span_has_the_hours_that_begin_in_it(tmp_path: Path) -> None:
    async def story() -> None:
        clock = Clock(NOON - 1)
        one = measurer(Store(tmp_path), clock)
        look(one, 0)
        look(one, 10)
        clock.now = NOON + 1
        look(one, 100)
        assert await one.volumes([(NOON, inf), (0, NOON), (NOON + 3600, inf)]) == [
            {"fibre": UplinkBytes(90)},
            {"fibre": UplinkBytes(10)},
            {},
        ]
        bases = await one.bases({"fibre": NOON})
        look(one, 150)
        assert bases["fibre"].plus(one.moved["fibre"]) == UplinkBytes(140)

    play(story)


def test_before_the_clock_is_set_bytes_wait_for_it(tmp_path: Path) -> None:
    async def story() -> None:
        clock = Clock(1000.0)
        one = measurer(Store(tmp_path), clock)
        look(one, 0)
        look(one, 10)
        await one.flush()
        assert await one.volumes(ALWAYS) == [{}]
        clock.now = NOON
        look(one, 30)
        assert await one.volumes([(CLOCK_WRONG_BEFORE, inf)]) == [{"fibre": UplinkBytes(30)}]

    play(story)


def test_probes_are_counted_again_when_they_begin_anew(tmp_path: Path) -> None:
    async def story() -> None:
        daemon = daemon_with(fibre="eth1")
        one = measurer(Store(tmp_path), daemon=daemon)
        for total in (40, 100, 30):
            daemon.state.health.checks.spent["fibre"] = SimpleNamespace(total=total)
            look(one, 1000)
        assert await one.volumes(ALWAYS) == [{"fibre": UplinkBytes(0, 0, 130)}]

    play(story)


def test_of_a_device_that_uplinks_share_nothing_is_counted(tmp_path: Path) -> None:
    async def story() -> None:
        daemon = daemon_with(a="eth1", b="eth1")
        daemon.state.known.config.sharing = frozenset({"a", "b"})
        one = measurer(Store(tmp_path), daemon=daemon)
        look(one, 0)
        look(one, 100)
        assert await one.volumes(ALWAYS) == [{}]

    play(story)


def test_the_oldest_hours_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(volumes, "MOST_HOURS", 3)
    file = Store(tmp_path)
    for hour in range(10):
        file.write(Batch(volumes={(3600 * hour, "a"): UplinkBytes(1), (3600 * hour, "b"): UplinkBytes(1)}))
    assert file.first_hour() == 7 * 3600


def test_what_another_program_wrote_counts_as_not_known(tmp_path: Path) -> None:
    file = Store(tmp_path)
    file.write(Batch(devices={"eth1": Counters(1, 2, 3), "eth2": Counters(4, 5, 6)}, boot="boot"))
    file.tried(lambda tables: tables.execute("UPDATE devices SET rx = 'x' WHERE device = 'eth1'"))
    assert [*file.devices()] == ["eth2"]
    assert (tmp_path / MEASUREMENTS_FILE).stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE hours SET rx = NULL",
        "UPDATE hours SET tx = 'x'",
        "UPDATE hours SET probes = x'ff'",
        "UPDATE hours SET rx = 9e999",
        "UPDATE hours SET rx = -5",
        "INSERT INTO hours SELECT hour + 3600, uplink, 9223372036854775807, tx, probes FROM hours",
        "UPDATE uplinks SET id = 9223372036854775807",
        "UPDATE uplinks SET id = 4294967296",
        "UPDATE uplinks SET id = -1",
        "INSERT INTO uplinks VALUES (9223372036854775807, 'b'), (-7, x'ff')",
        "UPDATE clients SET rx = 9223372036854775807",
        "UPDATE clients SET tx = NULL, client = x'ff'",
        "UPDATE devices SET boot = NULL, rx = 'x'",
        "UPDATE points_1 SET points = 7, time = 'x'",
    ],
)
def test_rows_that_make_no_sense_are_not_known_and_writing_goes_on(tmp_path: Path, statement: str) -> None:
    hour = int(NOON) - int(NOON) % 3600
    batch = Batch(
        seconds={int(NOON): {"a": Point(rx=1, known=1, up=1)}},
        volumes={(hour, "a"): UplinkBytes(1, 2, 3)},
        clients={"2026-11": {"10.0.0.1": Bytes(1, 1)}},
        boot="b",
        devices={"eth1": Counters(1, 2, 3)},
    )
    Store(tmp_path).write(batch)
    with closing(sqlite3.connect(tmp_path / MEASUREMENTS_FILE)) as database, database:
        database.execute(statement)
    store = Store(tmp_path)
    store.devices()
    assert store.volumes(ALWAYS)[0].get("a", UplinkBytes(1, 2, 3)) == UplinkBytes(1, 2, 3)
    later = replace(batch, volumes={(hour + 86400, "a"): UplinkBytes(5, 5, 5), (hour, "c"): UplinkBytes(1, 1, 1)})
    for _ in range(2):
        store.write(later)
    assert store.volumes([(hour + 86400, inf)])[0] == {"a": UplinkBytes(10, 10, 10)}
    assert store.clients(["2026-11"])[-1][2].rx >= 2
    assert {name for _, name, _ in store.points(SECONDS, NOON - 60, NOON + 60, ["a"])} == {"a"}
    assert not store.notices
