"""The second lock of the kill switch: what routing is told of the file's rules."""

from __future__ import annotations

from typing import Any

import pytest

from polywan.core.net import Family
from polywan.core.plan.plan import describe_rule
from polywan.core.resolved import resolve
from polywan.core.routing.second_lock import MOST_LOCKED, held
from support.engine_world import Engine, config, world

HOST = {"from": "192.168.15.40", "only": ["u2"]}


def locked(*rules: dict[str, Any]) -> list[str]:
    desired = Engine(config(3, rules=list(rules)), world(3)).state.decision.desired
    assert desired is not None
    ours = sorted(
        (r for r in desired.rules if r.family is Family.V4 and 6866 <= r.priority < 6899), key=lambda r: r.priority
    )
    return [describe_rule(rule).removeprefix("-4 ") for rule in ours]


def test_a_sender_is_led_to_its_uplinks_or_nowhere() -> None:
    assert locked(HOST) == [
        "6866: from all iif lo goto 6899",
        "6867: from all iif lo goto 6899",
        "6868: from 192.168.15.40/32 goto 6870",
        "6869: from all goto 6899",
        "6870: from all lookup main suppress_prefixlength 7",
        "6871: from all lookup 6002",
        "6872: from all lookup 6255",
    ]


def test_a_rule_before_it_goes_first_and_rules_with_the_same_uplinks_share_a_way() -> None:
    rules = locked(
        {"from": "192.168.15.40", "to": "198.51.100.0/24", "uplink": "u3"},
        HOST,
        {"in_interface": ["lan7"], "only": ["u2"]},
    )
    assert rules[2:6] == [
        "6868: from 192.168.15.40/32 to 198.51.100.0/24 goto 6899",
        "6869: from 192.168.15.40/32 goto 6872",
        "6870: from all iif lan7 goto 6872",
        "6871: from all goto 6899",
    ]


def test_without_only_routing_is_told_nothing() -> None:
    assert locked({"from": "192.168.15.40", "uplink": "u2"}) == []


@pytest.mark.parametrize(
    "more",
    [
        {"protocol": "tcp"},
        {"time": "mon-fri"},
        {"not": {"to": "10.0.0.0/8"}},
        {"mac": "02:00:00:00:00:01"},
        {"user": 1000},
    ],
)
def test_what_routing_cannot_ask_about_ends_the_list(more: dict[str, Any]) -> None:
    configuration = config(3, rules=[HOST, HOST | more, HOST])
    assert held(resolve(configuration, {})) == {1}


def test_a_rule_for_everybody_is_held_by_the_chain_alone() -> None:
    assert held(resolve(config(3, rules=[{"only": ["u2"]}]), {})) == frozenset()


def test_there_is_room_for_a_few() -> None:
    assert len(held(resolve(config(3, rules=[HOST] * (MOST_LOCKED + 3)), {}))) == MOST_LOCKED
