"""What holds of quotas whatever the bytes, the clock and the people do."""

from datetime import UTC, datetime, timedelta, tzinfo
from itertools import pairwise
from zoneinfo import ZoneInfo

from hypothesis import given
from hypothesis import strategies as st

from polywan.config.model.quota import Quota
from polywan.core.quota.counting import Seen
from polywan.core.quota.forecast import forecast
from polywan.core.quota.limits import Level, level, limits
from polywan.core.quota.period import local_day, period_at
from polywan.core.quota.usage import Usage, available, counted, read, refilled

ZONES = ("UTC", "Europe/Berlin", "America/Havana", "Australia/Lord_Howe", "Pacific/Apia", "America/Sao_Paulo")
MOMENTS = st.floats(min_value=1e9, max_value=4e9)
START = datetime(2026, 11, 2, tzinfo=UTC).timestamp()
LEVELS = [Level.WITHIN, Level.SOFT, Level.HARD]

quotas = st.builds(
    lambda day, counts, soft: Quota.model_validate(
        {"monthly": "1GB", "billing_day": day, "counts": counts, "soft": soft}
    ),
    st.integers(1, 31),
    st.sampled_from(("both", "down", "up")),
    st.floats(0, 1),
)
zones = st.sampled_from(ZONES).map(ZoneInfo)
sizes = st.integers(0, 400_000_000)
steps = st.lists(st.tuples(sizes, sizes, st.booleans()), max_size=12)


def looks(moves: list[tuple[int, int, bool]]) -> list[Seen]:
    """Return looks at a device that moves so much between them, and is replaced now and then."""
    found = [Seen("ppp0", 1, "boot", 0, 0)]
    for rx, tx, replaced in moves:
        last = found[-1]
        if replaced:
            found.append(Seen("ppp0", last.ifindex + 1, "boot", rx, tx))
        else:
            found.append(Seen("ppp0", last.ifindex, "boot", last.rx + rx, last.tx + tx))
    return found


def run(quota: Quota, seen: list[Seen], zone: tzinfo = UTC) -> list[Usage]:
    usages: list[Usage] = []
    for number, each in enumerate(seen):
        usages.append(counted(usages[-1] if usages else None, quota, each, START + number, zone))
    return usages


@given(MOMENTS, st.integers(1, 31), zones)
def test_every_moment_is_in_its_period_and_periods_follow_each_other(unix: float, day: int, zone: ZoneInfo) -> None:
    period = period_at(unix, day, zone)
    assert period.begins <= unix < period.ends
    assert period_at(period.begins, day, zone) == period
    assert period_at(period.ends, day, zone).begins == period.ends
    assert 27 * 86400 < period.ends - period.begins < 33 * 86400


@given(MOMENTS, st.integers(1, 31), zones)
def test_a_period_begins_on_the_billing_day_or_on_the_last_of_the_month(unix: float, day: int, zone: ZoneInfo) -> None:
    first = local_day(period_at(unix, day, zone).begins, zone)
    last = (first + timedelta(days=1)).month != first.month
    # Apia had no 30th of December in 2011.
    assert first.day == day or (first.day < day and last) or zone.key == "Pacific/Apia"


@given(quotas, steps)
def test_within_a_period_bytes_are_only_added_and_limits_only_passed(
    quota: Quota, moves: list[tuple[int, int, bool]]
) -> None:
    for before, after in pairwise(run(quota, looks(moves))):
        if before.ends == after.ends:
            assert before.used <= after.used
            assert LEVELS.index(level(before, quota)) <= LEVELS.index(level(after, quota))


@given(quotas, steps, st.data())
def test_however_often_somebody_looks_the_sum_is_the_same(
    quota: Quota, moves: list[tuple[int, int, bool]], data: st.DataObject
) -> None:
    every = looks(moves)
    # A device that is replaced between two looks takes what it moved since the last one with it.
    needed = {0, len(every) - 1} | {i for i, (a, b) in enumerate(pairwise(every)) if a.ifindex != b.ifindex}
    some = [each for i, each in enumerate(every) if i in needed or data.draw(st.booleans())]
    assert run(quota, every)[-1].used == run(quota, some)[-1].used


@given(quotas, steps, steps, st.integers(0, 2_000_000_000))
def test_after_a_reading_it_counts_with_what_went_by_since(
    quota: Quota, before: list[tuple[int, int, bool]], after: list[tuple[int, int, bool]], reading: int
) -> None:
    usage = read(run(quota, looks(before))[-1], quota, reading, START + 50, UTC)
    assert usage.used == reading
    last = looks(before)[-1]
    total = 0
    for rx, tx, _ in after:
        last = last._replace(rx=last.rx + rx, tx=last.tx + tx)
        usage = counted(usage, quota, last, START + 60, UTC)
        total += {"both": rx + tx, "down": rx, "up": tx}[quota.counts]
    assert usage.used == reading + total


@given(quotas, steps, st.integers(0, 10**9))
def test_what_is_bought_takes_nothing_away(quota: Quota, moves: list[tuple[int, int, bool]], bought: int) -> None:
    usage = run(quota, looks(moves))[-1]
    after = refilled(usage, quota, bought, START + 60)
    assert available(after, quota) - after.used == available(usage, quota) - usage.used + bought
    bucket = Quota.model_validate({"prepaid": "1GB"})
    usage = run(bucket, looks(moves))[-1]
    after = refilled(usage, bucket, bought, START + 60)
    assert available(after, bucket) - after.used == max(0, available(usage, bucket) - usage.used) + bought


@given(quotas, steps, st.floats(0, 40 * 86400))
def test_a_forecast_is_no_less_than_what_is_used_and_an_end_is_still_to_come(
    quota: Quota, moves: list[tuple[int, int, bool]], later: float
) -> None:
    usage, unix = run(quota, looks(moves))[-1], START + 12 + later
    expected = forecast(usage, limits(usage, quota).hard, unix)
    assert expected.used is None or expected.used >= usage.used
    assert expected.runs_out is None or unix <= expected.runs_out < usage.ends
