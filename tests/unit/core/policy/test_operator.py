"""Disable, drain, enable: kept, shown, and in force in every policy."""

from __future__ import annotations

import pytest

from polywan.api.status import DrainStatus
from polywan.config import Config
from polywan.core.net import Family
from polywan.core.policy.operator import Verb
from polywan.core.policy.uplink_state import UplinkState
from polywan.core.state.effects import Effect, Log, SaveMemory, StartProbe
from polywan.core.state.events import ConfigLoaded, OperatorCommand, Tick
from polywan.core.status.document import document
from support.engine_world import Engine, config, world


def order(daemon: Engine, verb: Verb, name: str = "u2", deadline: float = 600.0) -> list[Effect]:
    return daemon.feed(OperatorCommand(name, verb, deadline))


def members(daemon: Engine, policy: str = "default") -> list[str]:
    assert daemon.state.decision.selection is not None
    return [name for name, _ in daemon.state.decision.selection.choices[policy, Family.V4].members]


@pytest.mark.parametrize("verb", [Verb.DISABLE, Verb.DRAIN])
def test_an_uplink_out_of_use_serves_nobody_until_it_is_enabled(verb: Verb) -> None:
    daemon = Engine(config(3), world(3))
    order(daemon, verb)
    assert members(daemon) == ["u1", "u3"]
    order(daemon, Verb.ENABLE)
    assert "u2" in daemon.state.known.probing
    assert daemon.state.known.memory.orders == {}


def test_what_was_said_is_on_disk_at_once_and_logged() -> None:
    daemon = Engine(config(2), world(2))
    effects = order(daemon, Verb.DISABLE)
    assert isinstance(effects[0], SaveMemory)
    assert effects[0].memory.orders["u2"].verb is Verb.DISABLE
    notes = [e for e in effects if isinstance(e, Log)]
    assert {note.event for note in notes} == {"uplink.disable", "uplink.disabled"}


def test_a_disabled_uplink_is_not_probed_and_a_draining_one_is() -> None:
    daemon = Engine(config(3), world(3))
    order(daemon, Verb.DISABLE, "u1")
    order(daemon, Verb.DRAIN, "u2")
    probed = set()
    for tenth in range(30):
        daemon.now = tenth / 10
        probed |= {e.order.uplink for e in daemon.feed(Tick()) if isinstance(e, StartProbe)}
    assert probed == {"u2", "u3"}


def test_status_says_by_whom_and_until_when() -> None:
    daemon = Engine(config(3), world(3))
    order(daemon, Verb.DISABLE, "u1")
    order(daemon, Verb.DRAIN, "u2", deadline=60.0)
    first, second, third = document(daemon.state, "", 0.0, 0.0, {}).uplinks
    assert (first.state, first.reason) == ("disabled", "disabled by operator since 1970-01-01 00:00:00 UTC")
    assert second.state == "draining"
    assert second.reason.endswith("remaining connections end at 1970-01-01 00:01:00 UTC")
    assert second.drain == DrainStatus(
        since="1970-01-01T00:00:00.000+00:00", deadline="1970-01-01T00:01:00.000+00:00", by_operator=True
    )
    assert (third.state, third.drain) == ("up", None)


def test_what_the_file_disables_nobody_enables_by_hand() -> None:
    document = config(2).model_dump(by_alias=True)
    document["uplinks"]["u2"]["enabled"] = False
    daemon = Engine(Config.model_validate(document), world(2))
    order(daemon, Verb.DRAIN)
    assert daemon.state.decision.views["u2"].state is UplinkState.DISABLED
    assert daemon.state.decision.views["u2"].reason.startswith("disabled in the configuration; draining by operator")
    order(daemon, Verb.ENABLE)
    assert members(daemon) == ["u1"]


def test_a_rule_for_the_uplink_falls_back_and_a_kill_switch_refuses() -> None:
    rules = [{"to": "192.0.2.1", "uplink": "u2"}, {"to": "192.0.2.2", "only": ["u2"]}]
    daemon = Engine(config(2, rules=rules), world(2))
    order(daemon, Verb.DRAIN)
    assert members(daemon, "uplink_u2") == ["u1"]
    (only,) = [p for p, _ in daemon.state.decision.selection.choices if p.startswith("only_")][:1]  # type: ignore[union-attr]  # decided
    assert members(daemon, only) == []


def test_saying_it_twice_changes_nothing_but_a_new_deadline_counts() -> None:
    daemon = Engine(config(2), world(2))
    order(daemon, Verb.DISABLE)
    daemon.now = 5.0
    assert not any(isinstance(e, SaveMemory) for e in order(daemon, Verb.DISABLE))
    order(daemon, Verb.DRAIN, deadline=10.0)
    daemon.now = 6.0
    order(daemon, Verb.DRAIN, deadline=100.0)
    assert daemon.state.known.memory.orders["u2"].until == 106.0


def test_an_order_for_an_uplink_that_is_not_there_is_ignored() -> None:
    daemon = Engine(config(1), world(1))
    order(daemon, Verb.DISABLE, "u9")
    assert daemon.state.known.memory.orders == {}


def test_an_order_outlives_a_reload() -> None:
    daemon = Engine(config(2), world(2))
    order(daemon, Verb.DISABLE)
    daemon.feed(ConfigLoaded(config(2, [3, 1])))
    assert members(daemon) == ["u1"]
