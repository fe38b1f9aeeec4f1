"""Quotas with real bytes: what a device carries changes who is given new connections, and nothing else."""

from __future__ import annotations

import asyncio
import json
import socket
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from polywan.api.views.quota import QuotaStatus
from polywan.core.net import FAMILIES, Family
from polywan.lab.daemon import DaemonProcess
from polywan.lab.network import Lab
from polywan.lab.scenario import configuration
from polywan.lab.servers import STREAM_PORT
from polywan.lab.topology import SERVERS
from polywan.lab.traffic import connect, open_connections, shares
from support.netns import polywan, until, with_servers

if TYPE_CHECKING:
    from support.netns import StartDaemon

MB = 1_000_000


def limited(lab: Lab, quota: str, uplink: str = "isp1", more: str = "") -> str:
    """Return the lab's configuration, in which all weigh the same and an uplink has a quota."""
    return configuration(lab.topology, (1, 1, 1)) + f"\n[uplinks.{uplink}.quota]\n{quota}\n{more}"


def quota_of(daemon: DaemonProcess, number: int = 1) -> QuotaStatus:
    found = daemon.uplink(number).quota
    assert found is not None
    return found


def saved(daemon: DaemonProcess) -> int:
    """Return how many bytes of the first uplink are on disk."""
    document = json.loads((daemon.state / "quota.json").read_text(encoding="utf-8"))
    return int(document["uplinks"]["isp1"]["counted"])


async def counting(daemon: DaemonProcess) -> None:
    """Wait until counting has begun: what went by before the first look at a device does not count."""
    await until(lambda: quota_of(daemon).used_bytes > 0)


async def carry(lab: Lab, amount: int, number: int = 1) -> None:
    """Download so many bytes by an uplink, whoever chooses."""
    loop, device = asyncio.get_running_loop(), lab.topology.uplink(number).interface
    with closing(lab.router.socket(socket.AF_INET, socket.SOCK_STREAM)) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.encode())
        await loop.sock_connect(sock, (str(SERVERS[Family.V4][0]), STREAM_PORT))
        while amount > 0:
            amount -= len(await loop.sock_recv(sock, min(amount, 65536)))


async def chosen(lab: Lab, count: int, family: Family) -> Counter[int]:
    opened = await open_connections(lab, count, SERVERS[family][0])
    opened.close()
    assert [attempt.error for attempt in opened.attempts if attempt.error] == []
    return shares(attempt.uplink for attempt in opened.attempts)


def test_bytes_lower_the_share_then_leave_the_uplink_to_stand_by_and_move_no_open_connection(
    lab: Lab, start_daemon: StartDaemon, tmp_path: Path
) -> None:
    calls = tmp_path / "calls"
    hook = f'[hooks]\nquota = ["/bin/sh", "-c", "echo $HOOK $UPLINK $REASON >> {calls}"]\n'
    daemon = start_daemon(lab, limited(lab, 'monthly = "4MB"\nsoft = "2MB"', more=hook))

    async def story() -> None:
        opened = await open_connections(lab, 3, SERVERS[Family.V4][0])
        await counting(daemon)
        assert quota_of(daemon).state == "within"
        await carry(lab, 2 * MB)
        await until(lambda: quota_of(daemon).state == "soft")
        assert quota_of(daemon).action == "less"
        for family in FAMILIES:
            assert await chosen(lab, 42, family) == {1: 2, 2: 20, 3: 20}
        await carry(lab, 2 * MB)
        await until(lambda: quota_of(daemon).state == "hard")
        for family in FAMILIES:
            assert await chosen(lab, 10, family) == {2: 5, 3: 5}
        assert daemon.uplink(1).standby
        for connection in opened.connections:
            assert await connection.ask("still there?")
        opened.close()
        assert (
            "quota: isp1 standing by" in polywan(daemon, "why", "192.168.15.10", f"{SERVERS[Family.V4][0]}:80").stdout
        )
        assert [line.text for line in daemon.log if "quota.hard: isp1: " in line.text]
        await until(lambda: calls.exists() and len(calls.read_text().splitlines()) == 2)
        assert all(line.startswith("quota isp1 ") for line in calls.read_text().splitlines())
        assert polywan(daemon, "events").stdout.count("isp1  quota: ") == 2
        # What the provider says puts it back at once.
        done = polywan(daemon, "quota", "isp1", "--reading", "1MB", "--json")
        assert json.loads(done.stdout)["quota"]["state"] == "within"
        assert await chosen(lab, 9, Family.V6) == {1: 3, 2: 3, 3: 3}

    with_servers(lab, story)


