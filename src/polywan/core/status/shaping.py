"""What the status document tells of an uplink's queues."""

from __future__ import annotations

from collections.abc import Iterator

from polywan.api.status import ShapingStatus
from polywan.core.resolved import Resolved
from polywan.core.shaping.shapers import ifb_of, obstacle, shaped
from polywan.core.shaping.trees import Direction, rate_of
from polywan.core.state.state import State
from polywan.core.world.queues import DeviceQueues, Queues

_NOT_SEEN = DeviceQueues(index=0)


def shaping(state: State, config: Resolved, name: str) -> Iterator[ShapingStatus]:
    """Yield one entry for each direction of an uplink that is to be shaped, as the last read found it."""
    wanted, actual, desired = shaped(config).get(name), state.known.actual, state.decision.desired
    if wanted is None or wanted[0].bandwidth is None:
        return
    uplink, settings = wanted
    queues = (actual.queues if actual is not None else None) or Queues()
    trees = desired.shapers.trees if desired is not None else {}
    bandwidths = {Direction.DOWN: wanted[0].bandwidth.down, Direction.UP: wanted[0].bandwidth.up}
    for direction, bandwidth in bandwidths.items():
        ifb = ifb_of(config, name)
        device = uplink.interface if direction is Direction.UP else ifb
        known = queues.devices.get(device, _NOT_SEEN)
        leads = direction is Direction.UP or (
            ifb in queues.ifbs and queues.devices.get(uplink.interface, _NOT_SEEN).redirect == ifb
        )
        active = device in trees and known.tree == frozenset(trees[device]) and leads
        reason = obstacle(uplink, settings, queues, direction, ifb)
        if not active and not reason:
            reason = "the queue is not there yet" if uplink.interface in queues.devices else "there is no such device"
        yield ShapingStatus(
            direction=direction.value,
            algorithm=settings.algorithm,
            device=device,
            rate_bps=rate_of(settings, bandwidth),
            active=active,
            reason="" if active else reason,
            sent_bytes=known.counters.sent,
            dropped=known.counters.drops,
            backlog_bytes=known.counters.backlog,
        )
