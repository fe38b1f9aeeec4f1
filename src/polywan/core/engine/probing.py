"""When each layer is checked, with what, and what a result changes.

The gateway layer explains why rounds fail: it is asked when they become suspect or bad, each interval while that
lasts or the uplink is down, and seldom otherwise. The layers of `health.checks` are asked each `check_interval`
while the rounds say that the network works, and while the layer is broken.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from ipaddress import ip_address
from math import inf
from typing import Final, assert_never
from urllib.parse import urlsplit

from polywan.config import HealthSettings
from polywan.core.engine import standby_probing
from polywan.core.evolve import replace
from polywan.core.health.diagnosis import findings
from polywan.core.health.layers import (
    CheckOrder,
    CheckResult,
    Findings,
    Layer,
    LayerState,
    LayerVerdict,
    answered,
    ordered,
    updated,
)
from polywan.core.health.life import LISTEN
from polywan.core.health.rounds import Health, ProbeState
from polywan.core.net import Family, IPAddress
from polywan.core.state import probe_costs
from polywan.core.state.effects import Effect, Level, Log, StartCheck
from polywan.core.state.state import State
from polywan.core.world.paths import Path, UplinkFamily

SELDOM: Final = 30.0
"""Seconds between two looks at a gateway while all is well: an ARP request, inside the link only."""

SELDOM_METERED: Final = 300.0
"""The same where volume costs money: some providers count what never leaves their own network."""

REGRADE: Final = 0.25
"""Seconds from one decision to the next that is about quality alone: what many lines show at once is decided once."""

BUSY_PACE: Final = 5
"""Intervals between two looks at the gateway of a line that is full: its rounds fail, and it is known why."""

FIRST_CHECK_PARTS: Final = 8
"""Parts of the first second over which first checks are spread, so that many uplinks do not ask in one burst."""

_TIMEOUTS: Final = {Layer.GATEWAY: 1, Layer.DNS: 2, Layer.HTTP: 4, Layer.LARGE: 2, Layer.SCRIPT: 10}
"""Time for a check, in `timeout`s: a second server for DNS; name, handshake and page for HTTP; a script probes too."""

_ETHERNET: Final = 1500
"""Largest packet that anybody expects on the Internet (RFC 894)."""


def start_checks(state: State, now: float) -> tuple[State, tuple[Effect, ...]]:
    """Order every check that is due."""
    checks = state.health.checks
    orders: list[Effect] = []
    known: dict[UplinkFamily, Mapping[Layer, LayerState]] = {}
    ends: list[float] = []
    for key, probes in state.health.rounds.items():
        known[key] = mine = dict(checks.known.get(key, {}))
        for layer in _layers(state, key):
            state_of = mine.get(layer) or LayerState(next=now + _turn(state, key))
            at = _due(state, key, layer, state_of)
            if at <= now:
                state_of = ordered(state_of, now, troubled=troubled(probes))
                orders.append(StartCheck(_order(state, key, layer, state_of.number)))
                at = _due(state, key, layer, state_of)
            mine[layer] = state_of
            ends.append(at)
    return replace(
        state,
        health=replace(state.health, checks=replace(checks, known=known, wake=min(ends, default=inf), looked=now)),
    ), tuple(orders)


def take_check(state: State, event: CheckResult, now: float) -> tuple[State, tuple[Effect, ...], bool]:
    """Fold in a result; the last value says whether a new decision is needed."""
    key = (event.uplink, event.family)
    state = probe_costs.spend(state, event.uplink, event.sent, event.received, now)
    checks = state.health.checks
    known = checks.known.get(key, {}).get(event.layer)
    probes = state.health.rounds.get(key)
    if known is None or probes is None or event.number != known.number or not known.pending:
        return state, (), False
    if event.layer is not Layer.GATEWAY and not event.ok and troubled(probes):
        # The network below fails already: that says nothing about this layer.
        after = answered(known, ok=False, detail=event.detail, rtt=None)
    else:
        after = updated(known, event.layer, ok=event.ok, detail=event.detail, rtt=event.rtt, now=now)
    mine = {**checks.known.get(key, {}), event.layer: after}
    before = _found(state, {key: checks.known[key]})
    found_now = _found(state, {key: mine})
    checks = replace(checks, known={**checks.known, key: mine}, wake=min(checks.wake, after.next))
    return (
        replace(state, health=replace(state.health, checks=checks)),
        tuple(_notes(key, before, found_now)),
        found_now != before,
    )


def found(state: State) -> Findings:
    """Return what the layers say now."""
    return _found(state, state.health.checks.known)


def _found(state: State, known: Mapping[UplinkFamily, Mapping[Layer, LayerState]]) -> Findings:
    return findings(state.known.probing, state.decision.reach, state.health.rounds, known, state.health.bad_targets)


def probe_by(state: State, at: float) -> State:
    """Have uplinks looked at for a round that is due, at that time at the latest."""
    return replace(state, agenda=replace(state.agenda, wake=min(state.agenda.wake, at)))


def stir(state: State, now: float) -> State:
    """Have the checks looked at again at once: rounds have become suspect, bad or good."""
    return replace(
        state,
        health=replace(state.health, checks=replace(state.health.checks, wake=min(state.health.checks.wake, now))),
    )


def regrade(state: State, now: float) -> State:
    """Have a decision made about a changed quality: at once, unless the last one was made just before."""
    at = max(now, state.agenda.decided_at + REGRADE)
    return replace(state, agenda=replace(state.agenda, regrade_at=min(at, state.agenda.regrade_at)))


def resume(state: State) -> State:
    """Nobody was there for a while: the checks that were under way count for nothing."""
    known = {
        key: {layer: replace(one, pending=False) for layer, one in layers.items()}
        for key, layers in state.health.checks.known.items()
    }
    return replace(state, health=replace(state.health, checks=replace(state.health.checks, known=known)))


def ask(state: State, uplink: str, now: float) -> State:
    """Make every check and a round of an uplink due now."""
    keys = [key for key in state.health.rounds if key[0] == uplink and isinstance(state.decision.reach.get(key), Path)]
    health = {**state.health.rounds, **{key: replace(state.health.rounds[key], next=now) for key in keys}}
    known = dict(state.health.checks.known)
    for key in keys:
        mine = known.get(key, {})
        # A check under way began before the question: its result is not waited for.
        again = {
            layer: replace(mine.get(layer, LayerState()), next=-inf, pending=False) for layer in _layers(state, key)
        }
        known[key] = {**mine, **again}
    asked = {**state.health.checks.asked, **{key: state.health.rounds[key].number + 1 for key in keys}}
    checks = replace(state.health.checks, known=known, wake=now, asked=asked)
    return probe_by(replace(state, health=replace(state.health, rounds=health, checks=checks)), now)


def troubled(probes: ProbeState) -> bool:
    """True while rounds fail, or one is undecided for so long that the next was sent early."""
    if probes.health is Health.DOWN or probes.bad > 0:
        return True
    if len(probes.open) < 2:
        return False
    # On a long way rounds overlap at their usual pace, too.
    before, last = probes.open[-2:]
    return last.sent - before.sent < 0.9 * (probes.next - last.sent)


def _turn(state: State, key: UplinkFamily) -> float:
    return (2 * state.known.numbers[key[0]].id + (key[1] is Family.V6)) % FIRST_CHECK_PARTS / FIRST_CHECK_PARTS


def _due(state: State, key: UplinkFamily, layer: Layer, known: LayerState) -> float:
    settings, probes = state.known.probing[key[0]], state.health.rounds[key]
    if known.next == -inf:
        return known.next
    if known.sent is None:
        return inf if layer is not Layer.GATEWAY and probes.health is Health.DOWN else known.next
    if known.pending:
        # A result that never comes must not stop the checks.
        longest = _patience(settings, probes) if layer is Layer.GATEWAY else _timeout(settings, layer)
        return known.sent + 2 * longest + 1
    return min(known.next, known.sent + _pace(state, key, layer, known))


def _pace(state: State, key: UplinkFamily, layer: Layer, known: LayerState) -> float:
    """Seconds between two checks, as things stand."""
    settings, probes = state.known.probing[key[0]], state.health.rounds[key]
    if layer is Layer.GATEWAY:
        if troubled(probes):
            alive = probes.health is Health.UP and probes.quality.busy
            return settings.interval * (BUSY_PACE if alive else 1) if known.troubled else 0.0
        if known.verdict is LayerVerdict.BROKEN:
            return settings.interval
        if standby_probing.seldom_asked(state, key):
            return standby_probing.SPARE_CHECK_PACE
        metered = state.known.config is not None and state.known.config.uplinks[key[0]].metered
        return SELDOM_METERED if metered else SELDOM
    if known.verdict is LayerVerdict.BROKEN:
        return settings.check_interval
    if probes.health is Health.DOWN:
        return inf
    return standby_probing.SPARE_CHECK_PACE if standby_probing.seldom_checked(state, key) else settings.check_interval


def _timeout(settings: HealthSettings, layer: Layer) -> float:
    return settings.timeout * _TIMEOUTS[layer]


def _patience(settings: HealthSettings, probes: ProbeState) -> float:
    """Seconds for the gateway's answer: the question waits in this box's own queue as long as probes do."""
    return min(_timeout(settings, Layer.GATEWAY) + (probes.quality.queue or 0.0), LISTEN)


def _layers(state: State, key: UplinkFamily) -> Iterator[Layer]:
    """Yield each layer that can be checked on this uplink in this family."""
    path = state.decision.reach.get(key)
    if not isinstance(path, Path):
        return
    settings, family = state.known.probing[key[0]], key[1]
    if path.via is not None:
        yield Layer.GATEWAY
    if "dns" in settings.checks and _servers(settings, family):
        yield Layer.DNS
    if "http" in settings.checks and settings.http_url and _reachable(settings, family):
        yield Layer.HTTP
    if "large" in settings.checks and _of(settings.targets, family):
        yield Layer.LARGE
    if "script" in settings.checks and settings.script:
        yield Layer.SCRIPT


def _order(state: State, key: UplinkFamily, layer: Layer, number: int) -> CheckOrder:
    """Return the order for one check of a layer that `_layers` named."""
    name, family = key
    settings, path = state.known.probing[name], state.decision.reach[key]
    assert isinstance(path, Path)  # noqa: S101 - only what has a path is checked
    order = CheckOrder(
        uplink=name,
        family=family,
        layer=layer,
        interface=path.link,
        mark=state.known.numbers[name].mark,
        number=number,
        timeout=_timeout(settings, layer),
    )
    match layer:
        case Layer.GATEWAY:
            return replace(order, gateway=path.via, timeout=_patience(settings, state.health.rounds[key]))
        case Layer.DNS:
            return replace(order, servers=_servers(settings, family), name=settings.dns_name)
        case Layer.HTTP:
            order = replace(order, url=settings.http_url or "", status=settings.http_status)
            return replace(order, servers=_servers(settings, family))
        case Layer.LARGE:
            link = state.known.observed.links.get(path.link) if state.known.observed else None
            size = min(_ETHERNET, link.mtu if link else _ETHERNET)
            return replace(order, servers=_of(settings.targets, family), size=size)
        case Layer.SCRIPT:
            return replace(order, command=settings.script or ())
        case _:
            assert_never(layer)


def _servers(settings: HealthSettings, family: Family) -> tuple[IPAddress, ...]:
    return _of(settings.targets if settings.dns_servers is None else settings.dns_servers, family)


def _of(addresses: Iterable[IPAddress], family: Family) -> tuple[IPAddress, ...]:
    return tuple(a for a in addresses if a.version == family)


def _reachable(settings: HealthSettings, family: Family) -> bool:
    """Tell whether the page can be looked for in this family: by its address, or by a name and somebody to ask."""
    try:
        host = urlsplit(settings.http_url).hostname or ""
    except ValueError:
        return False
    try:
        return ip_address(host).version == family
    except ValueError:
        return bool(_servers(settings, family))


def _notes(key: UplinkFamily, before: Findings, after: Findings) -> Iterator[Log]:
    """Tell where the rounds fail when that is found out later than that they do."""
    text = after.reasons.get(key)
    if text is not None and text.split(":")[0] != before.reasons.get(key, "").split(":")[0]:
        yield Log(Level.INFO, "uplink.layer", f"{key[0]} (IPv{key[1]}): {text}")
