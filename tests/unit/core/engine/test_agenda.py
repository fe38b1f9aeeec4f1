"""Timers of the engine: what is due together is done together."""

from __future__ import annotations

from dataclasses import replace
from math import inf

import pytest

from polywan.core.engine import agenda, probing, seeking
from polywan.core.evolve import replace as evolve
from polywan.core.health import life as lf
from polywan.core.health.life import Life
from polywan.core.health.quality import Measure
from polywan.core.net import Family
from polywan.core.state.effects import StartProbe
from polywan.core.state.events import Tick, TrafficSampled
from polywan.core.state.state import State
from support.engine_world import Engine, config, world

BUSY = 53


def looked_at(count: int, now: float) -> State:
    """Return the state of a daemon with that many uplinks that has just looked for what is due."""
    daemon = Engine(config(count), world(count, [Family.V4]))
    daemon.now = now
    daemon.feed(Tick())
    assert daemon.state.agenda.looked == now
    return daemon.state


@pytest.mark.parametrize("count", [1, 4, BUSY])
def test_the_pause_between_two_looks_at_all_uplinks_grows_with_their_number(count: int) -> None:
    hasty = probing.probe_by(looked_at(count, 10.0), 10.0)
    pause = agenda.deadline(hasty) - 10.0
    assert pause == pytest.approx(count * agenda.LOOK_SHARE)
    assert pause < 0.02


def test_a_round_that_is_due_meanwhile_is_started_by_the_next_look() -> None:
    daemon = Engine(config(BUSY), world(BUSY, [Family.V4]))
    daemon.now = 10.0
    daemon.feed(Tick())
    first = daemon.state.health.rounds["u7", Family.V4]
    due = {**daemon.state.health.rounds, ("u7", Family.V4): replace(first, next=10.0)}
    daemon.state = probing.probe_by(evolve(daemon.state, health=replace(daemon.state.health, rounds=due)), 10.0)
    assert not [e for e in daemon.feed(Tick()) if isinstance(e, StartProbe)]
    daemon.now = agenda.deadline(daemon.state)
    assert [e.order.uplink for e in daemon.feed(Tick()) if isinstance(e, StartProbe)] == ["u7"]


def test_a_look_is_noted_for_uplinks_in_doubt_once_it_can_be_compared() -> None:
    daemon = Engine(config(2), world(2, [Family.V4]))
    key = ("u1", Family.V4)
    state = evolve(
        daemon.state,
        health=replace(
            daemon.state.health,
            rounds={**daemon.state.health.rounds, key: replace(daemon.state.health.rounds[key], bad=2, life=Life())},
        ),
    )
    state, _ = seeking.start(state, 0.1)
    state, _ = seeking.take(state, TrafficSampled(moved={}, since=-inf, took=0.0), 0.2)
    assert state.health.rounds[key].life.looked == -inf
    assert lf.unseen(state.health.rounds[key].life, 0.0, 0.3)
    state, _ = seeking.start(state, 0.3)
    state, _ = seeking.take(state, TrafficSampled(moved={}, since=0.2, took=0.125), 0.5)
    assert state.health.rounds[key].life.looked == pytest.approx(0.375)
    assert not lf.unseen(state.health.rounds[key].life, 0.0, 0.5)
    assert lf.unseen(state.health.rounds[key].life, 0.0, 0.5 + lf.LOOK_AGE)


def degraded(daemon: Engine, number: int) -> list[object]:
    """Make an uplink lossy, and return the effects of the result that shows it."""
    key = (f"u{number}", Family.V4)
    state = probing.regrade(daemon.state, daemon.now)
    before = state.health.rounds[key]
    poor = replace(before, quality=replace(before.quality, poor=(Measure.LOSS,), reason=f"loss of {number}"))
    daemon.state = evolve(state, health=replace(state.health, rounds={**state.health.rounds, key: poor}))
    return list(daemon.feed(Tick()))


def test_lines_that_become_degraded_one_after_the_other_share_a_decision() -> None:
    daemon = Engine(config(3), world(3, [Family.V4]))
    daemon.now = 10.0
    degraded(daemon, 1)
    assert daemon.state.agenda.decided_at == 10.0
    daemon.now = 10.1
    degraded(daemon, 2)
    daemon.now = 10.2
    degraded(daemon, 3)
    assert daemon.state.agenda.decided_at == 10.0
    assert agenda.decision_due(daemon.state) == pytest.approx(10.0 + probing.REGRADE)
    daemon.now = 10.3
    daemon.feed(Tick())
    assert daemon.state.agenda.decided_at == 10.3
    assert {name: view.reason for name, view in daemon.state.decision.views.items()} == {
        f"u{n}": f"loss of {n}" for n in (1, 2, 3)
    }
