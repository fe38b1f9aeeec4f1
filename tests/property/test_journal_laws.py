"""The journal is a chain: what one entry says is what the next one says was before, and its times add up."""

from __future__ import annotations

from collections import defaultdict
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from polywan.core.evolve import replace
from polywan.core.journal.changes import Change, What
from polywan.core.net import Family
from polywan.core.policy.uplink_state import SERVING
from polywan.core.state.effects import Effect, Record
from polywan.core.state.events import ReadDone, Tick
from polywan.core.state.state import Done, Known, State
from polywan.core.status.link_events import ENDS_SPAN, STATE_SPAN, link_event, spans_of
from polywan.core.status.rates import Counters, Sample
from polywan.core.status.tally import Tally, taken
from polywan.core.world.observed import Observed
from support.engine_world import Engine, config, link, world
from support.examples import examples
from support.timeline import Sim

UPLINKS = 3
NAMES = st.integers(1, UPLINKS).map(lambda n: f"u{n}")
DEVICES = st.integers(1, UPLINKS).map(lambda n: f"wan{n}")
COMMANDS = st.one_of(
    st.tuples(st.just("carrier"), DEVICES, st.sampled_from(["on", "off"])),
    st.tuples(st.just("link"), DEVICES, st.sampled_from(["up", "down"])),
    st.tuples(st.just("silent"), NAMES, st.sampled_from(["ipv4", "ipv6"])),
    st.tuples(st.just("answer"), NAMES),
    st.tuples(st.just("latency"), NAMES, st.sampled_from(["10ms", "700ms"])),
    st.tuples(st.just("uplink"), st.sampled_from(["disable", "enable"]), NAMES),
    st.tuples(st.just("restart")),
)
STEPS = st.lists(st.tuples(COMMANDS, st.floats(0.01, 20.0)), max_size=12)


def played(steps: list[tuple[tuple[str, ...], float]]) -> Sim:
    sim = Sim({"uplinks": {f"u{n}": {"interface": f"wan{n}"} for n in range(1, UPLINKS + 1)}}, UPLINKS)
    sim.run_until(0.1)
    for command, seconds in steps:
        sim.command(command)
        sim.run_until(sim.now + seconds)
    sim.run_until(sim.now + 10.0)
    return sim


@given(STEPS)
@settings(max_examples=examples(25), deadline=None)
def test_every_entry_begins_where_the_last_one_of_its_uplink_ended(
    steps: list[tuple[tuple[str, ...], float]],
) -> None:
    sim = played(steps)
    chains: dict[str, list[Change]] = defaultdict(list)
    for change in sim.changes:
        chains[change.standing.uplink].append(change)
    for name, chain in chains.items():
        assert chain[0].before is None
        for before, after in pairwise(chain):
            assert after.before == before.after
            assert after.at >= before.at
            assert after.lasted is not None
            assert after.lasted >= 0.0
        began = chain[0].at
        for change in chain[1:]:
            assert change.before is not None
            assert change.after is not None
            if change.what is not What.ADDRESS:
                assert change.lasted == change.at - began
            if (change.before.state, change.before.families) != (change.after.state, change.after.families):
                began = change.at
            assert change.after.since == began
        assert chain[-1].after == sim.state.done.standings[name]
        # Whatever the story, the journal ends as the log does.
        logged, _ = sim.state.done.logged.states[name]
        assert chain[-1].after is not None
        assert chain[-1].after.state is logged


@given(STEPS)
@settings(max_examples=examples(25), deadline=None)
def test_hooks_tell_of_each_uplink_in_turn_that_it_serves_and_that_it_does_not(
    steps: list[tuple[tuple[str, ...], float]],
) -> None:
    sim = played(steps)
    serving = dict.fromkeys((f"u{n}" for n in range(1, UPLINKS + 1)), False)
    anyone: bool | None = None
    for change in sim.changes:
        name, after = change.standing.uplink, change.after
        assert after is not None
        for hook in change.hooks:
            match hook:
                case "up":
                    assert not serving[name]
                    serving[name] = True
                case "down" | "disabled":
                    serving[name] = False
                case "all_down":
                    assert anyone is not False
                    anyone = False
                case "any_up":
                    anyone = True
        if change.what is not What.FOUND:
            assert serving[name] == (after.state in SERVING)


