"""The world as a decision sees it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from polywan.core.world.observed import Observed
from polywan.core.world.paths import Reach, UplinkFamily
from polywan.core.world.queues import Queues


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """What is there, and how uplinks can be used in it.

    Attributes:
        observed: devices, addresses, routes and rules.
        reach: how each uplink can be used.
        sysctls: values of settings, by path.
        retired: marks that are not given out any more; connections that still carry one have nowhere to go.
        queues: queueing disciplines; None when nobody has looked.
    """

    observed: Observed
    reach: Mapping[UplinkFamily, Reach]
    sysctls: Mapping[str, str]
    retired: frozenset[int] = frozenset()
    queues: Queues | None = None
