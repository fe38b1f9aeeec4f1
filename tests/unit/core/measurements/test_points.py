"""Intervals add up without a rounding, whatever the order, and what is not known is not zero."""

from __future__ import annotations

import os
import sqlite3
import zlib
from collections.abc import Mapping
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polywan.core.measurements import readings
from polywan.core.measurements.points import Point, Reading, merged, packed, point_of, unpacked
from polywan.core.measurements.seconds import LONGEST_STRIDE, Seconds, taken
from polywan.core.measurements.series import COLUMNS, Measured, beats, series
from polywan.core.measurements.tiers import HOURS, MINUTES, SECONDS, TENS, TIERS, Tier, tier_of
from polywan.core.policy.uplink_state import UplinkState
from polywan.core.status.tally import Bytes
from polywan.daemon.measurements import points

UP = Reading(UplinkState.UP, 20.0, 1.5, 0.0, 7)
NOTHING = Reading(UplinkState.DOWN, None, None, None, None)

READINGS = st.builds(
    Reading,
    st.sampled_from([*UplinkState]),
    st.none() | st.floats(0, 1e4),
    st.none() | st.floats(0, 1e4),
    st.none() | st.floats(0, 1),
    st.none() | st.integers(0, 1 << 20),
)
POINTS = st.builds(point_of, READINGS, st.integers(0, 1 << 40), st.integers(0, 1 << 40), known=st.booleans())


@given(st.lists(POINTS, max_size=20), st.randoms())
def test_any_order_and_any_grouping_give_the_same(found: list[Point], chance: object) -> None:
    shuffled = sorted(found, key=lambda _: os.urandom(1))
    half = len(found) // 2
    assert merged(shuffled) == merged(found) == merged([merged(found[:half]), merged(found[half:])])


@given(st.lists(POINTS, min_size=1, max_size=20))
def test_adding_up_conserves_bytes_and_seconds(found: list[Point]) -> None:
    whole = merged(found)
    assert whole.rx == sum(one.rx for one in found)
    assert whole.lasted == len(found) if all(one.lasted for one in found) else whole.lasted <= len(found)
    assert whole.rx_max == max(one.rx for one in found)


@given(st.dictionaries(st.integers(1, 1 << 20), POINTS, max_size=60))
def test_what_was_packed_is_unpacked(found: Mapping[int, Point]) -> None:
    assert unpacked(packed(found)) == found
    some = [*found][::2]
    assert unpacked(packed(found), some) == {number: found[number] for number in some}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"x",
        None,
        "text",
        7,
        zlib.compress(b"\xff" * 100),
        packed({1: Point(rx=5)})[:-9],
        zlib.compress(bytes(1 << 24)),
    ],
)
def test_what_makes_no_sense_is_nothing(data: object) -> None:
    assert unpacked(data) == {}


def test_numbers_that_do_not_fit_are_the_largest_that_do() -> None:
    assert unpacked(packed({1: Point(rx=1 << 70, up=1 << 20)})) == {1: Point(rx=(1 << 64) - 1, up=65535)}


def test_a_sample_each_second_gives_each_second_its_bytes() -> None:
    seconds, _ = taken(Seconds(), 100.9, {"a": UP}, {})
    seconds, found = taken(seconds, 101.9, {"a": UP}, {"a": Bytes(500, 50)})
    assert found == {101: {"a": point_of(UP, 500, 50, known=True)}}


def test_a_sample_that_comes_too_early_or_late_loses_no_byte_and_no_second() -> None:
    seconds, first = taken(Seconds(), 100.0, {"a": UP}, {})
    seconds, none = taken(seconds, 100.99, {"a": UP}, {"a": Bytes(10, 0)})
    seconds, found = taken(seconds, 102.01, {"a": UP}, {"a": Bytes(21, 0)})
    assert none == {}
    assert [*first, *found] == [100, 101, 102]
    assert [one["a"].rx for one in found.values()] == [15, 16]


@pytest.mark.parametrize("jump", [-3600.0, LONGEST_STRIDE + 1, 86400.0])
def test_after_a_jump_of_the_clock_or_a_sleep_rates_are_unknown_and_not_zero(jump: float) -> None:
    seconds, _ = taken(Seconds(), 100_000.0, {"a": UP}, {})
    seconds, found = taken(seconds, 100_000.0 + jump, {"a": UP}, {"a": Bytes(10**9, 0)})
    ((second, measured),) = found.items()
    assert second == 100_000 + jump
    assert (measured["a"].rx, measured["a"].known) == (0, 0)


@given(st.lists(st.tuples(st.floats(0.0, 4.0), st.integers(0, 1000)), min_size=1, max_size=50))
def test_all_bytes_of_an_even_clock_are_in_seconds(samples: list[tuple[float, int]]) -> None:
    seconds, at, total, counted = Seconds(last=1000), 1000.0, 0, 0
    for step, moved in samples:
        at, total = at + step, total + moved
        seconds, found = taken(seconds, at, {"a": UP}, {"a": Bytes(moved, 0)})
        counted += sum(one["a"].rx for one in found.values())
    assert counted + seconds.carried.get("a", Bytes(0, 0)).rx == total


