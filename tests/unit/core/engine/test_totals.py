"""What the engine counts while it runs."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

from hypothesis import given
from hypothesis import strategies as st

from polywan.core.health.probes import ProbeResult
from polywan.core.net import FAMILIES, Family
from polywan.core.policy.operator import Verb
from polywan.core.policy.totals import Totals
from polywan.core.state.events import OperatorCommand, ReadDone
from support.engine_world import Engine, config, world

TARGET = ip_address("1.1.1.1")


def engine() -> Engine:
    return Engine(config(2), world(2))


def test_a_lost_uplink_is_an_outage_and_a_failover_in_every_family() -> None:
    found = engine()
    found.carrier(1, carrier=False)
    found.carrier(1, carrier=False)
    totals = found.state.done.totals
    assert totals.outages == {"u1": 1, "u2": 0}
    assert totals.failovers == {("default", family): 1 for family in FAMILIES}


def test_what_people_take_out_of_use_is_neither() -> None:
    found = engine()
    found.feed(OperatorCommand("u1", Verb.DISABLE, 0.0))
    totals = found.state.done.totals
    assert set(totals.outages.values()) == {0}
    assert set(totals.failovers.values()) == {0}


def test_a_probe_counts_when_its_outcome_does() -> None:
    found = engine()
    key = ("u1", Family.V4)
    rounds = {**found.state.health.rounds, key: replace(found.state.health.rounds[key], void=4)}
    found.state = replace(found.state, health=replace(found.state.health, rounds=rounds))
    for number in (4, 5):
        found.feed(ProbeResult(uplink="u1", family=Family.V4, round=number, target=TARGET, rtt=0.003))
    count = found.state.done.totals.probes[key]
    assert (count.sent, count.lost) == (1, 0)


def test_a_change_by_another_program_that_is_repaired_counts_once() -> None:
    found = engine()
    actual = found.state.known.actual
    assert actual is not None
    found.now = 1.0
    found.feed(ReadDone(world(2), actual))
    assert found.state.done.totals.repairs == 0
    found.feed(ReadDone(world(2), replace(actual, rules=frozenset())))
    assert found.state.done.totals.repairs == 1
    found.now = 2.0
    found.feed(ReadDone(world(2), actual))
    assert found.state.done.totals.repairs == 1


def numbers(totals: Totals) -> dict[object, float]:
    """Return every counter by what it counts."""
    found: dict[object, float] = {"repairs": totals.repairs}
    found |= dict(totals.outages.items()) | dict(totals.failovers.items())
    for key, count in totals.probes.items():
        found |= {(key, "sent"): count.sent, (key, "lost"): count.lost, (key, "late"): count.late}
        found |= {(key, place): number for place, number in enumerate(count.buckets)}
    return found


deeds = st.one_of(
    st.tuples(st.just("carrier"), st.integers(1, 2), st.booleans()),
    st.tuples(st.just("order"), st.integers(1, 2), st.sampled_from([Verb.DISABLE, Verb.ENABLE])),
    st.tuples(st.just("probe"), st.integers(1, 2), st.sampled_from([0.01, None])),
)


@given(st.lists(deeds, max_size=12))
def test_no_counter_decreases_or_is_lost_whatever_becomes_of_uplinks(story: list[tuple[str, int, object]]) -> None:
    found = engine()
    before = numbers(found.state.done.totals)
    for deed, number, what in story:
        found.now += 0.3
        match deed, what:
            case "carrier", bool(carrier):
                found.carrier(number, carrier=carrier)
            case "order", Verb() as verb:
                found.feed(OperatorCommand(f"u{number}", verb, 0.0))
            case _, (float() | None) as rtt:
                for family in FAMILIES:
                    found.feed(ProbeResult(uplink=f"u{number}", family=family, round=99, target=TARGET, rtt=rtt))
        now = numbers(found.state.done.totals)
        assert all(now[key] >= value for key, value in before.items())
        before = now
