"""A prober without a network: the answers are a function."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from polywan.core.health.layers import CheckOrder, CheckResult
from polywan.core.health.life import LISTEN
from polywan.core.health.probes import ProbeOrder, ProbeResult, ProbeTarget
from polywan.probe.api import Result


class FakeProber:
    """A `Prober` whose targets answer as `answers` says: seconds, or None for silence.

    A layer is as `checks` says: well or not, and what was seen; without it every layer is well.
    Results are reported before `start` or `check` returns: the caller's clock, not this object, decides when it is.
    An answer later than the order's timeout is reported as silence, and then as late.
    """

    def __init__(
        self,
        answers: Callable[[ProbeOrder, ProbeTarget], float | None],
        checks: Callable[[CheckOrder], tuple[bool, str]] | None = None,
    ) -> None:
        self.answers = answers
        self.checks = checks
        self.orders: list[ProbeOrder] = []
        self.check_orders: list[CheckOrder] = []
        self._early: list[Result] = []
        self._report: Callable[[Result], None] = self._early.append
        self._closed = False

    @property
    def problem(self) -> str | None:
        """Nothing keeps it from answering."""
        return None

    def start(self, order: ProbeOrder) -> None:
        """See `Prober.start`; the order is noted in `orders`."""
        if self._closed:
            return
        self.orders.append(order)
        for target in order.targets:
            rtt = self.answers(order, target)
            timely = rtt if rtt is not None and rtt <= order.timeout else None
            result = ProbeResult(
                uplink=order.uplink, family=order.family, round=order.round, target=target.address, rtt=timely
            )
            self._report(result)
            if timely is None and rtt is not None and rtt <= LISTEN:
                self._report(replace(result, rtt=rtt, late=True))

    def check(self, order: CheckOrder) -> None:
        """See `Prober.check`; the order is noted in `check_orders`."""
        if self._closed:
            return
        self.check_orders.append(order)
        ok, detail = self.checks(order) if self.checks else (True, "")
        self._report(
            CheckResult(
                uplink=order.uplink,
                family=order.family,
                layer=order.layer,
                number=order.number,
                ok=ok,
                detail=detail,
                rtt=0.001 if ok else None,
            )
        )

    def report_to(self, receive: Callable[[Result], None]) -> None:
        """See `Prober.report_to`."""
        self._report = receive
        for result in self._early:
            receive(result)
        self._early.clear()

    def close(self) -> None:
        """See `Prober.close`."""
        self._closed = True
