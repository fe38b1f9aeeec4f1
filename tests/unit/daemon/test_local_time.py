"""Local time of the C library is that of the time zone data."""

import os
import time
from collections.abc import Iterator
from datetime import datetime
from zoneinfo import ZoneInfo

import pytest

from polywan.core.quota.period import period_at
from polywan.daemon.clock import LocalTime

ZONES = ("UTC", "Europe/Berlin", "America/New_York", "America/Havana", "Australia/Lord_Howe", "Asia/Kathmandu")


@pytest.fixture(params=ZONES)
def zone(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[ZoneInfo]:
    monkeypatch.setenv("TZ", request.param)
    time.tzset()
    yield ZoneInfo(request.param)
    monkeypatch.undo()
    time.tzset()
    assert os.environ.get("TZ") != request.param or request.param == "UTC"


def test_moments_have_the_local_time_of_their_zone(zone: ZoneInfo) -> None:
    # Every five hours and a bit, over two years.
    for unix in range(1_790_000_000, 1_850_000_000, 18_661):
        local = datetime.fromtimestamp(unix, LocalTime())
        assert local.replace(tzinfo=None) == datetime.fromtimestamp(unix, zone).replace(tzinfo=None)


def test_billing_periods_are_those_of_the_zone(zone: ZoneInfo) -> None:
    for unix in range(1_790_000_000, 1_850_000_000, 86_400):
        for day in (1, 8, 31):
            assert period_at(unix, day, LocalTime()) == period_at(unix, day, zone)
