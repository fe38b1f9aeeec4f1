"""Windows of local time: what the kernel is asked in days and seconds of its own is what the clock on the wall says."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from polywan.config import Window
from polywan.core.ruleset.windows import DAY, WEEK, window_texts, windows_utc, within

MONDAY = 4 * DAY
"""5 January 1970, 00:00 UTC."""

MINUTES = st.integers(0, 1440).map(lambda minutes: 60 * minutes)
OFFSETS = st.integers(-14 * 60, 14 * 60).map(lambda minutes: 60 * minutes)
DAYS = st.sets(st.integers(0, 6), min_size=1).map(lambda days: tuple(sorted(days)))
WINDOWS = st.lists(
    st.builds(Window, days=DAYS, start=MINUTES.filter(lambda second: second < DAY), end=MINUTES), min_size=1, max_size=3
)


def kernel_says(spans: tuple[tuple[int, int, int], ...], at: int, west: int) -> bool:
    """What nft makes of `meta day` and `meta hour` at that Unix time (nft_meta_weekday, nft_meta_hour)."""
    day, second = ((at - west) // DAY + 4) % 7, at % DAY
    return any(day == d and first <= second <= last for d, first, last in spans)


@given(WINDOWS, OFFSETS)
def test_every_minute_of_a_week_is_in_or_out_as_the_local_clock_says(windows: list[Window], offset: int) -> None:
    spans = windows_utc(windows, offset)
    for at in range(MONDAY, MONDAY + WEEK, 60):
        assert kernel_says(spans, at, 0) == within(windows, at + offset), at


@given(WINDOWS, OFFSETS, OFFSETS)
def test_a_kernel_that_counts_days_elsewhere_changes_nothing(windows: list[Window], offset: int, west: int) -> None:
    spans = windows_utc(windows, offset, west)
    for at in range(MONDAY, MONDAY + WEEK, 300):
        assert kernel_says(spans, at, west) == within(windows, at + offset), at


@given(WINDOWS, OFFSETS)
def test_the_first_and_the_last_second_of_a_window_are_in_it(windows: list[Window], offset: int) -> None:
    for window in windows:
        begin = MONDAY + window.days[0] * DAY + window.start - offset
        length = (window.end - window.start) % DAY or DAY
        assert kernel_says(windows_utc([window], offset), begin, 0)
        assert kernel_says(windows_utc([window], offset), begin + length - 1, 0)
        alone = len(window.days) == 1 and length < DAY
        assert not alone or not kernel_says(windows_utc([window], offset), begin + length, 0)


@given(WINDOWS, OFFSETS, OFFSETS)
def test_spans_of_a_day_are_sorted_and_never_touch(windows: list[Window], offset: int, west: int) -> None:
    spans = windows_utc(windows, offset, west)
    assert list(spans) == sorted(spans)
    assert all(0 <= first <= last < DAY for _, first, last in spans)
    assert all(d < e or last + 1 < first for (d, _, last), (e, first, _) in pairwise(spans))


@given(WINDOWS, OFFSETS)
def test_days_with_the_same_hours_share_a_text(windows: list[Window], offset: int) -> None:
    texts = window_texts(windows, offset)
    hours = [text.partition("meta hour")[2] for text in texts]
    assert len(set(hours)) == len(hours)
