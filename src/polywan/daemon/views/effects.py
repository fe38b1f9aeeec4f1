"""Answer what an order to an uplink would do, before it is given."""

from __future__ import annotations

import asyncio

from polywan.api.requests import OfOrder
from polywan.api.views.effects import OrderEffect
from polywan.config.faults import shown
from polywan.core.errors import ControlError
from polywan.core.views.effects import ORDER_WORDS, effect
from polywan.daemon.api.flows import Tracking
from polywan.daemon.api.unknown import demand_uplink
from polywan.daemon.api.uplinks import seconds_of
from polywan.daemon.loop import Daemon


class Effects:
    """Rehearses orders.

    Args:
        daemon: the loop.
        tracking: counts connections.
    """

    def __init__(self, daemon: Daemon, tracking: Tracking) -> None:
        self._daemon = daemon
        self._tracking = tracking

    async def effect(self, asked: OfOrder) -> OrderEffect:
        """Return what an order would do now, and do nothing.

        Raises:
            ControlError: no such uplink (404), order or deadline (400).
            KernelError: connections cannot be counted.
        """
        demand_uplink(self._daemon.state, asked.name)
        word = next((word for word in ORDER_WORDS if word == asked.order), None)
        if word is None:
            got = "nothing" if asked.order is None else shown(asked.order)
            raise ControlError(f"order: expected one of {', '.join(ORDER_WORDS)}, got {got}", 400)
        deadline = seconds_of(asked.deadline)
        flows = await self._tracking.of_uplink(asked.name)
        # A reload may have come meanwhile.
        demand_uplink(self._daemon.state, asked.name)
        now = asyncio.get_running_loop().time()
        return effect(self._daemon.state, asked.name, word, flows, now, deadline)
