"""Who is to blame for a missing answer: the target, or the uplink."""

from __future__ import annotations

from ipaddress import IPv4Address
from math import inf

from polywan.core.health.bad_targets import Assessment, BadTargets, Observer, Observers, retained, take
from polywan.core.health.probes import ProbeResult
from polywan.core.net import Family, IPAddress

A, B, C = (IPv4Address(f"192.0.2.{n}") for n in (1, 2, 3))
FALL = 3


class World:
    """Hears results of uplinks that all ask the same targets."""

    def __init__(self, *uplinks: str, targets: tuple[IPAddress, ...] = (A, B)) -> None:
        self.observers: Observers = {(name, Family.V4): Observer(frozenset(targets), FALL) for name in uplinks}
        self.bad_targets = BadTargets()
        self.now = 0.0

    def hear(self, uplink: str, target: IPAddress, rtt: float | None, *, decided: bool = False) -> Assessment:
        self.now += 0.01
        result = ProbeResult(uplink=uplink, family=Family.V4, round=1, target=target, rtt=rtt)
        assessment = take(self.bad_targets, result, None if decided else self.now - 0.005, self.observers, self.now)
        self.bad_targets = assessment.bad_targets
        return assessment

    def everybody(self, target: IPAddress, rtt: float | None, times: int = 1) -> list[Assessment]:
        return [self.hear(name, target, rtt) for _ in range(times) for name, _ in self.observers]


def test_an_answer_counts_as_it_comes() -> None:
    assessment = World("u1", "u2").hear("u1", A, 0.01)
    assert [r.target for r in assessment.counted] == [A]


def test_a_target_that_fails_on_every_uplink_while_others_answer_is_blamed() -> None:
    world = World("u1", "u2")
    world.everybody(A, 0.01)
    rulings = world.everybody(B, None, FALL)
    assert [r.bad for r in rulings].index(B) == 2 * FALL - 1
    assert world.bad_targets.bad == (B,)
    assert world.bad_targets.counted((A, B)) == (A,)


def test_its_misses_never_counted_against_anybody() -> None:
    world = World("u1", "u2")
    world.everybody(A, 0.01)
    rulings = world.everybody(B, None, 2 * FALL)
    assert [r for assessment in rulings for r in assessment.counted] == []


def test_a_target_that_one_uplink_still_hears_is_not_blamed() -> None:
    world = World("u1", "u2", "u3")
    world.everybody(A, 0.01)
    for _ in range(2 * FALL):
        world.hear("u1", B, None)
        world.hear("u2", B, None)
        world.hear("u3", B, 0.01)
    assert world.bad_targets.bad == ()


def test_a_miss_counts_at_once_when_another_uplink_has_heard_the_target_since() -> None:
    world = World("u1", "u2")
    world.everybody(A, 0.01)
    result = ProbeResult(uplink="u1", family=Family.V4, round=1, target=B, rtt=None)
    world.hear("u2", B, 0.01)
    assessment = take(world.bad_targets, result, world.now - 1, world.observers, world.now)
    assert assessment.counted == (result,)


def test_a_miss_in_doubt_is_held_and_the_others_are_asked() -> None:
    world = World("u1", "u2")
    world.everybody(A, 0.01)
    assessment = world.hear("u1", B, None)
    assert assessment.counted == ()
    assert assessment.ask == (("u2", Family.V4),)


def test_held_misses_count_as_soon_as_another_uplink_hears_the_target() -> None:
    world = World("u1", "u2")
    world.everybody(A, 0.01)
    world.hear("u1", B, None)
    world.hear("u1", B, None)
    assessment = world.hear("u2", B, 0.01)
    assert [(r.uplink, r.rtt) for r in assessment.counted] == [("u1", None), ("u1", None), ("u2", 0.01)]
    assert world.bad_targets.pending == ()


def test_held_misses_count_when_the_uplink_loses_its_other_targets_too() -> None:
    world = World("u1", "u2")
    world.everybody(A, 0.01)
    world.hear("u1", B, None)
    assessment = world.hear("u1", A, None)
    assert [r.target for r in assessment.counted] == [B, A]


def test_an_uplink_on_which_nothing_answers_has_no_say() -> None:
    world = World("u1", "u2")
    world.hear("u1", A, 0.01)
    for _ in range(2 * FALL):
        world.hear("u1", B, None)
        world.hear("u2", A, None)
        world.hear("u2", B, None)
    assert world.bad_targets.bad == ()


def test_a_single_uplink_blames_nobody_and_its_misses_count() -> None:
    world = World("u1")
    world.hear("u1", A, 0.01)
    rulings = world.everybody(B, None, 3 * FALL)
    assert world.bad_targets.bad == ()
    assert all(len(r.counted) == 1 for r in rulings)


def test_the_last_target_that_answers_is_never_blamed() -> None:
    world = World("u1", "u2")
    world.everybody(A, 0.01)
    world.everybody(B, None, FALL)
    world.everybody(A, None, 2 * FALL)
    assert world.bad_targets.bad == (B,)


def test_the_first_answer_acquits() -> None:
    world = World("u1", "u2")
    world.everybody(A, 0.01)
    world.everybody(B, None, FALL)
    assert world.hear("u2", B, 0.01).cleared == B
    assert world.bad_targets.bad == ()
    assert world.bad_targets.counted((A, B)) == (A, B)


def test_results_of_rounds_that_did_without_the_target_do_not_count_after_its_acquittal() -> None:
    world = World("u1", "u2")
    world.everybody(A, 0.01)
    world.everybody(B, None, FALL)
    before = world.now
    world.hear("u2", B, 0.01)
    late = ProbeResult(uplink="u1", family=Family.V4, round=1, target=B, rtt=None)
    assert take(world.bad_targets, late, before, world.observers, world.now).counted == ()


def test_an_uplink_whose_only_target_is_blamed_goes_on_counting_it() -> None:
    world = World("u1", "u2")
    world.observers = {**world.observers, ("u3", Family.V4): Observer(frozenset({B}), FALL)}
    world.hear("u1", A, 0.01)
    world.hear("u2", A, 0.01)
    world.everybody(B, None, FALL)
    assert world.bad_targets.bad == (B,)
    assert len(world.hear("u3", B, None).counted) == 1
    assert world.bad_targets.counted((B,)) == (B,)


def test_a_reload_keeps_what_still_concerns_it() -> None:
    world = World("u1", "u2", targets=(A, B, C))
    world.everybody(A, 0.01)
    world.everybody(B, None, FALL)
    after = retained(world.bad_targets, ["u1"], [A, B])
    assert after.bad == (B,)
    assert set(after.misses) == {("u1", Family.V4)}
    assert retained(world.bad_targets, ["u1"], [A]).until == {}
    assert world.bad_targets.until == {B: inf}
