"""The routers of a link: remembered while they can be seen, forgotten once they withdraw, and one of several in use."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import inf
from typing import Final

from polywan.core.evolve import replace
from polywan.core.health import rounds as hl
from polywan.core.health.layers import Layer, LayerVerdict
from polywan.core.health.rounds import Health
from polywan.core.net import FAMILIES, Family, IPAddress, family_of
from polywan.core.resolved import Resolved
from polywan.core.state.effects import Effect, Level, Log, SaveMemory
from polywan.core.state.state import RouterFailover, State
from polywan.core.world.observed import Observed
from polywan.core.world.paths import NoPath, Path, Reach, UplinkFamily, routers_of, seen_gateway

NEXT: Final = 3.0
"""Seconds that a router has to answer before the next one gets its turn."""

ROUND: Final = 10.0
"""The same where it answers, and nothing beyond it does."""


def learn(state: State, before: Observed | None) -> tuple[State, tuple[Effect, ...]]:
    """Remember gateways after a read: the kernel forgets static ones when a link goes down.

    A router whose advertised route is gone while its link is as it was has withdrawn itself, or its time is over
    (RFC 4861, 6.3.4): what was remembered of it goes, too.

    Args:
        state: with the world as it was read.
        before: the world until then.
    """
    config, observed = state.known.config, state.known.observed
    if config is None or observed is None:
        return state, ()
    gone = dict(_withdrawn(config, before, observed)) if before is not None else {}
    kept = {key: via for key, via in state.known.memory.gateways.items() if key not in gone}
    gateways = {**kept, **dict(_seen(config, observed))}
    if gateways == state.known.memory.gateways:
        return state, ()
    memory = replace(state.known.memory, gateways=gateways)
    return replace(state, known=replace(state.known, memory=memory)), (SaveMemory(memory), *_notes(config, gone))


def _seen(config: Resolved, observed: Observed) -> Iterator[tuple[UplinkFamily, IPAddress]]:
    for name, uplink in config.uplinks.items():
        if (link := observed.links.get(uplink.interface)) is not None and name not in config.sharing:
            for family in FAMILIES:
                if (via := seen_gateway(link, family, observed)) is not None:
                    yield (name, family), via


def _withdrawn(config: Resolved, before: Observed, after: Observed) -> Iterator[tuple[UplinkFamily, IPAddress]]:
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


def _notes(config: Resolved, gone: dict[UplinkFamily, IPAddress]) -> Iterator[Log]:
    for (name, family), via in gone.items():
        device = config.uplinks[name].interface
        text = f"{name} (IPv{family}): router {via} on {device} has withdrawn itself and is no longer used"
        yield Log(Level.WARNING, "gateway.withdrawn", text)


def turn(state: State, observed: Observed, now: float) -> tuple[State, tuple[Log, ...]]:
    """Give the next router of a link its turn where the one in use fails; it stays until it fails itself."""
    config = state.known.config
    if config is None or not state.ready:
        return state, ()
    failovers = {key: t for key, t in state.health.failovers.items() if t.via in _choices(config, observed, key)}
    known, health, notes = dict(state.health.checks.known), dict(state.health.rounds), []
    for key in state.health.rounds:
        if (following := _following(state, key, observed, now)) is None:
            continue
        path = state.decision.reach[key]
        assert isinstance(path, Path)  # noqa: S101 - only a path has a router that another one can follow
        failovers[key] = RouterFailover(following, now)
        # What went to the old router, and came to nothing, says nothing about the new one.
        health[key] = hl.resume(state.health.rounds[key])
        known[key] = {layer: seen for layer, seen in known.get(key, {}).items() if layer is not Layer.GATEWAY}
        text = f"{key[0]} (IPv{key[1]}): router {path.via} fails: trying {following}, the next one on {path.link}"
        notes.append(Log(Level.WARNING, "gateway.next", text))
    if failovers == state.health.failovers:
        return state, ()
    checks = replace(state.health.checks, known=known)
    return replace(state, health=replace(state.health, failovers=failovers, rounds=health, checks=checks)), tuple(notes)


def due(state: State, key: UplinkFamily, now: float) -> bool:
    """True when a decision would give another router its turn."""
    return state.known.observed is not None and _following(state, key, state.known.observed, now) is not None


def _following(state: State, key: UplinkFamily, observed: Observed, now: float) -> IPAddress | None:
    """Return the router after the one in use, where that fails and there is another."""
    path = state.decision.reach.get(key)
    if state.known.config is None or not isinstance(path, Path) or path.via is None or not _fails(state, key, now):
        return None
    choices = _choices(state.known.config, observed, key)
    if len(choices) < 2 or path.via not in choices:
        return None
    return choices[(choices.index(path.via) + 1) % len(choices)]


def _fails(state: State, key: UplinkFamily, now: float) -> bool:
    """True when an uplink's router does not answer, or nothing beyond it has for a while, and rounds fail."""
    probes = state.health.rounds.get(key)
    if probes is None or not probes.bad:
        return False
    since = state.health.failovers[key].at if key in state.health.failovers else -inf
    asked = state.health.checks.known.get(key, {}).get(Layer.GATEWAY)
    silent = asked is not None and asked.verdict is LayerVerdict.BROKEN and asked.checked > since
    return (silent and now - since >= NEXT) or (probes.health is Health.DOWN and now - since >= ROUND)


def applied(reachable: dict[UplinkFamily, Reach], state: State, observed: Observed) -> dict[UplinkFamily, Reach]:
    """Put the routers whose turn it is into the ways."""
    for key, one in state.health.failovers.items() if state.known.config is not None else ():
        path = reachable.get(key)
        if isinstance(path, Path):
            reachable[key] = _by(path, one.via, key[1], observed)
        elif isinstance(path, NoPath) and path.path is not None:
            reachable[key] = replace(path, path=_by(path.path, one.via, key[1], observed))
    return reachable


def _by(path: Path, via: IPAddress, family: Family, observed: Observed) -> Path:
    networks = (a.network for a in observed.addresses_of(path.link, family))
    return replace(path, via=via, onlink=not (via.is_link_local or any(via in network for network in networks)))


def _choices(config: Resolved, observed: Observed, key: UplinkFamily) -> tuple[IPAddress, ...]:
    name, family = key
    uplink = config.uplinks.get(name)
    link = observed.links.get(uplink.interface) if uplink is not None else None
    if uplink is None or link is None or link.point_to_point:
        return ()
    named: Mapping[Family, object] = {Family.V4: uplink.gateway, Family.V6: uplink.gateway6}
    return routers_of(link, family, observed) if named[family] == "auto" else ()
