"""What an order would do, before it is given, and what it does then."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polywan.core.net import Family
from polywan.core.policy.operator import Verb
from polywan.core.state.effects import ForgetAll, ReleaseConnections
from polywan.core.state.events import OperatorCommand
from polywan.core.status.document import document
from polywan.core.views.effects import OrderWord, effect
from support.engine_world import Engine, config, world

FLOWS = {Family.V4: 3, Family.V6: 2}
VERBS = st.sampled_from([Verb.DISABLE, Verb.DRAIN, Verb.ENABLE])


def engine() -> Engine:
    return Engine(config(3, [3, 2, 1], policies={"web": {"tiers": [["u1"]]}}), world(3))


def shares(one: Engine) -> dict[str, float]:
    """What the status says of policy `default`."""
    return {u.name: u.share for u in document(one.state, "1", 0.0, 0.0, {}, one.now).uplinks}


@given(
    st.lists(st.tuples(VERBS, st.sampled_from(["u1", "u2", "u3"])), max_size=4),
    VERBS,
    st.sampled_from(["u1", "u2", "u3"]),
    st.sampled_from([0.0, 600.0]),
    st.booleans(),
)
def test_an_order_does_what_its_effect_has_said(
    before: list[tuple[Verb, str]], verb: Verb, name: str, deadline: float, lost: bool
) -> None:
    one = engine()
    if lost:
        one.carrier(2, carrier=False)
    for said, whom in before:
        one.feed(OperatorCommand(whom, said, 600.0))
    state, order = one.state, one.state.known.memory.orders.get(name)
    answer = effect(one.state, name, verb.value, FLOWS, one.now, deadline)
    assert one.state is state
    assert answer.shares_before == shares(one)
    done = one.feed(OperatorCommand(name, verb, deadline))
    assert answer.shares_after == shares(one)
    mark = one.state.known.numbers[name].mark
    ended = {
        each.family
        for each in done
        if ((isinstance(each, ReleaseConnections) and each.tcp) or isinstance(each, ForgetAll)) and each.mark == mark
    }
    assert answer.ended == sum(FLOWS[family] for family in ended)
    assert answer.connections == sum(FLOWS.values())
    assert (answer.undo is None) == (one.state.known.memory.orders.get(name) == order)
    if answer.undo is not None:
        one.feed(OperatorCommand(name, Verb(answer.undo), 600.0))
        again = one.state.known.memory.orders.get(name)
        assert (again and again.verb) == (order and order.verb)


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        (
            "disable",
            (
                "u1 gets no new connections and is not probed until `polywan uplink enable u1`",
                "5 connections: they stay as long as it has a path",
                "new connections of policy default by u1: 50 % before, 0 % then",
                "new connections of policy default by u2: 33 % before, 67 % then",
                "new connections of policy default by u3: 17 % before, 33 % then",
                "policy web: all its uplinks are without a link or out of use; the last resort applies",
            ),
        ),
        ("enable", ("nothing changes: u1 is in use",)),
        ("test", ("every probe and check of u1 is made now; nothing else changes",)),
    ],
)
def test_an_effect_is_told_in_words(word: OrderWord, expected: tuple[str, ...]) -> None:
    one = engine()
    assert effect(one.state, "u1", word, FLOWS, one.now).text == expected


def test_a_drain_at_once_ends_all_connections_and_one_with_time_none() -> None:
    one = engine()
    assert effect(one.state, "u1", "drain", FLOWS, one.now, 0.0).ended == 5
    later = effect(one.state, "u1", "drain", FLOWS, one.now)
    assert later.ended == 0
    assert "connections that do not pause end after 10 min" in later.text
    assert later.undo == "enable"
    assert later.unserved == ("policy web",)


def test_an_uplink_that_the_file_disables_is_enabled_by_nobody() -> None:
    file = {"u1": {"interface": "wan1", "enabled": False}, "u2": {"interface": "wan2"}}
    one = Engine(type(config(1)).model_validate({"uplinks": file}), world(2))
    answer = effect(one.state, "u1", "enable", {}, one.now)
    assert "u1 has enabled = false in the configuration, which takes precedence" in answer.text
