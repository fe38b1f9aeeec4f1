from dataclasses import replace
from datetime import UTC, datetime
from math import inf

import pytest

from polywan.config.model.quota import Quota
from polywan.core.quota.counting import Seen
from polywan.core.quota.report import brief, quota_status
from polywan.core.quota.usage import begun, counted, read

GB = 10**9
NOW = datetime(2026, 11, 5, tzinfo=UTC).timestamp()
QUOTA = Quota.model_validate({"monthly": "50GB", "at_soft": "block", "at_hard": "block"})
USAGE = begun(QUOTA, NOW, UTC)
NOTHING = "it gets no new connections"


@pytest.mark.parametrize(
    ("used", "text"),
    [
        (10, "10.0 GB of 50.0 GB used (20 %) until 2026-12-01"),
        (46, f"46.0 GB of 50.0 GB used (92 %) until 2026-12-01; the soft limit of 45.0 GB is passed: {NOTHING}"),
        (51, f"51.0 GB of 50.0 GB used (102 %) until 2026-12-01; it is used up: {NOTHING}"),
    ],
)
def test_a_sentence_says_what_is_used_until_when_and_what_follows(used: int, text: str) -> None:
    assert brief(replace(USAGE, counted=used * GB), QUOTA) == text


def test_a_bucket_has_no_end_in_its_sentence() -> None:
    bucket = Quota.model_validate({"prepaid": "10GB"})
    assert brief(begun(bucket, NOW, UTC), bucket) == "0 B of 10.0 GB used (0 %)"


def test_the_status_has_all_of_it() -> None:
    usage = counted(None, QUOTA, Seen("wan1", 1, "", 0, 0), NOW, UTC)
    usage = counted(usage, QUOTA, Seen("wan1", 1, "", 6 * GB, 0), NOW + 86400 - 1, UTC)
    status = quota_status(usage, QUOTA, NOW + 86400, 3600.0)
    assert (status.kind, status.state, status.action) == ("monthly", "within", "none")
    assert (status.used_bytes, status.soft_bytes, status.hard_bytes) == (6 * GB, 45 * GB, 50 * GB)
    assert (status.since, status.resets) == ("2026-11-01T00:00:00.000+00:00", "2026-12-01T00:00:00.000+00:00")
    assert status.forecast_bytes == 156 * GB
    assert status.runs_out == "2026-11-13T08:00:00.000+00:00"
    assert status.text == "6.0 GB of 50.0 GB used (12 %) until 2026-12-01; as it goes on, all of it by 2026-11-13"


def test_the_status_has_what_the_provider_said() -> None:
    status = quota_status(read(USAGE, QUOTA, 7 * GB, NOW, UTC), QUOTA, NOW, 0.0)
    assert (status.used_bytes, status.reading_bytes) == (7 * GB, 7 * GB)
    assert status.reading_at == "2026-11-05T00:00:00.000+00:00"


def test_without_a_moment_nothing_is_foreseen() -> None:
    assert quota_status(USAGE, QUOTA, inf, 0.0).forecast_bytes is None