@given(
    st.lists(
        st.tuples(st.integers(1, 3), st.integers(0, 10**12), st.integers(0, 10**12), st.booleans()),
        max_size=20,
    )
)
def test_bytes_of_a_chain_of_spans_add_up_to_all_that_was_counted(
    looks: list[tuple[int, int, int, bool]],
) -> None:
    tally: Tally = taken({}, Sample(0.0, {}), ["ppp0"])
    tally = {"ppp0": tally["ppp0"].marked([STATE_SPAN, ENDS_SPAN])}
    total = 0
    for ifindex, rx, tx, changed in looks:
        tally = taken(tally, Sample(0.0, {"ppp0": Counters(ifindex, rx, tx)}), ["ppp0"])
        if changed:
            moved = tally["ppp0"].since(STATE_SPAN)
            assert moved is not None
            assert moved.rx >= 0
            assert moved.tx >= 0
            total += moved.rx
            tally = {"ppp0": tally["ppp0"].marked([STATE_SPAN])}
    whole, rest = tally["ppp0"].since(ENDS_SPAN), tally["ppp0"].since(STATE_SPAN)
    assert whole is not None
    assert rest is not None
    assert total + rest.rx == whole.rx


@given(STEPS)
@settings(max_examples=examples(10), deadline=None)
def test_documents_say_what_changes_say(steps: list[tuple[tuple[str, ...], float]]) -> None:
    chains: dict[str, tuple[str | None, ...]] = {}
    for number, change in enumerate(played(steps).changes):
        entry = link_event(number, change, 1000.0 + change.at, None)
        now = (entry.state, entry.ipv4, entry.ipv6, entry.address, entry.gateway, entry.address6, entry.gateway6)
        before = (
            entry.previous_state,
            entry.previous_ipv4,
            entry.previous_ipv6,
            entry.previous_address,
            entry.previous_gateway,
            entry.previous_address6,
            entry.previous_gateway6,
        )
        assert chains.get(entry.uplink, (None,) * 7) == before
        chains[entry.uplink] = now
        assert spans_of(change)[0] == (ENDS_SPAN if entry.event == "address" else STATE_SPAN)


SEEN = st.tuples(st.booleans(), st.booleans(), st.booleans())
"""Of an uplink at a start: whether it has a carrier, addresses, and routes."""


def as_at_a_start(seen: list[tuple[bool, bool, bool]], families: list[Family]) -> Observed:
    found = world(len(seen), families)
    for number, (carrier, addressed, routed) in enumerate(seen, 1):
        found = found.with_link(link(number, carrier=carrier))
        found = replace(
            found,
            addresses=tuple(a for a in found.addresses if a.link != f"wan{number}" or addressed),
            defaults=tuple(d for d in found.defaults if d.link != f"wan{number}" or (addressed and routed)),
        )
    return found


@given(st.lists(SEEN, min_size=1, max_size=3), st.sampled_from([[Family.V4], [*Family]]), st.booleans(), st.booleans())
@settings(max_examples=examples(50), deadline=None)
def test_an_address_that_comes_after_the_start_and_is_as_before_is_no_news(
    seen: list[tuple[bool, bool, bool]], families: list[Family], booted: bool, past: bool
) -> None:
    whole = world(len(seen), families)
    before = Engine(config(len(seen)), whole).state
    known = State(known=Known(memory=before.known.memory), done=Done(standings=before.done.standings if past else {}))
    daemon = Engine(config(len(seen)), as_at_a_start(seen, families), None if booted else before.known.actual, known)
    effects = [*daemon.effects]
    for change in recorded(effects):
        if "address" in change.hooks:
            assert change.after is not None
            assert any(ends.address for ends in change.after.ends.values())
            assert not past
    assert daemon.state.known.actual is not None
    for second in range(1, 40):
        daemon.now = float(second)
        later = daemon.feed(ReadDone(whole, daemon.state.known.actual) if second == 5 else Tick())
        if past:
            assert [c for c in recorded(later) if c.what is What.ADDRESS or "address" in c.hooks] == []
    if past:
        for name, standing in daemon.state.done.standings.items():
            assert standing.ends == before.done.standings[name].ends
            assert standing.ends_since == before.done.standings[name].ends_since


def recorded(effects: list[Effect]) -> list[Change]:
    return [change for effect in effects if isinstance(effect, Record) for change in effect.changes]
