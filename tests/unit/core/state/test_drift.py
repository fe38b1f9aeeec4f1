"""What somebody else changed, and what is only new."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from polywan.core.plan.plan import ActualState, SetSysctl
from polywan.core.state.effects import Effect, Log
from polywan.core.state.events import ConfigLoaded, LinkChanged, LinkRemoved, ReadDone
from polywan.core.status.document import document
from polywan.core.world.observed import Observed
from support.engine_world import Engine, config, link, world

ACCEPT = "net/ipv4/conf/wan1/ignore_routes_with_linkdown"


def with_settings() -> Engine:
    """A daemon that has changed a setting of wan1."""
    daemon = Engine(config(2), world(2), ActualState(sysctls={ACCEPT: "0"}))
    daemon.feed(ReadDone(world(2), actual(daemon)))
    assert daemon.state.known.memory.originals == {ACCEPT: "0"}
    return daemon


def actual(daemon: Engine, value: str | None = None) -> ActualState:
    found = daemon.state.known.actual
    assert found is not None
    return found if value is None else replace(found, sysctls={**found.sysctls, ACCEPT: value})


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
    effects = daemon.feed(ReadDone(made_anew(1), actual(daemon, "0")))
    assert written(daemon, effects) == [ACCEPT]
    assert repaired(effects) == []
    assert shown(daemon, daemon.now) == []


def test_what_is_changed_on_the_new_device_afterwards_is_told() -> None:
    daemon = with_settings()
    daemon.feed(ReadDone(made_anew(1), actual(daemon, "0")))
    effects = daemon.feed(ReadDone(made_anew(1), actual(daemon, "0")))
    assert len(repaired(effects)) == 1


def test_a_rule_that_went_at_the_same_time_as_a_device_came_is_told_alone() -> None:
    daemon = with_settings()
    seen = actual(daemon, "0")
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
