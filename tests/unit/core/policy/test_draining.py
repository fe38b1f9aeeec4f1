"""Coming back: whose connections move or end, when, and whose never."""

from __future__ import annotations

from math import inf
from typing import Any

import pytest

from polywan.config import Config
from polywan.core.evolve import replace
from polywan.core.health.rounds import Health, initial
from polywan.core.net import FAMILIES, Family
from polywan.core.policy import draining
from polywan.core.policy.draining import STAY, WHEN_IDLE, DrainState, DrainTiming, IdleTracker
from polywan.core.policy.operator import Order, Verb
from polywan.core.policy.selection import Choice, Selection
from polywan.core.resolved import resolve
from polywan.core.state.effects import Effect, ForgetAll, InspectDrain, ReleaseConnections, SaveMemory
from polywan.core.state.events import ConfigLoaded, DrainInspected, OperatorCommand, Tick
from polywan.core.world.conntrack import Flow
from support.engine_world import Engine, world

KEY = ("u2", Family.V4)
QUICK = {"health": {"hold_down": 0, "rise": 1, "targets": ["192.0.2.1"]}}


def config(on_up: Any = None, *, metered: bool = False, **more: Any) -> Config:
    policy = {"tiers": [["u1"], ["u2"]]} | ({} if on_up is None else {"on_up": on_up})
    uplinks = {"u1": {"interface": "wan1"}, "u2": {"interface": "wan2", "metered": metered}}
    return Config.model_validate({"uplinks": uplinks, "policies": {"default": policy}, **QUICK, **more})


def chosen(*members: str, tier: int | None = 0, forced: bool = False) -> Choice:
    return Choice(members=tuple((name, 1) for name in members), tier=tier, reason="", forced=forced)


def selection(**choices: Choice) -> Selection:
    return Selection({(name, Family.V4): choice for name, choice in choices.items()}, frozenset())


@pytest.mark.parametrize(
    ("on_up", "metered", "timing"),
    [
        (None, False, WHEN_IDLE),
        (None, True, DrainTiming(10.0, 600.0)),
        ("stay", True, STAY),
        ("move-when-idle", True, WHEN_IDLE),
        ("move", False, DrainTiming(0.0, inf)),
        ({"drain": "5m"}, False, DrainTiming(10.0, 300.0)),
        ({"drain": 0}, False, DrainTiming(10.0, 0.0)),
    ],
)
def test_each_word_of_on_up_has_its_pace(on_up: Any, metered: bool, timing: DrainTiming) -> None:
    assert (
        draining.timing_of(resolve(config(on_up, metered=metered), {}), selection(default=chosen("u1")), KEY) == timing
    )


def test_where_policies_differ_the_mildest_decides_in_each_respect() -> None:
    more = {
        "a": {"tiers": [["u1"], ["u2"]], "on_up": "move"},
        "default": {"tiers": [["u1"], ["u2"]], "on_up": {"drain": "5m"}},
    }
    configuration = config(policies=more)
    now = selection(default=chosen("u1"), a=chosen("u1"))
    assert draining.timing_of(resolve(configuration, {}), now, KEY) == DrainTiming(10.0, inf)
    assert draining.timing_of(
        resolve(configuration, {}), selection(default=chosen("u1"), a=chosen("u1", forced=True)), KEY
    ) == DrainTiming(10.0, 300.0)


@pytest.mark.parametrize("choice", [chosen("u1", forced=True), chosen(tier=None), chosen("u3", tier=2)])
def test_what_is_no_better_moves_nothing(choice: Choice) -> None:
    assert draining.timing_of(resolve(config("move"), {}), selection(default=choice), KEY) == STAY


def test_beside_well_members_of_its_own_tier_a_degraded_one_is_never_ended() -> None:
    shared = config(policies={"default": {"tiers": [["u1", "u2"]], "on_up": {"drain": 0}}})
    assert draining.timing_of(resolve(shared, {}), selection(default=chosen("u1")), KEY) == WHEN_IDLE


