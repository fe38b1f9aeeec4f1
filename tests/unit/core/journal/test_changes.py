"""What the journal records of the engine's decisions, and which hooks follow from that."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_interface

import pytest

from polywan.config import Config
from polywan.core.journal.changes import Change, What, follow
from polywan.core.journal.ends import Ends
from polywan.core.net import FAMILIES, Family
from polywan.core.policy.uplink_state import UplinkState
from polywan.core.state.effects import Effect, Record
from polywan.core.state.events import ConfigLoaded, ReadDone, Tick
from polywan.core.state.state import Done, Known, State
from polywan.core.world.observed import Address, DefaultRoute
from support.engine_world import Engine, config, link, world
from support.timeline import Sim

UP, DOWN, DEGRADED = UplinkState.UP, UplinkState.DOWN, UplinkState.DEGRADED


def changes(effects: list[Effect]) -> list[Change]:
    return [change for effect in effects if isinstance(effect, Record) for change in effect.changes]


def brief(found: list[Change]) -> list[tuple[str, str, UplinkState | None, UplinkState | None]]:
    return [
        (c.standing.uplink, c.what, c.before.state if c.before else None, c.after.state if c.after else None)
        for c in found
    ]


def hooks(found: list[Change]) -> list[str]:
    return [f"{change.standing.uplink} {hook}" for change in found for hook in change.hooks]


def running(count: int = 2) -> Engine:
    return Engine(config(count), world(count, [Family.V4]))


def sim(count: int = 2) -> Sim:
    found = Sim({"uplinks": {f"u{n}": {"interface": f"wan{n}"} for n in range(1, count + 1)}}, count)
    found.run_until(2.0)
    found.changes.clear()
    return found


def test_the_first_decision_records_what_it_finds() -> None:
    daemon = running()
    found = changes(daemon.effects)
    assert brief(found) == [("u1", "found", None, UP), ("u2", "found", None, UP)]
    assert [c.lasted for c in found] == [None, None]
    assert found[0].standing.ends == {Family.V4: Ends("100.64.1.2", "100.64.1.1")}
    assert found[0].standing.families == {Family.V4: True}


def test_a_loss_is_recorded_with_its_reason_and_how_long_it_was_well() -> None:
    daemon = running()
    daemon.now = 12.5
    (lost,) = changes(daemon.carrier(1, carrier=False))
    assert (lost.what, lost.at, lost.lasted, lost.reason) == (What.STATE, 12.5, 12.5, "no carrier")
    assert lost.after is not None
    assert lost.after.families == {Family.V4: False}
    assert lost.after.ends == {Family.V4: Ends("100.64.1.2", "100.64.1.1")}


def test_what_is_as_before_is_not_recorded() -> None:
    daemon = running()
    assert daemon.state.known.actual is not None
    before = daemon.state.done.standings
    daemon.now = 5.0
    assert changes(daemon.feed(ReadDone(world(2, [Family.V4]), daemon.state.known.actual))) == []
    assert daemon.state.done.standings is before


def test_a_return_in_both_families_is_one_change_from_the_moment_of_the_first() -> None:
    daemon = sim()
    daemon.command(("carrier", "wan1", "off"))
    daemon.run_until(4.0)
    daemon.command(("silent", "u1", "ipv6"))
    daemon.command(("carrier", "wan1", "on"))
    daemon.run_until(15.0)
    daemon.command(("answer", "u1"))
    daemon.run_until(60.0)
    assert [(b, w, o, n) for b, w, o, n in brief(daemon.changes) if b == "u1"][:2] == [
        ("u1", "state", UP, DOWN),
        ("u1", "state", DOWN, DEGRADED),
    ]
    lost, back = daemon.changes[:2]
    assert back.lasted == back.at - lost.at


def test_a_family_that_is_lost_and_returns_is_a_change_also_where_the_state_stays() -> None:
    daemon = sim()
    daemon.command(("latency", "u1", "700ms"))
    daemon.run_until(40.0)
    daemon.changes.clear()
    daemon.command(("silent", "u1", "ipv6"))
    daemon.run_until(50.0)
    (lost,) = daemon.changes
    assert lost.before is not None
    assert lost.after is not None
    assert (lost.before.state, lost.after.state) == (DEGRADED, DEGRADED)
    assert (lost.before.families, lost.after.families) == (
        dict.fromkeys(FAMILIES, True),
        {Family.V4: True, Family.V6: False},
    )
    assert lost.hooks == ()


def test_another_address_is_a_change_with_how_long_the_last_one_was_there() -> None:
    daemon = running()
    assert daemon.state.known.actual is not None
    observed = world(2, [Family.V4])
    moved = replace(
        observed,
        addresses=(*(a for a in observed.addresses if a.link != "wan1"), Address("wan1", ip_interface("10.9.0.7/24"))),
        defaults=(
            *(d for d in observed.defaults if d.link != "wan1"),
            DefaultRoute(family=Family.V4, link="wan1", via=ip_address("10.9.0.1"), metric=101),
        ),
    )
    daemon.now = 30.0
    daemon.feed(ReadDone(moved, daemon.state.known.actual))
    daemon.now = 31.5
    (change,) = changes(daemon.feed(Tick()))
    assert change.what is What.ADDRESS
    assert change.reason == "address 100.64.1.2 → 10.9.0.7, gateway 100.64.1.1 → 10.9.0.1"
    assert change.lasted == 31.5
    assert change.hooks == ("address",)


def test_a_name_that_changes_and_an_uplink_that_leaves_the_file_are_recorded() -> None:
    daemon = running(3)
    file = config(3).model_dump(by_alias=True, exclude_unset=True)
    file["uplinks"] = {"one": file["uplinks"]["u1"], "u2": file["uplinks"]["u2"]}
    found = changes(daemon.feed(ConfigLoaded(Config.model_validate(file))))
    assert sorted(brief(found)) == [("one", "renamed", UP, UP), ("u3", "removed", UP, None)]
    assert hooks(found) == []


@pytest.mark.parametrize(
    ("setting", "then", "called"),
    [
        ({"enabled": False}, ("one", "state", UP, UplinkState.DISABLED), ["one disabled"]),
        ({"families": ["ipv4"]}, ("one", "state", UP, UP), ["one address"]),
    ],
)
def test_what_else_becomes_of_an_uplink_that_is_renamed_is_recorded_after_that(
    setting: dict[str, object], then: tuple[object, ...], called: list[str]
) -> None:
    daemon = Engine(config(2), world(2))
    file = config(2).model_dump(by_alias=True, exclude_unset=True)
    file["uplinks"] = {"one": file["uplinks"]["u1"] | setting, "u2": file["uplinks"]["u2"]}
    found = changes(daemon.feed(ConfigLoaded(Config.model_validate(file))))
    assert brief(found) == [("one", "renamed", UP, UP), then]
    assert found[1].before == found[0].after
    assert hooks(found) == called
    assert daemon.state.done.standings["one"] == found[1].after


def test_a_new_name_is_recorded_while_something_else_is_not_told_yet() -> None:
    known = running(1).state.done.standings["u1"]
    after, found = follow({"one": known}, {"one": known}, 5.0, first=False)
    assert [(c.what, c.standing.uplink) for c in found] == [(What.RENAMED, "one")]
    assert after["one"].uplink == "one"


def test_names_that_are_exchanged_are_recorded_for_both() -> None:
    daemon = running()
    file = config(2).model_dump(by_alias=True, exclude_unset=True)
    file["uplinks"] = {"u1": file["uplinks"]["u2"], "u2": file["uplinks"]["u1"]}
    found = changes(daemon.feed(ConfigLoaded(Config.model_validate(file))))
    assert sorted(c.reason for c in found) == ["called u1 before", "called u2 before"]
    assert {n: s.interface for n, s in daemon.state.done.standings.items()} == {"u1": "wan2", "u2": "wan1"}


def test_the_next_daemon_records_what_became_of_what_the_last_one_left() -> None:
    daemon = running()
    inherited = {**daemon.state.done.standings}
    inherited["gone"] = replace(inherited["u2"], uplink="gone", since=-100.0)
    later = Engine(
        config(2),
        world(2, [Family.V4]).with_link(link(1, carrier=False)),
        daemon.state.known.actual,
        State(known=Known(memory=daemon.state.known.memory), done=Done(standings=inherited)),
    )
    found = changes(later.effects)
    assert sorted(brief(found)) == [
        ("gone", "removed", UP, None),
        ("u1", "found", UP, DOWN),
        ("u2", "found", UP, UP),
    ]
    assert {c.standing.uplink: c.lasted for c in found}["gone"] == 100.0


def test_what_is_found_as_it_was_left_goes_on() -> None:
    daemon = running()
    before = {n: replace(one, since=-50.0, ends_since=-90.0) for n, one in daemon.state.done.standings.items()}
    later = Engine(config(2), world(2, [Family.V4]), None, State(done=Done(standings=before)))
    assert [c.lasted for c in changes(later.effects)] == [50.0, 50.0]
    later.now = 7.0
    (lost,) = changes(later.carrier(1, carrier=False))
    assert lost.lasted == 57.0
    assert lost.after is not None
    assert lost.after.ends_since == -90.0


def test_a_clock_that_was_set_back_gives_no_negative_duration() -> None:
    daemon = running()
    inherited = {name: replace(one, since=5e9, ends_since=5e9) for name, one in daemon.state.done.standings.items()}
    later = Engine(config(2), world(2, [Family.V4]), None, State(done=Done(standings=inherited)))
    assert [c.lasted for c in changes(later.effects)] == [0.0, 0.0]


def test_each_change_calls_its_hooks_in_order() -> None:
    daemon = sim()
    daemon.command(("carrier", "wan1", "off"))
    daemon.run_until(4.0)
    daemon.command(("carrier", "wan2", "off"))
    daemon.run_until(6.0)
    daemon.command(("carrier", "wan1", "on"))
    daemon.command(("carrier", "wan2", "on"))
    daemon.run_until(60.0)
    assert hooks(daemon.changes) == ["u1 down", "u2 down", "u2 all_down", "u1 up", "u1 any_up", "u2 up"]


def test_a_slow_line_calls_degraded_and_recovered() -> None:
    daemon = sim()
    daemon.command(("latency", "u1", "700ms"))
    daemon.run_until(40.0)
    daemon.command(("latency", "u1", "10ms"))
    daemon.run_until(120.0)
    assert hooks(daemon.changes) == ["u1 degraded", "u1 recovered"]


def test_what_people_take_out_of_use_calls_disabled_and_up_once_it_serves_again() -> None:
    daemon = sim()
    daemon.command(("uplink", "disable", "u1"))
    daemon.run_until(3.0)
    daemon.command(("uplink", "enable", "u1"))
    daemon.run_until(30.0)
    assert hooks(daemon.changes) == ["u1 disabled", "u1 up"]


def test_a_start_without_a_past_calls_up_and_address_and_no_down() -> None:
    daemon = Engine(config(2), world(2, [Family.V4]).with_link(link(2, carrier=False)))
    assert hooks(changes(daemon.effects)) == ["u1 up", "u1 address", "u2 address"]


def test_what_was_lost_while_no_daemon_ran_calls_down_and_after_a_boot_nothing_does() -> None:
    daemon = running()
    done, memory = Done(standings=daemon.state.done.standings), daemon.state.known.memory
    dark = world(2, [Family.V4]).with_link(link(1, carrier=False)).with_link(link(2, carrier=False))
    found = Engine(config(2), dark, daemon.state.known.actual, State(known=Known(memory=memory), done=done))
    assert hooks(changes(found.effects)) == ["u1 down", "u2 down", "u2 all_down"]
    booted = Engine(config(2), dark, None, State(known=Known(memory=memory), done=done))
    assert hooks(changes(booted.effects)) == []