@pytest.mark.parametrize(
    ("state", "known"), [(UplinkState.UP, True), (UplinkState.DOWN, False), (UplinkState.DISABLED, False)]
)
def test_of_an_uplink_that_does_not_serve_there_is_no_round_trip(
    monkeypatch: pytest.MonkeyPatch, state: UplinkState, known: bool
) -> None:
    monkeypatch.setattr(readings, "line_quality", lambda *_: (20.0, 1.0, 0.5))
    seen = SimpleNamespace(decision=SimpleNamespace(views={"a": SimpleNamespace(state=state)}))
    found = readings.reading_of(seen, "a", None)  # type: ignore[arg-type]  # as much of one as is needed
    assert found == Reading(state, 20.0 if known else None, 1.0 if known else None, 0.5, None)


def test_time_out_of_use_by_order_is_no_time_without_service() -> None:
    found = [Measured(0, "a", Point(off=1800, up=900, down=900)), Measured(3600, "a", Point(off=3600))]
    (one,) = series(found, ["a"], 0, 7199, 3600)
    assert [dict(zip(COLUMNS, row, strict=True))["served"] for row in one.points] == [0.5, None]


def write(database: sqlite3.Connection, found: Mapping[int, Point]) -> None:
    points.put(database, {second: {"a": point} for second, point in found.items()}, {"a": 1})


def tables() -> sqlite3.Connection:
    database = sqlite3.connect(":memory:", isolation_level=None)
    database.execute("CREATE TABLE uplinks (id INTEGER PRIMARY KEY, name TEXT NOT NULL)")
    database.execute("INSERT INTO uplinks VALUES (1, 'a')")
    for statement in points.POINT_TABLES:
        database.execute(statement)
    return database


def content(database: sqlite3.Connection, tier: Tier) -> list[tuple[int, str, Point]]:
    return sorted(points.read(database, tier, 0, 1 << 40, ["a"]))


@settings(deadline=None, max_examples=30)
@given(st.dictionaries(st.integers(50_000, 50_700), POINTS, min_size=1, max_size=30), st.integers(1, 29))
def test_any_order_of_writes_gives_the_same_tiers_which_conserve_bytes(found: dict[int, Point], cut: int) -> None:
    one, other = tables(), tables()
    write(one, found)
    backward = [*reversed(found.items())]
    for part in (dict(backward[:cut]), dict(backward[cut:]), dict(backward[:cut])):
        write(other, part)
    for tier in TIERS:
        assert content(one, tier) == content(other, tier)
        assert merged(point for _, _, point in content(one, tier)) == merged(found.values())


def test_a_later_interval_takes_the_place_of_the_oldest_one() -> None:
    database, tier = tables(), SECONDS
    for second in (10, tier.kept + 10):
        write(database, {second: Point(rx=second, known=1)})
    assert [start for start, _, _ in content(database, tier)] == [tier.kept + 10]
    assert database.execute("SELECT count(*) FROM points_1").fetchone() == (1,)


@given(st.sampled_from(TIERS), st.integers(0, 1 << 31), st.integers(0, 1 << 21))
def test_every_interval_of_a_span_is_in_one_of_its_places(tier: Tier, since: int, lasted: int) -> None:
    places = tier.slots(since, since + lasted)
    for moment in (since, since + lasted, since + lasted // 2):
        assert any(first <= tier.slot(tier.start(moment)) <= last for first, last in places)


def test_questions_are_answered_from_the_finest_tier_that_lasts_as_long_and_has_few_enough_points() -> None:
    now = 1e9
    assert tier_of(now - 300, now, now, 300) == (SECONDS, 1)
    assert tier_of(now - 3600, now, now, 300) == (TENS, 20)
    assert tier_of(now - 86_400, now, now, 300) == (MINUTES, 300)
    assert tier_of(now - 7200, now - 7100, now, 300) == (TENS, 10)
    assert tier_of(now - 300 * 86_400, now, now, 300) == (HOURS, 86_400)


def test_a_series_has_null_where_nothing_is_known() -> None:
    found = [
        Measured(20, "a", point_of(UP, 1000, 100, known=True)),
        Measured(30, "a", point_of(NOTHING, 0, 0, known=False)),
    ]
    (one,) = series(found, ["a"], 10, 39, 10)
    assert one.columns == COLUMNS
    assert one.points == (
        (10.0, *[None] * 10),
        (20.0, 8000.0, 800.0, 8000.0, 800.0, 20.0, 20.0, 1.5, 0.0, 7.0, 1.0),
        (30.0, *[None] * 9, 0.0),
    )


def test_a_beat_says_how_long_each_state_was_and_the_rest_is_unknown() -> None:
    found = [
        Measured(0, "a", Point(up=500, degraded=20)),
        Measured(900, "a", Point(down=100, off=3)),
        Measured(1800, "a", Point(up=900)),
    ]
    lives = beats(found, ["a", "b"], [(0, 1800), (1800, 3600)], {("a", 0): ["no carrier"]})
    first, second = lives["a"]
    assert (first.up, first.degraded, first.down, first.off, first.reasons) == (500, 20, 100, 3, ("no carrier",))
    assert (second.up, second.seconds, second.start) == (900, 1800, "1970-01-01T00:30:00.000+00:00")
    assert [beat.up + beat.down for beat in lives["b"]] == [0, 0]
