"""Settings that the kernel tells nobody of are looked at, a few each second."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from polywan.core.evolve import replace as evolve
from polywan.core.routing.sysctls import Sysctl
from polywan.core.state.events import Event, ForeignStateChanged
from polywan.core.state.refusals import Retries
from polywan.daemon.tasks.settings import MOST_SETTINGS, SettingsWatch
from support.engine_world import Engine, config, world

PATHS = [f"net/ipv4/conf/wan{n}/arp_ignore" for n in range(1, 41)]


class Box:
    def __init__(self, retries: Retries | None = None, paths: Sequence[str] = PATHS) -> None:
        state = Engine(config(2), world(2)).state
        assert state.decision.desired is not None
        assert state.known.actual is not None
        wanted = tuple(Sysctl(path, "1") for path in paths)
        self.values: dict[str, str] = dict.fromkeys(paths, "1")
        self.state = evolve(
            state,
            decision=evolve(state.decision, desired=replace(state.decision.desired, sysctls=wanted)),
            known=evolve(state.known, actual=replace(state.known.actual, sysctls=dict(self.values))),
            done=evolve(state.done, retries=retries or state.done.retries),
        )
        self.events: list[Event] = []
        self.looked: list[str] = []
        self.watch = SettingsWatch(lambda: self.state, self.events.append, self.read)

    def read(self, path: str) -> str | None:
        self.looked.append(path)
        return self.values.get(path)


def test_nothing_is_said_while_all_is_as_it_was_left() -> None:
    box = Box()
    for _ in range(4):
        box.watch.look()
    assert box.events == []


def test_all_are_looked_at_in_turns_of_a_few() -> None:
    box = Box()
    box.watch.look()
    assert len(box.looked) == MOST_SETTINGS
    box.watch.look()
    assert set(box.looked) == set(PATHS)
    box.watch.look()
    assert box.looked[len(PATHS) :] == PATHS[:MOST_SETTINGS]


def test_what_the_kernel_reports_is_not_looked_at() -> None:
    reported = [
        f"net/ipv{v}/conf/wan1/{name}" for v in (4, 6) for name in ("ignore_routes_with_linkdown", "forwarding")
    ]
    box = Box(paths=[*PATHS[:3], "net/ipv4/conf/wan1/rp_filter", *reported])
    box.watch.look()
    assert box.looked == PATHS[:3]


def test_a_setting_that_somebody_changed_asks_for_a_read() -> None:
    box = Box()
    box.values[PATHS[3]] = "0"
    box.watch.look()
    assert box.events == [ForeignStateChanged("setting")]


def test_what_the_kernel_refuses_is_not_asked_for_each_second() -> None:
    box = Box(retries=Retries(refused={"sysctl x: read-only file system": 1}))
    box.values.clear()
    box.watch.look()
    assert (box.events, box.looked) == ([], [])


def test_before_the_first_decision_there_is_nothing_to_look_at() -> None:
    box = Box()
    box.state = evolve(box.state, decision=replace(box.state.decision, desired=None))
    box.watch.look()
    assert box.looked == []
