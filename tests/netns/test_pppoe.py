"""PPPoE sessions for the clients of a VPN: real pppd against real access concentrators, dialled again and again."""

from __future__ import annotations

import asyncio
import json
import re
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from ipaddress import IPv6Address, IPv6Network
from typing import TYPE_CHECKING, Final

import pytest

from polywan.core.net import Family
from polywan.lab.daemon import DaemonProcess
from polywan.lab.network import Lab
from polywan.lab.topology import LAN_CLIENT, LAN_ROUTER, SERVERS
from polywan.lab.traffic import connect, open_connections, shares
from support.connections import answers, endings
from support.dhcp import Provider
from support.lan_clients import as_clients, ask_from
from support.netns import until, with_servers
from support.pppoe import UP_SCRIPT, Pppoe, configuration, device, dialled
from support.recipes import file_of, with_lab_targets

if TYPE_CHECKING:
    from support.netns import BuildLab, StartDaemon

pytestmark = [pytest.mark.needs("ppp", "pppd", "pppoe-server"), pytest.mark.kernel]

SERVER: Final = SERVERS[Family.V4][0]
THREE: Final = (1, 2, 3)
FREED: Final = 2.0
"""Seconds within which a client that only listens has heard that its session is gone; a guest is slow."""

AGAIN: Final = 40.0
"""Seconds within which a session is dialled again and serves: discovery, negotiation, probes and hold-down."""


@pytest.fixture
def three(lab_of: BuildLab) -> Lab:
    return lab_of(3, families=(Family.V4,))


async def serving(daemon: DaemonProcess, *numbers: int) -> None:
    """Wait until these uplinks serve."""
    names = {f"isp{number}" for number in numbers}
    await until(lambda: all(u.state == "up" for u in daemon.status().uplinks if u.name in names), AGAIN, 0.05)


async def state(daemon: DaemonProcess, number: int, wanted: str) -> None:
    await until(lambda: daemon.uplink(number).state == wanted, AGAIN, 0.05)


async def gone(session: Pppoe, number: int, index: int | None) -> None:
    """Wait until that device is no more; one that was dialled again has another index."""
    await until(lambda: session.index(number) != index, AGAIN, 0.02)


async def share_out(lab: Lab, number: int) -> Counter[int]:
    with closing(await open_connections(lab, number, SERVER)) as opened:
        return shares(a.uplink for a in opened.attempts)


def repairs(daemon: DaemonProcess) -> list[str]:
    """Return what the daemon says that other programs have changed: nobody does here."""
    return [*daemon.status().drift, *(line.text for line in list(daemon.log) if "drift." in line.text)]


def is_in_force(lab: Lab, daemon: DaemonProcess) -> bool:
    """Tell whether `plan` finds nothing to do."""
    argv = [sys.executable, "-m", "polywan", "plan", "--config", str(daemon.config), "--state-dir", str(daemon.state)]
    return lab.router.run([*argv, "--runtime-dir", str(daemon.runtime)], check=False).returncode == 0


def provider_hangs_up(session: Pppoe, number: int) -> None:
    session.lose(number)


def another_process(session: Pppoe, number: int) -> None:
    session.hang_up(number)
    session.dial(number)


def cable(session: Pppoe, number: int) -> None:
    """Pull the cable until the keepalive of pppd has noticed."""
    index, far = session.index(number), session.lab.provider(number)
    far.set_link("wan", up=False)
    while session.index(number) == index:
        # Nothing can be awaited across processes and network namespaces.
        time.sleep(0.02)
    far.set_link("wan", up=True)