def test_only_who_served_before_is_relieved() -> None:
    configuration = config()
    stood_in, back = selection(default=chosen("u2", tier=1)), selection(default=chosen("u1"))
    assert draining.superseded(resolve(configuration, {}), stood_in, back) == {KEY}
    assert draining.superseded(resolve(configuration, {}), back, back) == frozenset()
    assert draining.superseded(resolve(configuration, {}), None, back) == frozenset()


def test_who_serves_another_policy_is_not_relieved() -> None:
    before = selection(default=chosen("u2", tier=1), other=chosen("u2"))
    after = selection(default=chosen("u1"), other=chosen("u2"))
    assert draining.superseded(resolve(config(), {}), before, after) == frozenset()


def test_a_file_that_moves_an_uplink_to_a_lower_tier_relieves_nobody() -> None:
    assert (
        draining.superseded(
            resolve(config(), {}), selection(default=chosen("u1", "u2")), selection(default=chosen("u1"))
        )
        == set()
    )


def test_who_turns_worse_beside_others_is_not_relieved() -> None:
    shared = config(policies={"default": {"tiers": [["u1", "u2"]]}})
    both, one = selection(default=chosen("u1", "u2")), selection(default=chosen("u1"))
    assert draining.superseded(resolve(shared, {}), both, one) == set()
    assert draining.superseded(resolve(shared, {}), selection(default=chosen("u2")), one) == {KEY}


def flow(port: int = 1, *, packets: int | None = 1, timeout: int | None = 100, protocol: int = 17) -> Flow:
    ends = (Family.V4, protocol, "192.0.2.1", port, "203.0.113.9", 53)
    return Flow(*ends, timeout=timeout, packets_up=packets, packets_down=packets)


def watched(*flows: Flow, at: float = 0.0) -> IdleTracker:
    return IdleTracker({}).look(flows, at, gather=True, exempt=frozenset())


def test_a_flow_without_packets_becomes_idle() -> None:
    watch = watched(flow()).look([flow(timeout=98)], 2.0, gather=True, exempt=frozenset())
    assert not watch.idle(flow(timeout=91), 10.0, 9.0)
    assert watch.idle(flow(timeout=90), 10.0, 10.0)


@pytest.mark.parametrize("packets", [1, None])
def test_a_packet_begins_the_wait_anew(packets: int | None) -> None:
    watch = watched(flow(packets=packets))
    # Without counters the time of its end tells: a packet puts it off.
    heard = flow(packets=packets and 2, timeout=100)
    watch = watch.look([heard], 8.0, gather=True, exempt=frozenset())
    assert not watch.idle(flow(packets=packets and 2, timeout=96), 10.0, 12.0)
    assert watch.idle(flow(packets=packets and 2, timeout=90), 10.0, 18.0)


def test_a_packet_between_the_look_and_the_deletion_counts() -> None:
    assert not watched(flow()).idle(flow(packets=2, timeout=100), 10.0, 30.0)


def test_tcp_and_what_came_from_outside_are_not_watched() -> None:
    watch = IdleTracker({}).look([flow(protocol=6), flow(2)], 0.0, gather=True, exempt=frozenset({"203.0.113.9"}))
    assert watch.samples == {}


def test_who_comes_after_the_first_looks_chose_this_uplink_itself() -> None:
    watch = watched(flow(1)).look([flow(1), flow(2)], 4.0, gather=False, exempt=frozenset())
    assert not watch.idle(flow(2), 0.0, 60.0)
    assert not watch.without([draining.key_of(flow(1))]).idle(flow(1), 0.0, 60.0)


def drain_state(**more: Any) -> DrainState:
    return DrainState(**{"since": 0.0, "timing": DrainTiming(10.0, 30.0), "look": 0.0, **more})


def test_looks_follow_each_other_until_the_deadline_and_then_resets_and_oblivion() -> None:
    known: draining.Drains = {KEY: drain_state()}
    timeline = []
    for tenth in range(400):
        now = tenth / 10
        done = draining.advance(known, now)
        known = done.drains
        timeline += [(now, "look")] * bool(done.look) + [(now, "empty")] * bool(done.empty)
        timeline += [(now, "cut")] * done.changed
    assert timeline == [*((2.0 * n, "look") for n in range(15)), (30.0, "cut"), (33.0, "empty")]


