"""An uplink is its device: names may change in any way, what is known follows the device."""

from __future__ import annotations

from collections.abc import Mapping

from hypothesis import given, settings
from hypothesis import strategies as st

from polywan.config import Config
from polywan.core.health.probes import ProbeResult
from polywan.core.health.rounds import Health
from polywan.core.net import FAMILIES, Family
from polywan.core.plan.plan import ActualState, NftBatch
from polywan.core.policy.operator import Verb
from polywan.core.state.effects import Apply, Log, ReleaseConnections, SaveMemory
from polywan.core.state.events import ConfigLoaded, OperatorCommand, ReadDone
from polywan.core.state.remembered import remembered
from polywan.core.state.state import Known, State
from polywan.daemon import store
from support.engine_world import Engine, world
from support.examples import examples

DEVICES = ["wan1", "wan2", "wan3", "wan4"]
NAMES = ["u1", "u2", "u3", "u4", "fibre", "lte"]

namings = st.permutations(NAMES).map(lambda names: dict(zip(names, DEVICES, strict=False)))


def config(names: Mapping[str, str]) -> Config:
    return Config.model_validate({"uplinks": {name: {"interface": device} for name, device in names.items()}})


def marks(state: State) -> dict[str, int]:
    """The mark of every device."""
    assert state.known.config is not None
    return {state.known.config.uplinks[name].interface: number.mark for name, number in state.known.numbers.items()}


def health(state: State) -> dict[tuple[str, Family], tuple[Health, float, float | None]]:
    assert state.known.config is not None
    return {
        (state.known.config.uplinks[name].interface, family): (probes.health, probes.since, probes.rtt)
        for (name, family), probes in state.health.rounds.items()
    }


def since(state: State) -> dict[str, tuple[str, float]]:
    assert state.known.config is not None
    return {
        state.known.config.uplinks[n].interface: (view.state, view.since) for n, view in state.decision.views.items()
    }


@settings(deadline=None, max_examples=examples(60))
@given(namings, st.lists(namings, min_size=1, max_size=4), st.sets(st.integers(1, 4), max_size=3))
def test_another_name_for_the_same_device_moves_nothing_and_resets_nothing(
    first: dict[str, str], later: list[dict[str, str]], pulled: set[int]
) -> None:
    daemon = Engine(config(first), world(4))
    for number in sorted(pulled):
        daemon.carrier(number, carrier=False)
    for names in later:
        daemon.now += 0.01
        before = daemon.state
        effects = daemon.feed(ConfigLoaded(config(names)))
        assert marks(daemon.state) == marks(before)
        assert health(daemon.state) == health(before)
        assert since(daemon.state) == since(before)
        assert not [e for e in effects if isinstance(e, ReleaseConnections)]
        assert daemon.state.decision.retired == {}
        # Chains are called after uplinks; routes, policy rules and settings are those of before.
        assert all(isinstance(op, NftBatch) for e in effects if isinstance(e, Apply) for op in e.plan.ops)
        assert {(e.event) for e in effects if isinstance(e, Log)} <= {"uplink.renamed", "policy.forced"}


@settings(deadline=None, max_examples=examples(40))
@given(namings, namings)
def test_names_that_change_while_no_daemon_runs_change_nothing_either(
    first: dict[str, str], second: dict[str, str]
) -> None:
    one = Engine(config(first), world(4))
    kept = [e.memory for e in one.effects if isinstance(e, SaveMemory)][-1]
    other = State(known=Known(memory=remembered(store._encode(kept)).memory))
    daemon = Engine(config(second), world(4), one.state.known.actual, other)
    assert marks(daemon.state) == marks(one.state)


@settings(deadline=None, max_examples=examples(60))
@given(st.lists(st.dictionaries(st.sampled_from(NAMES), st.sampled_from(DEVICES), min_size=1), min_size=2, max_size=6))
def test_no_mark_ever_comes_into_the_hands_of_another_device(history: list[dict[str, str]]) -> None:
    seen: dict[int, str] = {}
    daemon: Engine | None = None
    for raw in history:
        names = {name: device for device, name in {device: name for name, device in raw.items()}.items()}
        if daemon is None:
            daemon = Engine(config(names), world(4))
        else:
            daemon.feed(ConfigLoaded(config(names)))
        for device, mark in marks(daemon.state).items():
            assert seen.setdefault(mark, device) == device


def test_a_name_that_means_another_device_starts_anew() -> None:
    daemon = Engine(config({"fibre": "wan1", "dsl": "wan2"}), world(3))
    before = marks(daemon.state)
    effects = daemon.feed(ConfigLoaded(config({"fibre": "wan1", "dsl": "wan3"})))
    assert marks(daemon.state)["wan3"] not in before.values()
    assert daemon.state.health.rounds["dsl", Family.V4].cause == "waiting for its first answers"
    assert {(e.mark) for e in effects if isinstance(e, ReleaseConnections)} >= {before["wan2"]}
    texts = [e.text for e in effects if isinstance(e, Log) and e.event == "uplink.renamed"]
    assert texts == ["dsl is now another device, wan3 instead of wan2: its state starts anew"]


def test_the_device_gets_its_number_back_when_it_returns_under_whatever_name() -> None:
    daemon = Engine(config({"fibre": "wan1", "dsl": "wan2"}), world(3))
    before = marks(daemon.state)
    daemon.feed(ConfigLoaded(config({"fibre": "wan1", "dsl": "wan3"})))
    daemon.feed(ConfigLoaded(config({"fibre": "wan1", "dsl": "wan3", "old": "wan2"})))
    assert marks(daemon.state)["wan2"] == before["wan2"]


