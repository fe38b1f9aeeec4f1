"""Lossy links, flapping cables and slow returns, with real packets."""

from __future__ import annotations

import asyncio
from contextlib import closing
from typing import TYPE_CHECKING

from polywan.core.net import Family
from polywan.lab.namespaces import Namespace
from polywan.lab.network import Lab
from polywan.lab.scenario import configuration
from polywan.lab.topology import SERVERS
from polywan.lab.traffic import open_connections, shares
from support.netns import with_servers

if TYPE_CHECKING:
    from support.netns import StartDaemon, WaitFor

FAST = 'interval = "100ms"\ntimeout = "200ms"\nrise = 2\n'


def settings(lab: Lab, **changed: str) -> str:
    """Return the lab's configuration with quick probes, and keys of [health] that differ."""
    text = configuration(lab.topology, (1, 1, 1)).replace("[health]\n", f"[health]\n{FAST}")
    for key, value in changed.items():
        kept = [line for line in text.splitlines() if not line.startswith(f"{key} =")]
        kept.insert(kept.index("[health]") + 1, f"{key} = {value}")
        text = "\n".join(kept) + "\n"
    return text


def lose_echoes(provider: Namespace, percent: int) -> None:
    """Drop so many of a hundred echo requests that cross a provider, at random."""
    provider.nft(
        "table inet lossy {\nchain forward {\ntype filter hook forward priority 10;\n"
        f"meta l4proto {{ icmp, ipv6-icmp }} numgen random mod 100 < {percent} drop\n}}\n}}\n"
    )


def test_a_lossy_uplink_stands_by_and_serves_again_once_it_is_well(
    lab: Lab, start_daemon: StartDaemon, wait_for: WaitFor
) -> None:
    # So many rounds that a lucky streak of losses is no verdict.
    daemon = start_daemon(lab, settings(lab, fall="20"))
    lose_echoes(lab.provider(1), 40)
    wait_for(lambda: daemon.uplink(1).state == "degraded", timeout=12.0)
    assert "(limit 20 %)" in daemon.uplink(1).reason

    async def spread(count: int) -> dict[int, int]:
        with closing(await open_connections(lab, count, SERVERS[Family.V4][0])) as opened:
            return dict(shares(a.uplink for a in opened.attempts))

    async def story() -> None:
        async with asyncio.timeout(20):
            while 1 in await spread(4):
                await asyncio.sleep(0.1)
            lab.provider(1).nft("delete table inet lossy")
            while daemon.uplink(1).state != "up":
                await asyncio.sleep(0.05)
        assert await spread(6) == {1: 2, 2: 2, 3: 2}

    with_servers(lab, story)


def test_an_uplink_that_comes_back_is_given_more_and_more(
    lab: Lab, start_daemon: StartDaemon, wait_for: WaitFor
) -> None:
    daemon = start_daemon(lab, settings(lab, hold_down='"200ms"', slow_start='"6s"'))
    lab.cut(1)
    wait_for(lambda: daemon.uplink(1).state == "down")
    lab.restore(1)
    wait_for(lambda: daemon.uplink(1).state == "up", timeout=10.0)

    async def share() -> float:
        with closing(await open_connections(lab, 30, SERVERS[Family.V4][0])) as opened:
            assert all(a.ok for a in opened.attempts)
            return shares(a.uplink for a in opened.attempts)[1] / 30

    async def story() -> None:
        early = await share()
        assert early < 0.2
        async with asyncio.timeout(15):
            while daemon.uplink(1).slow_start is not None:
                await asyncio.sleep(0.05)
        assert await share() == 10 / 30

    with_servers(lab, story)


def test_three_quick_flaps_of_a_cable_hold_it_down_for_longer_each_time(
    lab: Lab, start_daemon: StartDaemon, wait_for: WaitFor
) -> None:
    daemon = start_daemon(lab, settings(lab, hold_down='"400ms"'))
    for _ in range(3):
        lab.cut(1)
        wait_for(lambda: daemon.uplink(1).state == "down")
        lab.restore(1)
        wait_for(lambda: daemon.uplink(1).state == "up", timeout=15.0)
    lab.cut(1)
    wait_for(lambda: daemon.uplink(1).state == "down")
    lab.restore(1)
    wait_for(lambda: "hold-down of 3.2 s" in daemon.uplink(1).reason, timeout=5.0)
    assert "(lost 4 times in " in daemon.uplink(1).reason
