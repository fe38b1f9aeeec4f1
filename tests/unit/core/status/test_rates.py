"""Rates are of the last few seconds of one device, whoever asks and when."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polywan.core.errors import KernelError
from polywan.core.status.rates import CADENCE, RATE_WINDOW, Counters, Sample, Samples, rate, taken
from polywan.kernel import counters

STEADY = 1000


def steady(seconds: float, index: int = 1, rx: int = 0) -> Samples:
    """A device that receives 1000 bytes a second, sampled for so long."""
    samples: Samples = ()
    for n in range(int(seconds / CADENCE) + 1):
        at = n * CADENCE
        samples = taken(samples, Sample(at, {"wan1": Counters(index, rx + round(STEADY * at), 0)}))
    return samples


def test_a_steady_stream_has_its_rate_from_the_first_question_on() -> None:
    for asked in (0.3, 1.0, 5.0, 60.0):
        samples = steady(asked)
        assert rate(samples, "wan1", Counters(1, round(STEADY * asked), 0), asked)[0] == pytest.approx(STEADY)


def test_nothing_is_said_of_a_moment_too_short_to_know() -> None:
    assert rate(steady(0), "wan1", Counters(1, 5, 0), 0.01) == (0, 0)
    assert rate((), "wan1", Counters(1, 5, 0), 99.0) == (0, 0)


def test_what_was_long_ago_is_in_no_rate() -> None:
    samples = steady(60)
    last = samples[-1].counters["wan1"]
    for n in range(1, 5):
        samples = taken(samples, Sample(60 + n * CADENCE, {"wan1": last}))
    assert rate(samples, "wan1", last, 60 + 4 * CADENCE + 0.5) == (0, 0)


def test_no_more_samples_are_kept_than_rates_need() -> None:
    assert len(steady(3600)) <= (RATE_WINDOW + CADENCE) / CADENCE + 1


@pytest.mark.parametrize("now", [Counters(2, 10**15, 10**15), Counters(1, 0, 0)])
def test_another_device_or_a_count_from_nothing_gives_no_giant_number(now: Counters) -> None:
    assert rate(steady(60), "wan1", now, 60.5) == (0, 0)


def test_the_rate_of_the_new_device_follows_as_soon_as_it_is_known() -> None:
    samples = taken(steady(60), Sample(62, {"wan1": Counters(2, 10**15, 0)}))
    assert rate(samples, "wan1", Counters(2, 10**15 + STEADY, 0), 63)[0] == pytest.approx(STEADY)


readings = st.lists(st.tuples(st.integers(1, 3), st.integers(0, 10**6)), min_size=1, max_size=20)


@given(readings, st.floats(0, 10))
def test_no_rate_is_larger_than_what_one_device_has_counted(seen: list[tuple[int, int]], later: float) -> None:
    samples: Samples = ()
    for n, (index, rx) in enumerate(seen):
        samples = taken(samples, Sample(n * CADENCE, {"wan1": Counters(index, rx, 0)}))
    index, rx = seen[-1]
    found = rate(samples, "wan1", Counters(index, rx, 0), (len(seen) - 1) * CADENCE + later)
    assert 0 <= found[0] <= 10**6 / 0.25


def test_the_counters_of_the_kernel_are_read_by_name(tmp_path: Path) -> None:
    file = tmp_path / "dev"
    head = "Inter-|   Receive                       |  Transmit\n face |bytes    packets errs drop\n"
    rest = "1 0 0 0 0 0 0 {tx} 2 0 0 0 0 0 0"
    lines = [("    lo", 7, 8), ("wan1", 10, 20), ("eth0:1", 30, 40)]
    file.write_text(head + "".join(f"{n}:{rx} {rest.format(tx=tx)}\n" for n, rx, tx in lines))
    assert counters.read(file) == {"lo": (7, 8), "wan1": (10, 20), "eth0:1": (30, 40)}
    with pytest.raises(KernelError):
        counters.read(tmp_path / "none")
