"""What the log tells of addresses, gateways and outages."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_interface

import pytest

from polywan.core.engine.log_events import tell
from polywan.core.net import Family
from polywan.core.policy.uplink_state import UplinkState, UplinkView
from polywan.core.state import outages
from polywan.core.state.effects import Level, Log, SaveMemory
from polywan.core.state.events import ConfigLoaded, ReadDone, Tick
from polywan.core.state.outages import History, Outage
from polywan.core.world.observed import Address, DefaultRoute, Observed
from polywan.sim.simulation import Simulation
from support.engine_world import Engine, config, link, world


def addressed(address: str | None, gateway: str | None) -> Observed:
    """The world of two uplinks over IPv4, with another address and gateway of the first."""
    observed = world(2, [Family.V4])
    addresses = tuple(a for a in observed.addresses if a.link != "wan1")
    if address is not None:
        addresses += (Address("wan1", ip_interface(address)),)
    defaults = tuple(d for d in observed.defaults if d.link != "wan1")
    if gateway is not None:
        defaults += (DefaultRoute(family=Family.V4, link="wan1", via=ip_address(gateway), metric=101),)
    return replace(observed, addresses=addresses, defaults=defaults)


def logged(daemon: Engine, event: str) -> list[str]:
    return [e.text for e in daemon.effects if isinstance(e, Log) and e.event == event]


def see(daemon: Engine, observed: Observed, seconds: float = 0.0) -> None:
    assert daemon.state.decision.desired is not None
    assert daemon.state.known.actual is not None
    daemon.feed(ReadDone(observed, daemon.state.known.actual))
    daemon.now += seconds
    daemon.feed(Tick())


def running() -> Engine:
    return Engine(config(2), world(2, [Family.V4]))


@pytest.mark.parametrize(
    ("address", "gateway", "text"),
    [
        ("100.64.1.9/24", "100.64.1.1", "address 100.64.1.2 → 100.64.1.9, gateway 100.64.1.1"),
        ("100.64.1.2/24", "100.64.1.9", "address 100.64.1.2, gateway 100.64.1.1 → 100.64.1.9"),
        ("10.9.0.7/24", "10.9.0.1", "address 100.64.1.2 → 10.9.0.7, gateway 100.64.1.1 → 10.9.0.1"),
        (None, None, "address 100.64.1.2 is gone"),
    ],
)
def test_a_change_of_address_or_gateway_is_one_line(address: str | None, gateway: str | None, text: str) -> None:
    daemon = running()
    see(daemon, addressed(address, gateway), 1.1)
    assert logged(daemon, "uplink.address") == [f"u1: {text}"]


def test_an_address_that_goes_before_another_one_comes_is_an_exchange() -> None:
    daemon = running()
    see(daemon, addressed(None, None), 0.2)
    see(daemon, addressed("100.64.1.9/24", None), 0.2)
    see(daemon, addressed("100.64.1.9/24", "100.64.1.1"), 1.0)
    assert logged(daemon, "uplink.address") == ["u1: address 100.64.1.2 → 100.64.1.9, gateway 100.64.1.1"]


def test_an_address_that_is_taken_and_given_back_is_no_news() -> None:
    daemon = running()
    see(daemon, addressed(None, None), 0.2)
    see(daemon, world(2, [Family.V4]), 2.0)
    assert logged(daemon, "uplink.address") == []


def test_a_link_that_goes_down_has_no_other_address_for_that() -> None:
    daemon = running()
    see(daemon, world(2, [Family.V4]).with_link(link(1, up=False)), 2.0)
    assert logged(daemon, "uplink.address") == []
    assert logged(daemon, "uplink.down") == ["u1 is down: interface is down"]


def test_what_is_told_later_wakes_the_loop_once() -> None:
    daemon = running()
    see(daemon, addressed("100.64.1.9/24", "100.64.1.1"))
    assert daemon.state.done.logged.at == pytest.approx(daemon.now + 1.0)
    daemon.now += 1.0
    daemon.feed(Tick())
    assert daemon.state.done.logged.at == float("inf")


def test_an_outage_is_written_down_once_its_connections_had_their_time() -> None:
    daemon = running()
    first = daemon.carrier(1, carrier=False)
    assert not [e for e in first if isinstance(e, SaveMemory)]
    daemon.now += 2.0
    written = [e for e in daemon.feed(Tick()) if isinstance(e, SaveMemory)]
    assert [e.memory.outages["u1"].count for e in written] == [1]


def test_a_busy_uplink_is_called_so_and_is_no_warning() -> None:
    daemon = running()
    busy = UplinkView(UplinkState.DEGRADED, 0.0, "busy: answers come 1.2 s late")
    later = replace(
        daemon.state, decision=replace(daemon.state.decision, views={**daemon.state.decision.views, "u1": busy})
    )
    _, notes = tell(daemon.state, later, 1.0)
    assert [(note.level, note.text) for note in notes] == [(Level.INFO, "u1 is busy: answers come 1.2 s late")]


UP = UplinkView(UplinkState.UP, 0.0, "well")
DOWN = UplinkView(UplinkState.DOWN, 0.0, "no carrier")


def test_an_outage_is_counted_on_the_day_it_began() -> None:
    begun = outages.follow({}, {"a": UP}, {"a": DOWN}, unix=86390.0, zone=0.0)
    ended = outages.follow(begun, {"a": DOWN}, {"a": UP}, unix=86410.0, zone=0.0)
    assert ended["a"].last == (Outage(began=86390.0, lasted=20.0, reason="no carrier"),)
    assert [outages.today(ended["a"], at, 0.0) for at in (86399.0, 86401.0)] == [1, 0]
    assert outages.today(ended["a"], 86401.0, zone=-3600.0) == 1


def test_what_was_down_from_the_start_or_is_taken_out_of_use_is_no_outage() -> None:
    disabled = UplinkView(UplinkState.DISABLED, 0.0, "by hand")
    assert outages.follow({}, {}, {"a": DOWN}, 0.0, 0.0) == {}
    assert outages.follow({}, {"a": UP}, {"a": disabled}, 0.0, 0.0) == {}


def test_an_outage_outlives_a_restart_and_ends_after_it() -> None:
    begun = outages.follow({}, {"a": UP}, {"a": DOWN}, 100.0, 0.0)
    assert outages.follow(begun, {}, {"a": DOWN}, 150.0, 0.0) is begun
    ended = outages.follow(begun, {}, {"a": UP}, 160.0, 0.0)["a"]
    assert (ended.lasting, ended.ended and ended.ended.lasted) == (None, 60.0)


def unplugged(sim: Simulation) -> None:
    """Take the first uplink's carrier, with nobody there to see it, and start the daemon."""
    sim.kernel.set_link(link(1, carrier=False))
    sim.log.clear()
    sim.start(config(2))


