"""Laws of health that hold for any times at which uplinks fail and answer."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from hypothesis import given, settings
from hypothesis import strategies as st

from polywan.core.health.damping import Damping, after_loss, hold_of
from polywan.core.health.rounds import Health
from polywan.core.net import Family
from polywan.core.state.effects import Effect, ReleaseConnections
from polywan.core.state.events import Event
from polywan.sim.simulation import Simulation
from support.engine_world import config, world
from support.examples import examples

V4 = [Family.V4]
START = 8.0
"""Seconds after the start at which the first uplink goes silent: every one was probed several times."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a run: when each uplink went down, whom a cut met and when, and who served at the end."""

    down: dict[str, float]
    cuts: list[tuple[float, str]]
    serving: list[str]


class Probed(Simulation):
    """Uplinks that go silent at given times and answer again at others."""

    def __init__(self, intervals: list[float], silence: dict[str, tuple[float, float]]) -> None:
        super().__init__(world(len(intervals), V4))
        uplinks = {
            f"u{n}": {"interface": f"wan{n}", "health": {"interval": interval}}
            for n, interval in enumerate(intervals, start=1)
        }
        self.cuts: list[tuple[float, str]] = []
        self.down: dict[str, float] = {}
        self.listeners.append(self._note)
        for name, (begin, end) in silence.items():
            self.at(begin, partial(self.internet.silent.add, (name, Family.V4)))
            self.at(end, partial(self.internet.silent.discard, (name, Family.V4)))
        self.start(config(0).model_validate({"uplinks": uplinks}))

    def _note(self, effect: Effect) -> None:
        if isinstance(effect, ReleaseConnections):
            self.cuts.append((self.now, effect.uplink))

    def take(self, event: Event) -> tuple[Effect, ...]:
        effects = super().take(event)
        for (name, _), state in self.state.health.rounds.items():
            if state.health is Health.DOWN:
                self.down.setdefault(name, self.now)
        return effects

    def run(self, end: float) -> Outcome:
        self.run_until(end)
        assert self.state.decision.selection is not None
        members = self.state.decision.selection.choices["default", Family.V4].members
        return Outcome(self.down, self.cuts, [name for name, _ in members])


numbers = st.integers(2, 4)
offsets = st.lists(st.floats(0, 0.75), min_size=4, max_size=4)


@given(numbers, st.lists(st.floats(0, 0.99), min_size=4, max_size=4), st.floats(0, 1))
@settings(max_examples=examples(25))
def test_when_all_go_silent_within_an_interval_nobody_is_cut(count: int, some: list[float], offset: float) -> None:
    silence = {f"u{n}": (START + offset + some[n - 1], 99.0) for n in range(1, count + 1)}
    seen = Probed([1.0] * count, silence).run(START + 12)
    assert len(seen.down) == count
    assert seen.cuts == []
    assert seen.serving == [f"u{n}" for n in range(1, count + 1)]


@given(numbers, st.floats(0, 1), st.integers(1, 4))
@settings(max_examples=examples(25))
def test_one_that_falls_alone_falls_as_soon_as_ever(count: int, offset: float, which: int) -> None:
    name = f"u{min(which, count)}"
    seen = Probed([1.0] * count, {name: (START + offset, 99.0)}).run(START + 6)
    assert set(seen.down) == {name}
    assert seen.down[name] <= START + offset + 2.5 + 1e-6
    assert {uplink for _, uplink in seen.cuts} == {name}


@given(numbers, offsets, st.sampled_from([1.0, 2.0, 10.0, 30.0]))
@settings(max_examples=examples(25))
def test_a_verdict_waits_for_no_longer_than_the_others_need_to_fail(count: int, some: list[float], slow: float) -> None:
    silence = {f"u{n}": (START + some[n - 1], 99.0) for n in range(1, count + 1)}
    seen = Probed([1.0] * (count - 1) + [slow], silence).run(START + 12)
    # 2.5 s until the first verdict is due, then three timeouts at most.
    assert min(seen.down.values()) <= START + 0.75 + 2.5 + 3.0 + 1e-6


@given(numbers, offsets, st.floats(5, 20))
@settings(max_examples=examples(25))
def test_after_all_failed_at_once_everybody_who_answers_serves_at_once(
    count: int, some: list[float], away: float
) -> None:
    silence = {f"u{n}": (START + some[n - 1] / 4, START + away + some[n - 1]) for n in range(1, count + 1)}
    seen = Probed([1.0] * count, silence).run(START + away + 3)
    assert seen.cuts == []
    assert seen.serving == [f"u{n}" for n in range(1, count + 1)]


@given(st.lists(st.floats(0, 2000), max_size=30))
def test_the_hold_down_is_between_its_least_and_its_most(lasted: list[float]) -> None:
    chosen = config(1).health
    damping, now = Damping(), 0.0
    for seconds in lasted:
        damping = after_loss(damping, chosen, seconds, now)
        now += seconds
        assert chosen.hold_down <= hold_of(damping, chosen) <= chosen.hold_down_max


@given(st.floats(0, 99))
def test_whoever_never_lasts_is_held_as_long_as_can_be(seconds: float) -> None:
    chosen = config(1).health
    damping = Damping()
    for n in range(10):
        damping = after_loss(damping, chosen, seconds, n * seconds)
    assert hold_of(damping, chosen) == chosen.hold_down_max
