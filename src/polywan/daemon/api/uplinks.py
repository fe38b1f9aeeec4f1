"""What `polywan uplink` asks the daemon for: take an uplink out of use, take it back, and test it."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import Final, Literal

from pydantic_core import PydanticCustomError

from polywan.api.requests import DrainUplink, OfUplink
from polywan.api.uplinks import UplinkChanged, UplinkReport
from polywan.config.faults import shown
from polywan.config.kinds.scalars import Duration
from polywan.core.errors import ControlError
from polywan.core.health.layers import LayerVerdict
from polywan.core.policy.operator import DEADLINE, Verb
from polywan.core.policy.uplink_state import UplinkState, UplinkView
from polywan.core.state.events import OperatorCommand, TestRequested
from polywan.core.status.document import forced
from polywan.core.status.layer_report import report, tested
from polywan.daemon.api.unknown import demand_uplink
from polywan.daemon.loop import Daemon

_LONGEST: Final = 86400.0
_PATIENCE: Final = 30.0
"""Seconds that a test waits for results; a check takes ten at most."""

_POLL: Final = 0.02

OUT_OF_USE: Final = (UplinkState.DISABLED, UplinkState.DRAINING, UplinkState.DRAINED)


class Uplinks:
    """The verbs, over a running loop."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon

    async def disable(self, asked: OfUplink) -> UplinkChanged:
        """Give an uplink no new connections and do not probe it, and keep that; errors as `order`."""
        return await self.order(asked.name, Verb.DISABLE)

    async def drain(self, asked: DrainUplink) -> UplinkChanged:
        """Empty an uplink until a deadline, and keep that; errors as `order`."""
        return await self.order(asked.name, Verb.DRAIN, asked.deadline)

    async def enable(self, asked: OfUplink) -> UplinkChanged:
        """Take an uplink back into use; errors as `order`."""
        return await self.order(asked.name, Verb.ENABLE)

    async def order(self, name: str, verb: Verb, deadline: str | None = None) -> UplinkChanged:
        """Disable, drain or enable an uplink; answer once that is in force and written down.

        Args:
            name: an uplink.
            verb: what to do.
            deadline: what `drain` gives connections, as "10m"; None for the default.

        Raises:
            ControlError: no such uplink (404), or no such deadline (400).
        """
        self._check(name)
        before = set(forced(self._daemon.state))
        await self._daemon.settle(OperatorCommand(name, verb, seconds_of(deadline)))
        state = self._daemon.state
        warnings = [text for text in forced(state) if text not in before]
        if (
            state.known.config is not None
            and name in state.known.config.uplinks
            and not state.known.config.uplinks[name].enabled
        ):
            warnings.append(f"{name} has enabled = false in the configuration, which takes precedence")
        if self._daemon.unsaved:
            warnings.append(f"in force, but lost on a restart: {self._daemon.unsaved}")
        seen = self._seen(name)
        return UplinkChanged(
            uplink=name,
            state=seen.state,
            reason=seen.reason,
            warnings=tuple(warnings),
            saved=not self._daemon.unsaved,
        )

    async def test(self, asked: OfUplink) -> UplinkReport:
        """Make every probe and check of an uplink now, and tell what each layer says.

        Raises:
            ControlError: there is no such uplink (404).
        """
        name = asked.name
        self._check(name)
        loop = asyncio.get_running_loop()
        began = loop.time()
        self._daemon.post(TestRequested(name))
        complete = False
        while not complete and loop.time() < began + _PATIENCE:
            await asyncio.sleep(_POLL)
            self._check(name)
            complete = tested(self._daemon.state, name, began)
        seen, layers = self._seen(name), report(self._daemon.state, name)
        return UplinkReport(
            uplink=name,
            state=seen.state,
            reason=seen.reason,
            verdict=_verdict(seen.state, [layer.verdict for layer in layers]),
            complete=complete,
            layers=tuple(layers),
        )

    def _check(self, name: str) -> None:
        demand_uplink(self._daemon.state, name)

    def _seen(self, name: str) -> UplinkView:
        seen = self._daemon.state.decision.views.get(name)
        if seen is None:
            raise ControlError(f"there is no uplink {shown(name)} any more", 404)
        return seen


def seconds_of(deadline: str | None) -> float:
    """Return the seconds that `drain` gives connections.

    Raises:
        ControlError: there is no such deadline (400).
    """
    if deadline is None:
        return DEADLINE
    try:
        # A plain number is seconds, as in the file, where it stands without quotes.
        plain = deadline.isascii() and deadline.isdigit()
        return float(Duration(0, _LONGEST).parse(float(deadline) if plain else deadline))
    except PydanticCustomError as error:
        context = error.context or {}
        raise ControlError(f"deadline: {context['message']}", 400) from error


def _verdict(state: str, layers: Collection[str]) -> Literal["ok", "degraded", "down"]:
    """Sum up a test: what people have taken out of use is judged by its layers alone."""
    broken = LayerVerdict.BROKEN in layers
    if state in OUT_OF_USE:
        return "ok" if not broken else "degraded" if LayerVerdict.OK in layers else "down"
    if state == UplinkState.UP:
        return "degraded" if broken else "ok"
    return "degraded" if state == UplinkState.DEGRADED else "down"
