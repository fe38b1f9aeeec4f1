from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from math import inf

import pytest

from polywan.config.model.quota import Quota
from polywan.core.quota.counting import Seen
from polywan.core.quota.forecast import NOT_KNOWN, forecast, rate
from polywan.core.quota.usage import QUOTA_DAY, QuotaKind, Usage, counted

GB = 10**9
QUOTA = Quota.model_validate({"monthly": "100GB"})
START = datetime(2026, 11, 1, tzinfo=UTC).timestamp()


def used(gigabytes: Sequence[float]) -> tuple[Usage, float]:
    """Return the use after days with so many gigabytes each, looked at every hour, and the moment after them."""
    usage, total = counted(None, QUOTA, Seen("wwan0", 3, "boot", 0, 0), START, UTC), 0
    for hour in range(24 * len(gigabytes)):
        total += round(gigabytes[hour // 24] * GB / 24)
        seen = Seen("wwan0", 3, "boot", total, 0)
        usage = counted(usage, QUOTA, seen, START + (hour + 1) * 3600 - 1, UTC)
    return usage, START + len(gigabytes) * QUOTA_DAY


def test_before_a_day_was_counted_nothing_is_said() -> None:
    usage, _ = used([1])
    assert forecast(usage, 100 * GB, START + QUOTA_DAY - 60) == NOT_KNOWN


def test_a_steady_line_goes_on_as_it_was() -> None:
    usage, now = used([2] * 10)
    expected = forecast(usage, 100 * GB, now)
    assert expected.used == pytest.approx(60 * GB, rel=0.02)
    assert expected.runs_out is None


def test_a_line_that_uses_more_than_it_has_runs_out_before_the_period_ends() -> None:
    usage, now = used([8] * 10)
    expected = forecast(usage, 100 * GB, now)
    assert expected.runs_out == pytest.approx(START + 12.5 * QUOTA_DAY, abs=0.3 * QUOTA_DAY)


def test_a_new_habit_shows_within_a_week() -> None:
    usage, now = used([1] * 7 + [5] * 7)
    found = rate(usage, now)
    assert found is not None
    assert 3.8 * GB < found * QUOTA_DAY < 5 * GB


def test_one_large_download_does_not_stay() -> None:
    usage, now = used([1] * 5 + [30] + [1] * 8)
    found = rate(usage, now)
    assert found is not None
    assert found * QUOTA_DAY < 3 * GB


def test_days_on_which_the_box_was_off_count_as_well() -> None:
    usage, now = used([4] * 4)
    found = rate(usage, now + 4 * QUOTA_DAY)
    assert found is not None
    assert found * QUOTA_DAY < 2 * GB


def test_a_bucket_has_no_forecast_but_an_end() -> None:
    usage, now = used([2] * 5)
    bucket = replace(usage, kind=QuotaKind.PREPAID, ends=inf)
    expected = forecast(bucket, 20 * GB, now)
    assert expected.used is None
    assert expected.runs_out == pytest.approx(now + 5 * QUOTA_DAY, abs=0.2 * QUOTA_DAY)


def test_what_is_used_up_does_not_run_out_again() -> None:
    usage, now = used([2] * 5)
    assert forecast(usage, 5 * GB, now).runs_out is None


def test_a_line_that_carries_nothing_never_runs_out() -> None:
    usage, now = used([0] * 5)
    assert forecast(usage, 5 * GB, now) == (0, None)


def test_a_clock_that_jumped_over_years_is_followed() -> None:
    usage, _ = used([2] * 3)
    assert rate(usage, START + 20_000 * QUOTA_DAY) == 0
