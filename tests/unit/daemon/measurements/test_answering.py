"""Answers about measurements: spans of local time, what is not known, and questions that make no sense."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from polywan.api.codec import decode
from polywan.api.events import LinkEvent
from polywan.api.requests import OfIncidents, OfMeasurements, OfMonth, OfSpan
from polywan.core.errors import ControlError
from polywan.core.measurements.points import Point
from polywan.core.measurements.volumes import UplinkBytes
from polywan.core.status.tally import Bytes
from polywan.core.status.times import iso
from polywan.daemon.api.http import Written
from polywan.daemon.journal import MOST_ENTRIES, EventQuery, Journal
from polywan.daemon.measurements.answering import MOST_INCIDENTS, Measuring
from polywan.daemon.measurements.measuring import Measurer
from polywan.daemon.measurements.spans import beats_of, following, month_of, months_since
from polywan.daemon.measurements.store import Batch, Store
from polywan.daemon.tasks.recording import Recorder
from support.daemons import running


@pytest.fixture
def zone(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("TZ", request.param)
    time.tzset()
    yield request.param
    monkeypatch.undo()
    time.tzset()


def noon(day: int, month: int = 11) -> float:
    return datetime(2026, month, day, 12, 10).timestamp()  # noqa: DTZ001 - local time


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "Asia/Kathmandu", "America/St_Johns"], indirect=True)
def test_a_day_is_48_half_hours_of_local_time(zone: str) -> None:
    now = noon(30)
    spans, step = beats_of("24h", now)
    assert (len(spans), step) == (48, 60)
    assert all(b - a == 1800 for a, b in spans)
    assert spans[-1][0] <= now < spans[-1][1]
    assert time.localtime(spans[0][0]).tm_min in (0, 30)


@pytest.mark.parametrize("zone", ["Europe/Berlin"], indirect=True)
def test_days_are_those_of_the_clock_on_the_wall_when_that_is_set_forward_and_back(zone: str) -> None:
    spans, step = beats_of("2026-10", noon(20))
    assert [(b - a) // 3600 for a, b in spans if b - a != 86400] == [25]
    assert (len(spans), step) == (31, 900)
    spans, step = beats_of("2026-03", noon(30))
    assert [(b - a) // 3600 for a, b in spans if b - a != 86400] == [23]
    assert step == 3600
    assert len(beats_of("30d", noon(30))[0]) == 30


def test_months_follow_each_other_over_the_year_and_have_a_bound() -> None:
    assert following(month_of("2026-12")).strftime("%Y-%m") == "2027-01"
    assert [m.strftime("%Y-%m") for m in months_since(noon(3, 9), noon(30))] == ["2026-11", "2026-10", "2026-09"]
    assert len(months_since(-1e30, noon(30))) == 14


def asked(directory: Path, story: Callable[[Measuring, Store], Awaitable[None]]) -> None:
    async def play() -> None:
        async with asyncio.timeout(20), running(directory / "daemon") as (daemon, kernel):
            store = Store(directory)
            measurer = Measurer(store)
            measurer.follow(daemon, kernel)
            recorder = Recorder(Journal(directory))
            await story(Measuring(measurer, recorder, lambda: daemon.state), store)

    asyncio.run(play())


async def document(answer: Awaitable[Written[Any]]) -> dict[str, Any]:
    pieces = (await answer).pieces
    assert isinstance(pieces, list)
    found: dict[str, Any] = json.loads(b"".join(pieces))
    return found


def test_what_was_measured_is_answered_with_null_for_what_is_not_known(tmp_path: Path) -> None:
    async def story(measuring: Measuring, store: Store) -> None:
        now = int(time.time())
        point = Point(rx=1000, rx_max=1000, known=1, up=1)
        store.write(Batch(seconds={now - n: {"u1": point} for n in (3, 4, 5)}))
        found = await document(measuring.measurements(OfMeasurements(uplink="u1", since="60s", points="100")))
        (series,) = found["series"]
        assert (found["step_s"], series["uplink"], found["problem"]) == (1, "u1", "")
        assert [row[1] for row in series["points"] if row[1] is not None] == [8000.0] * 3
        every = await document(measuring.measurements(OfMeasurements()))
        assert [one["uplink"] for one in every["series"]] == ["u1", "u2"]
        assert (await measuring.incidents(OfIncidents())).incidents == ()

    asked(tmp_path, story)


def test_volumes_are_by_month_with_those_first_that_moved_most(tmp_path: Path) -> None:
    async def story(measuring: Measuring, store: Store) -> None:
        hours = {int(noon(3, month)): UplinkBytes(month, 1, 0) for month in (10, 11)}
        store.write(
            Batch(
                volumes={(hour, "u1"): one for hour, one in hours.items()},
                clients={"2026-11": {"10.0.0.1": Bytes(1, 1), "10.0.0.2": Bytes(5, 5)}},
            )
        )
        found = await measuring.volumes(OfMonth(month="2026-11"))
        assert [(one.month, one.uplink, one.rx_bytes) for one in found.uplinks] == [("2026-11", "u1", 11)]
        assert [one.client for one in found.clients] == ["10.0.0.2", "10.0.0.1"]

    asked(tmp_path, story)


def test_a_file_that_cannot_be_read_is_told_and_memory_is_answered(tmp_path: Path) -> None:
    async def story(measuring: Measuring, store: Store) -> None:
        (tmp_path / "measurements.db").unlink(missing_ok=True)
        store.close()
        store._path = tmp_path / "nowhere" / "file" / "measurements.db"
        (tmp_path / "nowhere").write_text("")
        found = await document(measuring.measurements(OfMeasurements()))
        assert "cannot be used" in found["problem"]
        assert "cannot be used" in (await measuring.volumes(OfMonth())).problem

    asked(tmp_path, story)


class Full:
    """A journal that has as many entries as it may: an uplink that is down and up in turn, and up at last."""

    def __init__(self, now: float) -> None:
        nothing = dict.fromkeys(LinkEvent.__fields__)
        self.entries = [
            decode(
                LinkEvent,
                {
                    **nothing,
                    "id": number,
                    "time": iso(now - 100_000 + number),
                    "uplink": "u1",
                    "interface": "wan1",
                    "event": "state",
                    "reason": "",
                    "state": ("up", "down")[number % 2],
                    "previous_state": ("down", "up")[number % 2],
                },
            )
            for number in range(1, MOST_ENTRIES + 1)
        ]

    async def events(self, wanted: EventQuery) -> list[LinkEvent]:
        first = wanted.after or 0
        return self.entries[first : first + wanted.most]


def test_the_newest_entries_of_a_full_journal_are_read_and_what_is_over_does_not_last(tmp_path: Path) -> None:
    async def story(measuring: Measuring, _: Store) -> None:
        journal = Full(time.time())
        measuring._recorder = journal  # type: ignore[assignment]  # as much of one as is needed
        found = await measuring.incidents(OfIncidents())
        assert (found.incidents[0].id, len(found.incidents), found.more) == (MOST_ENTRIES - 1, MOST_INCIDENTS, True)
        assert all(one.until for one in found.incidents)

    asked(tmp_path, story)


@pytest.mark.parametrize(
    ("question", "said"),
    [
        (lambda m: m.measurements(OfMeasurements(points="0")), "points: expected a whole number from 1 to 1000"),
        (lambda m: m.measurements(OfMeasurements(points="²")), "points: expected"),
        (lambda m: m.measurements(OfMeasurements(since="yesterday")), "since: expected a duration"),
        (lambda m: m.measurements(OfMeasurements(since="1h", until="2h")), "since: expected a moment before"),
        (lambda m: m.measurements(OfMeasurements(uplink="u3")), "no uplink"),
        (lambda m: m.availability(OfSpan(span="7d")), "span: expected 24h, 30d, or a month"),
        (lambda m: m.volumes(OfMonth(month="2026-13")), 'month: expected a month such as "2026-11"'),
        (lambda m: m.incidents(OfIncidents(until="x")), "expected a duration"),
    ],
)
def test_a_question_that_makes_no_sense_says_what_would(
    tmp_path: Path, question: Callable[[Measuring], Awaitable[object]], said: str
) -> None:
    async def story(measuring: Measuring, store: Store) -> None:
        with pytest.raises(ControlError, match=said):
            await question(measuring)

    asked(tmp_path, story)
