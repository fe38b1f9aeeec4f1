"""How well an uplink carries, and when it is degraded."""

from collections.abc import Iterable
from ipaddress import ip_address

import pytest

from polywan.config import HealthSettings
from polywan.core.health import quality as ql
from polywan.core.health.quality import Measure, Quality

NEAR, MIDDLE, FAR = (ip_address(f"192.0.2.{n}") for n in (1, 2, 3))
SETTINGS = HealthSettings(targets=(NEAR, MIDDLE, FAR), degraded_jitter=0.1)


def measured(
    rtts: Iterable[tuple[float | None, float | None, float | None]],
    quality: Quality = ql.UNKNOWN,
    settings: HealthSettings = SETTINGS,
) -> Quality:
    """Fold in rounds, one outcome for each target, and judge after each of them."""
    last = max((target.number for target in quality.targets), default=0)
    for number, outcomes in enumerate(rtts, start=last + 1):
        for target, rtt in zip((NEAR, MIDDLE, FAR), outcomes, strict=True):
            quality = ql.judged(ql.sample(quality, settings, target, number, rtt), settings)
    return quality


FAST = (0.02, 0.02, 0.02)
LOST = (None, None, None)


def every(n: int, rounds: int) -> list[tuple[float | None, float | None, float | None]]:
    """Rounds of which every n-th is lost."""
    return [LOST if k % n == n - 1 else FAST for k in range(rounds)]


def test_nothing_is_known_before_the_first_probe() -> None:
    assert (ql.UNKNOWN.loss, ql.UNKNOWN.rtt, ql.UNKNOWN.reason) == (None, None, "")


def test_the_figures_are_those_of_the_quorum_th_best_target() -> None:
    found = measured([(0.01, 0.03, 0.9)] * 20)
    assert found.rtt == pytest.approx(0.03)
    assert found.poor == ()


def test_a_target_that_answers_nothing_does_not_degrade_the_uplink() -> None:
    found = measured([(0.02, 0.02, None)] * 40)
    assert (found.loss, found.poor) == (0.0, ())


def test_loss_at_the_limit_degrades_and_says_so() -> None:
    found = measured(every(5, 30))
    assert found.poor == (Measure.LOSS,)
    assert found.reason == "loss 20 % (limit 20 %)"


def test_loss_of_few_probes_is_no_loss_yet() -> None:
    assert measured(every(3, 19)).poor == ()
    assert measured(every(3, 20)).poor == (Measure.LOSS,)


def test_a_lossy_uplink_stays_degraded_until_loss_is_down_to_the_lower_limit() -> None:
    lossy = measured(every(4, 40))
    better = measured([FAST] * 10, lossy)
    assert better.loss == pytest.approx(5 / 30)
    assert better.reason == "loss 17 % (recovers at 10 %)"
    assert measured([FAST] * 10, better).poor == ()


def test_loss_below_the_limit_degrades_nobody_who_is_well() -> None:
    assert measured(every(8, 60)).poor == ()


def test_the_window_forgets_within_a_minute() -> None:
    assert measured([FAST] * 30, measured(every(2, 60))).loss == 0.0


def test_a_slow_link_is_degraded_by_its_round_trip() -> None:
    found = measured([(0.6, 0.6, 0.6)] * 30)
    assert found.reason == "round trip 600 ms (limit 500 ms)"


def test_and_well_again_only_below_the_lower_limit() -> None:
    slow = measured([(0.6, 0.6, 0.6)] * 30)
    assert measured([(0.3, 0.3, 0.3)] * 60, slow).poor == (Measure.RTT,)
    assert measured([FAST] * 60, slow).poor == ()


def test_a_first_answer_that_waited_for_the_radio_is_no_slow_link() -> None:
    settings = SETTINGS.model_copy(update={"degraded_jitter": None})
    assert all(measured([(0.95, 0.95, 0.95), *[FAST] * n], settings=settings).poor == () for n in range(30))