def test_results_that_are_under_way_when_names_are_exchanged_count_for_nobody() -> None:
    daemon = Engine(config({"a": "wan1", "b": "wan2"}), world(2))
    daemon.now = 0.5
    daemon.feed(ReadDone(world(2), daemon.state.known.actual or ActualState()))
    before = {key: (probes.bad, probes.rtt) for key, probes in daemon.state.health.rounds.items()}
    numbers = {key: probes.number for key, probes in daemon.state.health.rounds.items()}
    daemon.feed(ConfigLoaded(config({"b": "wan1", "a": "wan2"})))
    for key, number in numbers.items():
        for target in daemon.state.known.probing[key[0]].targets:
            if target.version == key[1]:
                daemon.feed(ProbeResult(uplink=key[0], family=key[1], round=number, target=target, rtt=None))
    after = {key: (probes.bad, probes.rtt) for key, probes in daemon.state.health.rounds.items()}
    assert after == {(name, f): before[other, f] for name, other in (("a", "b"), ("b", "a")) for f in FAMILIES}


def test_people_s_orders_follow_the_device() -> None:
    daemon = Engine(config({"fibre": "wan1", "dsl": "wan2"}), world(2))
    daemon.feed(OperatorCommand("dsl", Verb.DISABLE, 600.0))
    daemon.feed(ConfigLoaded(config({"dsl": "wan1", "fibre": "wan2"})))
    assert set(daemon.state.known.memory.orders) == {"fibre"}


PLACES = [
    {"interface": "wan1", "gateway": "100.64.1.1"},
    {"interface": "wan1", "gateway": "100.64.1.254"},
    {"interface": "wan2"},
    {"interface": "wan3", "gateway": "100.64.3.1", "source": "100.64.3.2"},
    {"interface": "wan3", "gateway": "100.64.3.1", "source": "100.64.3.9"},
]
"""Uplinks of which some share their device."""

_shared = st.permutations(NAMES).map(lambda names: dict(zip(names, PLACES, strict=False)))


def by_place(state: State) -> dict[tuple[str, str, str], int]:
    """The mark of every uplink, by what it is."""
    assert state.known.config is not None
    links = state.known.config.uplinks
    return {
        (links[name].interface, str(links[name].gateway), str(links[name].source)): number.mark
        for name, number in state.known.numbers.items()
    }


@settings(deadline=None, max_examples=examples(40))
@given(_shared, _shared, st.booleans())
def test_where_a_device_is_shared_an_uplink_is_its_router_and_source(
    first: dict[str, dict[str, str]], second: dict[str, dict[str, str]], restart: bool
) -> None:
    daemon = Engine(Config.model_validate({"uplinks": first}), world(4))
    before, after = by_place(daemon.state), Config.model_validate({"uplinks": second})
    if restart:
        kept = [e.memory for e in daemon.effects if isinstance(e, SaveMemory)][-1]
        other = State(known=Known(memory=remembered(store._encode(kept)).memory))
        daemon = Engine(after, world(4), daemon.state.known.actual, other)
    else:
        daemon.feed(ConfigLoaded(after))
    assert by_place(daemon.state) == before


@settings(deadline=None, max_examples=examples(40))
@given(st.permutations(NAMES), st.permutations(NAMES), st.integers(0, 1))
def test_a_device_that_others_join_is_still_the_same_one(first: list[str], second: list[str], place: int) -> None:
    alone, joined = first[0], {second[0]: PLACES[0], second[1]: PLACES[1]}
    daemon = Engine(Config.model_validate({"uplinks": {alone: {"interface": "wan1"}}}), world(1))
    mark = daemon.state.known.numbers[alone].mark
    daemon.feed(ConfigLoaded(Config.model_validate({"uplinks": joined})))
    # The one with the router that was in use, whatever it is called.
    assert daemon.state.known.numbers[second[0]].mark == mark
    staying = second[place]
    before = daemon.state.known.numbers[staying].mark
    daemon.feed(ConfigLoaded(Config.model_validate({"uplinks": {"last": PLACES[place]}})))
    assert daemon.state.known.numbers["last"].mark == before


def test_a_shared_uplink_that_says_more_of_itself_is_still_the_same_one() -> None:
    plain = {"u1": PLACES[0], "u2": PLACES[1]}
    more = {"u1": {**PLACES[0], "gateway6": "fe80::1", "source": "100.64.1.2"}, "u2": PLACES[1]}
    daemon = Engine(Config.model_validate({"uplinks": plain}), world(1))
    before = {name: daemon.state.known.numbers[name].mark for name in plain}
    for changed in (more, plain):
        daemon.feed(ConfigLoaded(Config.model_validate({"uplinks": changed})))
        assert {name: daemon.state.known.numbers[name].mark for name in plain} == before


def test_a_lone_name_that_goes_to_the_other_modem_leaves_its_connections_with_the_first() -> None:
    daemon = Engine(Config.model_validate({"uplinks": {"wan": {"interface": "wan1"}}}), world(1))
    mark = daemon.state.known.numbers["wan"].mark
    daemon.feed(ConfigLoaded(Config.model_validate({"uplinks": {"wan": PLACES[1], "cable": PLACES[0]}})))
    assert daemon.state.known.numbers["cable"].mark == mark
    assert daemon.state.known.numbers["wan"].mark != mark
