"""Whatever happens, no connection of an uplink that serves is let go, and every drain ends."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from polywan.config import Config
from polywan.core.net import Family
from polywan.core.policy import draining
from polywan.core.policy.draining import INSPECT_INTERVAL, RESET_GRACE, IdleTracker
from polywan.core.policy.operator import Verb
from polywan.core.state.effects import Effect, ForgetAll, InspectDrain
from polywan.core.state.events import OperatorCommand
from polywan.core.world.conntrack import Flow
from polywan.kernel.fake.tracker import Connection
from polywan.sim.simulation import Simulation
from support.engine_world import world

ON_UP = ["stay", "move-when-idle", "move", {"drain": 0}, {"drain": 7}, None]
NAMES = ["u1", "u2", "u3"]


def config(first: Any, second: Any, metered: bool) -> Config:
    policies = {
        "default": {"tiers": [["u1"], ["u2", "u3"]], **({} if first is None else {"on_up": first})},
        "other": {"tiers": [["u2"], ["u1"], ["u3"]], **({} if second is None else {"on_up": second})},
    }
    uplinks = {name: {"interface": f"wan{name[1]}", "metered": metered and name == "u3"} for name in NAMES}
    health = {"hold_down": 0, "rise": 1, "fall": 1, "targets": ["192.0.2.1"], "slow_start": 0}
    return Config.model_validate({"uplinks": uplinks, "policies": policies, "health": health})


class Box(Simulation):
    """A daemon whose probes are answered by the uplinks that are well; each that serves has a connection."""

    def __init__(self, config: Config) -> None:
        super().__init__(world(3, [Family.V4]))
        self.listeners.append(self.check)
        self.start(config)
        self.wait(0.01)

    def check(self, effect: Effect) -> None:
        selection = self.state.decision.selection
        if selection is None:
            return
        used = draining.serving(selection)
        assert not used & selection.dead
        if isinstance(effect, InspectDrain | ForgetAll):
            assert (effect.uplink, effect.family) not in used

    def wait(self, seconds: float) -> None:
        self.run_until(self.now + seconds)
        self.connect()

    def connect(self) -> None:
        assert self.state.decision.selection is not None
        there = {connection.mark for connection in self.kernel.connections_list}
        for name, family in draining.serving(self.state.decision.selection):
            if (mark := self.state.known.numbers[name].mark) not in there:
                self.kernel.connections_list.append(Connection(mark=mark, family=family))


_DOINGS = st.one_of(
    st.tuples(st.just("break"), st.sampled_from(NAMES)),
    st.tuples(st.just("mend"), st.sampled_from(NAMES)),
    st.tuples(st.sampled_from(list(Verb)), st.sampled_from(NAMES)),
    st.tuples(st.just("wait"), st.sampled_from([0.5, 3.0, 9.0])),
)


@given(st.sampled_from(ON_UP), st.sampled_from(ON_UP), st.booleans(), st.lists(_DOINGS, max_size=12))
def test_no_connection_of_a_serving_uplink_is_let_go(
    first: Any, second: Any, metered: bool, doings: list[tuple[Any, Any]]
) -> None:
    box = Box(config(first, second, metered))
    for what, whom in doings:
        match what:
            case "break":
                box.internet.silent.add((whom, Family.V4))
            case "mend":
                box.internet.silent.discard((whom, Family.V4))
            case "wait":
                box.wait(whom)
            case _:
                box.take(OperatorCommand(whom, what, 5.0))
        box.wait(0.0)
    box.wait(4.0)
    for name in NAMES:
        order = box.state.known.memory.orders.get(name)
        if order is not None and order.until is not None and order.until + RESET_GRACE + INSPECT_INTERVAL < box.now:
            assert order.empty


_FLOWS = st.lists(
    st.builds(
        lambda port, protocol, packets, timeout: Flow(
            *(Family.V4, protocol, "192.0.2.1", port, "203.0.113.9", 53), packets_up=packets, timeout=timeout
        ),
        st.integers(1, 3),
        st.sampled_from([6, 17, 1]),
        st.one_of(st.none(), st.integers(0, 3)),
        st.one_of(st.none(), st.integers(0, 200)),
    ),
    max_size=4,
)


@given(st.lists(_FLOWS, max_size=6), st.booleans())
def test_idle_is_only_what_was_seen_unchanged_for_as_long_and_is_not_tcp(looks: list[list[Flow]], gather: bool) -> None:
    watch, history = IdleTracker({}), []
    for number, flows in enumerate(looks):
        now = 2.0 * number
        watch = watch.look(flows, now, gather=gather or not number, exempt=frozenset())
        history.append((now, flows))
        for flow in flows:
            if watch.idle(flow, 4.0, now):
                assert flow.protocol != 6
                recent = [seen for at, seen in history if at >= now - 4.0]
                assert len(recent) > 2
                assert all(draining.key_of(flow) in map(draining.key_of, seen) for seen in recent)
