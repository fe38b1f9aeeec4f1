"""Asking one target in turn notices silence no later than asking all of them: for any moment at which it begins."""

from __future__ import annotations

from functools import partial
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from polywan.core.engine import step
from polywan.core.health import turns
from polywan.core.health.rounds import Health
from polywan.core.net import Family
from polywan.core.state.effects import Effect, StartProbe
from polywan.core.world.paths import UplinkFamily
from polywan.sim.simulation import Simulation
from support.engine_world import config, world
from support.examples import examples

V4 = [Family.V4]
U1: UplinkFamily = ("u1", Family.V4)
STEADY = 20.0
"""Seconds of a steady line, after which targets take turns at any interval that is tried here."""
STEP = 1e-6


def limit(interval: float, timeout: float, fall: int = 3) -> float:
    """Seconds until silence is noticed at most (docs/design/health.md)."""
    return interval + (fall - 1) * interval / 4 + timeout


class Watched(Simulation):
    """Uplinks of one family; notes what u1 is asked, and when it goes down."""

    def __init__(self, count: int, health: dict[str, Any]) -> None:
        super().__init__(world(count, V4))
        self.asked: list[tuple[float, int]] = []
        self.down: float | None = None
        self.listeners.append(self._note)
        self.start(config(count, health=health))

    def _note(self, effect: Effect) -> None:
        if isinstance(effect, StartProbe) and effect.order.uplink == "u1":
            self.asked.append((self.now, len(effect.order.targets)))

    def falls(self, until: float) -> float | None:
        """Let time pass; return when u1 goes down."""
        while self.state.health.rounds[U1].health is Health.UP and self.now < until:
            self.run_until(self.now + 0.01)
        fallen = self.state.health.rounds[U1]
        return fallen.since if fallen.health is Health.DOWN else None


def noticed(count: int, health: dict[str, Any], begins: float, *, whole: bool) -> float:
    """Return how long u1's silence goes unnoticed, with rounds of one target or with whole ones alone."""
    with patch.object(turns, "turn", (lambda *_: None) if whole else turns.turn):
        sim = Watched(count, health)
        sim.run_until(begins)
        assert (sim.asked[-1][1] == 3) is whole
        sim.internet.silent.add(U1)
        fallen = sim.falls(begins + 99)
    assert fallen is not None
    return fallen - begins


paces = st.sampled_from([{}, {"interval": "200ms", "timeout": "400ms"}, {"interval": "4s"}, {"fall": 4}])
phases = st.floats(0, 4)


@given(st.integers(1, 4), paces, phases)
@settings(max_examples=examples(40))
def test_silence_is_noticed_within_the_limit_and_no_later_than_with_whole_rounds(
    count: int, health: dict[str, Any], phase: float
) -> None:
    chosen = config(1, health=health).health
    begins = STEADY + 8 * chosen.interval + phase
    after = noticed(count, health, begins, whole=False)
    assert after <= limit(chosen.interval, chosen.timeout, chosen.fall) + STEP
    assert after <= noticed(count, health, begins, whole=True) + STEP


@given(phases, st.sampled_from([{}, {"interval": "200ms", "timeout": "400ms"}]))
@settings(max_examples=examples(25))
def test_two_of_three_targets_that_go_silent_at_once_are_noticed_an_interval_later_at_most(
    phase: float, health: dict[str, Any]
) -> None:
    sim = Watched(2, health)
    chosen = sim.state.known.probing["u1"]
    begins = STEADY + phase
    sim.run_until(begins)
    for target in [t for t in chosen.targets if t.version == 4][:2]:
        sim.internet.muted.add((target, "u1"))
    fallen = sim.falls(begins + 99)
    assert fallen is not None
    assert fallen - begins <= limit(chosen.interval, chosen.timeout) + chosen.interval + STEP


@given(phases, st.integers(0, 2), st.sampled_from(["u1", None]), st.integers(1, 3))
@settings(max_examples=examples(25))
def test_one_target_of_three_that_dies_takes_nobody_down_and_costs_few_probes(
    phase: float, which: int, where: str | None, count: int
) -> None:
    sim = Watched(count, {})
    dead = [t for t in sim.state.known.probing["u1"].targets if t.version == 4][which]
    sim.at(STEADY + phase, partial(sim.internet.muted.add, (dead, where)))
    sim.run_until(STEADY + phase + 60)
    assert all(probes.health is Health.UP for probes in sim.state.health.rounds.values())
    assert (dead in sim.state.health.bad_targets.bad) is (where is None and count > 1)
    later = [asked for at, asked in sim.asked if at > STEADY + phase + 20]
    assert set(later) == {1, 2}
    # The dead one is asked along with another one at its turn.
    assert sum(later) / len(later) == pytest.approx(4 / 3, abs=0.1)


jumps = st.lists(st.tuples(st.floats(0, 20), st.sampled_from([0.01, 0.2, 0.55, 0.65, 0.9])), max_size=5)


@given(st.integers(1, 3), jumps, phases)
@example(1, [(0.0, 0.65)], 1.2 - 20.0)
@settings(max_examples=examples(25))
def test_an_answer_that_only_counts_makes_no_round_later(
    count: int, latencies: list[tuple[float, float]], phase: float
) -> None:
    def asked(*, weighed: bool) -> list[tuple[float, int]]:
        with patch.object(step, "_usual", (lambda *_: None) if weighed else step._usual):
            sim = Watched(count, {})
            for after, latency in latencies:
                sim.at(STEADY + after, partial(sim.internet.latency.__setitem__, "u1", latency))
            sim.at(STEADY + 20 + phase, partial(sim.internet.silent.add, U1))
            sim.run_until(STEADY + 30)
            return sim.asked

    quick, slow = asked(weighed=False), asked(weighed=True)
    assert [number for _, number in quick] == [number for _, number in slow]
    assert [at for at, _ in quick] == pytest.approx([at for at, _ in slow], abs=0.002)


@given(st.floats(0.25, 0.5), phases)
@settings(max_examples=examples(15))
def test_a_line_that_becomes_lossy_is_degraded_hardly_later_than_with_whole_rounds(loss: float, phase: float) -> None:
    def degraded(*, whole: bool) -> float:
        with patch.object(turns, "turn", (lambda *_: None) if whole else turns.turn):
            sim = Watched(2, {})
            sim.run_until(STEADY + phase)
            sim.internet.loss["u1"] = loss
            while not sim.state.health.rounds[U1].quality.poor and sim.now < STEADY + 120:
                sim.run_until(sim.now + 0.25)
            return sim.now

    # Where half of all is lost, loss of whole rounds alone is known early: it takes 15 of them to know it after turns.
    assert degraded(whole=False) <= max(degraded(whole=True) + 5, STEADY + phase + 20)
