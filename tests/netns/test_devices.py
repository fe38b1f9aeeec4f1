"""Devices of uplinks are renamed, made anew, flap, and belong to others: nothing else notices, and nobody is blamed."""

from __future__ import annotations

import asyncio
import sys
from contextlib import closing
from typing import TYPE_CHECKING, Final

import pytest

from polywan.core.net import Family
from polywan.lab import recipe
from polywan.lab.daemon import DaemonProcess
from polywan.lab.network import Lab
from polywan.lab.scenario import configuration
from polywan.lab.topology import SERVERS
from polywan.lab.traffic import open_connections, shares
from support.connections import answers, endings
from support.netns import polywan, until, with_servers

if TYPE_CHECKING:
    from support.netns import BuildLab, StartDaemon

SERVER: Final = SERVERS[Family.V4][0]
BACK: Final = 20.0
"""Seconds within which an uplink serves again: hold-down and probes."""


def repairs(daemon: DaemonProcess) -> list[str]:
    return [*daemon.status().drift, *(line.text for line in list(daemon.log) if "drift." in line.text)]


async def state(daemon: DaemonProcess, number: int, wanted: str) -> None:
    await until(lambda: daemon.uplink(number).state == wanted, BACK, 0.02)


async def shared(lab: Lab, number: int) -> dict[int, int]:
    with closing(await open_connections(lab, number, SERVER)) as opened:
        return dict(shares(a.uplink for a in opened.attempts))


def named(old: str, new: str) -> list[str]:
    return [f"link set dev {old} down", f"link set dev {old} name {new}", f"link set dev {new} up"]


def test_an_uplink_whose_device_is_renamed_is_missing_until_it_has_its_name_again(
    lab: Lab, start_daemon: StartDaemon
) -> None:
    daemon = start_daemon(lab, configuration(lab.topology, (1, 1, 1)))

    async def story() -> None:
        with closing(await open_connections(lab, 9, SERVER)) as opened:
            lab.router.ip(named("wan1", "other0"))
            await state(daemon, 1, "missing")
            assert await endings(opened, 1, 2.0) == {"ECONNRESET": 3}
            assert await shared(lab, 10) == {2: 5, 3: 5}
            lab.router.ip([*named("other0", "wan1"), *recipe.bring_up(lab.topology.uplink(1))])
            await state(daemon, 1, "up")
            assert await shared(lab, 9) == {1: 3, 2: 3, 3: 3}
            assert await answers(opened, {2, 3}) == 6

    with_servers(lab, story)
    assert repairs(daemon) == []


def test_a_device_that_is_made_anew_within_a_moment_is_set_up_again(
    lab_of: BuildLab, start_daemon: StartDaemon
) -> None:
    lab = lab_of(3, trunk=True)
    # What a new device has, and polywan's settings are not.
    lab.router.sysctl({"ipv4/conf/all/rp_filter": 1, "ipv4/conf/default/rp_filter": 1})
    daemon = start_daemon(lab, configuration(lab.topology, (1, 1, 1)))

    async def story() -> None:
        with closing(await open_connections(lab, 9, SERVER)) as opened:
            for _ in range(5):
                lab.router.ip(recipe.remake(lab.topology.uplink(1)))
                # Early and late in the read that the first notification asks for.
                await asyncio.sleep(0.013)
            assert await endings(opened, 1, 2.0) == {"ECONNRESET": 3}
            await state(daemon, 1, "up")
            assert lab.router.read_sysctl("ipv4/conf/wan1/rp_filter") == "2"
            assert await shared(lab, 9) == {1: 3, 2: 3, 3: 3}
            assert await answers(opened, {2, 3}) == 6

    with_servers(lab, story)
    assert repairs(daemon) == []


def test_a_carrier_that_comes_and_goes_many_times_within_seconds_is_one_outage(
    lab: Lab, start_daemon: StartDaemon
) -> None:
    daemon = start_daemon(lab, configuration(lab.topology, (1, 1, 1)))

    async def story() -> None:
        with closing(await open_connections(lab, 9, SERVER)) as opened:
            for _ in range(20):
                lab.cut(1)
                await asyncio.sleep(0.05)
                lab.restore(1)
                await asyncio.sleep(0.1)
            assert await endings(opened, 1, 2.0) == {"ECONNRESET": 3}
            assert daemon.uplink(1).state == "down"
            assert await shared(lab, 10) == {2: 5, 3: 5}
            await state(daemon, 1, "up")
            assert await shared(lab, 9) == {1: 3, 2: 3, 3: 3}
            assert await answers(opened, {2, 3}) == 6
            assert daemon.uplink(1).outages_today == 1

    with_servers(lab, story)
    assert repairs(daemon) == []


BELONGS: Final = {
    "bond": pytest.param(
        "bond mode active-backup miimon 50",
        "wan1 is a member of bond top0: name top0 as the interface",
        marks=[pytest.mark.needs("bond"), pytest.mark.kernel],
    ),
    "bridge": pytest.param(
        "bridge", "wan1 is a port of bridge top0: name top0 as the interface", marks=pytest.mark.needs("bridge")
    ),
    "vrf": pytest.param(
        "vrf table 99",
        "wan1 belongs to VRF top0: links in a VRF are not supported; ip link set wan1 nomaster",
        marks=[pytest.mark.needs("vrf"), pytest.mark.kernel],
    ),
}


@pytest.mark.parametrize(("kind", "reason"), BELONGS.values(), ids=BELONGS)
def test_a_device_that_joins_another_one_is_told_what_to_do_and_serves_again_once_that_is_done(
    lab_of: BuildLab, start_daemon: StartDaemon, kind: str, reason: str
) -> None:
    lab = lab_of(2, families=(Family.V4,))
    daemon = start_daemon(lab, configuration(lab.topology, (1, 1)))
    uplink = lab.topology.uplink(1)

    async def story() -> None:
        lab.router.ip([f"link add top0 address {uplink.mac} type {kind}"])
        lab.router.ip(["link set wan1 down", "link set wan1 master top0", "link set top0 up", "link set wan1 up"])
        await until(lambda: daemon.uplink(1).reason == reason, BACK, 0.02)
        checked = lab.router.run(
            [sys.executable, "-m", "polywan", "check", "--config", str(daemon.config)], check=False
        )
        assert reason.partition(":")[0] in checked.stderr + checked.stdout
        assert await shared(lab, 6) == {2: 6}
        if "nomaster" in reason:
            lab.router.ip(["link set wan1 nomaster", *recipe.bring_up(uplink)])
        else:
            moved = [line.replace("wan1", "top0") for line in recipe.bring_up(uplink)]
            lab.router.ip(["address flush dev wan1", *moved])
            text = daemon.config.read_text("utf-8").replace('"wan1"', '"top0"')
            daemon.config.write_text(text, "utf-8")
            assert polywan(daemon, "reload").returncode == 0
        await state(daemon, 1, "up")
        assert await shared(lab, 6) == {1: 3, 2: 3}

    with_servers(lab, story)
    assert repairs(daemon) == []
