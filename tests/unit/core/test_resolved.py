"""A configuration is worked out once for each reload."""

from __future__ import annotations

import pytest

from polywan.config import Config
from polywan.core.engine import step as engine
from polywan.core.errors import CapacityError
from polywan.core.net import Family
from polywan.core.resolved import resolve
from polywan.core.state.events import ConfigLoaded
from support.engine_world import Engine, config, world

RULES = [
    {"from": "192.168.15.40", "uplink": "u2"},
    {"from": "192.168.15.41", "only": ["u1"]},
    {"from": "192.168.15.42", "policy": "calls", "only": ["u2"]},
    {"from": "192.168.15.43", "action": "block"},
]
POLICIES = {"calls": {"tiers": [["u1"], ["u2"]], "last_resort": "main"}}


def test_every_policy_that_packets_can_reach_is_there_once_with_a_title() -> None:
    found = resolve(config(2, rules=RULES, policies=POLICIES), {})
    assert set(found.named) == {"default", "calls"}
    assert set(found.policies) == set(found.titles)
    assert set(found.titles.values()) == {
        "policy default",
        "policy calls",
        "u2, or policy default without it",
        "only u1",
        "policy calls, only u2",
    }


def test_a_policy_that_a_rule_limits_never_falls_back_to_main() -> None:
    found = resolve(config(2, rules=RULES, policies=POLICIES), {})
    (limited,) = [found.policies[name] for name, title in found.titles.items() if title == "policy calls, only u2"]
    assert [[m.uplink for m in tier] for tier in limited.tiers] == [["u2"]]
    assert limited.last_resort == "unreachable"


def test_uplinks_keep_the_numbers_that_are_remembered() -> None:
    found = resolve(config(2), {"u1": 7})
    assert {name: int(number.mark) for name, number in found.numbers.items()} == {"u1": 0x700, "u2": 0x100}
    assert found.marks == {0x700, 0x100}


def test_policies_get_their_numbers_in_the_order_of_the_file() -> None:
    policies = {name: {"algorithm": "multipath", "tiers": [["u1", "u2"]]} for name in "hgfedcba"}
    found = resolve(config(2, policies=policies), {})
    assert list(found.policy_marks) == list("hgfedcba")
    assert [int(number.mark) >> 8 for number in found.policy_marks.values()] == [*range(3, 11)]


def test_more_uplinks_than_marks_are_refused() -> None:
    with pytest.raises(CapacityError):
        resolve(
            Config.model_validate(
                {"uplinks": {f"u{n}": {"interface": f"wan{n}"} for n in range(7)}, "global": {"mark_mask": 0x700}}
            ),
            {},
        )


def test_until_the_next_reload_a_daemon_works_with_the_same_object() -> None:
    daemon = Engine(config(2, rules=RULES, policies=POLICIES), world(2, [Family.V4]))
    first = daemon.state.known.config
    daemon.carrier(1, carrier=False)
    daemon.carrier(1, carrier=True)
    assert daemon.state.known.config is first
    daemon.state, _ = engine.step(daemon.state, ConfigLoaded(config(2)), daemon.now)
    assert daemon.state.known.config is not first


def test_a_reload_keeps_the_uplinks_that_it_does_not_change() -> None:
    before = resolve(config(3, weights=[1, 1, 1]), {})
    after = resolve(config(3, weights=[1, 5, 1]), {}, before)
    assert [name for name in after.uplinks if after.uplinks[name] is before.uplinks[name]] == ["u1", "u3"]
    assert after.weights["u2"] == 5


def test_a_reload_that_changes_how_is_probed_changes_it_for_every_uplink() -> None:
    before = resolve(config(2), {})
    after = resolve(config(2, health={"fall": 9}), {}, before)
    assert [settings.fall for settings in after.health.values()] == [9, 9]
