"""Small worlds for tests: N uplinks as values, in the lab's address plan."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_address, ip_interface
from typing import Any

from polywan.config import Config
from polywan.core.engine import step as engine
from polywan.core.net import FAMILIES, Family
from polywan.core.plan.plan import ActualState
from polywan.core.state.effects import Apply, Effect, SampleTraffic
from polywan.core.state.events import ConfigLoaded, LinkChanged, ReadDone, Tick
from polywan.core.state.state import State
from polywan.core.world.observed import Address, DefaultRoute, Link, Observed
from polywan.sim.internet import Internet

MASK = 0x3F00


def link(number: int, *, up: bool = True, carrier: bool = True, point_to_point: bool = False) -> Link:
    """Return the device of uplink `number`."""
    return Link(index=number + 10, name=f"wan{number}", up=up, carrier=up and carrier, point_to_point=point_to_point)


def world(count: int, families: Iterable[Family] = FAMILIES) -> Observed:
    """Return `count` uplinks, wan1 …, each with its address and a default route in main."""
    links = {f"wan{n}": link(n) for n in range(1, count + 1)}
    addresses: list[Address] = []
    defaults: list[DefaultRoute] = []
    for n in range(1, count + 1):
        for family in families:
            own, via = _addresses(n, family)
            addresses.append(Address(f"wan{n}", ip_interface(own)))
            defaults.append(DefaultRoute(family=family, link=f"wan{n}", via=ip_address(via), metric=100 + n))
    return Observed(links=links, addresses=tuple(addresses), defaults=tuple(defaults))


def _addresses(number: int, family: Family) -> tuple[str, str]:
    if family is Family.V4:
        return f"100.64.{number}.2/24", f"100.64.{number}.1"
    return f"2001:db8:64:{number:x}::2/64", f"2001:db8:64:{number:x}::1"


def config(count: int, weights: Iterable[int] = (), **more: Any) -> Config:
    """Return a configuration of uplinks u1 … on wan1 …; `more` are further tables of the file.

    Its marks are under `MASK`: 0x100 is the first uplink's.
    """
    value = dict(enumerate(weights, start=1))
    uplinks = {
        f"u{n}": {"interface": f"wan{n}", **({"weight": value[n]} if n in value else {})} for n in range(1, count + 1)
    }
    settings = {"mark_mask": MASK, **more.pop("global", {})}
    return Config.model_validate({"uplinks": uplinks, "global": settings, **more})


class Engine:
    """The engine, one event at a time, and nothing that carries out its effects: they are what a test looks at.

    What it writes counts as done, as the engine itself assumes, and looks at connections are answered at once. Tests of
    what happens over time use `polywan.sim`.
    """

    def __init__(
        self, config: Config, observed: Observed, actual: ActualState | None = None, state: State | None = None
    ) -> None:
        self.now = 0.0
        self.state = state or State()
        self.effects: list[Effect] = []
        self.internet = Internet()
        self.feed(ConfigLoaded(config))
        self.feed(ReadDone(observed, actual or ActualState()))

    def feed(self, event: Any) -> list[Effect]:
        """Give the engine one event, and the tick that follows when timers are due; return the effects."""
        self.state, first = engine.step(self.state, event, self.now)
        self.state, second = engine.step(self.state, Tick(), self.now)
        effects = [*first, *second]
        for effect in first + second:
            if isinstance(effect, SampleTraffic):
                _, sampled = self.internet.sample(effect, self.now)
                self.state, more = engine.step(self.state, sampled, self.now)
                effects += more
        self.effects += effects
        return effects

    def carrier(self, number: int, *, carrier: bool) -> list[Effect]:
        """Take or give an uplink's carrier."""
        return self.feed(LinkChanged(link(number, carrier=carrier)))

    def plans(self, effects: Iterable[Effect] | None = None) -> list[Apply]:
        """Return the plans among the effects, of all so far when none are given."""
        return [e for e in (self.effects if effects is None else effects) if isinstance(e, Apply)]