def test_unsteady_links_are_degraded_by_jitter_if_asked_for() -> None:
    waves = [(0.02, 0.02, 0.02), (0.35, 0.35, 0.35)] * 20
    assert measured(waves).poor == (Measure.JITTER,)
    assert measured(waves, settings=SETTINGS.model_copy(update={"degraded_jitter": None})).poor == ()


def test_a_round_trip_between_its_limits_does_not_hold_up_an_uplink_that_was_lossy() -> None:
    lossy = measured([LOST if k % 4 == 3 else (0.3, 0.3, 0.3) for k in range(40)])
    assert lossy.poor == (Measure.LOSS,)
    assert measured([(0.3, 0.3, 0.3)] * 30, lossy).poor == ()


def test_two_causes_are_both_named() -> None:
    found = measured([LOST if k % 4 == 3 else (0.7, 0.7, 0.7) for k in range(40)])
    assert found.reason == "loss 27 % (limit 20 %), round trip 700 ms (limit 500 ms)"


def test_an_outage_that_is_over_is_not_counted_as_loss() -> None:
    outage = measured([*[LOST] * 30, *[FAST] * 5])
    assert ql.recent(outage, SETTINGS, 5).loss == 0.0


def test_targets_that_are_no_longer_configured_are_forgotten() -> None:
    fewer = SETTINGS.model_copy(update={"targets": (NEAR,)})
    assert [t.address for t in ql.only(measured([FAST]), fewer).targets] == [NEAR]


def test_a_single_target_speaks_for_itself() -> None:
    settings = SETTINGS.model_copy(update={"targets": (NEAR,)})
    found = ql.UNKNOWN
    for n in range(30):
        found = ql.judged(ql.sample(found, settings, NEAR, n + 1, 0.02 if n % 3 else None), settings)
    assert found.loss == pytest.approx(1 / 3)
    assert found.poor == (Measure.LOSS,)


def turns(rounds: int, quality: Quality, answer: float | None = 0.02) -> Quality:
    """Fold in rounds of one target each, which take turns."""
    last = max(target.number for target in quality.targets)
    for number in range(last + 1, last + rounds + 1):
        target = (NEAR, MIDDLE, FAR)[number % 3]
        quality = ql.judged(ql.sample(quality, SETTINGS, target, number, answer), SETTINGS)
    return quality


def test_the_window_of_loss_is_as_long_when_targets_take_turns() -> None:
    lossy = measured(every(5, 30))
    assert turns(17, lossy).loss == pytest.approx(3 / 20)
    assert turns(32, lossy).loss == 0.0
    assert [target.count for target in turns(32, lossy).targets] == [10, 10, 10]


def test_loss_of_few_probes_is_none_yet_after_targets_took_turns() -> None:
    calm = turns(40, measured([FAST] * 10))
    assert measured(every(2, 14), calm).poor == ()
    assert measured(every(2, 16), calm).poor == (Measure.LOSS,)


def test_times_are_smoothed_over_as_many_rounds_when_targets_take_turns() -> None:
    fast = measured([FAST] * 9)
    slower = measured([(0.12, 0.12, 0.12)] * 9, fast)
    newest = max(turns(9, fast, 0.12).targets, key=lambda target: target.number)
    assert newest.rtt == pytest.approx(slower.rtt)


def test_a_result_of_an_older_round_takes_the_place_of_its_round() -> None:
    found = ql.UNKNOWN
    for number, rtt in ((1, 0.02), (3, 0.02), (2, None)):
        found = ql.sample(found, SETTINGS, NEAR, number, rtt)
    assert (found.targets[0].asked, found.targets[0].lost) == (0b111, 0b010)


def test_a_result_of_a_round_before_the_window_counts_for_nothing() -> None:
    found = ql.sample(measured([FAST] * 40), SETTINGS, NEAR, 5, None)
    assert (found.targets[0].count, found.targets[0].lost) == (30, 0)
