"""Which target a round asks while all is well, and what makes it ask all of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

import pytest

from polywan.config import HealthSettings
from polywan.core.health import rounds as hl
from polywan.core.health.quality import Measure
from polywan.core.health.rounds import Health, ProbeState
from polywan.core.health.turns import Turn, turn
from polywan.core.net import IPAddress

SETTINGS = HealthSettings()
A, B, C = TARGETS = [t for t in SETTINGS.targets if t.version == 4]
HEARD: Mapping[IPAddress, int] = dict.fromkeys(TARGETS, 0)
NEXT = 20.0
"""When the next round is due by its interval, after `well`."""


def rounds(
    state: ProbeState, outcomes: Sequence[Sequence[float | None]], begin: float, settings: HealthSettings = SETTINGS
) -> ProbeState:
    """Send whole rounds an interval apart, and report every target."""
    for n, answers in enumerate(outcomes):
        state = hl.start_round(state, settings, len(TARGETS), begin + n * settings.interval)
        for target, rtt in zip(TARGETS, answers, strict=True):
            state = hl.on_result(state, settings, state.number, target, rtt, state.sent + (rtt or settings.timeout))
    return state


GOOD = [0.02, 0.02, 0.02]


def well(settings: HealthSettings = SETTINGS, answers: Sequence[float | None] = GOOD, count: int = 8) -> ProbeState:
    """Return an uplink after some good rounds, the last of them an interval before `NEXT`."""
    begin = NEXT - count * settings.interval
    return rounds(hl.initial(Health.UP, "has a path", 0.0), [answers] * count, begin, settings)


def asked(
    state: ProbeState,
    now: float = NEXT,
    settings: HealthSettings = SETTINGS,
    counted: Sequence[IPAddress] = TARGETS,
    misses: Mapping[IPAddress, int] = HEARD,
) -> Turn | None:
    return turn(state, settings, TARGETS, counted, misses, now)


def following(
    state: ProbeState, count: int, counted: Sequence[IPAddress] = TARGETS, misses: Mapping[IPAddress, int] = HEARD
) -> list[Turn]:
    """Return what so many rounds ask, each of them answered."""
    found = []
    for now in (NEXT + n for n in range(count)):
        chosen = asked(state, now, counted=counted, misses=misses)
        assert chosen is not None
        found.append(chosen)
        state = hl.start_round(state, SETTINGS, 1, now, decides=chosen.decides)
        state = hl.on_result(state, SETTINGS, state.number, chosen.decides, 0.02, now + 0.02)
    return found


def test_targets_take_turns_while_all_is_well() -> None:
    found = following(well(), 6)
    assert found[:3] == found[3:]
    assert {one.asked for one in found} == {(A,), (B,), (C,)}


def test_the_first_rounds_ask_all_until_as_many_were_good_as_a_return_takes() -> None:
    assert asked(well(count=SETTINGS.rise - 1)) is None
    assert asked(well(count=SETTINGS.rise)) is not None


def test_a_round_before_its_time_asks_all_since_it_has_to_settle_a_doubt() -> None:
    assert asked(well(), NEXT - 0.01) is None


def test_the_round_after_a_gap_asks_all() -> None:
    assert asked(hl.resume(well())) is None


@pytest.mark.parametrize(
    "change",
    [
        lambda state: hl.start_round(state, SETTINGS, 3, NEXT - 1),
        lambda state: rounds(state, [[None, None, None]], NEXT - 1),
        lambda state: replace(state, waiting=1.0),
        lambda state: hl.lose(state, SETTINGS, "no carrier", 1.0),
        lambda state: replace(state, quality=replace(state.quality, poor=(Measure.RTT,), reason="slow")),
        lambda state: replace(state, quality=replace(state.quality, busy="busy")),
    ],
    ids=["undecided", "bad", "verdict waits", "down", "degraded", "busy"],
)
def test_a_round_asks_all_while_the_uplink_is_not_well(change: Callable[[ProbeState], ProbeState]) -> None:
    assert asked(change(well())) is None


@pytest.mark.parametrize("lost", [1, 2])
def test_a_lost_answer_brings_whole_rounds_for_as_long_as_the_window_of_loss(lost: int) -> None:
    answers: list[float | None] = [0.02, 0.02, 0.02]
    answers[lost] = None
    state = rounds(well(), [answers], NEXT - 1)
    assert asked(state) is None
    assert asked(rounds(state, [GOOD] * 28, NEXT), NEXT + 28) is None
    assert asked(rounds(state, [GOOD] * 30, NEXT), NEXT + 30) is not None


def test_a_late_answer_brings_whole_rounds() -> None:
    state = rounds(well(), [[0.02, 0.02, None]], NEXT - 1)
    state = hl.on_late(state, SETTINGS, C, 1.5, NEXT)
    assert asked(state) is None


@pytest.mark.parametrize(("fall", "alone"), [(2, False), (3, True)])
def test_one_lost_packet_is_never_half_of_a_verdict(fall: int, *, alone: bool) -> None:
    settings = SETTINGS.model_copy(update={"fall": fall})
    assert (asked(well(settings), settings=settings) is not None) is alone


@pytest.mark.parametrize(("quorum", "alone"), [(1, True), (2, True), (3, False)])
def test_where_every_target_has_to_answer_every_round_asks_them_all(quorum: int, *, alone: bool) -> None:
    settings = SETTINGS.model_copy(update={"quorum": quorum})
    assert (asked(well(settings), settings=settings) is not None) is alone


def test_a_target_that_is_silent_by_this_uplink_is_asked_along_with_one_that_decides() -> None:
    silent = well(answers=[0.02, None, 0.02])
    found = following(silent, 3, misses={A: 0, B: 8, C: 0})
    assert {one.asked for one in found} == {(A,), (B, C), (C,)}
    assert {one.decides for one in found} == {A, C}


def test_a_bad_target_is_asked_in_its_turn_and_decides_nothing() -> None:
    found = following(well(answers=[0.02, None, 0.02]), 3, counted=[A, C], misses={A: 0, B: 1, C: 0})
    assert {one.asked for one in found} == {(A,), (B, C), (C,)}
    assert {one.decides for one in found} == {A, C}


def test_a_target_that_misses_but_is_not_given_up_brings_whole_rounds() -> None:
    missed = SETTINGS.fall - 1
    state = rounds(well(), [[0.02, None, 0.02]] * missed, NEXT - missed)
    assert asked(state, misses={A: 0, B: missed, C: 0}) is None


def test_a_target_that_was_never_asked_brings_whole_rounds() -> None:
    state = well()
    known = replace(state.quality, targets=state.quality.targets[:2])
    assert asked(replace(state, quality=known), misses={A: 0, B: 0}) is None


def test_a_target_so_far_away_that_its_answer_would_be_suspect_decides_nothing() -> None:
    found = following(well(answers=[0.02, 0.02, 0.4]), 3)
    assert {one.decides for one in found} == {A, B}


def test_too_few_targets_that_answer_for_a_quorum_bring_whole_rounds() -> None:
    assert asked(well(answers=[0.02, None, 0.02]), misses={A: 9, B: 9, C: 0}) is None


def test_a_target_that_was_removed_is_forgotten_by_a_whole_round() -> None:
    assert turn(well(), SETTINGS.model_copy(update={"quorum": 1}), TARGETS[:2], TARGETS[:2], HEARD, NEXT) is None


def undecided(*results: tuple[IPAddress, float | None]) -> ProbeState:
    """Return an uplink after a round that asked B along with C, which decides it, and these results."""
    state = hl.start_round(well(), SETTINGS, 1, NEXT, decides=C)
    report = partial(hl.on_result, settings=SETTINGS, number=state.number, now=NEXT + 1)
    for target, rtt in results:
        state = report(state, target=target, rtt=rtt)
    return state


def test_a_target_that_is_asked_along_is_only_measured() -> None:
    assert len(undecided((B, None)).open) == len(undecided((B, 0.02)).open) == 1
    assert undecided((B, None), (C, 0.02)).good == well().good + 1
    assert undecided((B, 0.02), (C, None)).bad == 1


def test_the_silence_of_one_target_is_suspect_at_the_moment_at_which_that_of_all_is() -> None:
    alone = hl.start_round(well(), SETTINGS, 1, NEXT, decides=A)
    whole = hl.start_round(well(), SETTINGS, 3, NEXT)
    assert hl.due(alone, SETTINGS) == hl.due(whole, SETTINGS) == NEXT + SETTINGS.interval / 4
