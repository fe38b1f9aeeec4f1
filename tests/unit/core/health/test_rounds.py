from collections.abc import Sequence
from dataclasses import replace

import pytest

from polywan.config import HealthSettings
from polywan.core.health import rounds as hl
from polywan.core.health.damping import NO_LOSS, after_loss, hold_of
from polywan.core.health.quality import Quality
from polywan.core.health.rounds import Health, ProbeState

SETTINGS = HealthSettings(slow_start=0.0)
TARGETS = [t for t in SETTINGS.targets if t.version == 4]
UP = hl.initial(Health.UP, "has a path", 0.0)


def round_of(
    state: ProbeState, now: float, answers: Sequence[float | None], settings: HealthSettings = SETTINGS
) -> ProbeState:
    """Send a round at `now` and report every target at once; a verdict that is due is given."""
    state = hl.start_round(state, settings, len(answers), now)
    for target, rtt in zip(TARGETS, answers, strict=False):
        state = hl.on_result(state, settings, state.number, target, rtt, now + (rtt or settings.timeout))
    if state.waiting is not None:
        return hl.fall(state, settings, now + settings.timeout)
    return state


GOOD, QUORUM, BAD = [0.01, 0.01, 0.01], [0.01, 0.01, None], [0.01, None, None]


def test_a_quorum_of_answers_makes_a_round_good() -> None:
    assert round_of(UP, 0, QUORUM).bad == 0


def test_fewer_answers_than_the_quorum_make_it_bad() -> None:
    assert round_of(UP, 0, BAD).bad == 1


def test_one_bad_round_less_than_fall_changes_nothing() -> None:
    state = UP
    for n in range(SETTINGS.fall - 1):
        state = round_of(state, n, BAD)
    assert state.health is Health.UP


def test_fall_bad_rounds_in_a_row_take_the_uplink_down_and_say_why() -> None:
    state = UP
    for n in range(SETTINGS.fall):
        state = round_of(state, n, BAD)
    assert state.health is Health.DOWN
    assert state.cause == "3 probe rounds in a row failed (1 of 3 targets answered)"


def test_a_good_round_between_bad_ones_starts_the_count_again() -> None:
    state = UP
    for answers in (BAD, BAD, GOOD, BAD, BAD):
        state = round_of(state, 0, answers)
    assert state.health is Health.UP


def down(now: float) -> ProbeState:
    return hl.lose(UP, SETTINGS, "no carrier", now)


def test_losing_the_link_is_down_at_once() -> None:
    assert (down(5.0).health, down(5.0).since, down(5.0).cause) == (Health.DOWN, 5.0, "no carrier")


def test_rise_good_rounds_are_not_enough_before_the_hold_down_has_passed() -> None:
    state = down(0)
    for n in range(SETTINGS.rise):
        state = round_of(state, n, GOOD)
    assert state.health is Health.DOWN
    assert "hold-down" in state.cause


def test_an_uplink_returns_once_it_was_good_for_the_hold_down() -> None:
    state = down(0)
    for n in range(11):
        state = round_of(state, n, GOOD)
    assert state.health is Health.UP
    assert state.since == pytest.approx(10.01)


def test_a_bad_round_starts_the_hold_down_again() -> None:
    state = down(0)
    for n in range(11):
        state = round_of(state, n, BAD if n == 9 else GOOD)
    assert state.health is Health.DOWN


def test_an_uplink_that_never_was_up_needs_only_rise_good_rounds() -> None:
    state = hl.initial(Health.DOWN, "new", 0)
    for n in range(SETTINGS.rise):
        state = round_of(state, n, GOOD)
    assert state.health is Health.UP


def test_an_answer_to_a_later_round_settles_the_earlier_ones() -> None:
    state = hl.start_round(UP, SETTINGS, 3, 0.0)
    state = hl.start_round(state, SETTINGS, 3, 0.25)
    for target in TARGETS[:2]:
        state = hl.on_result(state, SETTINGS, 2, target, 0.01, 0.26)
    for target in TARGETS:
        state = hl.on_result(state, SETTINGS, 1, target, None, 1.0)
    assert (state.bad, state.open) == (0, ())


def test_the_quorum_shrinks_with_the_number_of_targets() -> None:
    assert round_of(UP, 0, [0.01]).bad == 0