@pytest.mark.parametrize("moved", [True, False], ids=["another address", "the same address"])
@pytest.mark.parametrize("dial", [provider_hangs_up, another_process, cable])
def test_a_session_that_is_dialled_again_frees_its_connections_and_shares_as_before(
    three: Lab, start_daemon: StartDaemon, dial: Callable[[Pppoe, int], None], moved: bool
) -> None:
    persist = () if dial is another_process else ("persist",)
    with dialled(three, THREE, ("nodefaultroute", *persist)) as session:
        daemon = start_daemon(three, configuration(THREE))

        async def story() -> None:
            await serving(daemon, *THREE)
            with closing(await open_connections(three, 30, SERVER)) as opened:
                assert shares(a.uplink for a in opened.attempts) == {1: 10, 2: 10, 3: 10}
                before, index = session.address(2), session.index(2)
                if moved:
                    session.move(2)
                task = asyncio.create_task(asyncio.to_thread(dial, session, 2))
                if dial is cable:
                    await task
                # It may be dialled again within milliseconds: no state of the daemon says that for sure.
                await gone(session, 2, index)
                assert await endings(opened, 2, FREED) == {"ECONNRESET": 10}
                await task
                await until(lambda: session.address(2) is not None, AGAIN, 0.02)
                assert (session.address(2) != before) is moved
                await serving(daemon, *THREE)
                assert daemon.uplink(2).address == str(session.address(2))
                assert await share_out(three, 30) == {1: 10, 2: 10, 3: 10}
                assert await answers(opened, {1, 3}) == 20

        with_servers(three, story)
        assert repairs(daemon) == []
        assert is_in_force(three, daemon)


def test_without_a_session_that_stays_away_the_others_share_until_it_is_back(
    three: Lab, start_daemon: StartDaemon
) -> None:
    with dialled(three, THREE) as session:
        daemon = start_daemon(three, configuration(THREE))

        async def story() -> None:
            await serving(daemon, *THREE)
            with closing(await open_connections(three, 12, SERVER)) as opened:
                await asyncio.to_thread(session.hang_up, 2)
                await state(daemon, 2, "missing")
                assert daemon.uplink(2).reason == "interface ppp1 does not exist"
                assert await share_out(three, 20) == {1: 10, 3: 10}
                assert await answers(opened, {1, 3}) == 8
                assert is_in_force(three, daemon)
                session.dial(2)
                await serving(daemon, *THREE)
                assert await share_out(three, 30) == {1: 10, 2: 10, 3: 10}
                assert await answers(opened, {1, 3}) == 8

        with_servers(three, story)
        assert repairs(daemon) == []


def test_with_all_sessions_gone_a_client_is_refused_and_all_share_once_they_are_back(
    three: Lab, start_daemon: StartDaemon
) -> None:
    with dialled(three, THREE) as session:
        daemon = start_daemon(three, configuration(THREE))

        async def story() -> None:
            await serving(daemon, *THREE)
            await asyncio.to_thread(session.hang_up, *THREE)
            for number in THREE:
                await state(daemon, number, "missing")
            attempt, _ = await connect(three, SERVER)
            assert attempt.error in {"ENETUNREACH", "EHOSTUNREACH"}
            for number in THREE:
                session.move(number)
            session.dial(*THREE)
            await serving(daemon, *THREE)
            assert await share_out(three, 30) == {1: 10, 2: 10, 3: 10}

        with_servers(three, story)
        assert repairs(daemon) == []


def test_of_twenty_sessions_five_are_dialled_again_at_once_and_the_others_never_notice(
    lab_of: BuildLab, start_daemon: StartDaemon
) -> None:
    lab, all_of_them, again = lab_of(20, families=(Family.V4,)), range(1, 21), (3, 7, 11, 15, 20)
    with dialled(lab, all_of_them) as session:
        daemon = start_daemon(lab, configuration(all_of_them))

        async def story() -> None:
            await serving(daemon, *all_of_them)
            with closing(await open_connections(lab, 60, SERVER)) as opened:
                assert shares(a.uplink for a in opened.attempts) == dict.fromkeys(all_of_them, 3)
                for number in again:
                    session.move(number)
                await asyncio.to_thread(session.hang_up, *again)
                for number in again:
                    assert await endings(opened, number, FREED) == {"ECONNRESET": 3}
                session.dial(*again)
                await asyncio.to_thread(session.wait, *again)
                await serving(daemon, *all_of_them)
                assert await share_out(lab, 60) == dict.fromkeys(all_of_them, 3)
                assert await answers(opened, set(all_of_them) - set(again)) == 45

        with_servers(lab, story)
        assert repairs(daemon) == []
        assert is_in_force(lab, daemon)


