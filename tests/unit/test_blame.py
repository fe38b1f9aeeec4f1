"""Who is to blame for a missing answer: the target, or the uplink."""

from __future__ import annotations

from ipaddress import IPv4Address
from math import inf

from polywan.core.blame import Blame, Juror, Jury, Ruling, kept, take
from polywan.core.events import ProbeResult
from polywan.core.net import Family, IPAddress

A, B, C = (IPv4Address(f"192.0.2.{n}") for n in (1, 2, 3))
FALL = 3


class Court:
    """Hears results of uplinks that all ask the same targets."""

    def __init__(self, *uplinks: str, targets: tuple[IPAddress, ...] = (A, B)) -> None:
        self.jury: Jury = {(name, Family.V4): Juror(frozenset(targets), FALL) for name in uplinks}
        self.blame = Blame()
        self.now = 0.0

    def hear(self, uplink: str, target: IPAddress, rtt: float | None, *, decided: bool = False) -> Ruling:
        self.now += 0.01
        result = ProbeResult(uplink=uplink, family=Family.V4, round=1, target=target, rtt=rtt)
        ruling = take(self.blame, result, None if decided else self.now - 0.005, lambda _: self.jury, self.now)
        self.blame = ruling.blame
        return ruling

    def everybody(self, target: IPAddress, rtt: float | None, times: int = 1) -> list[Ruling]:
        return [self.hear(name, target, rtt) for _ in range(times) for name, _ in self.jury]


def test_an_answer_counts_as_it_comes() -> None:
    ruling = Court("u1", "u2").hear("u1", A, 0.01)
    assert [r.target for r in ruling.counted] == [A]


def test_a_target_that_fails_on_every_uplink_while_others_answer_is_blamed() -> None:
    court = Court("u1", "u2")
    court.everybody(A, 0.01)
    rulings = court.everybody(B, None, FALL)
    assert [r.blamed for r in rulings].index(B) == 2 * FALL - 1
    assert court.blame.blamed == (B,)
    assert court.blame.counted((A, B)) == (A,)


def test_its_misses_never_counted_against_anybody() -> None:
    court = Court("u1", "u2")
    court.everybody(A, 0.01)
    rulings = court.everybody(B, None, 2 * FALL)
    assert [r for ruling in rulings for r in ruling.counted] == []


def test_a_target_that_one_uplink_still_hears_is_not_blamed() -> None:
    court = Court("u1", "u2", "u3")
    court.everybody(A, 0.01)
    for _ in range(2 * FALL):
        court.hear("u1", B, None)
        court.hear("u2", B, None)
        court.hear("u3", B, 0.01)
    assert court.blame.blamed == ()


def test_a_miss_counts_at_once_when_another_uplink_has_heard_the_target_since() -> None:
    court = Court("u1", "u2")
    court.everybody(A, 0.01)
    result = ProbeResult(uplink="u1", family=Family.V4, round=1, target=B, rtt=None)
    court.hear("u2", B, 0.01)
    ruling = take(court.blame, result, court.now - 1, lambda _: court.jury, court.now)
    assert ruling.counted == (result,)


def test_a_miss_in_doubt_is_held_and_the_others_are_asked() -> None:
    court = Court("u1", "u2")
    court.everybody(A, 0.01)
    ruling = court.hear("u1", B, None)
    assert ruling.counted == ()
    assert ruling.ask == (("u2", Family.V4),)


def test_held_misses_count_as_soon_as_another_uplink_hears_the_target() -> None:
    court = Court("u1", "u2")
    court.everybody(A, 0.01)
    court.hear("u1", B, None)
    court.hear("u1", B, None)
    ruling = court.hear("u2", B, 0.01)
    assert [(r.uplink, r.rtt) for r in ruling.counted] == [("u1", None), ("u1", None), ("u2", 0.01)]
    assert court.blame.held == ()


def test_held_misses_count_when_the_uplink_loses_its_other_targets_too() -> None:
    court = Court("u1", "u2")
    court.everybody(A, 0.01)
    court.hear("u1", B, None)
    ruling = court.hear("u1", A, None)
    assert [r.target for r in ruling.counted] == [B, A]


def test_an_uplink_on_which_nothing_answers_has_no_say() -> None:
    court = Court("u1", "u2")
    court.hear("u1", A, 0.01)
    for _ in range(2 * FALL):
        court.hear("u1", B, None)
        court.hear("u2", A, None)
        court.hear("u2", B, None)
    assert court.blame.blamed == ()


def test_a_single_uplink_blames_nobody_and_its_misses_count() -> None:
    court = Court("u1")
    court.hear("u1", A, 0.01)
    rulings = court.everybody(B, None, 3 * FALL)
    assert court.blame.blamed == ()
    assert all(len(r.counted) == 1 for r in rulings)


def test_the_last_target_that_answers_is_never_blamed() -> None:
    court = Court("u1", "u2")
    court.everybody(A, 0.01)
    court.everybody(B, None, FALL)
    court.everybody(A, None, 2 * FALL)
    assert court.blame.blamed == (B,)


def test_the_first_answer_acquits() -> None:
    court = Court("u1", "u2")
    court.everybody(A, 0.01)
    court.everybody(B, None, FALL)
    assert court.hear("u2", B, 0.01).acquitted == B
    assert court.blame.blamed == ()
    assert court.blame.counted((A, B)) == (A, B)


def test_results_of_rounds_that_did_without_the_target_do_not_count_after_its_acquittal() -> None:
    court = Court("u1", "u2")
    court.everybody(A, 0.01)
    court.everybody(B, None, FALL)
    before = court.now
    court.hear("u2", B, 0.01)
    late = ProbeResult(uplink="u1", family=Family.V4, round=1, target=B, rtt=None)
    assert take(court.blame, late, before, lambda _: court.jury, court.now).counted == ()


def test_an_uplink_whose_only_target_is_blamed_goes_on_counting_it() -> None:
    court = Court("u1", "u2")
    court.jury = {**court.jury, ("u3", Family.V4): Juror(frozenset({B}), FALL)}
    court.hear("u1", A, 0.01)
    court.hear("u2", A, 0.01)
    court.everybody(B, None, FALL)
    assert court.blame.blamed == (B,)
    assert len(court.hear("u3", B, None).counted) == 1
    assert court.blame.counted((B,)) == (B,)


def test_a_reload_keeps_what_still_concerns_it() -> None:
    court = Court("u1", "u2", targets=(A, B, C))
    court.everybody(A, 0.01)
    court.everybody(B, None, FALL)
    after = kept(court.blame, ["u1"], [A, B])
    assert after.blamed == (B,)
    assert set(after.misses) == {("u1", Family.V4)}
    assert kept(court.blame, ["u1"], [A]).until == {}
    assert court.blame.until == {B: inf}
