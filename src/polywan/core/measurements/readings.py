"""How an uplink is at a moment, as the engine knows it."""

from __future__ import annotations

from polywan.core.measurements.points import Reading
from polywan.core.policy.uplink_state import SERVING
from polywan.core.state.state import State
from polywan.core.status.document import line_quality


def reading_of(state: State, name: str, connections: int | None) -> Reading:
    """Return the reading of an uplink that was evaluated; of one that does not serve there is no round trip."""
    seen = state.decision.views[name]
    rtt, jitter, loss = line_quality(state, name)
    if seen.state not in SERVING:
        rtt = jitter = None
    return Reading(state=seen.state, rtt=rtt, jitter=jitter, loss=loss, connections=connections)
