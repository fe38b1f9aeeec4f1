"""Whatever answers and whatever does not, blame spares targets and never acquits a dead uplink."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address

from hypothesis import given
from hypothesis import strategies as st

from polywan.config import HealthSettings
from polywan.core.health import rounds as hl
from polywan.core.health.bad_targets import BadTargets, Observer, Observers, take
from polywan.core.health.probes import ProbeResult
from polywan.core.health.rounds import Health, ProbeState
from polywan.core.net import Family
from polywan.core.world.paths import UplinkFamily

TARGETS = tuple(IPv4Address(f"192.0.2.{n}") for n in range(1, 4))
SETTINGS = HealthSettings(hold_down=0.0)

ROUNDS = st.lists(st.lists(st.lists(st.booleans(), min_size=3, max_size=3), min_size=3, max_size=3), max_size=25)
"""For each round, for each uplink, who answers."""


class World:
    """Uplinks that probe in lockstep, through the blame and into their rounds, as the engine does."""

    def __init__(self, uplinks: int) -> None:
        self.keys: list[UplinkFamily] = [(f"u{n}", Family.V4) for n in range(uplinks)]
        self.observers: Observers = {key: Observer(frozenset(TARGETS), SETTINGS.fall) for key in self.keys}
        self.bad_targets = BadTargets()
        self.health: dict[UplinkFamily, ProbeState] = {key: hl.initial(Health.UP, "", 0.0) for key in self.keys}
        self.now = 0.0

    def round(self, answers: list[list[bool]]) -> None:
        self.now += 1
        for key in self.keys:
            count = len(self.bad_targets.counted(TARGETS))
            self.health[key] = hl.start_round(self.health[key], SETTINGS, count, self.now)
        for key, row in zip(self.keys, answers, strict=False):
            for target, answered in zip(TARGETS, row, strict=True):
                self._result(key, target, 0.01 if answered else None)

    def _result(self, key: UplinkFamily, target: IPv4Address, rtt: float | None) -> None:
        state = self.health[key]
        result = ProbeResult(uplink=key[0], family=key[1], round=state.number, target=target, rtt=rtt)
        sent = next((r.sent for r in state.open if r.number == state.number), None)
        assessment = take(self.bad_targets, result, sent, self.observers, self.now + 0.5)
        self.bad_targets = assessment.bad_targets
        for counted in assessment.counted:
            self._count(counted)

    def _count(self, counted: ProbeResult) -> None:
        key = (counted.uplink, counted.family)
        state = hl.on_result(self.health[key], SETTINGS, counted.round, counted.target, counted.rtt, self.now + 0.5)
        self.health[key] = hl.fall(state, SETTINGS, self.now) if state.waiting is not None else state


@given(ROUNDS)
def test_an_uplink_without_any_answer_goes_down_and_stays_down(rounds: list[list[list[bool]]]) -> None:
    world = World(3)
    for answers in rounds:
        world.round([[False] * 3, *answers[1:]])
    dead = world.health["u0", Family.V4]
    assert dead.good == 0
    assert len(rounds) < SETTINGS.fall or dead.health is Health.DOWN


@given(ROUNDS)
def test_a_single_uplink_never_blames(rounds: list[list[list[bool]]]) -> None:
    world = World(1)
    for answers in rounds:
        world.round(answers)
        assert world.bad_targets.bad == ()
        assert world.bad_targets.pending == ()


@given(ROUNDS)
def test_some_target_always_decides_and_a_blamed_one_answered_nobody_lately(
    rounds: list[list[list[bool]]],
) -> None:
    world = World(3)
    for answers in rounds:
        world.round(answers)
        bad = world.bad_targets.bad
        assert len(bad) < len(TARGETS)
        for target in bad:
            assert all(known.get(target) != 0 for known in world.bad_targets.misses.values())


@given(ROUNDS, st.integers(0, 2))
def test_a_target_that_is_dead_everywhere_takes_nobody_down(rounds: list[list[list[bool]]], dead: int) -> None:
    world = World(3)
    for _ in rounds:
        world.round([[place != dead for place in range(3)]] * 3)
    assert all(state.health is Health.UP for state in world.health.values())
    assert (TARGETS[dead] in world.bad_targets.bad) == (len(rounds) >= SETTINGS.fall)


@given(ROUNDS)
def test_no_miss_is_held_for_an_uplink_whose_fellows_have_heard_the_target_since(
    rounds: list[list[list[bool]]],
) -> None:
    world = World(3)
    for answers in rounds:
        world.round(answers)
        for pending in world.bad_targets.pending:
            others = [
                at
                for name, at in world.bad_targets.heard.get(pending.result.target, ())
                if name != pending.result.uplink
            ]
            assert all(at < pending.sent for at in others)
        assert replace(world.bad_targets, pending=()).counted(TARGETS)