def test_a_leaving_without_a_deadline_is_over_when_nothing_may_move_any_more() -> None:
    known = {KEY: drain_state(timing=WHEN_IDLE, looks=2)}
    assert draining.inspected(known, KEY, 0.0, remaining=5, movable=1) == known
    assert draining.inspected(known, KEY, 0.0, remaining=5, movable=0)[KEY].done


def test_a_leaving_with_a_deadline_is_over_early_only_when_nothing_is_left() -> None:
    known = {KEY: drain_state(looks=2)}
    assert draining.inspected(known, KEY, 0.0, remaining=1, movable=0) == known
    assert draining.inspected(known, KEY, 0.0, remaining=0, movable=0)[KEY].done


def test_what_was_seen_of_an_earlier_leaving_counts_for_nothing() -> None:
    known = {KEY: drain_state(since=5.0, looks=2)}
    assert draining.inspected(known, KEY, 4.0, remaining=0, movable=0) == known


def relieve(daemon: Engine) -> list[Effect]:
    """Let u2 stand in for u1, and u1 come back."""
    daemon.carrier(1, carrier=False)
    daemon.now += 1
    effects = daemon.carrier(1, carrier=True)
    health = {**daemon.state.health.rounds}
    for family in FAMILIES:
        health["u1", family] = initial(Health.UP, "well", daemon.now)
    daemon.state = replace(daemon.state, health=replace(daemon.state.health, rounds=health))
    return [*effects, *daemon.feed(OperatorCommand("u1", Verb.ENABLE, 0.0))]


def test_the_engine_looks_at_a_relieved_uplink_and_writes_down_since_when() -> None:
    daemon = Engine(config(metered=True), world(2))
    effects = relieve(daemon)
    assert {(e.uplink, e.family) for e in effects if isinstance(e, InspectDrain)} == {("u2", f) for f in FAMILIES}
    (memory,) = [e.memory for e in effects if isinstance(e, SaveMemory)][-1:]
    assert set(memory.drains) == {("u2", family) for family in FAMILIES}
    assert not any(isinstance(e, ReleaseConnections) and e.uplink == "u2" for e in effects)


def test_at_the_deadline_the_mark_is_dead_and_afterwards_it_is_not() -> None:
    daemon = Engine(config({"drain": "20s"}), world(2))
    relieve(daemon)
    daemon.now += 20.0
    effects = daemon.feed(Tick())
    assert {e.uplink for e in effects if isinstance(e, ReleaseConnections)} == {"u2"}
    assert daemon.state.decision.selection is not None
    assert KEY in daemon.state.decision.selection.dead
    daemon.now += draining.RESET_GRACE
    empties = [e for e in daemon.feed(Tick()) if isinstance(e, ForgetAll)]
    assert {(e.uplink, e.mark) for e in empties} == {("u2", 0x2000000)}
    for e in empties:
        daemon.feed(DrainInspected(uplink=e.uplink, family=e.family, since=e.since, remaining=0, movable=0))
    assert daemon.state.decision.selection.dead == frozenset()
    assert (daemon.state.decision.drains, daemon.state.known.memory.drains) == ({}, {})


def test_a_reload_may_change_how_an_uplink_is_left() -> None:
    daemon = Engine(config(metered=True), world(2))
    relieve(daemon)
    daemon.feed(ConfigLoaded(config("stay", metered=True)))
    assert daemon.state.decision.drains == {}


def test_an_uplink_that_dies_while_it_is_left_is_cut_like_any_other() -> None:
    daemon = Engine(config("move-when-idle"), world(2))
    relieve(daemon)
    effects = daemon.carrier(2, carrier=False)
    assert {e.uplink for e in effects if isinstance(e, ReleaseConnections)} == {"u2"}
    assert daemon.state.decision.drains == {}


def test_a_drain_by_hand_is_not_prolonged_by_a_clock_that_was_set_back() -> None:
    order = Order(verb=Verb.DRAIN, since=1000.0, until=1600.0)
    value = draining.Situation(resolve(config(), {}), {KEY: None}, {}, {"u2": order}, {}, unix=-5000.0)  # type: ignore[dict-item]  # unread
    (found,) = draining.follow(value, {}, None, selection(default=chosen("u1")), 50.0).values()
    assert found.deadline == 650.0
