"""Which connections are let go, and when: those of uplinks that died, and those whose address is not theirs any more.

An uplink may lose an address and go on with another one, or with the same. The kernel forgets what was masqueraded to
an address as soon as that goes, so a client that only reads would wait for ever. Such connections are put back for a
moment (kernel/conntrack/forgotten.py) with the reserved mark; while that is dead, they meet the reset of `reject_dead`
like those of a dead uplink.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from polywan.core.net import FAMILIES, Family
from polywan.core.policy.selection import Selection
from polywan.core.resolved import Resolved
from polywan.core.state.agenda import Sweep
from polywan.core.state.effects import ForgetWrongSource, ReleaseConnections
from polywan.core.state.retired_marks import Retired
from polywan.core.state.state import State
from polywan.core.world.observed import Observed
from polywan.core.world.paths import NoPath, Path, Reach, UplinkFamily
from polywan.core.world.shared_device import own_addresses

SWEEP: Final = 1.0
"""Seconds after which connections of a dead uplink are looked for once more: those born during the switch."""

DEVICE_SWEEP: Final = 0.05
"""The same for a device that is out of order: by then the kernel has forgotten what it does with it."""

LOOKS: Final = (0.0, 0.05, 1.0)
"""Seconds after the decision at which vanished connections are put back: the kernel forgets them a little later than
it tells of the address."""

DEAD: Final = 5.0
"""Seconds for which the reserved mark stays dead: until what the last look put back has expired."""


def new_cuts(
    state: State,
    config: Resolved,
    observed: Observed,
    reachable: Mapping[UplinkFamily, Reach],
    selection: Selection,
    now: float,
) -> tuple[tuple[Sweep, ...], tuple[ReleaseConnections, ...]]:
    """Connections to let go of now, after the new path is in force, and once more a little later."""
    before = state.decision.selection or Selection({}, _dead_already(state))
    new = sorted((selection.dead - before.dead) | (selection.moved - before.moved))
    mask = config.layout.mask
    cuts = tuple(
        ReleaseConnections(
            name,
            state.known.numbers[name].mark,
            mask,
            family,
            (name, family) in selection.dead,
            inbound=_gone(reachable, name, family),
        )
        for name, family in new
    )
    sweeps = (
        Sweep(now + wait, c.uplink, c.mark, c.family, c.tcp)
        for c in cuts
        for wait in ((DEVICE_SWEEP, SWEEP) if _forgets(observed, config, c.uplink, c.family) else (SWEEP,))
    )
    return tuple(sweeps), cuts


def _gone(reachable: Mapping[UplinkFamily, Reach], name: str, family: Family) -> bool:
    return not isinstance(reachable.get((name, family)), Path)


def _forgets(observed: Observed, config: Resolved, name: str, family: Family) -> bool:
    """True where the kernel forgets what was masqueraded: a device that is gone, down, or has lost its address."""
    uplink = config.uplinks[name]
    link = observed.links.get(uplink.interface)
    return link is None or not link.up or not own_addresses(uplink, config.others(name), observed, family)


def _dead_already(state: State) -> frozenset[UplinkFamily]:
    """What the daemon before this one had let go of: the kernel's dead sets tell, when there is a table of ours."""
    nft = state.known.actual.nft if state.known.actual else None
    keys = ((name, family) for name in state.known.numbers for family in FAMILIES)
    if nft is None:
        return frozenset(keys)
    return frozenset(k for k in keys if state.known.numbers[k[0]].mark in nft.sets.get(f"dead_{k[1]}", frozenset()))


def misplaced(
    state: State, config: Resolved, observed: Observed, reachable: Mapping[UplinkFamily, Reach]
) -> Iterator[ForgetWrongSource]:
    """Uplinks whose addresses have changed: what began in between may carry one with which nothing comes back."""
    for (name, family), path in reachable.items():
        before = state.decision.reach.get((name, family))
        if before is path:
            continue
        known = before.path if isinstance(before, NoPath) else before
        if before is None or not isinstance(path, Path) or (known is not None and known.addresses == path.addresses):
            continue
        if config.uplinks[name].nat == "masquerade":
            # With no other address the kernel takes the link-local one, which leads no further than the next router.
            # Where others have the device, too, it may be one of theirs.
            alone = name not in config.sharing
            strange = (a.ip.ip for a in observed.addresses if not alone or a.link != path.link or a.ip.is_link_local)
            others = set(strange) - set(path.addresses)
            mark, mask = state.known.numbers[name].mark, config.layout.mask
            yield ForgetWrongSource(name, mark, mask, family, frozenset(map(str, others)))


def second_cuts(state: State, config: Resolved, due: Iterable[Sweep]) -> tuple[ReleaseConnections, ...]:
    """Cut once more where nothing has changed since: not what serves again, by itself or for want of any other."""
    selection = state.decision.selection
    lost = selection.dead | selection.moved if selection else frozenset()
    mask = config.layout.mask
    return tuple(
        ReleaseConnections(s.uplink, s.mark, mask, s.family, vanished=True)
        if s.vanished
        else ReleaseConnections(
            s.uplink,
            s.mark,
            mask,
            s.family,
            s.tcp,
            clients=True,
            inbound=_gone(state.decision.reach, s.uplink, s.family),
        )
        for s in due
        if s.vanished or (s.uplink, s.family) in lost or s.mark in state.decision.retired
    )


def addresses_lost(
    state: State, config: Resolved, reachable: Mapping[UplinkFamily, Reach], *, after_read: bool
) -> list[UplinkFamily]:
    """Return the uplinks that have lost an address since the last decision, and still have a way out.

    An address that came back before it was missed shows in the notifications alone.
    """
    return [
        key
        for key, path in reachable.items()
        if isinstance(path, Path) and config.uplinks[key[0]].nat == "masquerade"
        if isinstance(before := state.decision.reach.get(key), Path)
        if (before is not path and set(before.addresses) - set(path.addresses))
        or (after_read and key[0] not in config.sharing and (path.link, key[1]) in state.known.lost)
    ]


def retired_with(known: Retired, lost: list[UplinkFamily], config: Resolved, now: float) -> Retired:
    """Return the marks that are dead beside those of uplinks: with an address lost, the reserved one."""
    return {**known, config.layout.reserved: now + DEAD} if lost else known


def vanished(state: State, lost: list[UplinkFamily], now: float) -> tuple[Sweep, ...]:
    """Return when to put back and let go of what vanished with those addresses."""
    return tuple(
        Sweep(now + wait, name, state.known.numbers[name].mark, family, vanished=True)
        for name, family in lost
        for wait in LOOKS
    )
