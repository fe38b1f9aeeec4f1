from datetime import datetime
from zoneinfo import ZoneInfo

import pytest

from polywan.core.quota.period import FIRST_MOMENT, LAST_MOMENT, period_at

BERLIN = ZoneInfo("Europe/Berlin")


def at(text: str, zone: ZoneInfo = BERLIN) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=zone).timestamp()


@pytest.mark.parametrize(
    ("moment", "day", "begins", "ends"),
    [
        ("2026-11-15T12:00", 15, "2026-11-15", "2026-12-15"),
        ("2026-11-14T23:59:59", 15, "2026-10-15", "2026-11-15"),
        ("2026-11-15T00:00", 15, "2026-11-15", "2026-12-15"),
        ("2026-01-01T00:00", 1, "2026-01-01", "2026-02-01"),
        ("2026-01-01T08:00", 2, "2025-12-02", "2026-01-02"),
        ("2026-12-31T08:00", 31, "2026-12-31", "2027-01-31"),
    ],
)
def test_a_period_is_from_one_billing_day_to_the_next(moment: str, day: int, begins: str, ends: str) -> None:
    period = period_at(at(moment), day, BERLIN)
    assert (period.begins, period.ends, period.next_day) == (at(begins), at(ends), ends)


@pytest.mark.parametrize(
    ("moment", "begins", "ends"),
    [
        ("2026-02-10T12:00", "2026-01-31", "2026-02-28"),
        ("2026-02-28T12:00", "2026-02-28", "2026-03-31"),
        ("2028-02-28T12:00", "2028-01-31", "2028-02-29"),
        ("2026-03-30T12:00", "2026-02-28", "2026-03-31"),
        ("2026-04-30T12:00", "2026-04-30", "2026-05-31"),
    ],
)
def test_in_a_month_without_the_billing_day_it_is_the_last_one(moment: str, begins: str, ends: str) -> None:
    period = period_at(at(moment), 31, BERLIN)
    assert (period.begins, period.ends) == (at(begins), at(ends))


def test_a_period_with_a_change_of_the_clocks_is_an_hour_longer_or_shorter() -> None:
    spring, autumn = period_at(at("2026-03-15T12:00"), 1, BERLIN), period_at(at("2026-10-15T12:00"), 1, BERLIN)
    assert (spring.ends - spring.begins, autumn.ends - autumn.begins) == (31 * 86400 - 3600, 31 * 86400 + 3600)


def test_where_clocks_are_set_at_midnight_the_period_begins_with_the_day() -> None:
    # In Havana, 2026-03-08 has no first hour; 2026-11-01 has it twice.
    havana = ZoneInfo("America/Havana")
    moment = at("2026-03-08T01:00", havana)
    assert period_at(moment, 8, havana).begins == moment
    assert period_at(moment - 1, 8, havana).ends == moment
    twice = at("2026-11-01T00:30", havana)
    assert period_at(twice, 1, havana).begins == twice - 1800


def test_the_periods_of_two_time_zones_differ() -> None:
    moment = at("2026-11-01T00:30")
    assert period_at(moment, 1, BERLIN).next_day == "2026-12-01"
    assert period_at(moment, 1, ZoneInfo("America/New_York")).next_day == "2026-11-01"


@pytest.mark.parametrize("unix", [-1e12, 0.0, FIRST_MOMENT, LAST_MOMENT, 1e15])
def test_a_clock_that_is_wrong_has_a_period_all_the_same(unix: float) -> None:
    period = period_at(unix, 31, BERLIN)
    assert period.begins < period.ends
