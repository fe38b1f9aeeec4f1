"""Routers are remembered while their links are away, forgotten once they withdraw, and take turns where they fail."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_address

import pytest

from polywan.core.health.layers import CheckOrder, CheckResult
from polywan.core.health.probes import ProbeOrder
from polywan.core.net import Family, IPAddress
from polywan.core.plan.plan import ActualState
from polywan.core.state.effects import Log
from polywan.core.state.events import LinkChanged, ReadDone
from polywan.core.world.observed import Observed
from polywan.core.world.paths import NoPath, Path
from polywan.sim.internet import Internet
from polywan.sim.simulation import Simulation
from support.engine_world import Engine, config, link, world

KEY = ("u1", Family.V6)


def advertised(*, by_router: bool = True) -> Observed:
    observed = world(2)
    return replace(observed, defaults=tuple(replace(d, advertised=by_router) for d in observed.defaults))


def without_route(observed: Observed) -> Observed:
    return replace(observed, defaults=tuple(d for d in observed.defaults if (d.link, d.family) != ("wan1", Family.V6)))


def read(daemon: Engine, observed: Observed) -> list[str]:
    effects = daemon.feed(ReadDone(observed, daemon.state.known.actual or ActualState()))
    return [e.text for e in effects if isinstance(e, Log) and e.event == "gateway.withdrawn"]


def test_a_router_that_withdraws_itself_is_used_no_more_and_that_is_told() -> None:
    daemon = Engine(config(2), advertised())
    assert read(daemon, without_route(advertised())) == [
        "u1 (IPv6): router 2001:db8:64:1::1 on wan1 has withdrawn itself and is no longer used"
    ]
    assert daemon.state.decision.reach[KEY] == NoPath(
        reason="IPv6 gateway not known yet: no default route through wan1 in any table, and no router advertises itself"
    )
    assert isinstance(daemon.state.decision.reach["u1", Family.V4], Path)
    assert KEY not in daemon.state.known.memory.gateways


def test_it_is_used_again_when_it_offers_itself_again() -> None:
    daemon = Engine(config(2), advertised())
    read(daemon, without_route(advertised()))
    assert read(daemon, advertised()) == []
    assert isinstance(daemon.state.decision.reach[KEY], Path)


def test_a_static_route_that_somebody_removes_is_remembered() -> None:
    daemon = Engine(config(2), advertised(by_router=False))
    assert read(daemon, without_route(advertised(by_router=False))) == []
    assert isinstance(daemon.state.decision.reach[KEY], Path)


def gone(observed: Observed) -> Observed:
    return observed.with_link(link(1, up=False))


def lost(observed: Observed) -> Observed:
    return observed.with_link(link(1, carrier=False))


def exchanged(observed: Observed) -> Observed:
    return replace(observed, links={**observed.links, "wan1": replace(observed.links["wan1"], index=99)})


def renumbered(observed: Observed) -> Observed:
    return replace(observed, addresses=tuple(a for a in observed.addresses if a.ip.version == 4 or a.link != "wan1"))


@pytest.mark.parametrize("change", [gone, lost, exchanged, renumbered])
def test_what_goes_with_its_link_is_remembered(change: Callable[[Observed], Observed]) -> None:
    daemon = Engine(config(2), advertised())
    assert read(daemon, change(without_route(advertised()))) == []
    assert KEY in daemon.state.known.memory.gateways


def test_a_link_that_was_down_for_a_moment_forgets_nothing() -> None:
    daemon = Engine(config(2), advertised())
    daemon.feed(LinkChanged(link(1, up=False)))
    daemon.feed(LinkChanged(link(1)))
    assert read(daemon, without_route(advertised())) == []
    assert KEY in daemon.state.known.memory.gateways


FIRST, SECOND = ip_address("100.64.1.1"), ip_address("100.64.1.9")


def two_routers() -> Observed:
    observed = world(2, [Family.V4])
    return replace(observed, defaults=(*observed.defaults, replace(observed.defaults[0], via=SECOND)))


class Beyond(Internet):
    """What `u1` reaches depends on its router."""

    def __init__(self, via: Callable[[], IPAddress | None], alive: set[IPAddress], beyond: set[IPAddress]) -> None:
        super().__init__()
        self.via, self.alive, self.open = via, alive, beyond

    def round_trip(self, order: ProbeOrder, place: int, now: float) -> float | None:
        well = order.uplink == "u2" or self.via() in self.open
        return super().round_trip(order, place, now) if well else None

    def check(self, order: CheckOrder) -> tuple[float, CheckResult]:
        after, result = super().check(order)
        return after, replace(result, ok=order.uplink == "u2" or order.gateway in self.alive)


class Line(Simulation):
    """A daemon whose first uplink has two routers: `alive` answer, beyond those that are `open` others do."""

    def __init__(self, *, alive: set[IPAddress], beyond: set[IPAddress]) -> None:
        super().__init__(two_routers(), Beyond(lambda: self.via, alive, beyond))
        self.start(config(2))

    @property
    def via(self) -> IPAddress | None:
        path = self.state.decision.reach["u1", Family.V4]
        return path.via if isinstance(path, Path) else None

    def run(self, seconds: float) -> None:
        self.run_until(self.now + seconds)


def test_a_router_that_does_not_answer_gives_way_to_the_next_one() -> None:
    line = Line(alive={SECOND}, beyond={SECOND})
    line.run(30)
    assert line.via == SECOND
    assert line.state.decision.views["u1"].state == "up"
    # Rounds that the first one lost are not held against the second.
    assert not [e for _, e in line.log if e.event == "uplink.down"]
    texts = [e.text for _, e in line.log if e.event == "gateway.next"]
    assert texts == ["u1 (IPv4): router 100.64.1.1 fails: trying 100.64.1.9, the next one on wan1"]
    assert {r.via for r in line.state.decision.desired.routes if r.link == "wan1"} == {SECOND}  # type: ignore[union-attr]


def test_so_does_one_that_leads_nowhere() -> None:
    line = Line(alive={FIRST, SECOND}, beyond={SECOND})
    line.run(30)
    assert line.via == SECOND


def test_while_the_first_one_works_it_is_used() -> None:
    line = Line(alive={FIRST, SECOND}, beyond={FIRST, SECOND})
    line.run(30)
    assert line.via == FIRST


def test_it_comes_back_to_the_first_when_the_second_fails() -> None:
    line = Line(alive={SECOND}, beyond={SECOND})
    line.run(20)
    line.internet = Beyond(lambda: line.via, {FIRST}, {FIRST})
    line.run(30)
    assert line.via == FIRST


def test_one_whose_route_is_gone_is_used_no_more() -> None:
    line = Line(alive={SECOND}, beyond={SECOND})
    line.run(20)
    line.kernel.remove_default(two_routers().defaults[-1])
    line.run(0.1)
    assert line.via == FIRST
