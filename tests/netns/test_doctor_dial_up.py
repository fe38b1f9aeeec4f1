"""Two PPPoE sessions balanced by hand, as a widely read recipe has it: doctor says why it fails, and mends it."""

from __future__ import annotations

import subprocess
import time
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from polywan.core.net import Family
from polywan.lab.network import Lab
from polywan.lab.topology import SERVERS
from polywan.lab.traffic import open_connections, shares
from support.doctor import doctor, mend, of, only
from support.netns import with_servers
from support.pppoe import VPN, Pppoe, dialled

if TYPE_CHECKING:
    from support.netns import BuildLab

pytestmark = [pytest.mark.needs("ppp", "pppd", "pppoe-server", "iptables-nft"), pytest.mark.kernel]

SERVER: Final = SERVERS[Family.V4][0]
NEW: Final = f"-t mangle -A PREROUTING -s {VPN} -m state --state NEW -m statistic --mode nth --every 2"
RECIPE: Final = (
    f"iptables-nft -t nat -A POSTROUTING -s {VPN} -j MASQUERADE",
    f"iptables-nft {NEW} --packet 0 -j CONNMARK --set-mark 1",
    f"iptables-nft {NEW} --packet 1 -j CONNMARK --set-mark 2",
    "iptables-nft -t mangle -A PREROUTING -m connmark --mark 1 -j CONNMARK --restore-mark",
    "iptables-nft -t mangle -A PREROUTING -m connmark --mark 2 -j CONNMARK --restore-mark",
    f"ip route add {VPN} dev tun0 table p0",
    "ip route add default dev ppp0 table p0",
    f"ip route add {VPN} dev tun0 table p1",
    "ip route add default dev ppp1 table p1",
    "ip rule add fwmark 1 table p0",
    "ip rule add fwmark 2 table p1",
)


@pytest.fixture
def box(lab_of: BuildLab) -> Lab:
    """A router with a filter as strict as Debian's, whose main default is by a third link."""
    for folder in ("/etc/iproute2", "/etc/sysctl.d"):
        subprocess.run(["mount", "-t", "tmpfs", "own", folder], check=True)
    Path("/etc/iproute2/rt_tables").write_text("255 local\n254 main\n253 default\n200 p0\n201 p1\n", "ascii")
    lab = lab_of(3, families=(Family.V4,))
    lab.router.run(["sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv4.conf.default.rp_filter=1"])
    for number in (1, 2):
        lab.router.run(["ip", "route", "flush", "default", "dev", f"wan{number}"])
    return lab


def test_a_table_that_a_redial_empties_is_found(box: Lab) -> None:
    with dialled(box, (1, 2), ("nodefaultroute", "persist")) as session:
        for line in RECIPE:
            box.router.run(line.split())
        assert of(doctor(box.router, "emptied-table"), "emptied-table") == []

        index = session.index(2)
        session.lose(2)
        wait_for_another(session, index)

        assert "mark 0x2 are sent to table 201" in only(doctor(box.router, "emptied-table"), "emptied-table").what


def test_a_multipath_default_over_sessions_is_in_danger_until_it_is_mended(box: Lab) -> None:
    with dialled(box, (1, 2)) as session:
        box.router.ip(["route del default", "route add default nexthop dev ppp0 weight 1 nexthop dev ppp1 weight 1"])

        mend(box.router, only(doctor(box.router, "lost-multipath"), "lost-multipath"))

        assert of(doctor(box.router, "lost-multipath"), "lost-multipath") == []
        session.hang_up(1)
        assert "dev ppp1" in box.router.run(["ip", "route", "show", "default"]).stdout


def wait_for_another(session: Pppoe, index: int | None) -> None:
    """Wait until the session was dialled again: its device is another one."""
    while session.index(2) in (index, None) or session.address(2) is None:
        # Nothing can be awaited across processes and network namespaces.
        time.sleep(0.02)


def test_answers_that_a_strict_filter_drops_are_found_without_traffic_and_let_in(box: Lab) -> None:
    with dialled(box, (1, 2)):
        for line in RECIPE:
            box.router.run(line.split())

        finding = only(doctor(box.router, "strict-rp-filter"), "strict-rp-filter")

        assert "ppp0 and ppp1" in finding.what
        assert any("iif ppp0 mark 0x1" in line for line in finding.evidence)
        assert not any("has dropped" in line or "SYN_RECV" in line for line in finding.evidence)

        async def fails() -> None:
            with closing(await open_connections(box, 20, SERVER)) as opened:
                assert [attempt.ok for attempt in opened.attempts] == [False] * 20
            seen = only(doctor(box.router, "strict-rp-filter"), "strict-rp-filter").evidence
            assert any("IPReversePathFilter" in line for line in seen)
            assert any("mark 0x1 in SYN_RECV" in line for line in seen)

        async def works() -> None:
            with closing(await open_connections(box, 20, SERVER)) as opened:
                assert shares(attempt.uplink for attempt in opened.attempts) == Counter({1: 10, 2: 10})

        with_servers(box, fails)
        mended = doctor(box.router, "strict-rp-filter", "nth-per-packet", "--fix", "--yes")
        assert mended.findings == ()
        assert "rp_filter = 2" in Path("/etc/sysctl.d/90-uplinks.conf").read_text("ascii")
        with_servers(box, works)
