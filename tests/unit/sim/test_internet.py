"""What is beyond the box: answers, checks and traffic as values."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from polywan.core.health.layers import CheckOrder, Layer
from polywan.core.health.life import Inside, Moved, Watched
from polywan.core.health.probes import ProbeOrder, ProbeTarget
from polywan.core.net import Family
from polywan.core.state.effects import SampleTraffic
from polywan.sim.internet import CHECK_TIME, ROUND_TRIP, Internet

TARGETS = tuple(ProbeTarget(ip_address(f"192.0.2.{n}"), ("icmp",), 53) for n in (1, 2, 3))
ORDER = ProbeOrder(uplink="u1", family=Family.V4, interface="wan1", mark=0x100, round=1, timeout=1.0, targets=TARGETS)


def check(layer: Layer) -> CheckOrder:
    return CheckOrder(uplink="u1", family=Family.V4, layer=layer, interface="wan1", mark=0x100, number=1, timeout=3.0)


def times(internet: Internet, now: float = 0.0) -> list[tuple[float, float | None, bool]]:
    return [(after, result.rtt, result.late) for after, result in internet.answers(ORDER, now)]


def test_each_target_answers_after_its_round_trip() -> None:
    assert times(Internet()) == [(ROUND_TRIP, ROUND_TRIP, False)] * 3


def test_silence_is_known_after_the_timeout() -> None:
    internet = Internet()
    internet.silent.add(("u1", Family.V4))
    assert times(internet) == [(1.0, None, False)] * 3


@pytest.mark.parametrize(("seconds", "late"), [(2.0, 3), (19.0, 3), (21.0, 0)])
def test_what_comes_after_the_timeout_is_reported_twice_unless_nobody_waits(seconds: float, late: int) -> None:
    internet = Internet()
    internet.latency["u1"] = seconds
    answers = times(internet)
    assert answers.count((1.0, None, False)) == 3
    assert answers.count((seconds, seconds, True)) == late == len(answers) - 3


def test_a_queue_fills_as_fast_as_it_is_said_and_no_further() -> None:
    internet = Internet()
    internet.queues["u1"] = (10.0, 4.0, 2.0)
    assert [internet.waiting("u1", now) for now in (10.0, 11.0, 12.0, 60.0)] == [0.0, 2.0, 4.0, 4.0]


def test_losses_are_spread_over_the_rounds_and_never_take_a_whole_one() -> None:
    internet = Internet()
    internet.loss["u1"] = 0.3
    rounds = [[result.rtt for _, result in internet.answers(ORDER, float(n))] for n in range(100)]
    assert sum(rtts.count(None) for rtts in rounds) == pytest.approx(90, abs=3)
    assert all(rtts.count(None) < 3 for rtts in rounds)


def test_a_check_waits_for_an_answer_that_does_not_come_and_for_nothing_else() -> None:
    internet = Internet()
    assert internet.check(check(Layer.DNS))[0] == CHECK_TIME
    internet.layers["u1", Layer.DNS] = "no answer from 192.0.2.53"
    internet.layers["u1", Layer.SCRIPT] = "exit status 3"
    assert [internet.check(check(layer))[0] for layer in (Layer.DNS, Layer.SCRIPT)] == [3.0, CHECK_TIME]


def test_by_a_silent_uplink_only_the_gateway_passes() -> None:
    internet = Internet()
    internet.silent.add(("u1", Family.V4))
    assert [internet.check(check(layer))[1].ok for layer in (Layer.GATEWAY, Layer.DNS)] == [True, False]


def test_a_look_has_what_moved_since_the_look_before() -> None:
    internet = Internet()
    internet.traffic["u1"], internet.floods["u1"] = 10.0, (0.0, 5.0)
    order = SampleTraffic(0x3F00, (Watched("u1", Family.V4, 0x100),), Inside(frozenset(), ()))
    internet.sample(order, 2.0)
    _, sampled = internet.sample(order, 3.0)
    assert sampled.since == 2.0
    assert sampled.moved == {("u1", Family.V4): Moved(received=10_000, sent=5_000, total=15_000)}
    internet.silent.add(("u1", Family.V4))
    assert internet.sample(order, 4.0)[1].moved["u1", Family.V4].received == 0
