"""The first recipe as it is written, over real PPPoE: its author could not say why it failed, and doctor can.

Names of tables and what a fix keeps are written where the recipe has them, in folders of this sandbox.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from polywan.core.net import Family
from polywan.lab.network import Lab
from polywan.lab.topology import SERVERS
from polywan.lab.traffic import connect
from support.doctor import doctor, mend, of, only
from support.netns import with_servers
from support.pppoe import Pppoe, dialled

if TYPE_CHECKING:
    from support.netns import BuildLab

pytestmark = [pytest.mark.needs("ppp", "pppd", "pppoe-server"), pytest.mark.kernel]

SERVER: Final = SERVERS[Family.V4][0]
BOTH: Final = (1, 2)
RECIPE: Final = """\
iptables -t nat -A POSTROUTING -s 10.8.8.0/24 -j MASQUERADE
iptables -t mangle -A PREROUTING -s 10.8.8.0/24 -m state --state NEW -m statistic --mode nth --every 2 --packet 0 -j CONNMARK --set-mark 1
iptables -t mangle -A PREROUTING -s 10.8.8.0/24 -m state --state NEW -m statistic --mode nth --every 2 --packet 1 -j CONNMARK --set-mark 2
iptables -t mangle -A PREROUTING -m connmark --mark 1 -j CONNMARK --restore-mark
iptables -t mangle -A PREROUTING -m connmark --mark 2 -j CONNMARK --restore-mark
ip route add 10.8.8.0/24 dev tun0 table p0
ip route add default dev ppp0 table p0
ip route add 10.8.8.0/24 dev tun0 table p1
ip route add default dev ppp1 table p1
ip rule add fwmark 1 table p0
ip rule add fwmark 2 table p1
"""  # noqa: E501 - as the recipe has it
NAMES: Final = Path("/etc/iproute2/rt_tables.d/pppoe.conf")
SCRIPT: Final = Path("/etc/ppp/ip-up.local")
"""Nothing calls it: there is no /etc/ppp/ip-up here."""

KEPT: Final = Path("/etc/sysctl.d/90-uplinks.conf")
ECMP: Final = "ip route add default nexthop dev ppp0 weight 1 nexthop dev ppp1 weight 1"


@pytest.fixture
def dialled_up(lab_of: BuildLab) -> Iterator[Pppoe]:
    """Two sessions that dial again, VPN clients, a third line with main's default, strict filtering as on Debian."""
    lab = lab_of(3, families=(Family.V4,))
    with dialled(lab, BOTH, ("nodefaultroute", "persist")) as session:
        lab.router.sysctl({"ipv4/ip_forward": 1, "ipv4/conf/all/rp_filter": 0, "ipv4/conf/default/rp_filter": 1})
        lab.router.sysctl({f"ipv4/conf/ppp{n}/rp_filter": 1 for n in (0, 1)})
        folders = [NAMES.parent, KEPT.parent]
        for folder in folders:
            folder.mkdir(parents=True, exist_ok=True)
            subprocess.run(["mount", "-t", "tmpfs", "own", str(folder)], check=True)
        try:
            yield session
        finally:
            SCRIPT.unlink(missing_ok=True)
            for folder in folders:
                subprocess.run(["umount", str(folder)], check=True)


def carry_out(lab: Lab, commands: str) -> None:
    for command in commands.splitlines():
        lab.router.run(command.split())


def with_names(lab: Lab, commands: str) -> None:
    """Name the tables, and keep the commands as a script that an administrator has."""
    NAMES.write_text("200 p0\n201 p1\n", "utf-8")
    SCRIPT.write_text(f"#!/bin/sh\n{commands}\n", "utf-8")
    carry_out(lab, commands)


async def connected(lab: Lab, number: int) -> Counter[int | str | None]:
    """Return by which uplinks new connections of a VPN client reach the server; errors count by their name."""
    attempts = await asyncio.gather(*(connect(lab, SERVER) for _ in range(number)))
    found: Counter[int | str | None] = Counter()
    for attempt, sock in attempts:
        found[attempt.uplink if attempt.ok else "failed"] += 1
        if sock is not None:
            sock.close()
    return found


def test_strict_filtering_is_named_without_traffic_and_its_fix_lets_all_connections_through(
    dialled_up: Pppoe,
) -> None:
    lab = dialled_up.lab
    with_names(lab, RECIPE)

    finding = only(doctor(lab.router), "strict-rp-filter")
    assert "ppp0 and ppp1" in finding.what

    async def story() -> None:
        assert await connected(lab, 20) == {"failed": 20}
        fix = [sys.executable, "-m", "polywan", "doctor", "--fix", "--yes", "--config", "/nonexistent/polywan.toml"]
        done = await asyncio.to_thread(lab.router.run, fix, check=False)
        assert "done: sysctl -q -w net.ipv4.conf.all.src_valid_mark=1" in done.stderr, done.stderr
        assert done.returncode in (0, 6), done.stderr
        assert await connected(lab, 20) == {1: 10, 2: 10}

    with_servers(lab, story)
    found = doctor(lab.router)
    assert of(found, "strict-rp-filter") == of(found, "nth-per-packet") == []
    assert "src_valid_mark = 1" in KEPT.read_text("utf-8")


def redial(session: Pppoe, number: int) -> None:
    """Let the provider end a session, and wait until it is dialled again as another device."""
    index = session.index(number)
    session.lose(number)
    session.wait_for_another(number, index)


def test_a_redial_empties_a_table_and_the_fix_fills_it(dialled_up: Pppoe) -> None:
    lab = dialled_up.lab
    with_names(lab, RECIPE)
    assert of(doctor(lab.router), "emptied-table") == []
    redial(dialled_up, 1)

    finding = only(doctor(lab.router), "emptied-table")

    assert "table 200" in finding.what
    assert "wan3" in finding.consequence
    mend(lab.router, finding)
    assert of(doctor(lab.router), "emptied-table") == []


def test_a_redial_takes_the_multipath_default_away_and_the_fix_outlives_the_next_one(dialled_up: Pppoe) -> None:
    lab = dialled_up.lab
    lab.router.ip(["route flush default"])
    with_names(lab, ECMP)
    assert of(doctor(lab.router), "lost-multipath") == []
    redial(dialled_up, 1)

    finding = only(doctor(lab.router), "lost-multipath")

    assert finding.severity == "fault"
    mend(lab.router, finding)
    assert of(doctor(lab.router), "lost-multipath") == []
    redial(dialled_up, 1)
    assert "ppp1" in lab.router.run(["ip", "route", "show", "default"]).stdout
