"""What the log has told is the truth once nothing waits any more, whatever happened in between."""

from __future__ import annotations

from hypothesis import example, given, settings
from hypothesis import strategies as st

from polywan.core.policy.selection import unserved_policies
from polywan.core.policy.uplink_state import OUT
from support.examples import examples
from support.timeline import Sim

UPLINKS = 3
STEPS = st.lists(
    st.tuples(st.integers(1, UPLINKS), st.booleans(), st.floats(0.01, 8.0)),
    max_size=12,
)


@given(STEPS)
@example([(2, False, 1.0), (3, False, 1.0), (2, True, 1.5), (1, False, 4.0)])
@settings(max_examples=examples(25), deadline=None)
def test_states_policies_and_outages_are_told_as_they_are_in_the_end(steps: list[tuple[int, bool, float]]) -> None:
    sim = Sim({"uplinks": {f"u{n}": {"interface": f"wan{n}"} for n in range(1, UPLINKS + 1)}}, UPLINKS)
    # What is out before the first decision is no outage.
    sim.run_until(0.1)
    for number, carrier, seconds in steps:
        sim.command(("carrier", f"wan{number}", "on" if carrier else "off"))
        sim.run_until(sim.now + seconds)
    sim.run_until(sim.now + 5.0)
    # Something may have happened just now, such as the end of a hold-down, and a line about it waits a moment.
    for _ in range(5):
        if sim.state.done.logged.waits:
            sim.run_until(sim.now + 1.0)
    state = sim.state
    assert state.known.config is not None
    assert state.decision.selection is not None
    assert state.done.logged.waits == {}
    assert {name: logged for name, (logged, _) in state.done.logged.states.items()} == {
        name: seen.state for name, seen in state.decision.views.items()
    }
    assert state.done.logged.policies == unserved_policies(state.known.config, state.decision.selection)
    losses = [line for line in sim.lines if line.startswith("uplink.down: ")]
    assert len(losses) == sum(history.count for history in state.known.memory.outages.values())
    for name, history in state.known.memory.outages.items():
        assert (history.lasting is not None) == (state.decision.views[name].state in OUT)
