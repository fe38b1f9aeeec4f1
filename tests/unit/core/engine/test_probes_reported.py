"""What one wake-up brings is taken in at once, and as if it came one by one."""

from __future__ import annotations

from collections import deque
from dataclasses import replace

from hypothesis import example, given
from hypothesis import strategies as st

from polywan.core.engine import agenda
from polywan.core.engine import step as engine
from polywan.core.health.probes import ProbeOrder, ProbeResult
from polywan.core.net import Family
from polywan.core.policy.uplink_state import UplinkState
from polywan.core.state.effects import Effect, StartProbe
from polywan.core.state.events import Event, ForeignStateChanged, ProbesReported, Tick, first_of
from polywan.core.state.state import State
from support.engine_world import Engine, config, world

COUNT = 3
WELL = 12.0
"""Seconds after which every uplink is well, and targets take turns."""


def orders(effects: tuple[Effect, ...]) -> list[ProbeOrder]:
    return [effect.order for effect in effects if isinstance(effect, StartProbe)]


def answers(order: ProbeOrder, rtt: float | None = 0.01) -> list[ProbeResult]:
    return [
        ProbeResult(uplink=order.uplink, family=order.family, round=order.round, target=target.address, rtt=rtt)
        for target in order.targets
    ]


def asked(until: float) -> tuple[State, float, list[ProbeOrder]]:
    """Return a daemon that has just sent rounds, after that long with answers to all; the time; and the orders."""
    state, now = Engine(config(COUNT), world(COUNT, [Family.V4])).state, 0.0
    while True:
        now = agenda.deadline(state)
        state, effects = engine.step(state, Tick(), now)
        sent = orders(effects)
        if sent and now >= until:
            return state, now, sent
        for order in sent:
            for result in answers(order):
                state, _ = engine.step(state, result, now + 0.01)


def outcomes(order: ProbeOrder, words: list[str]) -> list[ProbeResult]:
    """Return one result for each word: an answer, a miss, one that comes late, or one of a round nobody knows."""
    answer = answers(order)[0]
    found = {
        "answer": answer,
        "miss": replace(answer, rtt=None),
        "late": replace(answer, rtt=1.5, late=True),
        "unknown": replace(answer, round=10**6),
        "stranger": replace(answer, uplink="u9"),
    }
    return [found[word] for word in words]


def state_of(state: State) -> dict[str, tuple[UplinkState, float]]:
    """Return all states with their beginnings; reasons quote the figures that there were at the last decision."""
    return {name: (view.state, view.since) for name, view in state.decision.views.items()}


words = st.lists(st.sampled_from(["answer", "miss", "late", "unknown", "stranger"]), max_size=4)


@given(st.lists(words, min_size=COUNT, max_size=COUNT), st.sampled_from([0.0, WELL]))
@example([["answer", "answer", "late"], ["answer", "late", "late"], ["answer", "late", "answer"]], 0.0)
def test_results_of_one_wake_up_come_to_the_same_as_one_by_one(found: list[list[str]], until: float) -> None:
    state, now, sent = asked(until)
    results = [result for order, mine in zip(sent * COUNT, found, strict=False) for result in outcomes(order, mine)]
    soon = now + agenda.LOOK_SHARE
    together, _ = engine.step(state, ProbesReported(tuple(results)), soon)
    for result in results:
        # So soon after a look there is no other: what the first result makes due is not sent before the second.
        state, _ = engine.step(state, result, soon)
    assert together.health == state.health
    assert state_of(together) == state_of(state)
    assert together.done.totals == state.done.totals


def test_once_all_rounds_are_decided_nothing_wakes_the_daemon_before_the_next_one() -> None:
    state, now, sent = asked(WELL)
    upcoming = min(probes.next for probes in state.health.rounds.values())
    results = tuple(result for order in sent for result in answers(order))
    state, _ = engine.step(state, ProbesReported(results), now + 0.01)
    assert state.agenda.wake == upcoming


def test_a_round_that_is_undecided_wakes_the_daemon_when_it_is_suspect() -> None:
    state, now, sent = asked(WELL)
    state, _ = engine.step(state, ProbesReported(tuple(answers(sent[0])[1:])), now + 0.01)
    assert state.agenda.wake <= now + 0.25


def test_results_that_follow_each_other_are_one_event_and_pass_nothing_by() -> None:
    one, other = (answers(order)[0] for order in asked(0.0)[2][:1] * 2)
    change = ForeignStateChanged("route")
    queue: deque[Event] = deque([one, other, change, one])
    assert [first_of(queue) for _ in range(3)] == [ProbesReported((one, other)), change, ProbesReported((one,))]
    assert not queue
