"""What somebody else changed, and what is only new."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from polywan.core.net import Family
from polywan.core.plan.plan import ActualState, ApplyReport, Failure, Plan, PutRoute, SetSysctl
from polywan.core.state.effects import Effect, Log
from polywan.core.state.events import (
    AddressLost,
    Applied,
    ConfigLoaded,
    EventsLost,
    LinkChanged,
    LinkRemoved,
    ReadDone,
)
from polywan.core.status.document import document
from polywan.core.world.observed import Observed
from support.engine_world import Engine, config, link, world

ACCEPT = "net/ipv4/conf/wan1/ignore_routes_with_linkdown"


def with_settings() -> Engine:
    """A daemon that has changed a setting of wan1."""
    daemon = Engine(config(2), world(2), ActualState(sysctls={ACCEPT: "0"}, devices={"wan1": 11, "wan2": 12}))
    daemon.feed(ReadDone(world(2), actual(daemon)))
    assert daemon.state.known.memory.originals == {ACCEPT: "0"}
    return daemon


def actual(daemon: Engine, value: str | None = None) -> ActualState:
    found = daemon.state.known.actual
    assert found is not None
    return found if value is None else replace(found, sysctls={**found.sysctls, ACCEPT: value})


def anew(daemon: Engine) -> ActualState:
    """What a read finds of ours once wan1 is another device of that name."""
    return replace(actual(daemon, "0"), devices={"wan1": 99, "wan2": 12})


def written(daemon: Engine, effects: Sequence[Effect]) -> list[str]:
    return [op.sysctl.path for e in daemon.plans(effects) for op in e.plan.ops if isinstance(op, SetSysctl)]


def repaired(effects: Sequence[Effect]) -> list[str]:
    return [e.text for e in effects if isinstance(e, Log) and e.event == "drift.repaired"]


def shown(daemon: Engine, now: float) -> list[str]:
    return list(document(daemon.state, "0", 0.0, 0.0, {}, now).drift)


def made_anew(number: int) -> Observed:
    """The world with another device of the same name."""
    seen = world(2)
    return replace(seen, links={**seen.links, f"wan{number}": replace(link(number), index=99)})


def test_a_setting_that_somebody_changed_is_put_right_and_told() -> None:
    daemon = with_settings()
    effects = daemon.feed(ReadDone(world(2), actual(daemon, "0")))
    assert written(daemon, effects) == [ACCEPT]
    assert len(repaired(effects)) == 1
    assert len(shown(daemon, daemon.now)) == 1


def test_settings_of_a_device_that_was_made_anew_are_nobodys_doing() -> None:
    daemon = with_settings()
    daemon.feed(LinkRemoved("wan1"))
    daemon.feed(LinkChanged(replace(link(1), index=99)))
    effects = daemon.feed(ReadDone(made_anew(1), anew(daemon)))
    assert written(daemon, effects) == [ACCEPT]
    assert repaired(effects) == []
    assert shown(daemon, daemon.now) == []


def test_what_is_changed_on_the_new_device_afterwards_is_told() -> None:
    daemon = with_settings()
    daemon.feed(ReadDone(made_anew(1), anew(daemon)))
    effects = daemon.feed(ReadDone(made_anew(1), anew(daemon)))
    assert len(repaired(effects)) == 1


def test_settings_that_were_read_after_the_device_was_made_anew_are_nobodys_doing() -> None:
    """The list of links was read a moment before, and still has the old device."""
    daemon = with_settings()
    effects = daemon.feed(ReadDone(world(2), anew(daemon)))
    assert written(daemon, effects) == [ACCEPT]
    assert repaired(effects) == []


def test_a_setting_that_was_never_written_on_the_new_device_is_nobodys_doing() -> None:
    """Its file came later than the device, as that of IPv6 does when the MTU is raised."""
    daemon = with_settings()
    daemon.feed(ReadDone(made_anew(1), replace(anew(daemon), sysctls={})))
    effects = daemon.feed(ReadDone(made_anew(1), replace(anew(daemon), sysctls={ACCEPT: "0"})))
    assert written(daemon, effects) == [ACCEPT]
    assert repaired(effects) == []


def test_routes_that_went_with_an_address_which_is_back_are_nobodys_doing() -> None:
    daemon = with_settings()
    seen = actual(daemon)
    daemon.feed(AddressLost("wan1", Family.V4))
    gone = frozenset(r for r in seen.routes if r.link == "wan1" and r.family is Family.V4)
    effects = daemon.feed(ReadDone(world(2), replace(seen, routes=seen.routes - gone)))
    assert {op.route for e in daemon.plans(effects) for op in e.plan.ops if isinstance(op, PutRoute)} == gone
    assert repaired(effects) == []


def test_routes_that_are_gone_after_lost_notifications_are_nobodys_doing_but_rules_are_told() -> None:
    daemon = with_settings()
    seen = actual(daemon)
    daemon.feed(EventsLost())
    effects = daemon.feed(ReadDone(world(2), replace(seen, routes=frozenset())))
    assert daemon.plans(effects)
    assert repaired(effects) == []
    daemon.feed(EventsLost())
    (text,) = repaired(daemon.feed(ReadDone(world(2), replace(actual(daemon), rules=frozenset()))))
    assert "rule" in text


def test_what_the_kernel_refused_to_take_is_not_told_as_taken_away() -> None:
    daemon = with_settings()
    seen = actual(daemon)
    missing = replace(seen, routes=frozenset(r for r in seen.routes if r.link != "wan2"))
    (apply,) = daemon.plans(daemon.feed(ReadDone(world(2), missing)))
    failures = tuple(Failure(op, 22, "Invalid argument") for op in apply.plan.ops)
    daemon.feed(Applied(ApplyReport(plan=apply.plan, done=0, failures=failures)))
    # Something else is written, and not refused: that says nothing of the routes.
    daemon.feed(Applied(ApplyReport(plan=Plan(), done=0)))
    effects = daemon.feed(ReadDone(world(2), missing))
    assert daemon.plans(effects)
    assert repaired(effects) == []


def test_a_rule_that_went_at_the_same_time_as_a_device_came_is_told_alone() -> None:
    daemon = with_settings()
    seen = anew(daemon)
    effects = daemon.feed(ReadDone(made_anew(1), replace(seen, rules=frozenset(list(seen.rules)[1:]))))
    (text,) = repaired(effects)
    assert "rule" in text
    assert ACCEPT not in text


def test_what_was_put_right_is_told_for_an_hour() -> None:
    daemon = with_settings()
    daemon.feed(ReadDone(world(2), actual(daemon, "0")))
    assert len(shown(daemon, daemon.now + 3599)) == 1
    assert shown(daemon, daemon.now + 3601) == []


def test_what_was_put_right_on_a_device_is_not_told_once_the_file_does_not_name_it() -> None:
    daemon = with_settings()
    daemon.feed(ReadDone(world(2), actual(daemon, "0")))
    remaining = config(2)
    remaining = remaining.model_copy(update={"uplinks": {"u2": remaining.uplinks["u2"]}})
    daemon.feed(ConfigLoaded(remaining))
    assert shown(daemon, daemon.now) == []
