"""Uplinks that have lost an address and go on with another one, or with the same: what vanished with it is let go of.

The kernel forgets what was masqueraded to an address as soon as that goes, so a client that only reads would wait for
ever. Such connections are put back for a moment (kernel/conntrack/forgotten.py) with the reserved mark; while that is
dead, they meet the reset of `reject_dead` like those of a dead uplink.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from polywan.config import Config
from polywan.core.policy.numbering import layout_of
from polywan.core.state.retired_marks import Retired
from polywan.core.state.state import State, Sweep
from polywan.core.world.paths import Path, Reach, UplinkFamily

LOOKS: Final = (0.0, 0.05, 1.0)
"""Seconds after the decision at which vanished connections are put back: the kernel forgets them a little later than
it tells of the address."""

DEAD: Final = 5.0
"""Seconds for which the reserved mark stays dead: until what the last look put back has expired."""


def lost(
    state: State, config: Config, reachable: Mapping[UplinkFamily, Reach], *, after_read: bool
) -> list[UplinkFamily]:
    """Return the uplinks that have lost an address since the last decision, and still have a way out.

    An address that came back before it was missed shows in the notifications alone.
    """
    return [
        key
        for key, path in reachable.items()
        if isinstance(path, Path) and config.uplinks[key[0]].nat == "masquerade"
        if isinstance(before := state.reach.get(key), Path)
        if set(before.addresses) - set(path.addresses) or (after_read and (path.link, key[1]) in state.lost)
    ]


def retired(known: Retired, lost: list[UplinkFamily], config: Config, now: float) -> Retired:
    """Return the marks that are dead beside those of uplinks: with an address lost, the reserved one."""
    return {**known, layout_of(config).reserved: now + DEAD} if lost else known


def sweeps(state: State, lost: list[UplinkFamily], now: float) -> tuple[Sweep, ...]:
    """Return when to put back and let go of what vanished with those addresses."""
    return tuple(
        Sweep(now + wait, name, state.numbers[name].mark, family, vanished=True)
        for name, family in lost
        for wait in LOOKS
    )
