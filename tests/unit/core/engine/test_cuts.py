"""What vanished with an address of an uplink that goes on is let go of, and nothing else is."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_interface

import pytest

from polywan.core.engine.cuts import DEAD
from polywan.core.net import Family
from polywan.core.state.effects import Apply, Effect, ReleaseConnections
from polywan.core.state.events import AddressLost, Event, ReadDone, Tick
from polywan.core.world.observed import Address, Observed
from support.engine_world import Engine, config, world

MASK = 0x3F00


def without(ip: str, *others: str) -> Observed:
    observed = world(2)
    new = tuple(Address("wan1", ip_interface(other)) for other in others)
    return replace(observed, addresses=(*(a for a in observed.addresses if str(a.ip) != ip), *new))


def fed(daemon: Engine, *events: Event) -> list[Effect]:
    return [effect for event in events for effect in daemon.feed(event)]


def read(daemon: Engine, observed: Observed) -> ReadDone:
    assert daemon.state.known.actual is not None
    return ReadDone(observed, daemon.state.known.actual)


def dead(daemon: Engine) -> set[object]:
    assert daemon.state.decision.desired is not None
    return set(daemon.state.decision.desired.nft.sets["dead_4"].elements)


def later(daemon: Engine, seconds: float) -> list[Effect]:
    daemon.now += seconds
    return daemon.feed(Tick())


def released(effects: list[Effect]) -> list[tuple[str, int, Family]]:
    assert all(e.vanished for e in effects if isinstance(e, ReleaseConnections))
    return [(e.uplink, e.mark, e.family) for e in effects if isinstance(e, ReleaseConnections)]


OLD, NEW = "100.64.1.2/24", "100.64.1.77/24"
VARIANTS: dict[str, tuple[list[Event], Observed]] = {
    "another at once": ([AddressLost("wan1", Family.V4)], without(OLD, NEW)),
    "another, and nobody told": ([], without(OLD, NEW)),
    "the same at once": ([AddressLost("wan1", Family.V4)], world(2)),
}


@pytest.mark.parametrize(("events", "after"), VARIANTS.values(), ids=list(VARIANTS))
def test_what_vanished_with_an_address_is_let_go_of_at_once_and_twice_more(
    events: list[Event], after: Observed
) -> None:
    daemon = Engine(config(2), world(2))
    effects = fed(daemon, *events, read(daemon, after))
    kinds = [type(e) for e in effects]
    assert kinds.index(Apply) < kinds.index(ReleaseConnections)
    assert released(effects) == [("u1", 0x100, Family.V4)]
    assert [released(later(daemon, wait)) for wait in (0.06, 1.0, 1.0)] == [[("u1", 0x100, Family.V4)]] * 2 + [[]]


def test_the_mark_that_nobody_is_given_is_dead_meanwhile_and_no_other() -> None:
    daemon = Engine(config(2), world(2))
    assert dead(daemon) == set()
    fed(daemon, AddressLost("wan1", Family.V4), read(daemon, world(2)))
    assert dead(daemon) == {MASK}
    later(daemon, DEAD - 0.1)
    assert dead(daemon) == {MASK}
    later(daemon, 0.2)
    assert dead(daemon) == set()


def test_one_of_two_addresses_is_enough() -> None:
    both = without("", NEW)
    daemon = Engine(config(2), both)
    assert released(fed(daemon, read(daemon, without("", NEW)))) == []
    assert released(fed(daemon, read(daemon, world(2)))) == [("u1", 0x100, Family.V4)]


@pytest.mark.parametrize(
    "events",
    [[], [AddressLost("lan0", Family.V4)], [AddressLost("wan1", Family.V6)]],
    ids=["nothing", "of the inside", "of the other family, which it does not have"],
)
def test_other_addresses_let_go_of_nothing(events: list[Event]) -> None:
    daemon = Engine(config(2), world(2, [Family.V4]))
    assert released(fed(daemon, *events, read(daemon, world(2, [Family.V4])))) == []
    assert dead(daemon) == set()


def test_an_address_that_is_added_lets_go_of_nothing() -> None:
    daemon = Engine(config(2), world(2))
    assert released(fed(daemon, read(daemon, without("", NEW)))) == []


def test_where_nothing_is_masqueraded_nothing_vanishes() -> None:
    plain = config(2, uplinks={f"u{n}": {"interface": f"wan{n}", "nat": "none"} for n in (1, 2)})
    daemon = Engine(plain, world(2))
    assert released(fed(daemon, AddressLost("wan1", Family.V4), read(daemon, world(2)))) == []


def test_an_uplink_that_has_no_address_left_is_cut_as_a_dead_one() -> None:
    daemon = Engine(config(2), world(2))
    bare = without(OLD)
    bare = replace(bare, defaults=tuple(d for d in bare.defaults if (d.link, d.family) != ("wan1", Family.V4)))
    effects = fed(daemon, AddressLost("wan1", Family.V4), read(daemon, bare))
    assert {(e.uplink, e.family, e.vanished) for e in effects if isinstance(e, ReleaseConnections)} == {
        ("u1", Family.V4, False)
    }
