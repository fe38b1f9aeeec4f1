"""Programs that manage an uplink's device are restarted beside polywan: no more is lost than what they take away."""

from __future__ import annotations

import asyncio
from contextlib import closing
from typing import TYPE_CHECKING, Final

import pytest

from polywan.core.net import Family
from polywan.lab.scenario import configuration
from polywan.lab.topology import SERVERS
from polywan.lab.traffic import open_connections, shares
from support.connections import answers, endings
from support.managers import ADDRESS, MANAGERS, ROUTER, managed
from support.netns import until, with_servers

if TYPE_CHECKING:
    from support.netns import BuildLab, StartDaemon

SERVER: Final = SERVERS[Family.V4][0]
SET_UP: Final = 30.0
"""Seconds within which a program has set up its device, and the uplink serves."""

NEEDS: Final = {"systemd-networkd": ("root",), "NetworkManager": ("root",)}

KEEPS: Final = {"systemd-networkd": True, "NetworkManager": True, "ifupdown": False}
"""Whether a program's restart leaves its addresses and routes in place."""


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=pytest.mark.needs(kind, *NEEDS.get(kind, ()))) for kind in MANAGERS]
)
def test_an_uplink_outlives_the_restart_of_the_program_that_manages_its_device(
    lab_of: BuildLab, start_daemon: StartDaemon, kind: str
) -> None:
    lab = lab_of(2, families=(Family.V4,))
    lab.router.ip(["address flush dev wan1"])
    with managed(lab.router, kind) as manager:
        daemon = start_daemon(lab, configuration(lab.topology, (1, 1)))

        def serves() -> bool:
            seen = daemon.uplink(1)
            return (seen.state, seen.address, seen.gateway) == ("up", ADDRESS, ROUTER)

        async def story() -> None:
            await until(serves, SET_UP, 0.05)
            with closing(await open_connections(lab, 10, SERVER)) as opened:
                assert shares(a.uplink for a in opened.attempts) == {1: 5, 2: 5}
                await asyncio.to_thread(manager.stop)
                if not KEEPS[kind]:
                    assert await endings(opened, 1, 5.0) == {"ECONNRESET": 5}
                await asyncio.to_thread(manager.start)
                await until(serves, SET_UP, 0.05)
                assert await answers(opened, {2}) == 5
                assert await answers(opened, {1} if KEEPS[kind] else set()) == (5 if KEEPS[kind] else 0)
                with closing(await open_connections(lab, 10, SERVER)) as later:
                    assert shares(a.uplink for a in later.attempts) == {1: 5, 2: 5}

        with_servers(lab, story)
        assert daemon.status().drift == ()