def worst_detection(settings: HealthSettings) -> float:
    """Seconds from a silent death right after a good round until the verdict, following the engine's timing."""
    state = round_of(UP, 0.0, [0.001], settings)
    pending: list[tuple[float, int]] = []
    now = 0.0
    while state.waiting is None:
        next_round = hl.due(state, settings)
        if pending and pending[0][0] <= next_round:
            now, number = pending.pop(0)
            state = hl.on_result(state, settings, number, TARGETS[0], None, now)
        else:
            now = max(now, next_round)
            state = hl.start_round(state, settings, 1, now)
            pending.append((now + settings.timeout, state.number))
    return now


def test_a_silent_death_is_noticed_within_three_seconds_by_default() -> None:
    assert worst_detection(SETTINGS) == pytest.approx(2.5)


def test_and_within_one_second_on_request() -> None:
    assert worst_detection(SETTINGS.model_copy(update={"interval": 0.2, "timeout": 0.4})) <= 1.0


def test_a_slow_link_is_not_suspect_before_its_usual_answer_time() -> None:
    slow = replace(UP, quality=Quality(rtt=0.6))
    assert hl.suspect_after(slow, SETTINGS) == 1.0


def test_an_uplink_without_targets_is_up_as_soon_as_it_has_a_path() -> None:
    assert hl.unprobed(hl.initial(Health.DOWN, "new", 0), SETTINGS, 0).health is Health.UP


def test_and_held_down_after_it_was_lost() -> None:
    state = hl.unprobed(down(0), SETTINGS, 1.0)
    assert state.health is Health.DOWN
    assert hl.unprobed(state, SETTINGS, 11.0).health is Health.UP


def flap(state: ProbeState, at: float, answers: float) -> ProbeState:
    """Lose the carrier at `at`, then answer for so many seconds."""
    state = hl.lose(state, SETTINGS, "no carrier", at)
    for n in range(int(answers) + 1):
        state = round_of(state, at + n, GOOD)
    return state


def test_a_loss_soon_after_the_return_doubles_the_hold_down() -> None:
    state = flap(UP, 100, 11)
    state = flap(state, 112, 15)
    assert state.health is Health.DOWN
    assert state.cause == "coming back: hold-down of 20 s after its first answer (lost 2 times in 27 s)"


def test_and_it_comes_back_when_that_has_passed() -> None:
    assert flap(flap(UP, 100, 11), 112, 21).health is Health.UP


def test_the_first_loss_of_an_uplink_is_held_for_hold_down_however_young_it_is() -> None:
    assert flap(UP, 1, 11).health is Health.UP


def test_a_loss_long_after_the_return_counts_as_the_first_one() -> None:
    state = flap(flap(UP, 100, 11), 112, 21)
    assert flap(state, 300, 11).health is Health.UP


def test_to_stay_down_is_not_to_be_lost_again() -> None:
    state = flap(UP, 100, 3)
    assert flap(state, 105, 11).health is Health.UP


def test_damping_is_off_without_a_hold_down() -> None:
    settings = SETTINGS.model_copy(update={"hold_down": 0.0})
    damping = NO_LOSS
    for n in range(5000):
        damping = after_loss(damping, settings, 1.0, n)
    assert hold_of(damping, settings) == 0.0


def test_what_was_under_way_before_a_gap_counts_for_nothing() -> None:
    state = hl.start_round(round_of(UP, 0, GOOD), SETTINGS, 3, 1.0)
    before = hl.resume(state)
    after = before
    for target in TARGETS:
        after = hl.on_result(after, SETTINGS, 2, target, None, 3600.0)
    assert after == before
    assert (after.bad, after.open) == (0, ())


def test_a_gap_proves_nothing_for_an_uplink_that_is_coming_back() -> None:
    state = flap(UP, 100, 8)
    assert round_of(hl.resume(state), 3700, GOOD).health is Health.DOWN


def test_an_uplink_that_fell_with_all_the_others_is_back_with_its_first_answer() -> None:
    fallen = hl.fall_together(round_of(UP, 0, GOOD), 5.0)
    assert fallen.health is Health.DOWN
    back = round_of(fallen, 6.0, GOOD)
    assert (back.health, back.together, back.returned) == (Health.UP, False, None)
