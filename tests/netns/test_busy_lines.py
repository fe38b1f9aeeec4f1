"""A busy line is not a dead line: slow lines with long queues, filled by real traffic, all at once in one lab."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import pytest

from polywan.api.status import UplinkStatus
from polywan.core.health.probes import ProbeResult
from polywan.core.net import Family
from polywan.lab.daemon import DaemonProcess
from polywan.lab.network import Lab
from support.busy_lines import Load, Queue, Where, configuration, loaded, narrow, queue_in_the_box
from support.netns import until
from support.probe_orders import take
from support.two_providers import SERVER, build, by

if TYPE_CHECKING:
    from polywan.probe.prober import NetProber
    from support.netns import BuildLab, StartDaemon

QUEUES = (0.5, 1.0, 2.0, 5.0, 10.0)
"""Seconds; one uplink for each, and one more that is idle."""

SLOW = ("rate", "2kbit", "burst", "80b", "limit", "10k")
"""A queue in which an answer to a probe takes about a quarter of a second."""

LATEST = 3.3
"""Seconds until a dead line is noticed at the latest: three rounds, and answers that were on their way when it died."""

MANY = 53
"""As many uplinks as the largest box of our users has, each filled."""

FILLED = 12.0
"""Seconds after which the loads have done their worst."""


def uplinks(daemon: DaemonProcess) -> tuple[UplinkStatus, ...]:
    return daemon.status().uplinks


def lab_with_queues(lab_of: BuildLab, where: Where) -> Lab:
    lab = lab_of(len(QUEUES) + 1, families=[Family.V4])
    for number, seconds in enumerate(QUEUES, 1):
        narrow(lab, number, Queue(where, seconds))
    return lab


async def noticed(lab: Lab, daemon: DaemonProcess, numbers: list[int]) -> dict[int, float]:
    """Lose all that crosses these providers, one after the other; return how many seconds each took to be down."""
    found = {}
    for number in numbers:
        lost = lab.blackhole(number)
        text = f"uplink.down: {lab.topology.uplink(number).name} "
        while (
            not (times := [line.at for line in list(daemon.log) if text in line.text]) and time.monotonic() < lost + 8
        ):
            await asyncio.sleep(0.02)
        found[number] = times[0] - lost if times else 8.0
    return found


@pytest.mark.parametrize(
    ("where", "load"),
    [("provider up", "tcp up"), ("box", "tcp up"), ("provider down", "tcp down"), ("provider down", "udp down")],
)
def test_a_line_that_is_filled_by_traffic_with_answers_is_busy_at_worst_and_its_death_is_noticed(
    lab_of: BuildLab, start_daemon: StartDaemon, where: Where, load: Load
) -> None:
    lab = lab_with_queues(lab_of, where)
    busy = list(range(1, len(QUEUES) + 1))

    async def story() -> None:
        daemon = start_daemon(lab, configuration(lab, loaded=len(QUEUES)))
        async with loaded(lab, load, busy) as broken:
            await asyncio.sleep(FILLED)
            assert not broken
            assert not [line.text for line in daemon.log if "uplink.down" in line.text]
            assert "busy: answers come" in uplinks(daemon)[-2].reason
            # What is in a queue towards the box still arrives: only there a line is alive for longer.
            dying = busy if where != "provider down" else [1]
            assert {n: t for n, t in (await noticed(lab, daemon, dying)).items() if t > LATEST} == {}

    asyncio.run(story())


@pytest.mark.parametrize("where", ["provider up", "box"])
@pytest.mark.parametrize("times", [1.5, 3.0, 10.0])
def test_a_line_that_is_flooded_without_any_answer_is_busy_at_worst(
    lab_of: BuildLab, start_daemon: StartDaemon, where: Where, times: float
) -> None:
    lab = lab_with_queues(lab_of, where)

    async def story() -> None:
        daemon = start_daemon(lab, configuration(lab, loaded=len(QUEUES)))
        async with loaded(lab, "udp up", list(range(1, len(QUEUES) + 1)), times=times):
            await asyncio.sleep(FILLED + 4)
            assert not [line.text for line in daemon.log if "uplink.down" in line.text]

    asyncio.run(story())


@pytest.mark.parametrize("where", ["provider up", "box"])
@pytest.mark.parametrize("load", ["tcp up", "udp up"])
def test_a_daemon_that_starts_while_lines_are_full_finds_them_busy_at_worst(
    lab_of: BuildLab, start_daemon: StartDaemon, where: Where, load: Load
) -> None:
    lab = lab_with_queues(lab_of, where)

    async def story() -> None:
        daemon = start_daemon(lab, configuration(lab, loaded=len(QUEUES)))
        async with loaded(lab, load, list(range(1, len(QUEUES) + 1))) as broken:
            for seconds in (3.0, FILLED):
                await asyncio.sleep(seconds)
                await asyncio.to_thread(daemon.kill)
                daemon.start()
            await asyncio.sleep(5)
            assert not broken
            assert not [line.text for line in daemon.log if "uplink.down" in line.text]

    asyncio.run(story())


@pytest.mark.alone
def test_fifty_three_busy_lines_are_busy_at_worst_and_the_death_of_one_is_noticed(
    lab_of: BuildLab, start_daemon: StartDaemon
) -> None:
    lab = lab_of(MANY, families=[Family.V4])
    every = list(range(1, MANY + 1))
    for number in every:
        queue_in_the_box(lab, number, 2.0)

    async def story() -> None:
        daemon = start_daemon(lab, configuration(lab, loaded=MANY))
        busy: set[str] = set()

        def most() -> bool:
            busy.update(uplink.name for uplink in uplinks(daemon) if "busy: " in uplink.reason)
            return len(busy) > MANY / 2

        async with loaded(lab, "tcp up", every) as broken:
            filled = time.monotonic() + FILLED
            # TCP lets its queue grow short again, and then answers are slow but not late.
            await until(most, FILLED, pause=0.25)
            await asyncio.sleep(filled - time.monotonic())
            assert not broken
            assert not [line.text for line in daemon.log if "uplink.down" in line.text]
            # The loads, the kernel and the daemon share the processors, so rounds come late themselves.
            assert (await noticed(lab, daemon, [7]))[7] <= 1.5 * LATEST

    asyncio.run(story())


def test_an_answer_after_the_timeout_is_told_as_late() -> None:
    async def late(prober: NetProber) -> list[ProbeResult]:
        for number in range(4):
            prober.start(by(1, SERVER[4], number=number, timeout=0.1))
        return await take(prober, 7)

    with build() as world:
        world.providers[1].run(["tc", "qdisc", "add", "dev", "r", "root", "tbf", *SLOW])
        found = world.run(late)
    assert [r.late for r in found].count(True) >= 3
    assert all((r.rtt or 0) > 0.1 for r in found if r.late)
    lost = {r.round for r in found if r.rtt is None}
    assert {r.round for r in found if r.late} <= lost
