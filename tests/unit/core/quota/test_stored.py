import json
from dataclasses import replace
from datetime import UTC, datetime
from math import inf
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polywan.core.quota.counting import Seen
from polywan.core.quota.stored import restored, stored
from polywan.core.quota.usage import QuotaKind, Usage

NOW = datetime(2026, 11, 20, tzinfo=UTC).timestamp()
USAGE = Usage(
    kind=QuotaKind.MONTHLY,
    begins=NOW,
    ends=NOW + 86400.0,
    next_day="2026-12-01",
    counted=123,
    reading=7,
    reading_at=NOW + 1.5,
    bought=3,
    first=NOW - 1.0,
    days=((20_000, 5), (20_001, 6)),
    seen=Seen("wwan0", 3, "0fda", 10, 20),
)
BUCKET = Usage(kind=QuotaKind.PREPAID, begins=NOW, first=NOW)
KNOWN = {"lte": USAGE, "sat": BUCKET, "device:eth1": replace(USAGE, seen=None)}


def test_what_is_written_is_read_again() -> None:
    assert restored(json.loads(json.dumps(stored(KNOWN)))) == KNOWN


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("kind", "weekly"),
        ("begins", "now"),
        ("begins", 1e300),
        ("ends", -1e300),
        ("next_day", "\x1b[2J"),
        ("next_day", 5),
        ("counted", -1),
        ("counted", 1.5),
        ("counted", True),
        ("counted", 1 << 70),
        ("reading", "7"),
        ("reading_at", []),
        ("days", 5),
        ("days", [[1]]),
        ("days", [[1, -1]]),
        ("seen", []),
        ("seen", {"device": "x"}),
        ("first", None),
    ],
)
def test_a_value_that_makes_no_sense_is_refused(key: str, value: object) -> None:
    document = json.loads(json.dumps(stored(KNOWN)))
    document["uplinks"]["lte"][key] = value
    with pytest.raises(ValueError):  # noqa: PT011 - whoever reads the file says which file
        restored(document)


@pytest.mark.parametrize("uplinks", [None, [], "x", {"lte": None}, {"lte": []}, {"x" * 300: {}}])
def test_a_document_of_another_kind_is_refused(uplinks: object) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - as above
        restored({"uplinks": uplinks})


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
values: st.SearchStrategy[Any] = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
)


@given(st.sampled_from([*json.loads(json.dumps(stored(KNOWN)))["uplinks"]["lte"]]), values)
def test_whatever_is_there_is_understood_or_refused(key: str, value: object) -> None:
    document = json.loads(json.dumps(stored(KNOWN)))
    document["uplinks"]["lte"][key] = value
    try:
        found = restored(document)
    except ValueError:
        return
    assert restored(json.loads(json.dumps(stored(found)))) == found
    assert found["lte"].ends <= inf
