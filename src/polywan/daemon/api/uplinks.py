"""What `polywan uplink` asks the daemon for: take an uplink out of use, take it back, and test it."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import Any, Final

from pydantic_core import PydanticCustomError

from polywan.config.faults import shown, suggest
from polywan.config.kinds.scalars import Duration
from polywan.core.errors import ControlError
from polywan.core.health.layers import LayerVerdict
from polywan.core.policy.operator import DEADLINE, Verb
from polywan.core.policy.uplink_state import UplinkState
from polywan.core.state.events import OperatorCommand, TestRequested
from polywan.core.status.document import forced
from polywan.core.status.layer_report import report, tested
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

    async def order(self, name: str, verb: Verb, deadline: str | None) -> dict[str, Any]:
        """Disable, drain or enable an uplink; answer once that is in force and written down.

        Args:
            name: an uplink.
            verb: what to do.
            deadline: what `drain` gives connections, as "10m"; None for the default.

        Returns:
            uplink, state, reason, warnings, and kept: whether a restart will know it.

        Raises:
            ControlError: no such uplink (404), or no such deadline (400).
        """
        self._check(name)
        before = set(forced(self._daemon.state))
        await self._daemon.settle(OperatorCommand(name, verb, _seconds(deadline)))
        state = self._daemon.state
        warnings = [text for text in forced(state) if text not in before]
        if state.config is not None and name in state.config.uplinks and not state.config.uplinks[name].enabled:
            warnings.append(f"{name} has enabled = false in the configuration, which takes precedence")
        if self._daemon.unsaved:
            warnings.append(f"in force, but lost on a restart: {self._daemon.unsaved}")
        return {**self._seen(name), "warnings": warnings, "saved": not self._daemon.unsaved}

    async def test(self, name: str) -> dict[str, Any]:
        """Make every probe and check of an uplink now, and tell what each layer says.

        Returns:
            uplink, state, reason; verdict: "ok", "degraded" or "down"; layers: layer, verdict and detail of each;
            complete: every result was there in time.

        Raises:
            ControlError: there is no such uplink (404).
        """
        self._check(name)
        loop = asyncio.get_running_loop()
        asked = loop.time()
        self._daemon.post(TestRequested(name))
        complete = False
        while not complete and loop.time() < asked + _PATIENCE:
            await asyncio.sleep(_POLL)
            self._check(name)
            complete = tested(self._daemon.state, name, asked)
        seen, lines = self._seen(name), report(self._daemon.state, name)
        verdict = _verdict(seen["state"], [line.verdict for line in lines])
        return {**seen, "verdict": verdict, "complete": complete, "layers": [line._asdict() for line in lines]}

    def _check(self, name: str) -> None:
        config = self._daemon.state.config
        if config is None or name not in config.uplinks:
            known = config.uplinks if config else ()
            raise ControlError(f"there is no uplink {shown(name)}; {suggest(name, known)}", 404)

    def _seen(self, name: str) -> dict[str, Any]:
        seen = self._daemon.state.views.get(name)
        if seen is None:
            raise ControlError(f"there is no uplink {shown(name)} any more", 404)
        return {"uplink": name, "state": seen.state, "reason": seen.reason}


def _seconds(deadline: str | None) -> float:
    if deadline is None:
        return DEADLINE
    try:
        # A plain number is seconds, as in the file, where it stands without quotes.
        plain = deadline.isascii() and deadline.isdigit()
        return float(Duration(0, _LONGEST).parse(float(deadline) if plain else deadline))
    except PydanticCustomError as error:
        context = error.context or {}
        raise ControlError(f"deadline: {context['message']}", 400) from error


def _verdict(state: str, layers: Collection[str]) -> str:
    """Sum up a test: what people have taken out of use is judged by its layers alone."""
    broken = LayerVerdict.BROKEN in layers
    if state in OUT_OF_USE:
        return "ok" if not broken else "degraded" if LayerVerdict.OK in layers else "down"
    if state == UplinkState.UP:
        return "degraded" if broken else "ok"
    return "degraded" if state == UplinkState.DEGRADED else "down"
