"""Routers are remembered while their links are away, and forgotten once they withdraw themselves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from polywan.core.effects import Note
from polywan.core.events import LinkChanged, ReadDone
from polywan.core.net import Family
from polywan.core.observed import Observed
from polywan.core.plan import ActualState
from polywan.core.reach import NoPath, Path
from worlds import Daemon, config, link, world

KEY = ("u1", Family.V6)


def advertised(*, by_router: bool = True) -> Observed:
    given = world(2)
    return replace(given, defaults=tuple(replace(d, advertised=by_router) for d in given.defaults))


def without_route(given: Observed) -> Observed:
    return replace(given, defaults=tuple(d for d in given.defaults if (d.link, d.family) != ("wan1", Family.V6)))


def read(daemon: Daemon, observed: Observed) -> list[str]:
    effects = daemon.feed(ReadDone(observed, daemon.state.actual or ActualState()))
    return [e.text for e in effects if isinstance(e, Note) and e.event == "gateway.withdrawn"]


def test_a_router_that_withdraws_itself_is_used_no_more_and_that_is_told() -> None:
    daemon = Daemon(config(2), advertised())
    assert read(daemon, without_route(advertised())) == [
        "u1 (IPv6): the router 2001:db8:64:1::1 by wan1 has withdrawn itself, and is not used any more"
    ]
    assert daemon.state.reach[KEY] == NoPath(
        reason="IPv6 gateway not known yet: no default route by wan1 in any table, and no router offers itself"
    )
    assert isinstance(daemon.state.reach["u1", Family.V4], Path)
    assert KEY not in daemon.state.memory.gateways


def test_it_is_used_again_when_it_offers_itself_again() -> None:
    daemon = Daemon(config(2), advertised())
    read(daemon, without_route(advertised()))
    assert read(daemon, advertised()) == []
    assert isinstance(daemon.state.reach[KEY], Path)


def test_a_static_route_that_somebody_removes_is_remembered() -> None:
    daemon = Daemon(config(2), advertised(by_router=False))
    assert read(daemon, without_route(advertised(by_router=False))) == []
    assert isinstance(daemon.state.reach[KEY], Path)


def gone(given: Observed) -> Observed:
    return given.with_link(link(1, up=False))


def lost(given: Observed) -> Observed:
    return given.with_link(link(1, carrier=False))


def exchanged(given: Observed) -> Observed:
    return replace(given, links={**given.links, "wan1": replace(given.links["wan1"], index=99)})


def renumbered(given: Observed) -> Observed:
    return replace(given, addresses=tuple(a for a in given.addresses if a.ip.version == 4 or a.link != "wan1"))


@pytest.mark.parametrize("change", [gone, lost, exchanged, renumbered])
def test_what_goes_with_its_link_is_remembered(change: Callable[[Observed], Observed]) -> None:
    daemon = Daemon(config(2), advertised())
    assert read(daemon, change(without_route(advertised()))) == []
    assert KEY in daemon.state.memory.gateways


def test_a_link_that_was_down_for_a_moment_forgets_nothing() -> None:
    daemon = Daemon(config(2), advertised())
    daemon.feed(LinkChanged(link(1, up=False)))
    daemon.feed(LinkChanged(link(1)))
    assert read(daemon, without_route(advertised())) == []
    assert KEY in daemon.state.memory.gateways
