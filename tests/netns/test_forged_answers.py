"""Answers and errors that others than the target and the routers on the way send, against the real daemon.

The strangers of these tests know more than real ones: they see each probe, and lack nothing but what is random in it.
From the LAN and from another provider's network even the exact answer must not count.
"""

from __future__ import annotations

import json
import struct
import time
from collections.abc import Callable, Iterable
from functools import partial
from ipaddress import ip_address
from typing import TYPE_CHECKING

import pytest

from polywan.core.net import Family
from polywan.lab.daemon import DaemonProcess
from polywan.lab.network import Lab
from polywan.lab.scenario import configuration
from polywan.lab.topology import SERVERS
from support.forging import UDP, Forger, Packet, Wire, answer, refusal
from support.netns import with_servers

if TYPE_CHECKING:
    from support.netns import BuildLab, StartDaemon, WaitFor

PLACES = ("the LAN", "another provider", "the uplink's segment")
METHODS = ("icmp", "tcp")
LASTS = 2.5
"""Seconds for which what should not change is watched."""


def wire(lab: Lab, place: str) -> Wire:
    if place == "the LAN":
        shown = lab.router.run(["ip", "-json", "link", "show", "dev", "lan0"]).stdout
        return Wire(lab.client, "eth0", json.loads(shown)[0]["address"])
    number = 2 if place == "another provider" else 1
    return Wire(lab.provider(number), "wan", lab.topology.uplink(number).mac)


def forging(lab: Lab, place: str, make: Callable[[Packet], Iterable[Packet]]) -> Forger:
    """Return what reads the probes of the first uplink, and puts what it makes of them on the wire of a place."""
    return Forger(wire(lab, "the uplink's segment"), wire(lab, place), make)


def impatient(lab: Lab, method: str) -> str:
    text = configuration(lab.topology, (1, 1)).replace('hold_down = "3s"', 'hold_down = "1s"\nrise = 2', 1)
    return text.replace("[health]", f'[health]\nmethods = ["{method}"]\ninterval = "200ms"\ntimeout = "200ms"', 1)


def watched(daemon: DaemonProcess, seconds: float) -> set[str]:
    """Return each state that the first uplink had for a while."""
    end, found = time.monotonic() + seconds, set()
    while time.monotonic() < end:
        found.add(daemon.uplink(1).state)
        time.sleep(0.05)
    return found


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("method", METHODS)
def test_no_forged_answer_keeps_a_dead_uplink_up_or_brings_it_back(
    lab_of: BuildLab, start_daemon: StartDaemon, wait_for: WaitFor, method: str, place: str
) -> None:
    lab = lab_of(2)
    daemon = start_daemon(lab, impatient(lab, method))

    async def story() -> None:
        wait_for(lambda: daemon.uplink(1).state == "up")
        with forging(lab, place, partial(answer, wrong=place == "the uplink's segment")) as forger:
            lab.blackhole(1)
            wait_for(lambda: daemon.uplink(1).state == "down", 4.0)
            assert watched(daemon, LASTS) == {"down"}
            assert forger.sent > 20

    with_servers(lab, story)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("method", METHODS)
def test_no_forged_error_brings_an_uplink_down(
    lab_of: BuildLab, start_daemon: StartDaemon, wait_for: WaitFor, method: str, place: str
) -> None:
    lab = lab_of(2)
    daemon = start_daemon(lab, impatient(lab, method))

    def errors(probe: Packet) -> list[Packet]:
        # The exact quotation is known to nobody but who is on the way; a reset is forged with a wrong number anyhow.
        return [*refusal(probe, wrong=place == "the uplink's segment"), *answer(probe, wrong=True)]

    async def story() -> None:
        wait_for(lambda: daemon.uplink(1).state == "up")
        with forging(lab, place, errors) as forger:
            assert watched(daemon, LASTS) == {"up"}
            assert forger.sent > 20
        assert daemon.uplink(1).loss == 0

    with_servers(lab, story)


def test_packets_of_connections_that_strangers_open_are_no_sign_of_life(
    lab_of: BuildLab, start_daemon: StartDaemon, wait_for: WaitFor
) -> None:
    """A neighbour in the provider's network pretends to be somebody beyond it, who goes on sending."""
    lab = lab_of(2)
    daemon = start_daemon(lab, impatient(lab, "icmp"))

    def spoofed(probe: Packet) -> list[Packet]:
        far = ip_address({Family.V4: "198.51.100.77", Family.V6: "2001:db8:198::77"}[probe.family])
        datagram = struct.pack("!HHHH", 4000, 53, 8 + 64, 0) + bytes(64)
        ping = struct.pack("!BBHHH", {Family.V4: 8, Family.V6: 128}[probe.family], 0, 0, 1, 1) + bytes(64)
        icmp = {Family.V4: 1, Family.V6: 58}[probe.family]
        return [
            Packet(far, probe.source, UDP, datagram).with_sum(6),
            Packet(far, probe.source, icmp, ping).with_sum(2),
        ]

    async def story() -> None:
        wait_for(lambda: daemon.uplink(1).state == "up")
        with forging(lab, "the uplink's segment", spoofed) as forger:
            assert "up" in watched(daemon, 1.0)
            lab.blackhole(1)
            wait_for(lambda: daemon.uplink(1).state == "down", 4.0, "the dead uplink is down")
            assert watched(daemon, LASTS) == {"down"}
            assert forger.sent > 20

    with_servers(lab, story)


def test_a_host_of_the_lan_that_pretends_to_be_a_router_changes_no_uplink(
    lab_of: BuildLab, start_daemon: StartDaemon, wait_for: WaitFor
) -> None:
    """By router advertisements and by redirects, as the kernel takes them where it forwards."""
    lab = lab_of(2)
    daemon = start_daemon(lab, impatient(lab, "icmp"))
    stranger = ip_address("fe80::666")
    source = bytes.fromhex("0101020000000099")
    advertised = struct.pack("!BBHBBHII", 134, 0, 0, 64, 0x08, 1800, 0, 0) + source

    def pretending(probe: Packet) -> list[Packet]:
        router = ip_address({Family.V4: "192.168.15.66", Family.V6: "fe80::666"}[probe.family])
        kind, place = ((5, 1), 0) if probe.family is Family.V4 else ((137, 0), 0)
        quoted = probe.encode()
        if probe.family is Family.V4:
            body = struct.pack("!BBH", *kind, place) + router.packed + quoted
            return [Packet(router, probe.source, 1, body).with_sum(2)]
        body = struct.pack("!BBHI", *kind, place, 0) + router.packed + probe.destination.packed
        return [
            Packet(stranger, probe.source, 58, body).with_sum(2),
            Packet(stranger, ip_address("ff02::1"), 58, advertised).with_sum(2),
        ]

    async def story() -> None:
        wait_for(lambda: daemon.uplink(1).state == "up")
        before = [(u.gateway, u.gateway6) for u in daemon.status().uplinks]
        with forging(lab, "the LAN", pretending) as forger:
            assert watched(daemon, LASTS) == {"up"}
            assert forger.sent > 20
        assert [(u.gateway, u.gateway6) for u in daemon.status().uplinks] == before
        for family in (Family.V4, Family.V6):
            asked = lab.router.run(["ip", "route", "get", str(SERVERS[family][0]), "mark", "0x100"]).stdout
            assert "dev wan1" in asked or "dev wan2" in asked

    with_servers(lab, story)
