"""What is remembered of earlier decisions changes none: they are those of a process that has just started."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv6Network, collapse_addresses, ip_address, ip_interface, ip_network
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from polywan.core.engine import step as engine
from polywan.core.identity import forget
from polywan.core.net import FAMILIES, TABLE_MAIN, Family
from polywan.core.plan.plan import ActualState
from polywan.core.ruleset.neighbours.specific_routes import specific_networks
from polywan.core.state.events import ConfigLoaded, Event, LinkChanged, LinkRemoved, ReadDone
from polywan.core.state.state import State
from polywan.core.world.foreign_routing import Destination
from polywan.core.world.leases import Lease
from polywan.core.world.observed import Address, DefaultRoute, Observed
from support.engine_world import config, link, world

UPLINKS = 3

FILES: tuple[dict[str, Any], ...] = (
    {},
    {"weights": [1, 2, 3]},
    {"weights": [5, 2, 3]},
    {"policies": {"default": {"tiers": [["u1"], ["u2", "u3"]], "on_down": "move"}}},
    {"global": {"forwarding": True}},
    {"rules": [{"from": "192.168.15.40", "only": ["u2"]}]},
)

numbers = st.integers(1, UPLINKS)
families = st.sampled_from(FAMILIES)


def other(observed: Observed, number: int, family: Family, what: str) -> Observed:
    """Return a world that differs in what an uplink has in a family."""
    device = f"wan{number}"
    addresses = tuple(a for a in observed.addresses if (a.link, a.ip.version) != (device, family))
    defaults = tuple(d for d in observed.defaults if (d.link, d.family) != (device, family))
    match what:
        case "address":
            new = "100.64.99.7/24" if family is Family.V4 else "2001:db8:99::7/64"
            return replace(observed, addresses=(*addresses, Address(device, ip_interface(new))))
        case "no address":
            return replace(observed, addresses=addresses)
        case "dummy":
            lent = Address("dummy0", ip_interface("198.51.100.9/32"))
            home = replace(link(9), name="dummy0", kind="dummy")
            return replace(observed, addresses=(*addresses, lent), links={**observed.links, "dummy0": home})
        case "router":
            via = ip_address("100.64.1.77" if family is Family.V4 else "fe80::77")
            route = DefaultRoute(family=family, link=device, via=via, metric=number)
            return replace(observed, defaults=(*defaults, route))
        case "prefix":
            source = ip_network("2001:db8:aa00::/56")
            route = DefaultRoute(family=Family.V6, link=device, via=ip_address("fe80::1"), source=source)
            return replace(observed, defaults=(*observed.defaults, route))
        case "no router":
            return replace(observed, defaults=defaults)
        case "lease":
            lease = Lease(
                link=device,
                address=IPv4Address(f"100.64.{number}.2"),
                router=IPv4Address("100.64.1.66"),
                expires=None,
                program="dhcpcd",
            )
            return replace(observed, defaults=defaults, leases={device: lease})
        case "route":
            there = Destination(prefix=ip_network("198.51.100.0/25"), link=device)
            return replace(observed, tables={TABLE_MAIN: (there,)})
        case _:
            return replace(observed, compared=not observed.compared, ipsec=not observed.ipsec)


WHATS = ("address", "no address", "dummy", "router", "prefix", "no router", "lease", "route", "others")

steps = st.one_of(
    st.tuples(st.just("file"), st.integers(0, len(FILES) - 1), families, st.just("")),
    st.tuples(st.just("carrier"), numbers, families, st.just("")),
    st.tuples(st.just("up"), numbers, families, st.just("")),
    st.tuples(st.just("gone"), numbers, families, st.just("")),
    st.tuples(st.just("read"), numbers, families, st.sampled_from(WHATS)),
)


def event_of(state: State, kind: str, number: int, family: Family, what: str) -> Event:
    observed = state.known.observed
    assert observed is not None
    assert state.known.actual is not None
    now = observed.links.get(f"wan{number}", link(number))
    match kind:
        case "file":
            return ConfigLoaded(config(UPLINKS, **FILES[number]))
        case "carrier":
            return LinkChanged(replace(now, carrier=not now.carrier))
        case "up":
            return LinkChanged(replace(now, up=not now.up))
        case "gone":
            return LinkRemoved(now.name)
        case _:
            return ReadDone(other(observed, number, family, what), state.known.actual)


@given(st.lists(steps, max_size=8))
def test_a_decision_is_the_same_with_and_without_a_past(happened: list[tuple[str, int, Family, str]]) -> None:
    forget()
    state, _ = engine.step(State(), ConfigLoaded(config(UPLINKS)), 0.0)
    state, _ = engine.step(state, ReadDone(world(UPLINKS), ActualState()), 0.0)
    for now, words in enumerate(happened, start=1):
        event = event_of(state, *words)
        after, effects = engine.step(state, event, float(now))
        forget()
        again, same = engine.step(state, event, float(now))
        assert (after.decision, effects) == (again.decision, same)
        # Its parts go on to be those that were remembered.
        engine.step(state, event, float(now))
        state = after


networks = st.builds(
    lambda bits, length: IPv6Network((bits << 104, length), strict=False), st.integers(0, 2**12 - 1), st.integers(7, 28)
)


@given(st.frozensets(networks, max_size=12))
def test_specific_networks_are_merged_as_ipaddress_would(found: frozenset[IPv6Network]) -> None:
    known = tuple(Destination(prefix=network, link="wan1") for network in found)
    observed = Observed(links={}, tables={TABLE_MAIN: known})
    assert list(specific_networks(observed, ["wan1"], Family.V6)) == list(collapse_addresses(found))
