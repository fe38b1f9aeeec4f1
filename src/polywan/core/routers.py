"""Remember routers while they can be seen, and forget those that say themselves that they are none any more."""

from __future__ import annotations

from collections.abc import Iterator

from polywan.config import Config
from polywan.core.effects import Effect, Level, Note, Remember
from polywan.core.evolve import replace
from polywan.core.net import FAMILIES, Family, IPAddress, family_of
from polywan.core.observed import Observed
from polywan.core.reach import UplinkFamily, seen_gateway
from polywan.core.state import State


def learn(state: State, before: Observed | None) -> tuple[State, tuple[Effect, ...]]:
    """Remember gateways after a read: the kernel forgets static ones when a link goes down.

    A router whose advertised route is gone while its link is as it was has withdrawn itself, or its time is over
    (RFC 4861, 6.3.4): what was remembered of it goes, too.

    Args:
        state: with the world as it was read.
        before: the world until then.
    """
    config, observed = state.config, state.observed
    if config is None or observed is None:
        return state, ()
    gone = dict(_withdrawn(config, before, observed)) if before is not None else {}
    kept = {key: via for key, via in state.memory.gateways.items() if key not in gone}
    gateways = {**kept, **dict(_seen(config, observed))}
    if gateways == state.memory.gateways:
        return state, ()
    memory = replace(state.memory, gateways=gateways)
    return replace(state, memory=memory), (Remember(memory), *_notes(config, gone))


def _seen(config: Config, observed: Observed) -> Iterator[tuple[UplinkFamily, IPAddress]]:
    for name, uplink in config.uplinks.items():
        if (link := observed.links.get(uplink.interface)) is not None:
            for family in FAMILIES:
                if (via := seen_gateway(link, family, observed)) is not None:
                    yield (name, family), via


def _withdrawn(config: Config, before: Observed, after: Observed) -> Iterator[tuple[UplinkFamily, IPAddress]]:
    for name, uplink in config.uplinks.items():
        link, now = before.links.get(uplink.interface), after.links.get(uplink.interface)
        if link is None or now is None or link.index != now.index or not (link.usable and now.usable):
            continue
        if after.defaults_of(link.name, Family.V6) or not _keeps_an_address(link.name, before, after):
            continue
        for route in before.defaults_of(link.name, Family.V6):
            if route.advertised and route.via is not None:
                yield (name, Family.V6), route.via
                break


def _keeps_an_address(link: str, before: Observed, after: Observed) -> bool:
    """False where the link itself went away in between: with it go its addresses."""
    then = {a.ip for a in before.addresses if a.link == link and family_of(a.ip) is Family.V6}
    return not then or any(a.ip in then for a in after.addresses if a.link == link)


def _notes(config: Config, gone: dict[UplinkFamily, IPAddress]) -> Iterator[Note]:
    for (name, family), via in gone.items():
        device = config.uplinks[name].interface
        text = f"{name} (IPv{family}): the router {via} by {device} has withdrawn itself, and is not used any more"
        yield Note(Level.WARNING, "gateway.withdrawn", text)
