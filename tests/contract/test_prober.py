"""What every prober keeps: the shipped stand-in and the real one, over the loopback of a namespace."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from ipaddress import ip_address
from typing import TypeVar

import pytest

from polywan.core.health.layers import CheckOrder, CheckResult, Layer
from polywan.core.health.probes import ProbeOrder, ProbeResult, ProbeTarget
from polywan.lab.namespaces import Namespace
from polywan.probe.api import Prober
from polywan.probe.fake import FakeProber
from polywan.probe.prober import NetProber
from support.probe_orders import ask, check_order, inspect, order, reported, take

ALIVE = ("203.0.113.1", "203.0.113.2")
SILENT = "203.0.113.66"
WELL, BROKEN = ("true",), ("false",)

T = TypeVar("T")


def scripted(_: ProbeOrder, target: ProbeTarget) -> float | None:
    return None if target.address == ip_address(SILENT) else 0.01


def exit_status(order: CheckOrder) -> tuple[bool, str]:
    return order.command == WELL, "" if order.command == WELL else "exit status 1"


@dataclass(frozen=True)
class Subject:
    make: Callable[[], Prober]
    where: Callable[[], AbstractContextManager[None]]

    def run(self, work: Callable[[Prober], Awaitable[T]]) -> T:
        async def main() -> T:
            return await work(self.make())

        with self.where():
            return asyncio.run(main())


@pytest.fixture(params=["fake", pytest.param("net", marks=pytest.mark.netns)])
def subject(request: pytest.FixtureRequest) -> Iterator[Subject]:
    if request.param == "fake":
        yield Subject(lambda: FakeProber(scripted, exit_status), nullcontext)
        return
    home = Namespace("prober")
    home.create()
    try:
        home.ip(f"addr add {address}/32 dev lo" for address in (*ALIVE, SILENT))
        home.nft(
            "table ip deaf { chain in { type filter hook input priority 0;"
            f" ip daddr {SILENT} icmp type echo-request drop; }}; }}"
        )
        yield Subject(NetProber, home.entered)
    finally:
        home.delete()


def test_every_target_is_reported_exactly_once(subject: Subject) -> None:
    found = subject.run(lambda prober: ask(prober, order(*ALIVE, SILENT)))
    assert sorted(str(result.target) for result in found) == sorted((*ALIVE, SILENT))


def test_an_answer_carries_its_round_trip_time(subject: Subject) -> None:
    found = subject.run(lambda prober: ask(prober, order(*ALIVE)))
    assert all(result.rtt is not None and 0 < result.rtt < 0.2 for result in found)


def test_silence_is_reported_without_a_time(subject: Subject) -> None:
    (found,) = subject.run(lambda prober: ask(prober, order(SILENT)))
    assert found.rtt is None


def test_a_result_names_its_order(subject: Subject) -> None:
    request = order(ALIVE[0], number=7)
    (found,) = subject.run(lambda prober: ask(prober, request))
    assert (found.uplink, found.family, found.round) == (request.uplink, request.family, 7)


def test_rounds_under_way_at_a_time_are_told_apart(subject: Subject) -> None:
    rounds = [order(ALIVE[0], SILENT, number=number) for number in (1, 2, 3)]
    found = subject.run(lambda prober: ask(prober, *rounds))
    answered = {(result.round, str(result.target)): result.rtt is not None for result in found}
    assert answered == {(n, target): target == ALIVE[0] for n in (1, 2, 3) for target in (ALIVE[0], SILENT)}


def test_an_order_without_targets_is_no_result(subject: Subject) -> None:
    empty = replace(order(ALIVE[0]), targets=())
    found = subject.run(lambda prober: ask(prober, empty, order(ALIVE[0], number=2)))
    assert [result.round for result in found] == [2]


def test_a_result_that_nobody_received_is_kept(subject: Subject) -> None:
    async def receive_late(prober: Prober) -> list[ProbeResult]:
        prober.start(order(SILENT))
        await ask(subject.make(), order(SILENT))  # takes as long, and began later
        found = await take(prober, 1)
        prober.close()
        return found

    (found,) = subject.run(receive_late)
    assert found.rtt is None


def test_an_order_after_the_end_is_ignored(subject: Subject) -> None:
    async def start_late(prober: Prober) -> int:
        prober.close()
        prober.start(order(ALIVE[0]))
        await ask(subject.make(), order(ALIVE[0]))
        return reported(prober).qsize()

    assert subject.run(start_late) == 0


def script(command: tuple[str, ...], number: int = 1) -> CheckOrder:
    return check_order(Layer.SCRIPT, command=command, number=number)


def test_every_check_is_reported_exactly_once(subject: Subject) -> None:
    found = subject.run(lambda prober: inspect(prober, script(WELL, 1), script(BROKEN, 2), script(WELL, 3)))
    assert sorted((result.number, result.ok) for result in found) == [(1, True), (2, False), (3, True)]


def test_a_layer_that_is_well_carries_a_time_and_a_broken_one_carries_what_was_seen(subject: Subject) -> None:
    found = subject.run(lambda prober: inspect(prober, script(WELL, 1), script(BROKEN, 2)))
    well, broken = sorted(found, key=lambda result: result.number)
    assert well.rtt is not None
    assert well.rtt > 0
    assert (broken.rtt, broken.detail) == (None, "exit status 1")


def test_the_result_of_a_check_names_its_order(subject: Subject) -> None:
    request = script(WELL, number=7)
    (found,) = subject.run(lambda prober: inspect(prober, request))
    assert (found.uplink, found.family, found.layer, found.number) == (request.uplink, request.family, request.layer, 7)


def test_probes_and_checks_share_the_results(subject: Subject) -> None:
    async def both(prober: Prober) -> set[type]:
        prober.start(order(ALIVE[0]))
        prober.check(script(WELL))
        kinds: set[type] = set()
        while len(kinds) < 2:
            kinds.add(type(await reported(prober).get()))
        prober.close()
        return kinds

    assert subject.run(both) == {ProbeResult, CheckResult}


def test_a_check_after_the_end_is_ignored(subject: Subject) -> None:
    async def check_late(prober: Prober) -> int:
        prober.close()
        prober.check(script(WELL))
        await inspect(subject.make(), script(WELL))
        return reported(prober).qsize()

    assert subject.run(check_late) == 0
