"""The engine on a clock that jumps: what comes of its effects, when, and that it is the same each time."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace
from ipaddress import ip_address
from itertools import cycle, pairwise, takewhile
from typing import Any

import pytest

from polywan.core.engine import agenda
from polywan.core.health.layers import Layer
from polywan.core.health.rounds import Health
from polywan.core.net import FAMILIES, Family
from polywan.core.plan.plan import NftBatch
from polywan.core.policy.operator import Verb
from polywan.core.ruleset.second_table import KEEP_TABLE
from polywan.core.state.effects import MOST_READS, Apply, Effect, Read, ReleaseConnections, StartProbe
from polywan.core.state.events import OperatorCommand
from polywan.core.world.observed import Link, Observed
from polywan.core.world.shared_device import NextHop
from polywan.kernel.fake.tracker import Connection
from polywan.sim.internet import ROUND_TRIP, Internet
from polywan.sim.simulation import READ_TIME, Simulation
from support.engine_world import config, world

KEY = ("u1", Family.V4)


def simulation(count: int = 2, internet: Internet | None = None, **tables: Any) -> Simulation:
    sim = Simulation(world(count), internet)
    sim.start(config(count, **tables))
    return sim


def quiet() -> Simulation:
    """Two uplinks that serve, and nothing that is still to be read or written."""
    sim = simulation()
    sim.run_until(10.5)
    return sim


def states(sim: Simulation) -> dict[str, str]:
    return {name: str(view.state) for name, view in sim.state.decision.views.items()}


def lines(sim: Simulation) -> list[tuple[float, str, str]]:
    return [(at, line.event, line.text) for at, line in sim.log]


def story(seed: int) -> list[tuple[float, str, str]]:
    """An uplink whose answers come with much jitter, another that goes and comes back, and a restart."""
    internet = Internet(seed)
    internet.jitter["u1"], internet.loss["u1"] = 1.2, 0.3
    sim = Simulation(world(2), internet)
    sim.at(20.0, lambda: internet.silent.update(("u2", family) for family in FAMILIES))
    sim.at(30.0, lambda: sim.start(config(2)))
    sim.at(40.0, internet.silent.clear)
    sim.start(config(2))
    sim.run_until(120.0)
    return lines(sim)


def test_the_same_seed_and_script_give_the_same_log() -> None:
    assert story(7) == story(7)


def test_another_seed_gives_another_log() -> None:
    assert story(7) != story(8)


def test_uplinks_that_answer_in_time_stay_up() -> None:
    sim = simulation(3)
    sim.run_until(600.0)
    assert states(sim) == {"u1": "up", "u2": "up", "u3": "up"}
    assert {event for _, event, _ in lines(sim)} == {"uplink.up"}


def test_one_that_falls_silent_goes_down_and_its_connections_are_released() -> None:
    sim = simulation()
    sim.run_until(10.0)
    mark = sim.state.known.numbers["u1"].mark
    sim.kernel.connections_list.append(Connection(mark=mark))
    sim.internet.silent.add(KEY)
    sim.run_until(14.0)
    assert sim.state.health.rounds[KEY].health is Health.DOWN
    # By IPv6 it still answers.
    assert states(sim) == {"u1": "degraded", "u2": "up"}
    assert sim.kernel.connections(0x3F00) == {}


def test_what_is_written_is_what_the_kernel_has() -> None:
    sim = simulation()
    sim.run_until(1.0)
    assert sim.state.decision.desired is not None
    assert sim.kernel.read(()).routes == sim.state.decision.desired.routes
    assert KEEP_TABLE in sim.kernel.held
    assert sim.kernel.listening


def test_an_answer_after_the_timeout_is_silence_first_and_late_then() -> None:
    internet = Internet()
    internet.latency["u1"] = 3.0
    sim = simulation(internet=internet)
    sim.run_until(30.0)
    assert sim.state.health.rounds[KEY].life.late == 3.0


def test_by_a_device_without_carrier_nothing_is_answered() -> None:
    sim = simulation()
    sim.run_until(5.0)
    sim.kernel.set_link(replace(sim.kernel.links["wan1"], carrier=False))
    sim.run_until(6.0)
    assert states(sim)["u1"] == "down"


def test_a_layer_that_is_broken_is_found_by_its_check() -> None:
    sim = simulation(health={"checks": "dns"})
    sim.internet.layers["u1", Layer.DNS] = "no answer"
    sim.run_until(60.0)
    assert "no answer" in sim.state.decision.views["u1"].reason


def test_a_target_is_mute_for_all_or_by_one_uplink() -> None:
    for uplink, bad in ((None, 1), ("u2", 0)):
        sim = simulation()
        sim.run_until(10.0)
        sim.internet.muted.add((ip_address("9.9.9.9"), uplink))
        sim.run_until(30.0)
        assert states(sim) == {"u1": "up", "u2": "up"}
        assert [event for _, event, _ in lines(sim)].count("target.bad") == bad


def test_while_nothing_runs_answers_are_lost_and_nobody_is_down_for_it() -> None:
    sim = simulation()
    sim.run_until(60.0)
    sim.suspend(3600.0)
    sim.run_until(3720.0)
    assert states(sim) == {"u1": "up", "u2": "up"}
    assert [event for _, event, _ in lines(sim)].count("clock.gap") == 1


def test_a_daemon_that_starts_again_knows_what_the_one_before_it_wrote_down() -> None:
    sim = simulation()
    sim.run_until(10.0)
    numbers = dict(sim.state.known.memory.ids)
    sim.start(config(3))
    sim.run_until(20.0)
    assert numbers
    assert numbers.items() <= sim.state.known.memory.ids.items()


def test_a_read_during_which_something_was_written_is_made_again() -> None:
    sim = simulation()
    sim.run_until(10.0)
    seen: list[Effect] = []
    sim.listeners.append(seen.append)
    sim.kernel.lose_events()
    sim.run_until(sim.now)
    assert Read() in seen
    # The loss is acted on while the read is under way, which must not show the routes of before.
    sim.kernel.set_link(replace(sim.kernel.links["wan1"], up=False, carrier=False))
    sim.run_until(sim.now + 0.5)
    assert sim.state.known.actual is not None
    assert sim.state.known.actual.routes == sim.kernel.read(()).routes


def reads_in_a_row(sim: Simulation, during: Callable[[], object]) -> int:
    """Lose notifications, so that the daemon reads; return how many times it does, with something done during each."""
    times: list[float] = []
    observe = sim.kernel.observe

    def observed(hops: Collection[NextHop] = ()) -> Observed:
        times.append(sim.now)
        sim.at(sim.now + READ_TIME / 2, during)
        return observe(hops)

    sim.kernel.observe = observed  # type: ignore[method-assign] # when it reads is the point
    sim.kernel.lose_events()
    sim.run_until(sim.now + 10 * READ_TIME)
    row = takewhile(lambda pair: pair[1] == pytest.approx(pair[0] + READ_TIME), pairwise(times))
    return 1 + len(list(row))


def once(act: Callable[[], object]) -> Callable[[], object]:
    """Return what does it the first time alone."""
    remaining = [act]
    return lambda: remaining.pop()() if remaining else None


def test_a_read_during_which_nothing_happens_is_taken() -> None:
    sim = quiet()
    before = sim.state.known.observed
    assert reads_in_a_row(sim, lambda: None) == 1
    assert sim.state.known.observed is not before


def test_a_read_is_made_again_when_the_daemon_wrote_meanwhile() -> None:
    sim = quiet()
    written: list[Effect] = []
    sim.listeners.append(lambda effect: written.append(effect) if isinstance(effect, Apply) else None)
    assert reads_in_a_row(sim, once(lambda: sim.take(OperatorCommand("u2", Verb.DISABLE, 0.0)))) == 2
    assert written


def test_a_read_is_made_again_when_something_changed_meanwhile() -> None:
    sim = quiet()
    assert reads_in_a_row(sim, once(sim.kernel.lose_events)) == 2


def test_a_device_that_no_decision_looks_at_makes_no_read_again() -> None:
    sim = quiet()
    container = Link(index=99, name="veth9", up=True, carrier=True)
    assert reads_in_a_row(sim, once(lambda: sim.kernel.set_link(container))) == 1


def test_of_some_reads_in_a_row_the_last_one_is_taken_though_notifications_keep_coming() -> None:
    sim = quiet()
    assert reads_in_a_row(sim, sim.kernel.lose_events) == MOST_READS


def test_no_read_is_taken_during_which_the_daemon_wrote_however_many_there_are() -> None:
    sim = quiet()
    verbs = cycle([Verb.DISABLE, Verb.ENABLE])
    before = sim.state.known.observed
    assert reads_in_a_row(sim, lambda: sim.take(OperatorCommand("u2", next(verbs), 0.0))) > MOST_READS
    assert sim.state.known.observed is before


def test_without_the_dead_marks_no_connection_is_released() -> None:
    sim = simulation()
    sim.run_until(10.0)
    sim.kernel.connections_list.append(Connection(mark=sim.state.known.numbers["u1"].mark))
    sim.kernel.fail_next(NftBatch, 16)
    asked: list[Effect] = []
    sim.listeners.append(asked.append)
    sim.kernel.set_link(replace(sim.kernel.links["wan1"], carrier=False))
    sim.run_until(sim.now)
    assert any(isinstance(effect, ReleaseConnections) for effect in asked)
    assert len(sim.kernel.connections_list) == 1
    sim.run_until(sim.now + 5.0)
    assert sim.kernel.connections_list == []


def test_new_connections_are_heard_and_answered_by_an_uplink_that_is_not_silent() -> None:
    sim = simulation()
    sim.run_until(10.0)
    mark = sim.state.known.numbers["u1"].mark
    sim.kernel.begin([Connection(mark=mark, protocol="tcp", port=443, state="SYN_SENT")])
    sim.run_until(10.1)
    assert [attempt.answered is not None for attempt in sim.state.health.watches[KEY].attempts] == [True]
    sim.internet.silent.add(KEY)
    sim.kernel.begin([Connection(mark=mark, protocol="tcp", port=443, state="SYN_SENT")])
    sim.run_until(10.2)
    assert [attempt.answered is not None for attempt in sim.state.health.watches[KEY].attempts] == [True, False]


def test_a_script_comes_before_what_the_daemon_does_at_that_time() -> None:
    sim = simulation()
    sim.run_until(10.0)
    order: list[object] = []
    sim.listeners.append(order.append)
    sim.at(agenda.deadline(sim.state), lambda: order.append("script"))
    sim.run_until(11.0)
    assert order[0] == "script"
    assert len(order) > 1


def test_a_script_comes_before_what_waits_for_the_daemon_at_that_time() -> None:
    sim = quiet()
    order: list[object] = []
    sim.listeners.append(order.append)
    sim.kernel.lose_events()
    sim.at(sim.now, lambda: order.append("script"))
    sim.run_until(sim.now)
    assert order[0] == "script"
    assert Read() in order


def test_answers_that_are_on_their_way_while_nothing_runs_are_lost() -> None:
    def bad_rounds(seconds: float) -> int:
        sim = quiet()
        sent: list[Effect] = []
        sim.listeners.append(lambda e: sent.append(e) if isinstance(e, StartProbe) and e.order.uplink == "u1" else None)
        while not sent:
            sim.run_until(agenda.deadline(sim.state))
        assert sim.state.health.rounds[KEY].bad == 0
        if seconds:
            sim.suspend(seconds)
        sim.run_until(sim.now + ROUND_TRIP)
        return sim.state.health.rounds[KEY].bad

    assert [bad_rounds(0.0), bad_rounds(0.2)] == [0, 1]
