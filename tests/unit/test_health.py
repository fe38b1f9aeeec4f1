from collections.abc import Sequence
from dataclasses import replace

import pytest

from polywan.config import HealthSettings
from polywan.core import health as hl
from polywan.core.health import Health, ProbeState

SETTINGS = HealthSettings()
UP = hl.initial(Health.UP, "has a path", 0.0)


def round_of(
    state: ProbeState, now: float, answers: Sequence[float | None], settings: HealthSettings = SETTINGS
) -> ProbeState:
    """Send a round at `now` and report every target at once."""
    state = hl.start_round(state, settings, len(answers), now)
    for rtt in answers:
        state = hl.on_result(state, settings, state.number, rtt, now + (rtt or settings.timeout))
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
    assert state.cause == "3 rounds in a row without quorum (1 of 3 targets answered)"


def test_a_good_round_between_bad_ones_starts_the_count_again() -> None:
    state = UP
    for answers in (BAD, BAD, GOOD, BAD, BAD):
        state = round_of(state, 0, answers)
    assert state.health is Health.UP


def down(now: float) -> ProbeState:
    return hl.lose(UP, "no carrier", now)


def test_losing_the_link_is_down_at_once() -> None:
    assert (down(5.0).health, down(5.0).since, down(5.0).cause) == (Health.DOWN, 5.0, "no carrier")


def test_rise_good_rounds_are_not_enough_before_the_hold_down_has_passed() -> None:
    state = down(0)
    for n in range(SETTINGS.rise):
        state = round_of(state, n, GOOD)
    assert state.health is Health.DOWN
    assert "held down" in state.cause


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
    for _ in range(2):
        state = hl.on_result(state, SETTINGS, 2, 0.01, 0.26)
    for _ in range(3):
        state = hl.on_result(state, SETTINGS, 1, None, 1.0)
    assert (state.bad, state.open) == (0, ())


def test_the_quorum_shrinks_with_the_number_of_targets() -> None:
    assert round_of(UP, 0, [0.01]).bad == 0


def worst_detection(settings: HealthSettings) -> float:
    """Seconds from a silent death right after a good round until the verdict, following the engine's timing."""
    state = round_of(UP, 0.0, [0.001], settings)
    pending: list[tuple[float, int]] = []
    now = 0.0
    while state.health is Health.UP:
        next_round = hl.due(state, settings)
        if pending and pending[0][0] <= next_round:
            now, number = pending.pop(0)
            state = hl.on_result(state, settings, number, None, now)
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
    slow = replace(UP, rtt=0.6)
    assert hl.suspect_after(slow, SETTINGS) == 1.0


def test_loss_counts_probes_not_rounds() -> None:
    assert round_of(UP, 0, QUORUM).loss == pytest.approx(1 / 3)


def test_an_uplink_without_targets_is_up_as_soon_as_it_has_a_path() -> None:
    assert hl.unprobed(hl.initial(Health.DOWN, "new", 0), SETTINGS, 0).health is Health.UP


def test_and_held_down_after_it_was_lost() -> None:
    state = hl.unprobed(down(0), SETTINGS, 1.0)
    assert state.health is Health.DOWN
    assert hl.unprobed(state, SETTINGS, 11.0).health is Health.UP
