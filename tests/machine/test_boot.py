"""A boot of each release: the service comes before the network, and uplinks come when they come."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from polywan.core.net import Family
from polywan.lab import recipe
from polywan.lab.namespaces import ip_batch
from polywan.lab.network import Lab
from polywan.lab.topology import SERVERS
from polywan.lab.traffic import open_connections, shares
from support.machine.box import CONFIG, SERVICE, Box
from support.netns import with_servers

ONLINE = """
[Unit]
Wants=network-online.target
After=network-online.target

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=true

[Install]
WantedBy=multi-user.target
"""
"""A service that needs the network, as many do."""

NAMES = """
[[rules]]
domains = ["example.com"]
uplink = "isp1"
"""
"""A rule that wants a name resolved, which no name server does before there is an uplink."""


def late(lab: Lab) -> None:
    """Take the devices of two uplinks away, and leave the third without addresses, a network cable in a dead modem."""
    for device in ("wan1", "wan3"):
        lab.router.ip([f"link set {device} netns {recipe.CLIENT}"])
    lab.router.ip(["address flush dev wan2"])


@pytest.fixture(scope="module")
def box(release: Path, deb: Path) -> Iterator[Box]:
    """A box with three uplinks, none of which was there at its boot."""
    with Box(release, uplinks=3) as box:
        box.install(deb)
        box.disk.write(CONFIG, box.config + NAMES)
        box.disk.write("/etc/systemd/system/online.service", ONLINE)
        box.machine.run("systemctl", "enable", SERVICE, "online.service")
        box.reboot(late)
        yield box


def states(box: Box) -> dict[str, str]:
    return {uplink["name"]: uplink["state"] for uplink in box.status()["uplinks"]}


def moment(box: Box, unit: str, what: str = "ActiveEnter") -> float:
    """When a unit became that, seconds since the kernel's own start."""
    return int(box.machine.show(unit, f"{what}TimestampMonotonic")) / 1e6


def test_without_any_uplink_the_boot_is_complete_and_the_service_ready(box: Box) -> None:
    assert box.machine.settled() == "running"
    assert moment(box, SERVICE) - moment(box, SERVICE, "InactiveExit") < 10
    assert states(box) == {"isp1": "missing", "isp2": "down", "isp3": "missing"}


def test_services_that_wait_for_the_network_find_the_rules_in_force(box: Box) -> None:
    assert moment(box, SERVICE) <= moment(box, "network-online.target") <= moment(box, "online.service")


def test_what_brings_the_network_up_does_not_wait_for_the_service(box: Box) -> None:
    for unit in ("networking.service", "systemd-networkd.service", "network-pre.target"):
        assert SERVICE not in box.machine.show(unit, "After").split()


def test_systemd_found_no_cycle_in_the_order_of_services(box: Box) -> None:
    assert "ordering cycle" not in box.machine.run("journalctl", "--boot", "--output=cat").stdout


def test_an_uplink_that_gets_its_address_after_the_boot_serves(box: Box) -> None:
    box.lab.router.ip(recipe.bring_up(box.lab.topology.uplink(2)))

    async def story() -> None:
        await asyncio.to_thread(box.balanced, "isp2")
        opened = await open_connections(box.lab, 6, SERVERS[Family.V4][0])
        assert [attempt.uplink for attempt in opened.attempts] == [2] * 6
        opened.close()

    with_servers(box.lab, story)


def test_an_uplink_whose_device_appears_after_the_boot_takes_its_share(box: Box) -> None:
    ip_batch([f"link set wan1 netns {recipe.ROUTER}"], recipe.CLIENT)
    box.lab.router.ip(recipe.bring_up(box.lab.topology.uplink(1)))

    async def story() -> None:
        await asyncio.to_thread(box.balanced, "isp1", "isp2")
        opened = await open_connections(box.lab, 10, SERVERS[Family.V4][0])
        assert shares(attempt.uplink for attempt in opened.attempts) == {1: 5, 2: 5}
        opened.close()

    with_servers(box.lab, story)


def test_an_uplink_that_never_comes_is_reported_and_harms_nothing(box: Box) -> None:
    assert states(box)["isp3"] == "missing"
    assert box.machine.show(SERVICE, "NRestarts") == "0"
    assert box.machine.run("systemctl", "--failed", "--no-legend", "--quiet").stdout == ""
