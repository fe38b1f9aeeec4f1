"""Whatever happens to a simulated box, it happens the same way twice, and all is well again once nothing is broken."""

from __future__ import annotations

import errno
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from polywan.core.engine import step as engine
from polywan.core.net import FAMILIES
from polywan.core.plan.plan import AddRule, NftBatch, PutRoute, diff
from polywan.core.policy.operator import Verb
from polywan.core.state.events import OperatorCommand
from polywan.sim.internet import Internet
from polywan.sim.simulation import Simulation
from support.engine_world import config, world
from support.examples import examples

UPLINKS = 3
HEALTH = {"hold_down": 1, "hold_down_max": 5, "slow_start": 0}
HEALING = 90.0
"""Seconds within which every hold-down, drain and repair is over: what was refused is tried again every 30 s."""

ACCIDENTS = [
    *("silence", "answer", "unplug", "plug", "loss", "jitter", "flush rules", "flush nft"),
    *("lose events", "refuse a rule", "refuse a route", "refuse the table", "suspend", "restart", "disable", "drain"),
]
scripts = st.lists(
    st.tuples(st.floats(0.0, 20.0), st.sampled_from(ACCIDENTS), st.integers(1, UPLINKS)), min_size=1, max_size=10
)


def happen(sim: Simulation, what: str, number: int) -> None:
    name, link = f"u{number}", sim.kernel.links[f"wan{number}"]
    orders = {"disable": Verb.DISABLE, "drain": Verb.DRAIN}
    refused = {"refuse a rule": AddRule, "refuse a route": PutRoute, "refuse the table": NftBatch}
    match what:
        case "silence":
            sim.internet.silent.update((name, family) for family in FAMILIES)
        case "answer":
            sim.internet.silent.difference_update((name, family) for family in FAMILIES)
        case "unplug" | "plug":
            sim.kernel.set_link(replace(link, carrier=what == "plug"))
        case "loss":
            sim.internet.loss[name] = 0.3
        case "jitter":
            sim.internet.jitter[name] = 2.0
        case "flush rules":
            sim.kernel.tamper_flush_rules()
        case "flush nft":
            sim.kernel.tamper_flush_nft()
        case "lose events":
            sim.kernel.lose_events()
        case "suspend":
            sim.suspend(100.0)
        case "restart":
            sim.start(config(UPLINKS, health=HEALTH))
        case _ if what in orders:
            sim.take(OperatorCommand(name, orders[what], 5.0))
        case _:
            sim.kernel.fail_next(refused[what], errno.EBUSY)


def played(script: list[tuple[float, str, int]], seed: int) -> Simulation:
    sim = Simulation(world(UPLINKS), Internet(seed))
    sim.start(config(UPLINKS, health=HEALTH))
    for pause, what, number in script:
        sim.run_until(sim.now + pause)
        happen(sim, what, number)
    return sim


@given(scripts, st.integers(0, 3))
@settings(max_examples=examples(10))
def test_the_same_script_and_seed_give_the_same_log(script: list[tuple[float, str, int]], seed: int) -> None:
    first, second = played(script, seed), played(script, seed)
    for sim in (first, second):
        sim.run_until(sim.now + 10.0)
    assert first.log == second.log
    assert first.now == second.now


@given(scripts)
@settings(max_examples=examples(15))
def test_once_nothing_is_broken_every_uplink_is_up_and_the_kernel_has_what_is_wanted(
    script: list[tuple[float, str, int]],
) -> None:
    sim = played(script, 0)
    sim.internet.silent.clear()
    sim.internet.loss.clear()
    sim.internet.jitter.clear()
    for number in range(1, UPLINKS + 1):
        happen(sim, "plug", number)
        sim.take(OperatorCommand(f"u{number}", Verb.ENABLE, 0.0))
    sim.run_until(sim.now + HEALING)
    assert {name: str(view.state) for name, view in sim.state.decision.views.items()} == {
        f"u{number}": "up" for number in range(1, UPLINKS + 1)
    }
    assert sim.state.decision.desired is not None
    paths = engine.sysctl_paths(sim.state, sim.kernel.observe())
    assert not diff(sim.state.decision.desired, sim.kernel.read(paths))
