"""What polywan needs of a prober, in core types."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeAlias

from polywan.core.health.layers import CheckOrder, CheckResult
from polywan.core.health.probes import ProbeOrder, ProbeResult

Result: TypeAlias = ProbeResult | CheckResult
"""What a prober reports."""


class Prober(Protocol):
    """Sends probes by one uplink and reports each target once per round."""

    @property
    def problem(self) -> str | None:
        """Why probes cannot be sent at all (a missing capability, no free descriptor); None while they can."""
        ...

    def start(self, order: ProbeOrder) -> None:
        """Send a round's probes; results go to `report_to`, every target exactly once, within the timeout.

        An answer that comes after its target was reported without one, but within `life.LISTEN` seconds, is told by a
        further result, which is `late`.

        Several rounds of one uplink may be under way at a time. Never raises: a link that is gone or
        a refused socket is a result without an answer.
        """
        ...

    def check(self, order: CheckOrder) -> None:
        """Check one layer; the result goes to `report_to`, exactly once, within the timeout. Never raises."""
        ...

    def report_to(self, receive: Callable[[Result], None]) -> None:
        """Hand every result to `receive` from now on, in the loop's thread; those that nobody received come first."""
        ...

    def close(self) -> None:
        """Abandon rounds under way and release sockets; nothing is reported any more."""
        ...