def test_the_pool_of_the_recipe_serves_the_clients_of_the_vpn_and_nobody_else(
    lab_of: BuildLab, start_daemon: StartDaemon
) -> None:
    lab = lab_of(4, families=(Family.V4,), without_default=(4,))
    # What made the recipe fail: answers by a session that main would not use are dropped.
    lab.router.sysctl({"ipv4/conf/all/rp_filter": 1, "ipv4/conf/default/rp_filter": 1})
    with dialled(lab, THREE, ("defaultroute",)) as session:
        # pppd replaces no default route of another session: which one has main's depends on who was first.
        lab.router.ip(["route replace default dev ppp0", f"route add {SERVERS[Family.V4][1]} via 100.64.4.1 dev wan4"])
        # wan4 is no uplink: whatever leaves by it is the administrator's own business.
        lab.router.nft(
            "table ip own { chain out { type nat hook postrouting priority srcnat; oifname wan4 masquerade; }; }"
        )
        lan = LAN_ROUTER[Family.V4], str(LAN_CLIENT[Family.V4].ip)
        lab.router.ip([f"address add {lan[0]} dev tun0"])
        vpn = as_clients(lab, [f"10.8.8.{n}" for n in range(10, 22)])
        as_clients(lab, [lan[1]])
        daemon = start_daemon(lab, with_lab_targets(file_of("pppoe-pool-for-vpn-clients.md"), lab))

        async def story() -> None:
            await until(lambda: all(u.state == "up" for u in daemon.status().uplinks), AGAIN, 0.05)
            for _ in range(2):
                assert Counter([await ask_from(lab, source, SERVER) for source in vpn]) == {1: 4, 2: 4, 3: 4}
                assert Counter([await ask_from(lab, lan[1], SERVER) for _ in range(6)]) == {1: 6}
                session.move(2)
                await asyncio.to_thread(another_process, session, 2)
                await asyncio.to_thread(session.wait, 2)
                await until(lambda: all(u.state == "up" for u in daemon.status().uplinks), AGAIN, 0.05)
            # The internal network has a specific route, by no session.
            assert await ask_from(lab, vpn[0], SERVERS[Family.V4][1]) == 4

        with_servers(lab, story)
        assert repairs(daemon) == []


def test_segments_fit_into_a_session_also_after_it_was_dialled_again(three: Lab, start_daemon: StartDaemon) -> None:
    with dialled(three, THREE) as session:
        daemon = start_daemon(three, configuration(THREE))

        async def sizes() -> Counter[int]:
            with closing(await open_connections(three, 6, SERVER)) as opened:
                # TCP_MAXSEG (tcp(7)): what the other side asked for, less the time stamps' 12 bytes.
                return Counter(c.sock.getsockopt(6, 2) for c in opened.connections)

        async def story() -> None:
            await serving(daemon, *THREE)
            assert await sizes() == {1492 - 40 - 12: 6}
            await asyncio.to_thread(another_process, session, 1)
            await asyncio.to_thread(session.wait, 1)
            await serving(daemon, *THREE)
            assert await sizes() == {1492 - 40 - 12: 6}

        with_servers(three, story)


def kernel_state(lab: Lab) -> list[Counter[str]]:
    """Return the words of the rules, routes and table that polywan keeps; the kernel lists them as it likes."""
    commands = ("ip -4 rule", "ip -4 route show table all proto 200", "nft -s list table inet polywan")
    return [Counter(re.findall(r"[^\s,{}]+", lab.router.run(command.split()).stdout)) for command in commands]


