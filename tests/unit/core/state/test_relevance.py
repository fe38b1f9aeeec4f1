"""Devices of others come and go by the hundred: they cost reads, few of them, and no decisions."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_interface, ip_network
from typing import Any

import pytest

from polywan.core.engine import decide
from polywan.core.engine import step as engine
from polywan.core.engine.agenda import FOLD, LATER
from polywan.core.net import TABLE_MAIN, TableId
from polywan.core.state import relevance
from polywan.core.state.effects import Apply, Read, ReleaseConnections
from polywan.core.state.events import ForeignStateChanged, LinkChanged, LinkRemoved, ReadDone
from polywan.core.world.foreign_routing import Destination
from polywan.core.world.observed import Address, Link, Observed, WideRoute
from support.engine_world import Engine, config, link, world


def veth(number: int, **more: Any) -> Link:
    return Link(index=1000 + number, name=f"veth{number}", up=True, carrier=True, kind="veth", **more)


def with_devices(count: int, **more: Any) -> Observed:
    base = world(2)
    return replace(base, links={**base.links, **{veth(n).name: veth(n) for n in range(count)}}, **more)


def started(observed: Observed) -> Engine:
    daemon = Engine(config(2), observed)
    daemon.now += 10.0
    daemon.feed(ReadDone(observed, daemon.state.known.actual))  # type: ignore[arg-type]  # known after the start
    read = replace(daemon.state.agenda, last_read=daemon.now, read_at=None)
    daemon.state = replace(daemon.state, agenda=read)
    daemon.effects.clear()
    return daemon


def decisions(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    made: list[float] = []

    def counting(state: Any, now: float, *, after_read: bool) -> Any:
        made.append(now)
        return decide.decide(state, now, after_read=after_read)

    monkeypatch.setattr(engine, "decide", counting)
    return made


def test_events_of_foreign_devices_lead_to_no_decision_and_share_one_read(monkeypatch: pytest.MonkeyPatch) -> None:
    daemon = started(with_devices(300))
    made = decisions(monkeypatch)
    for n in range(300):
        for event in (
            LinkChanged(veth(n, mtu=1400)),
            ForeignStateChanged("address", f"veth{n}"),
            LinkRemoved(f"veth{n}"),
        ):
            daemon.state, effects = engine.step(daemon.state, event, daemon.now)
            daemon.effects += effects
    assert (made, daemon.effects, daemon.state.agenda.read_at) == ([], [], daemon.now + LATER)


def test_one_event_of_a_foreign_device_after_a_quiet_time_is_read_at_once() -> None:
    daemon = started(with_devices(1))
    daemon.now += LATER
    assert Read() in daemon.feed(LinkRemoved("veth0"))


def test_an_uplinks_loss_amid_foreign_events_is_acted_on_at_once() -> None:
    daemon = started(with_devices(300))
    for n in range(300):
        daemon.feed(LinkRemoved(f"veth{n}"))
    effects = daemon.feed(LinkChanged(link(1, carrier=False)))
    assert {type(effect) for effect in effects} >= {Apply, ReleaseConnections}


@pytest.mark.parametrize(
    "event",
    [
        LinkChanged(link(1, carrier=False)),
        LinkRemoved("wan1"),
        ForeignStateChanged("address", "wan1"),
        ForeignStateChanged("route", "wan2"),
        ForeignStateChanged("address"),
        ForeignStateChanged("rule"),
    ],
)
def test_what_is_about_an_uplink_or_about_no_device_is_not_foreign(event: Any) -> None:
    daemon = started(with_devices(1))
    assert not relevance.foreign(daemon.state, event)
    daemon.feed(event)
    assert daemon.state.agenda.read_at == pytest.approx(daemon.now + FOLD)


TUNNEL = Destination(prefix=ip_network("192.0.2.0/24"), link="veth0")


@pytest.mark.parametrize(
    ("observed", "matters"),
    [
        (with_devices(1), False),
        (with_devices(1, addresses=(Address("veth0", ip_interface("192.0.2.1/24")),)), False),
        (with_devices(1, defaults=(replace(world(1).defaults[0], link="veth0"),)), True),
        (with_devices(1, parts=(WideRoute(ip_network("0.0.0.0/1"), "veth0"),)), True),
        (with_devices(1, tables={TableId(77): (TUNNEL,)}), True),
        (with_devices(1, tables={TABLE_MAIN: (TUNNEL,)}), False),
    ],
    ids=["nothing", "an address", "a default", "a wide route", "a table of a rule", "a specific route of main"],
)
def test_a_device_matters_when_something_leads_by_it_that_decisions_look_at(observed: Observed, matters: bool) -> None:
    assert relevance.foreign(started(observed).state, LinkChanged(veth(0, mtu=1400))) is not matters


def test_the_device_that_an_uplink_belongs_to_matters() -> None:
    base = with_devices(2)
    above = veth(0, master=veth(1).index)
    observed = replace(base, links={**base.links, "veth0": above, "wan1": replace(link(1), master=above.index)})
    state = started(observed).state
    assert not any(relevance.foreign(state, LinkRemoved(name)) for name in ("veth0", "veth1"))


@pytest.mark.parametrize("kind", ["bridge", "dummy"])
def test_bridges_and_dummies_matter_whenever_they_appear(kind: str) -> None:
    assert not relevance.foreign(started(with_devices(0)).state, LinkChanged(replace(veth(0), kind=kind)))


def test_a_program_that_sets_the_rate_of_its_queue_all_the_time_costs_a_read_a_second() -> None:
    daemon = started(world(2))
    reads = 0
    for _ in range(30):
        daemon.now += 0.1
        reads += sum(isinstance(effect, Read) for effect in daemon.feed(ForeignStateChanged("qdisc", "wan1")))
        if any(isinstance(effect, Read) for effect in daemon.effects):
            daemon.effects.clear()
            assert daemon.state.known.actual is not None
            daemon.feed(ReadDone(world(2), daemon.state.known.actual))
    assert 2 <= reads <= 4
