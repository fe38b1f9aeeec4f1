from dataclasses import replace
from datetime import UTC, datetime
from math import inf
from typing import Any

import pytest

from polywan.config.model.quota import Quota
from polywan.core.quota.counting import Seen
from polywan.core.quota.usage import QuotaKind, Usage, available, begun, counted, followed, read, refilled

GB = 10**9
MONTHLY = Quota.model_validate({"monthly": "50GB", "billing_day": 15})
PREPAID = Quota.model_validate({"prepaid": "10GB"})


def at(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


NOW = at("2026-11-20T12:00")


def look(rx: int, tx: int = 0, **changes: Any) -> Seen:
    return Seen("wwan0", 3, "boot", rx, tx)._replace(**changes)


def used(quota: Quota, *looks: Seen, usage: Usage | None = None, unix: float = NOW) -> Usage:
    for each in looks:
        usage = counted(usage, quota, each, unix, UTC)
    assert usage is not None
    return usage


def test_counting_begins_at_nothing_with_the_first_look() -> None:
    usage = used(MONTHLY, look(7 * GB))
    assert (usage.used, usage.begins, usage.next_day) == (0, at("2026-11-15"), "2026-12-15")


@pytest.mark.parametrize(("counts", "bytes_used"), [("both", 5), ("down", 3), ("up", 2)])
def test_the_bytes_of_the_directions_that_count_are_added(counts: str, bytes_used: int) -> None:
    quota = Quota.model_validate({"monthly": "50GB", "counts": counts})
    assert used(quota, look(0, 0), look(3, 2)).used == bytes_used


def test_a_device_that_is_away_for_a_while_loses_nothing() -> None:
    usage = counted(used(MONTHLY, look(0), look(5)), MONTHLY, None, NOW, UTC)
    assert used(MONTHLY, look(3, ifindex=9), usage=usage).used == 8


def test_with_the_billing_day_counting_begins_anew() -> None:
    last = at("2026-12-14T23:59")
    before = refilled(used(MONTHLY, look(0), look(5 * GB), unix=last), MONTHLY, 3 * GB, last)
    after = used(MONTHLY, look(6 * GB), usage=before, unix=at("2026-12-15"))
    assert (after.used, after.next_day, available(after, MONTHLY)) == (GB, "2027-01-15", 50 * GB)


def test_a_daemon_that_did_not_run_on_the_billing_day_begins_anew_later() -> None:
    after = used(MONTHLY, look(9 * GB), usage=used(MONTHLY, look(0), look(5 * GB)), unix=at("2027-03-20"))
    assert after.next_day == "2027-04-15"
    # Of the time since the day of the last look, 5 days of 119 are of this period.
    assert after.used == round(4 * GB * 5 / 119)


@pytest.mark.parametrize(
    ("gone", "part"), [("2026-12-14T23:59", 1.0), ("2026-12-14T00:01", 1.0), ("2026-12-12T12:00", 1 / 3)]
)
def test_bytes_of_a_gap_over_the_billing_day_are_not_all_of_the_new_period(gone: str, part: float) -> None:
    before = used(MONTHLY, look(0), look(5 * GB), unix=at(gone))
    after = used(MONTHLY, look(14 * GB), usage=before, unix=at("2026-12-16"))
    assert after.used == round(9 * GB * part)


def test_a_quota_that_comes_back_to_the_file_after_months_is_not_used_up_by_them() -> None:
    for other in (MONTHLY, PREPAID):
        before = used(MONTHLY, look(0), look(5 * GB), unix=at("2026-06-20"))
        assert used(other, look(900 * GB), usage=before, unix=at("2026-11-15")).used == 0
    # Within one period all of them are its own.
    before = used(MONTHLY, look(0), look(5 * GB), unix=at("2026-11-16"))
    assert used(MONTHLY, look(9 * GB), usage=before, unix=at("2026-12-10")).used == 9 * GB


def test_a_clock_that_is_set_back_ends_no_period() -> None:
    before = used(MONTHLY, look(0), look(5 * GB))
    unset = used(MONTHLY, look(6 * GB), usage=before, unix=at("1970-01-01T00:01"))
    assert used(MONTHLY, look(7 * GB), usage=unset).used == 7 * GB


def test_another_billing_day_moves_the_end_and_keeps_what_was_used() -> None:
    other = Quota.model_validate({"monthly": "50GB", "billing_day": 1})
    after = followed(used(MONTHLY, look(0), look(5 * GB)), other, NOW, UTC)
    assert (after.used, after.begins, after.next_day) == (5 * GB, at("2026-11-01"), "2026-12-01")


def test_a_quota_of_another_kind_begins_anew() -> None:
    after = used(PREPAID, look(6 * GB), usage=used(MONTHLY, look(0), look(5 * GB)))
    assert (after.kind, after.used, after.ends, after.begins) == (QuotaKind.PREPAID, GB, inf, NOW)


def test_the_providers_count_replaces_ours_and_bytes_are_added_to_it() -> None:
    usage = read(used(MONTHLY, look(0), look(5 * GB)), MONTHLY, 7 * GB, NOW + 60, UTC)
    assert (usage.used, usage.reading, usage.reading_at) == (7 * GB, 7 * GB, NOW + 60)
    assert used(MONTHLY, look(6 * GB), usage=usage).used == 8 * GB


def test_the_providers_count_is_forgotten_with_the_next_period() -> None:
    usage = read(used(MONTHLY, look(0)), MONTHLY, 7 * GB, NOW, UTC)
    after = followed(usage, MONTHLY, at("2026-12-20"), UTC)
    assert (after.used, after.reading, after.reading_at) == (0, None, None)


def test_the_providers_count_brings_back_a_period_of_a_clock_that_was_ahead() -> None:
    ahead = used(MONTHLY, look(0), unix=at("2038-01-01"))
    assert followed(ahead, MONTHLY, NOW, UTC).next_day == "2038-01-15"
    assert read(ahead, MONTHLY, GB, NOW, UTC).next_day == "2026-12-15"


def test_what_is_bought_is_added_to_this_period() -> None:
    usage = refilled(used(MONTHLY, look(0), look(5 * GB)), MONTHLY, 10 * GB, NOW)
    assert (usage.used, available(usage, MONTHLY)) == (5 * GB, 60 * GB)
    assert available(refilled(usage, MONTHLY, GB, NOW), MONTHLY) == 61 * GB


def test_a_bucket_that_is_refilled_holds_what_is_left_and_what_was_bought() -> None:
    usage = refilled(used(PREPAID, look(0), look(4 * GB)), PREPAID, 10 * GB, NOW + 60)
    assert (usage.used, available(usage, PREPAID), usage.begins) == (0, 16 * GB, NOW + 60)


def test_a_bucket_that_was_emptied_twice_over_holds_what_was_bought() -> None:
    usage = refilled(used(PREPAID, look(0), look(12 * GB)), PREPAID, 5 * GB, NOW)
    assert (usage.used, available(usage, PREPAID)) == (0, 5 * GB)


def test_of_a_bucket_that_was_refilled_the_file_says_nothing_any_more() -> None:
    usage = refilled(begun(PREPAID, NOW, UTC), PREPAID, GB, NOW)
    assert available(usage, Quota.model_validate({"prepaid": "90GB"})) == 11 * GB


def test_two_weeks_of_days_are_kept() -> None:
    usage = used(MONTHLY, look(0))
    for day in range(30):
        usage = used(MONTHLY, look(day + 1), usage=usage, unix=NOW + day * 86400)
    assert len(usage.days) == 14
    assert sum(count for _, count in usage.days) == 14


def test_a_look_without_bytes_changes_nothing_but_the_look() -> None:
    usage = used(MONTHLY, look(5))
    assert replace(used(MONTHLY, look(5), usage=usage, unix=NOW + 1), seen=usage.seen) == usage
