"""The real prober: probes on sockets of the uplinks, one timer for all deadlines, no task per probe."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Final, Literal, assert_never

from polywan.core.health.layers import CheckOrder, Layer
from polywan.core.health.life import LISTEN
from polywan.core.health.probes import ProbeOrder, ProbeResult, ProbeTarget
from polywan.core.net import Family
from polywan.probe.api import Result
from polywan.probe.bound import REFUSED, SocketDeniedError
from polywan.probe.check import carry_out
from polywan.probe.icmp import EchoSocket
from polywan.probe.layer_checks import method_of
from polywan.probe.tcp import Handshake

FAIL_DELAY: Final = 0.05
"""Seconds before a probe that failed at once is reported: immediate failures must not spin the engine."""

SOCKET_IDLE: Final = 60.0
"""Seconds without a probe after which a raw socket is let go: its uplink has left the configuration."""

Method = Literal["icmp", "tcp"]


@dataclass(slots=True, eq=False, kw_only=True)
class _Probe:
    """One target of one round under way; `alternatives` counts the methods that may still answer.

    `overdue`: its timeout is over and reported, but an answer would still be a sign of life.
    """

    order: ProbeOrder
    target: ProbeTarget
    sent: float
    alternatives: int
    abandon: list[Callable[[], None]] = field(default_factory=list)
    handshakes: list[Callable[[], None]] = field(default_factory=list)
    overdue: bool = False
    done: bool = False


class NetProber:
    """A `Prober` over the network; all calls are made from the thread of one running event loop.

    Methods of a target are sent together and the first answer counts. A target whose methods have all
    failed is reported without an answer: not before `FAIL_DELAY` seconds, nor after its timeout. After it, echoes are
    listened for until `LISTEN` is over: a queue delays them.
    """

    def __init__(self) -> None:
        self._early: list[Result] = []
        self._report: Callable[[Result], None] = self._early.append
        self._echoes: dict[tuple[str, Family], EchoSocket] = {}
        self._deadlines: list[tuple[float, int, _Probe]] = []
        self._undone = 0
        self._serial = itertools.count()
        self._timer: asyncio.TimerHandle | None = None
        self._denied: dict[Method | Layer, str] = {}
        self._looking: set[asyncio.Task[None]] = set()
        self._closed = False

    @property
    def problem(self) -> str | None:
        """Why this process cannot probe, whatever the links do (privileges, open files); None when it can."""
        return "; ".join(f"no {method} probes: {why}" for method, why in self._denied.items()) or None

    def start(self, order: ProbeOrder) -> None:
        """See `Prober.start`."""
        if self._closed:
            return
        if not order.spread:
            self._ask(order, order.targets)
            return
        later = asyncio.get_running_loop().call_later
        for place, target in enumerate(order.targets):
            later(order.spread * place / len(order.targets), self._ask, order, (target,))

    def _ask(self, order: ProbeOrder, targets: tuple[ProbeTarget, ...]) -> None:
        if self._closed:
            return
        now = asyncio.get_running_loop().time
        echo = self._echo(order) if any("icmp" in target.methods for target in targets) else None
        for target in targets:
            probe = _Probe(order=order, target=target, sent=now(), alternatives=len(target.methods))
            self._undone += 1
            self._expire_at(probe.sent + order.timeout, probe)
            for method in target.methods:
                self._send(method, probe, echo)

    def check(self, order: CheckOrder) -> None:
        """See `Prober.check`."""
        if self._closed:
            return
        task = asyncio.get_running_loop().create_task(self._look(order))
        self._looking.add(task)
        task.add_done_callback(self._looking.discard)

    async def _look(self, order: CheckOrder) -> None:
        clock = asyncio.get_running_loop().time
        earliest = clock() + min(FAIL_DELAY, order.timeout)
        outcome = await carry_out(order, method_of(order.layer))
        if outcome.denied is not None:
            self._denied[order.layer] = outcome.denied
        elif outcome.result.sent:
            self._denied.pop(order.layer, None)
        if not outcome.result.ok:
            await asyncio.sleep(earliest - clock())
        self._report(outcome.result)

    def report_to(self, receive: Callable[[Result], None]) -> None:
        """See `Prober.report_to`."""
        self._report = receive
        for result in self._early:
            receive(result)
        self._early.clear()

    def close(self) -> None:
        """See `Prober.close`."""
        if self._closed:
            return
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        for task in self._looking:
            task.cancel()
        for _, _, probe in self._deadlines:
            _abandon(probe)
        self._deadlines.clear()
        for echo in self._echoes.values():
            echo.close()
        self._echoes.clear()

    def _send(self, method: Method, probe: _Probe, echo: EchoSocket | None) -> None:
        try:
            match method:
                case "icmp":
                    self._send_echo(probe, echo)
                case "tcp":
                    self._send_handshake(probe)
                case _:
                    assert_never(method)
        except REFUSED as error:
            self._note(method, error)
            self._fail(probe)

    def _send_echo(self, probe: _Probe, echo: EchoSocket | None) -> None:
        if echo is None:
            self._fail(probe)
            return
        order = probe.order
        answered = partial(self._answer, probe)
        probe.abandon.append(echo.send(probe.target.address, order.round, order.mark, answered))

    def _send_handshake(self, probe: _Probe) -> None:
        attempt = Handshake(
            asyncio.get_running_loop(),
            interface=probe.order.interface,
            mark=probe.order.mark,
            target=probe.target.address,
            port=probe.target.tcp_port,
            on_answer=partial(self._answer, probe),
            on_failure=partial(self._fail, probe),
        )
        probe.handshakes.append(attempt.cancel)
        self._denied.pop("tcp", None)

    def _echo(self, order: ProbeOrder) -> EchoSocket | None:
        """Return the raw socket of the order's uplink; None when there can be none now."""
        # Not by the device: several uplinks may have it, and each has a mark of its own.
        key = (order.uplink, order.family)
        current = self._echoes.pop(key, None)
        try:
            # After a rename or re-creation an open socket would still send by the old device.
            if current is None or current.closed or not current.leaves_by(order.interface):
                current = self._reopen(current, order)
        except REFUSED as error:
            self._note("icmp", error)
            if current is not None:
                current.close()
            return None
        self._echoes[key] = current
        return current

    def _reopen(self, stale: EchoSocket | None, order: ProbeOrder) -> EchoSocket:
        loop = asyncio.get_running_loop()
        if stale is not None:
            stale.close()
        for key in [k for k, echo in self._echoes.items() if loop.time() - echo.last_used > SOCKET_IDLE]:
            self._echoes.pop(key).close()
        new = EchoSocket(loop, order.interface, order.family, order.mark)
        self._denied.pop("icmp", None)
        return new

    def _note(self, method: Method, error: Exception) -> None:
        if isinstance(error, SocketDeniedError):
            self._denied[method] = str(error.strerror)

    def _answer(self, probe: _Probe) -> None:
        self._finish(probe, asyncio.get_running_loop().time() - probe.sent)

    def _fail(self, probe: _Probe) -> None:
        probe.alternatives -= 1
        if not probe.alternatives and not probe.overdue:
            self._expire_at(probe.sent + min(FAIL_DELAY, probe.order.timeout), probe)

    def _finish(self, probe: _Probe, rtt: float | None) -> None:
        if probe.done:
            return
        late, probe.overdue = probe.overdue, rtt is None
        if rtt is None and probe.alternatives and not late:
            self._linger(probe)
        else:
            self._end(probe)
            _abandon(probe)
        if rtt is None and late:
            return
        order, target = probe.order, probe.target.address
        self._report(
            ProbeResult(uplink=order.uplink, family=order.family, round=order.round, target=target, rtt=rtt, late=late)
        )

    def _linger(self, probe: _Probe) -> None:
        """Go on listening for an echo; a handshake is given up, since it holds a socket and goes on sending."""
        probe.handshakes, given_up = [], probe.handshakes
        for cancel in given_up:
            cancel()
        if probe.abandon:
            self._expire_at(probe.sent + LISTEN, probe)
        else:
            self._end(probe)

    def _end(self, probe: _Probe) -> None:
        probe.done = True
        self._undone -= 1
        if not self._undone:
            # No timer wakes the loop for probes that were answered.
            self._deadlines.clear()
            self._arm()

    def _expire_at(self, when: float, probe: _Probe) -> None:
        heapq.heappush(self._deadlines, (when, next(self._serial), probe))
        if self._timer is None or when < self._timer.when():
            self._arm()

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        loop = asyncio.get_running_loop()
        self._timer = loop.call_at(self._deadlines[0][0], self._expire) if self._deadlines else None

    def _expire(self) -> None:
        now = asyncio.get_running_loop().time()
        # Answered probes leave the heap here too: taking them out earlier would cost more than they weigh.
        while self._deadlines and (self._deadlines[0][0] <= now or self._deadlines[0][2].done):
            self._finish(heapq.heappop(self._deadlines)[2], None)
        self._arm()


def _abandon(probe: _Probe) -> None:
    for abandon in (*probe.abandon, *probe.handshakes):
        abandon()
    probe.abandon.clear()
    probe.handshakes.clear()
