"""What is beyond the box: who answers probes and checks, after how long, and what connections move.

A test or a script changes these values while time goes by. The same values, questions and seed give the same answers.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from polywan.core.health.layers import CheckOrder, CheckResult, Layer
from polywan.core.health.life import LISTEN, Moved
from polywan.core.health.probes import ProbeOrder, ProbeResult
from polywan.core.net import IPAddress
from polywan.core.state.effects import SampleTraffic
from polywan.core.state.events import TrafficSampled
from polywan.core.world.paths import UplinkFamily

ROUND_TRIP: Final = 0.01
"""Seconds until a probe's answer, where nothing else is said."""

CHECK_TIME: Final = 0.002
"""Seconds that a check takes that is answered."""

NO_ANSWER: Final = "no answer"
"""How the finding of a check begins that waited for its timeout."""

SAMPLE_TIME: Final = 0.02
"""Seconds that a look at connections takes: some thousands of them."""


class Internet:
    """How every uplink behaves. Uplinks that nothing is said of answer at once and carry nothing else.

    Attributes:
        silent: uplinks and families by which nothing comes back.
        muted: targets that answer nobody, or not by the uplink that stands beside them.
        loss: how much of the probes by an uplink is lost, 0 to 1; spread evenly; with three targets
            and two thirds at most, never over a whole round.
        latency: seconds of a round trip by an uplink.
        jitter: seconds that an answer by an uplink is late at most, drawn from the seed for each.
        queues: uplinks with a queue: since when it fills, how many seconds it takes at most, and how many of these are
            added each second.
        traffic: kilobytes a second that come back for connections of an uplink, as long as it answers.
        floods: since when, and by how many kilobytes a second, an uplink sends what brings nothing back.
        layers: what a check of a layer finds wrong, by uplink and layer; at once, unless it begins with `NO_ANSWER`.
        check_time: seconds that a check takes that is answered.
        check_bytes: bytes that it sends, and receives.
    """

    def __init__(self, seed: int = 0) -> None:
        self.silent: set[UplinkFamily] = set()
        self.muted: set[tuple[IPAddress, str | None]] = set()
        self.loss: dict[str, float] = {}
        self.latency: dict[str, float] = {}
        self.jitter: dict[str, float] = {}
        self.queues: dict[str, tuple[float, float, float]] = {}
        self.traffic: dict[str, float] = {}
        self.floods: dict[str, tuple[float, float]] = {}
        self.layers: dict[tuple[str, Layer], str] = {}
        self.check_time = CHECK_TIME
        self.check_bytes = 100
        self._chance = random.Random(seed)  # noqa: S311 - it has to be repeatable, and guards nothing
        self._sent: Counter[tuple[str, IPAddress]] = Counter()
        self._sampled = 0.0

    def answers(self, order: ProbeOrder, now: float, *, connected: bool = True) -> Iterator[tuple[float, ProbeResult]]:
        """Yield what comes of a round that is sent now, each with the seconds after which a prober reports it.

        An answer after the order's timeout is reported as silence first, and then, unless nobody waits any more, as
        late. All targets are asked at once.

        Args:
            order: the round.
            now: the time.
            connected: packets leave the device at all.
        """
        for place, target in enumerate(order.targets):
            rtt = self.round_trip(order, place, now) if connected else None
            timely = rtt if rtt is not None and rtt <= order.timeout else None
            result = ProbeResult(
                uplink=order.uplink, family=order.family, round=order.round, target=target.address, rtt=timely
            )
            yield order.timeout if timely is None else timely, result
            if timely is None and rtt is not None and rtt <= LISTEN:
                yield rtt, replace(result, rtt=rtt, late=True)

    def round_trip(self, order: ProbeOrder, place: int, now: float) -> float | None:
        """Return after how many seconds the target at that place of the round answers; None when it does not."""
        name, target = order.uplink, order.targets[place].address
        sent = self._sent[name, target]
        self._sent[name, target] += 1
        share = self.loss.get(name, 0.0)
        lost = int((sent + 1) * share + place / 3) > int(sent * share + place / 3)
        late = self._chance.uniform(0.0, self.jitter[name]) if name in self.jitter else 0.0
        muted = not self.muted.isdisjoint({(target, None), (target, name)})
        if lost or muted or (name, order.family) in self.silent:
            return None
        return self.latency.get(name, ROUND_TRIP) + self.waiting(name, now) + late

    def waiting(self, uplink: str, now: float) -> float:
        """Return how many seconds a packet waits in the uplink's queue that is sent now."""
        since, most, speed = self.queues.get(uplink, (0.0, 0.0, 1.0))
        return min(most, speed * (now - since))

    def check(self, order: CheckOrder) -> tuple[float, CheckResult]:
        """Return what a check finds, and after how many seconds; above the gateway it takes an uplink that answers."""
        trouble = self.layers.get((order.uplink, order.layer), "")
        if order.layer is not Layer.GATEWAY and (order.uplink, order.family) in self.silent:
            trouble = NO_ANSWER
        result = CheckResult(
            uplink=order.uplink,
            family=order.family,
            layer=order.layer,
            number=order.number,
            ok=not trouble,
            detail=trouble,
            rtt=None if trouble else self.check_time,
            sent=self.check_bytes,
            received=0 if trouble else self.check_bytes,
        )
        return order.timeout if trouble.startswith(NO_ANSWER) else self.check_time, result

    def sample(self, order: SampleTraffic, now: float) -> tuple[float, TrafficSampled]:
        """Return what connections have moved since the look before, and after how many seconds that is known.

        What is in a queue arrives: only silence ends the packets that come back.
        """
        since, self._sampled = self._sampled, now
        span = now - since
        moved = {}
        for watched in order.watched:
            key = (watched.uplink, watched.family)
            back = 0.0 if key in self.silent else self.traffic.get(watched.uplink, 0.0)
            began, rate = self.floods.get(watched.uplink, (0.0, 0.0))
            total = int(1000 * rate * (now - began))
            sent = min(total, int(1000 * rate * span))
            moved[key] = Moved(received=int(1000 * back * span), sent=sent, total=total)
        return SAMPLE_TIME, TrafficSampled(moved=moved, since=since, took=SAMPLE_TIME)
