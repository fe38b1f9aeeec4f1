"""What a look at the connections of uplinks in doubt changes."""

from __future__ import annotations

from dataclasses import replace
from math import inf

import pytest

from polywan.core.engine import seeking
from polywan.core.evolve import replace as evolve
from polywan.core.health import life as lf
from polywan.core.health.life import Moved
from polywan.core.health.quality import Quality
from polywan.core.net import FAMILIES, Family
from polywan.core.state.events import TrafficSampled
from support.engine_world import Engine, config, world

FLOOD = Moved(sent=100_000, total=200_000)


def loads(moved: dict[tuple[str, Family], Moved], doubted: tuple[Family, ...] = FAMILIES) -> list[float]:
    """When a load began on each family of the first uplink, after a look at half a second before now."""
    state = Engine(config(2), world(2)).state
    troubled = {("u1", f): replace(state.health.rounds["u1", f], bad=2) for f in doubted}
    state = evolve(state, health=replace(state.health, rounds={**state.health.rounds, **troubled}))
    after, _ = seeking.take(state, TrafficSampled(moved=moved, since=9.5, took=0.0), 10.0)
    return [after.health.rounds["u1", f].life.loaded for f in FAMILIES]


def test_a_flood_of_one_family_is_a_load_of_the_line_for_both() -> None:
    assert loads({("u1", Family.V4): FLOOD}) == [9.0, 9.0]


def test_the_loads_of_both_families_add_up() -> None:
    half = Moved(sent=50_000, total=100_000)
    assert loads({("u1", f): half for f in FAMILIES}) == pytest.approx([9.0, 9.0])


def test_a_family_that_is_not_in_doubt_is_left_alone() -> None:
    assert loads({("u1", Family.V4): FLOOD}, (Family.V4,)) == [9.0, -inf]


def test_the_load_of_another_uplink_is_none() -> None:
    assert loads({("u2", Family.V4): FLOOD}) == [-inf, -inf]


def test_both_families_of_a_line_in_doubt_are_looked_at() -> None:
    state = Engine(config(2), world(2)).state
    doubted = {("u1", Family.V6): replace(state.health.rounds["u1", Family.V6], bad=2)}
    _, (order,) = seeking.start(
        evolve(state, health=replace(state.health, rounds={**state.health.rounds, **doubted})), 10.0
    )
    assert {(w.uplink, w.family) for w in order.watched} == {("u1", family) for family in FAMILIES}


def test_an_uplink_that_comes_into_doubt_while_others_are_looked_at_gets_no_verdict_before_its_own_look() -> None:
    state = Engine(config(2), world(2)).state
    first, second = ("u1", Family.V4), ("u2", Family.V4)
    state = evolve(
        state,
        health=replace(state.health, rounds={**state.health.rounds, first: replace(state.health.rounds[first], bad=2)}),
    )
    state, _ = seeking.start(state, 10.0)
    state = evolve(
        state,
        health=replace(
            state.health, rounds={**state.health.rounds, second: replace(state.health.rounds[second], bad=2)}
        ),
    )
    state = seeking.stir(state, second, 10.01)
    assert lf.unseen(state.health.rounds[second].life, 10.0, 10.02)
    state, _ = seeking.take(state, TrafficSampled(moved={}, since=-inf, took=0.07), 10.07)
    state, _ = seeking.start(state, 10.7)
    state, _ = seeking.take(state, TrafficSampled(moved={}, since=10.0, took=0.01), 10.71)
    assert state.health.rounds[first].life.looked == pytest.approx(10.7)
    # It has been looked at once: there is nothing to compare that with.
    assert lf.unseen(state.health.rounds[second].life, 10.0, 10.72)
    state, _ = seeking.start(state, 10.8)
    state, _ = seeking.take(state, TrafficSampled(moved={}, since=10.7, took=0.01), 10.81)
    assert not lf.unseen(state.health.rounds[second].life, 10.0, 10.82)


def test_a_new_doubt_waits_for_looks_of_its_own_whatever_the_last_one_had_found() -> None:
    key = ("u1", Family.V4)
    state = Engine(config(2), world(2)).state
    well = state.health.rounds[key]
    state = evolve(state, health=replace(state.health, rounds={**state.health.rounds, key: replace(well, bad=2)}))
    state, _ = seeking.start(state, 10.0)
    state, _ = seeking.take(state, TrafficSampled(moved={}, since=-inf, took=0.0), 10.0)
    state, _ = seeking.start(state, 10.25)
    found = TrafficSampled(moved={key: Moved(received=5000)}, since=10.0, took=0.0)
    state, _ = seeking.take(state, found, 10.25)
    recovered = replace(state.health.rounds[key], bad=0)
    state, orders = seeking.start(
        evolve(state, health=replace(state.health, rounds={**state.health.rounds, key: recovered})), 10.5
    )
    assert orders == ()
    state = evolve(
        state,
        health=replace(state.health, rounds={**state.health.rounds, key: replace(state.health.rounds[key], bad=2)}),
    )
    state = seeking.stir(state, key, 60.0)
    assert lf.unseen(state.health.rounds[key].life, 60.0, 60.5)
    state, _ = seeking.start(state, 60.0)
    state, _ = seeking.take(state, TrafficSampled(moved={}, since=10.25, took=0.0), 60.5)
    # It is compared with a look of long ago, which says nothing of now.
    assert lf.unseen(state.health.rounds[key].life, 60.0, 60.6)
    state, _ = seeking.start(state, 60.75)
    state, _ = seeking.take(state, TrafficSampled(moved={}, since=60.5, took=0.0), 60.75)
    assert not lf.unseen(state.health.rounds[key].life, 60.0, 60.75)


def test_what_one_family_shows_of_a_busy_line_counts_for_the_other() -> None:
    state = Engine(config(2), world(2)).state
    busy = replace(state.health.rounds["u1", Family.V4], bad=3, quality=Quality(busy="busy: full"))
    silent = replace(state.health.rounds["u1", Family.V6], bad=2)
    rounds = {**state.health.rounds, ("u1", Family.V4): busy, ("u1", Family.V6): silent}
    state, _ = seeking.start(evolve(state, health=evolve(state.health, rounds=rounds)), 10.0)
    found = TrafficSampled(moved={("u1", Family.V4): Moved(received=500)}, since=9.8, took=0.0)
    after, _ = seeking.take(state, found, 10.0)
    assert [after.health.rounds["u1", f].life.line_at for f in FAMILIES] == [-inf, 9.8]
