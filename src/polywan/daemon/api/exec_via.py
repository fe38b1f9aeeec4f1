"""What `polywan exec` asks the daemon for: look at an uplink's control group, and say when the kernel asks for it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from polywan.api.uplinks import ViaGroup
from polywan.config.faults import shown
from polywan.core.errors import ControlError
from polywan.core.net import FAMILIES
from polywan.core.ruleset.exec_via import in_force, serves
from polywan.core.state.state import State
from polywan.core.world.lookups import via_group
from polywan.daemon.api.unknown import demand_uplink
from polywan.daemon.loop import Daemon
from polywan.kernel import cgroups


async def look(daemon: Daemon, refresh: Callable[[], Awaitable[object]], name: str) -> ViaGroup:
    """Look at the group of an uplink, and answer when the kernel was read back after that.

    Args:
        daemon: the loop.
        refresh: looks at every group, and returns when what it found is in force.
        name: an uplink.

    Raises:
        ControlError: no such uplink (404).
        MissingFeature: this machine, or this process, has no control groups that nftables could ask for.
    """
    demand_uplink(daemon.state, name)
    await asyncio.to_thread(cgroups.require)
    directory = cgroups.hierarchy().root / via_group(name)
    await refresh()
    return _document(daemon.state, name, str(directory))


def _document(state: State, name: str, directory: str) -> ViaGroup:
    group = state.known.lookups.cgroups.get(via_group(name))
    read = state.known.actual.nft if state.known.actual else None
    config, selection, desired = state.known.config, state.decision.selection, state.decision.desired
    if config is None or selection is None or desired is None or name not in state.decision.views:
        raise ControlError(f"there is no uplink {shown(name)} any more", 404)
    seen = state.decision.views[name]
    # Between reads the kernel is assumed to hold what was applied, also where it refused.
    last = state.done.retries.applied
    refused = last is not None and last.table_refused
    return ViaGroup(
        directory=directory,
        uplink=name,
        state=seen.state,
        reason=seen.reason,
        families=tuple(f.nfproto for f in FAMILIES if serves(config, name, f, state.decision.reach, selection)),
        group=group.inode if group else None,
        in_force=group is not None and read is not None and not refused and in_force(desired.nft, read),
    )
