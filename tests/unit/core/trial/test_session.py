"""The administrator's own connection: how it is written, and which configurations would cut it."""

from __future__ import annotations

import pytest

from polywan.core.engine import reconfigure
from polywan.core.engine import step as engine
from polywan.core.evolve import replace
from polywan.core.net import Family
from polywan.core.state.events import ReadDone
from polywan.core.state.state import State
from polywan.core.trial.cutting import cut, is_it, uplink_of
from polywan.core.trial.session import parse
from polywan.core.world.conntrack import Flow
from support.engine_world import Engine, config, world

TEXT = "203.0.113.9 50022 100.64.1.2 22"
MARK = 0x100


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (TEXT, TEXT),
        ("::ffff:203.0.113.9 1 ::ffff:192.0.2.1 22", "203.0.113.9 1 192.0.2.1 22"),
        ("fe80::1%wan1 1 fe80::2%wan1 22", "fe80::1 1 fe80::2 22"),
    ],
)
def test_a_connection_is_read_as_ssh_writes_it(text: str, said: str) -> None:
    assert str(parse(text)) == said


@pytest.mark.parametrize("text", ["", "a b c d", "192.0.2.1 1 2001:db8::1 22", "192.0.2.1 0 192.0.2.2 22", TEXT + " 5"])
def test_what_is_no_connection_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"expected|appear"):
        parse(text)


def test_its_tracked_connection_is_found_behind_a_port_forward_too() -> None:
    flow = Flow(Family.V4, 6, "203.0.113.9", 50022, "198.51.100.1", 2222, "100.64.1.2", 22)
    assert is_it(parse(TEXT), flow)
    assert not is_it(parse(TEXT), flow._replace(client_port=50023))
    assert not is_it(parse(TEXT), flow._replace(protocol=17))


def after(state: State, **change: object) -> State:
    """The state once this configuration is in force instead."""
    uplinks = {f"u{n}": {"interface": f"wan{n}"} for n in (1, 2)}
    said = {name: {**uplinks[name], **more} for name, more in change.items() if isinstance(more, dict)}
    new = config(2).model_validate(
        {"uplinks": {**uplinks, **said}, "global": {"mark_mask": change.get("mask", 0x3F00)}}
    )
    if change.get("without"):
        new = config(2).model_validate({"uplinks": {"u2": uplinks["u2"]}, "global": {"mark_mask": 0x3F00}})
    taken, _ = reconfigure.take(state, new, 0.0)
    assert state.known.actual is not None
    found, _ = engine.step(taken, ReadDone(world(2), state.known.actual), 0.0)
    return found


STATE = Engine(config(2), world(2)).state


def test_the_mark_tells_the_uplink() -> None:
    assert uplink_of(STATE, MARK) == "u1"
    assert uplink_of(STATE, 0) is None


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"u1": {"weight": 5}}, ""),
        ({"u2": {"interface": "wan9"}}, ""),
        ({"u1": {"interface": "wan9"}}, "u1, by which it came in, would be wan9 instead of wan1"),
        ({"u1": {"enabled": False}}, "u1, by which it came in, would be disabled"),
        ({"u1": {"gateway": "100.64.1.99"}}, "u1, by which it came in, would send its answers to 100.64.1.99"),
        ({"mask": 0x3F0000}, "u1, by which it came in, would have another mark"),
        ({"without": True}, "u1, by which it came in, is not in the new configuration"),
    ],
)
def test_a_configuration_that_takes_its_uplink_away_would_cut_it(change: dict[str, object], why: str) -> None:
    found = cut(STATE, after(STATE, **change), parse(TEXT), MARK)
    assert found.startswith(why)
    assert bool(found) is bool(why)


def test_a_session_that_came_in_by_no_uplink_is_cut_by_none() -> None:
    assert cut(STATE, after(STATE, without=True), parse("192.168.15.10 5 192.168.15.1 22"), 0) == ""


def test_an_uplink_that_would_count_as_down_cuts_it() -> None:
    changed = after(STATE, u1={"weight": 5})
    selection = changed.decision.selection
    assert selection is not None
    dead = replace(selection, dead=frozenset({("u1", Family.V4)}))
    worse = replace(changed, decision=replace(changed.decision, selection=dead))
    assert cut(STATE, worse, parse(TEXT), MARK) == "u1, by which it came in, would count as down"
    assert cut(worse, worse, parse(TEXT), MARK) == ""