SCRIPTS: Final = {
    "none": "",
    "reloads": "{polywan} reload {where}\n",
    "is killed on the way": "timeout -s KILL 0.05 {polywan} reload {where}\n{polywan} reload {where}\n",
    "fails": "exit 1\n",
}


@pytest.mark.parametrize("script", SCRIPTS)
def test_with_or_without_a_script_of_pppd_the_kernel_ends_up_the_same(
    three: Lab, start_daemon: StartDaemon, script: str
) -> None:
    # Each device of PPP has a link-local address by chance.
    three.router.sysctl({"ipv6/conf/default/disable_ipv6": 1})
    with dialled(three, THREE) as session:
        daemon = start_daemon(three, configuration(THREE))
        done = UP_SCRIPT.parent / "done"
        done.unlink(missing_ok=True)
        words = {"polywan": f"{sys.executable} -m polywan", "where": f"--runtime-dir {daemon.runtime}"}
        lines = f"#!/bin/sh\nexport PATH={sys.exec_prefix}/bin:/usr/sbin:/usr/bin:/sbin:/bin\n" + SCRIPTS[script]

        async def story() -> None:
            await serving(daemon, *THREE)
            before = kernel_state(three)
            if script != "none":
                UP_SCRIPT.write_text(lines.format_map(words) + f"touch {done}\n", "utf-8")
                UP_SCRIPT.chmod(0o755)
            await asyncio.to_thread(another_process, session, 2)
            await asyncio.to_thread(session.wait, 2)
            if script not in {"none", "fails"}:
                await until(done.exists, AGAIN, 0.05)
            await serving(daemon, *THREE)
            # Marks of a session that lost its address are dead for some seconds.
            await until(lambda: kernel_state(three) == before, 10.0, 0.1)
            assert daemon.uplink(2).interface == device(2)

        with_servers(three, story)
        assert repairs(daemon) == []


BOTH: Final = """
[uplinks.isp2]
interface = "wan2"
[policies.default]
tiers = [["isp1"], ["isp2"]]
"""


@pytest.mark.needs("dnsmasq")
def test_a_session_has_another_prefix_by_advertisement_when_it_is_dialled_again(
    lab_of: BuildLab, start_daemon: StartDaemon
) -> None:
    lab = lab_of(2)
    far, static = lab.provider(1), lab.topology.uplink(1).addresses[Family.V6]
    lab.router.ip([f"address del {static.own} dev wan1", f"route del default via {static.gateway} dev wan1"])
    prefixes = [IPv6Network(f"2001:db8:{turn}:1::/64") for turn in ("aaaa", "bbbb")]
    lab.server.ip([f"route add {prefix} via 2001:db8:ff:1::1 dev x1" for prefix in prefixes])
    advertiser = Provider(lab, 1)

    def advertise(prefix: IPv6Network) -> None:
        shown = json.loads(far.run(["ip", "-json", "link", "show", "type", "ppp"]).stdout)
        # The provider's end of the session before may be there still.
        end = max((found for found in shown if found), key=lambda found: found["ifindex"])["ifname"]
        far.ip([f"address add {prefix[1]}/64 dev {end} nodad"])
        advertiser.advertise(end)

    with dialled(lab, (1,), ("nodefaultroute", "+ipv6")) as session, closing(advertiser):
        daemon = start_daemon(lab, configuration((1,), BOTH))

        async def serves_by(prefix: IPv6Network) -> None:
            advertise(prefix)
            await until(lambda: IPv6Address(daemon.uplink(1).address6 or "::") in prefix, AGAIN, 0.05)
            await serving(daemon, 1)
            attempt, connection = await connect(lab, SERVERS[Family.V6][0], namespace=lab.router)
            assert connection is not None
            with closing(connection):
                # The server saw an address that is not the other uplink's.
                assert attempt.uplink is None

        async def story() -> None:
            await serves_by(prefixes[0])
            await asyncio.to_thread(another_process, session, 1)
            await asyncio.to_thread(session.wait, 1)
            await serves_by(prefixes[1])

        with_servers(lab, story)
        assert repairs(daemon) == []
