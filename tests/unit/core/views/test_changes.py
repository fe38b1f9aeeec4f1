"""What is a change of an uplink, and what is only measured."""

from __future__ import annotations

from typing import Any

import pytest

from polywan.api.status import UplinkStatus
from polywan.api.views.quota import QuotaStatus
from polywan.core.views.changes import differs
from support.documents import ago, uplink

BASE = uplink("a")
SINCE, RESETS = ago(86400), ago(-86400)


def quota(**changes: Any) -> QuotaStatus:
    known: dict[str, Any] = {
        "kind": "monthly",
        "state": "within",
        "action": "none",
        "used_bytes": 900,
        "soft_bytes": 9000,
        "hard_bytes": 10_000,
        "since": SINCE,
        "resets": RESETS,
        "forecast_bytes": None,
        "runs_out": None,
        "reading_bytes": None,
        "reading_at": None,
        "text": "900 B of 10.0 kB used",
    }
    return QuotaStatus(**known | changes)


def limited(found: QuotaStatus | None) -> UplinkStatus:
    return UplinkStatus(**{name: getattr(BASE, name) for name in UplinkStatus.__fields__} | {"quota": found})


def test_bytes_of_a_quota_are_measured_and_no_change() -> None:
    more = quota(used_bytes=901, forecast_bytes=1800, runs_out=RESETS, text="901 B of 10.0 kB used")
    assert not differs(limited(quota()), limited(more))
    assert differs(limited(quota()), limited(more), whole=True)


@pytest.mark.parametrize(
    "after",
    [
        None,
        quota(state="soft", action="less"),
        quota(hard_bytes=20_000),
        quota(resets=SINCE),
        quota(reading_bytes=5, reading_at=SINCE),
    ],
)
def test_a_limit_a_period_an_entry_and_another_file_are_changes_of_a_quota(after: QuotaStatus | None) -> None:
    assert differs(limited(quota()), limited(after))
    assert differs(limited(after), limited(quota()))