def events_of(sim: Simulation, name: str) -> list[str]:
    return [line.text for _, line in sim.log if line.event.startswith("uplink.") and line.text.startswith(name)]


def test_an_uplink_that_is_lost_while_no_daemon_runs_has_an_outage_and_one_alone() -> None:
    sim = Simulation(world(2))
    sim.start(config(2))
    sim.run_until(10.0)
    unplugged(sim)
    sim.run_until(15.0)
    assert events_of(sim, "u1") == ["u1 is down: no carrier"]
    for _ in range(2):
        history = sim.state.known.memory.outages["u1"]
        assert (history.count, history.lasting is not None) == (1, True)
        sim.start(config(2))
        sim.run_until(sim.now + 5.0)
    assert "u2" not in sim.state.known.memory.outages
    sim.kernel.set_link(link(1))
    sim.run_until(sim.now + 60.0)
    assert events_of(sim, "u1")[-1].startswith("u1 is up again after ")
    assert "(1st outage today)" in events_of(sim, "u1")[-1]


def test_what_is_down_when_the_machine_starts_has_no_outage_and_does_not_return_after_an_old_one() -> None:
    sim = Simulation(world(2))
    old = History(day=0, count=1, last=(Outage(began=-100.0, lasted=50.0, reason="no carrier"),))
    sim.memory = replace(sim.memory, outages={"u1": old})
    unplugged(sim)
    sim.run_until(5.0)
    assert events_of(sim, "u1") == ["u1 is down: no carrier"]
    # A daemon that starts again finds it as the one before left it.
    sim.start(config(2))
    sim.run_until(10.0)
    assert sim.state.known.memory.outages["u1"] == old
    sim.kernel.set_link(link(1))
    sim.run_until(60.0)
    assert sim.state.known.memory.outages["u1"] == old
    assert events_of(sim, "u1")[-1].startswith("u1 is up: address 100.64.1.2")


def test_without_the_table_of_the_daemon_before_nobody_knows_what_it_left_serving() -> None:
    sim = Simulation(world(2))
    sim.start(config(2))
    sim.run_until(10.0)
    sim.kernel.tamper_flush_nft()
    unplugged(sim)
    sim.run_until(20.0)
    assert sim.state.known.memory.outages == {}


def test_an_uplink_that_is_configured_while_it_is_down_has_no_outage() -> None:
    sim = Simulation(world(2))
    sim.start(config(1))
    sim.run_until(10.0)
    sim.kernel.set_link(link(2, carrier=False))
    sim.start(config(2))
    sim.run_until(20.0)
    assert events_of(sim, "u2") == ["u2 is down: no carrier"]
    assert sim.state.known.memory.outages == {}


def test_a_few_outages_are_kept_and_all_of_the_day_are_counted() -> None:
    known: dict[str, History] = {}
    for n in range(20):
        known = dict(outages.follow(known, {"a": UP}, {"a": DOWN}, 10.0 * n, 0.0))
        known = dict(outages.follow(known, {"a": DOWN}, {"a": UP}, 10.0 * n + 1, 0.0))
    assert (known["a"].count, len(known["a"].last)) == (20, outages.KEPT_OUTAGES)
    assert known["a"].last[0].began == 190.0


def test_another_name_for_the_same_device_is_no_return() -> None:
    daemon = running()
    before = len(daemon.effects)
    again = config(2).model_dump(by_alias=True, exclude_unset=True)
    again["uplinks"]["fibre"] = again["uplinks"].pop("u1")
    daemon.feed(ConfigLoaded(type(config(2)).model_validate(again)))
    see(daemon, world(2, [Family.V4]), 2.0)
    daemon.effects = daemon.effects[before:]
    assert logged(daemon, "uplink.up") + logged(daemon, "uplink.address") == []