def test_the_only_uplink_that_works_serves_although_its_quota_is_used_up(lab: Lab, start_daemon: StartDaemon) -> None:
    daemon = start_daemon(lab, limited(lab, 'prepaid = "1MB"'))

    async def story() -> None:
        await counting(daemon)
        await carry(lab, MB)
        await until(lambda: quota_of(daemon).state == "hard")
        for number in (2, 3):
            lab.cut(number)
        await until(lambda: [daemon.uplink(n).state for n in (2, 3)] == ["down", "down"])
        for family in FAMILIES:
            assert await chosen(lab, 4, family) == {1: 4}
        lab.restore(2)
        await until(lambda: daemon.uplink(2).state == "up", timeout=20.0)
        for family in FAMILIES:
            assert await chosen(lab, 4, family) == {2: 4}

    with_servers(lab, story)


def test_a_blocked_uplink_gets_no_connection_and_its_kill_switch_stays_shut(
    lab: Lab, start_daemon: StartDaemon
) -> None:
    rule = f'[[rules]]\nto = ["{SERVERS[Family.V4][1]}", "{SERVERS[Family.V6][1]}"]\nonly = "isp1"\n'
    daemon = start_daemon(lab, limited(lab, 'prepaid = "1MB"\nat_hard = "block"', more=rule))

    async def story() -> None:
        kept, connection = await connect(lab, SERVERS[Family.V4][1])
        assert kept.uplink == 1
        await counting(daemon)
        await carry(lab, MB)
        await until(lambda: quota_of(daemon).action == "block")
        for family in FAMILIES:
            refused, _ = await connect(lab, SERVERS[family][1])
            assert refused.error in ("EHOSTUNREACH", "ENETUNREACH", "ECONNREFUSED")
            assert await chosen(lab, 4, family) == {2: 2, 3: 2}
        assert connection is not None
        assert await connection.ask("still there?")
        connection.close()
        assert polywan(daemon, "quota", "isp1", "--bought", "10MB").returncode == 0
        for family in FAMILIES:
            attempt, again = await connect(lab, SERVERS[family][1])
            assert again is not None
            assert attempt.uplink == 1
            again.close()

    with_servers(lab, story)


def test_a_daemon_that_is_killed_has_counted_all_there_was_and_decides_by_it_from_the_start(
    lab: Lab, start_daemon: StartDaemon
) -> None:
    daemon = start_daemon(lab, limited(lab, 'monthly = "20MB"\nsoft = "2MB"\nat_soft = "standby"'))

    async def story() -> None:
        await counting(daemon)
        await carry(lab, 2 * MB)
        await until(lambda: quota_of(daemon).state == "soft")
        await until(lambda: saved(daemon) >= 2 * MB)
        daemon.kill()
        await carry(lab, 3 * MB)
        first = len(daemon.log)
        await asyncio.to_thread(daemon.start)
        # The first thing that it does is no connection for the uplink.
        assert await chosen(lab, 4, Family.V4) == {2: 2, 3: 2}
        await until(lambda: quota_of(daemon).used_bytes >= 5 * MB)
        status = daemon.uplink(1)
        assert status.quota is not None
        # Both were there when the device was new but for a second: they differ by what went by before the first look.
        assert abs(status.rx_bytes + status.tx_bytes - status.quota.used_bytes) < 200_000
        assert not [line.text for line in daemon.log[first:] if "quota.within" in line.text]

    with_servers(lab, story)


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (["isp1", "--reading", "much"], 2, "reading: expected an amount of data"),
        (["isp1", "--bought", "0GB"], 2, "bought: expected an amount of data"),
        (["isp2", "--reading", "1GB"], 1, 'uplink "isp2" has no quota'),
        (["isp9", "--reading", "1GB"], 1, 'there is no uplink "isp9"'),
        (["--reading", "1GB"], 2, "say which uplink"),
        (["isp9"], 2, "there is no uplink isp9"),
        (["isp2"], 2, "uplink isp2 has no quota"),
    ],
)
def test_an_entry_that_makes_no_sense_is_refused(
    lab: Lab, start_daemon: StartDaemon, words: list[str], code: int, text: str
) -> None:
    daemon = start_daemon(lab, limited(lab, 'monthly = "50GB"'))
    done = polywan(daemon, "quota", *words)
    assert done.returncode == code
    assert text in done.stderr
