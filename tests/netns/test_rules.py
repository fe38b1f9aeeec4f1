"""Rules in a real router: every condition against real packets."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from ipaddress import ip_address
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import pytest

from polywan.core.net import FAMILIES, Family
from polywan.kernel.cgroups import hierarchy
from polywan.lab.daemon import DaemonProcess
from polywan.lab.network import Lab
from polywan.lab.servers import ECHO_PORT
from polywan.lab.topology import SERVERS
from support.lan_traffic import DSCP_EF, NOBODY, Asker, mac_of, needs_users, rule, started
from support.netns import with_servers

if TYPE_CHECKING:
    from support.netns import StartDaemon, WaitFor

OTHER_PORT = 40001
FOREIGN = 0x0001_0000


async def later(wait_for: WaitFor, daemon: DaemonProcess, generation: int, what: str) -> None:
    """Wait until another plan was carried out."""
    await asyncio.to_thread(wait_for, lambda: daemon.status().generation > generation, 10.0, what)


def everywhere(lab: Lab, check: Callable[[Asker, Family], Any]) -> None:
    """Tell one story for each family while the servers answer."""

    async def story() -> None:
        for family in FAMILIES:
            await check(Asker(lab), family)

    with_servers(lab, story)


def test_a_dscp_steers(lab: Lab, start_daemon: StartDaemon) -> None:
    started(lab, start_daemon, rule('dscp = "ef"'))

    async def check(ask: Asker, family: Family) -> None:
        server = SERVERS[family][0]
        assert await ask.tcp(server, dscp=DSCP_EF) == 2
        assert await ask.udp(server, dscp=DSCP_EF) == 2
        assert await ask.udp(server, dscp=DSCP_EF - 2) == 1
        assert await ask.tcp(server) == 1
        assert await ask.tcp(server, namespace=lab.router, dscp=DSCP_EF) == 2

    everywhere(lab, check)


def test_a_neighbours_mac_steers(lab: Lab, start_daemon: StartDaemon) -> None:
    mac = mac_of(lab.client, "eth0")
    started(lab, start_daemon, rule('mac = "02:00:00:00:99:99"', to='uplink = "isp3"') + rule(f'mac = "{mac}"'))

    async def check(ask: Asker, family: Family) -> None:
        assert await ask.tcp(SERVERS[family][0]) == 2
        assert await ask.tcp(SERVERS[family][0], namespace=lab.router) == 1

    everywhere(lab, check)


def test_ports_and_devices_steer(lab: Lab, start_daemon: StartDaemon) -> None:
    started(
        lab,
        start_daemon,
        rule('in_interface = ["wan9", "lan9"]', to='action = "block"')
        + rule('protocol = "tcp"', f'source_port = "{OTHER_PORT},50000"')
        + rule('in_interface = "lan0"', 'protocol = "udp"', f'port = "1-6999,{ECHO_PORT}"', to='uplink = "isp3"'),
    )

    async def check(ask: Asker, family: Family) -> None:
        server = SERVERS[family][0]
        assert await ask.tcp(server, port=OTHER_PORT) == 2
        assert await ask.udp(server, port=OTHER_PORT) == 3
        assert await ask.tcp(server) == 1
        assert await ask.udp(server, namespace=lab.router) == 1

    everywhere(lab, check)


def test_a_mark_of_another_program_steers(lab: Lab, start_daemon: StartDaemon) -> None:
    marked = "\n".join(
        f"{'ip' if f is Family.V4 else 'ip6'} daddr {SERVERS[f][1]} meta mark set {FOREIGN:#x}" for f in FAMILIES
    )
    hook = "type filter hook prerouting priority -200; policy accept;"
    lab.router.nft(f"table inet other {{ chain pre {{ {hook}\n{marked}\n}}\n}}\n")
    started(lab, start_daemon, rule(f'fwmark = "{FOREIGN:#x}"'))

    async def check(ask: Asker, family: Family) -> None:
        assert await ask.tcp(SERVERS[family][1]) == 2
        assert await ask.tcp(SERVERS[family][0]) == 1

    everywhere(lab, check)


def test_a_user_steers_the_boxs_own_connections_only(lab: Lab, start_daemon: StartDaemon) -> None:
    needs_users()
    started(lab, start_daemon, rule(f"user = {NOBODY}") + rule('not = {user = "root"}', to='uplink = "isp3"'))

    async def check(ask: Asker, family: Family) -> None:
        server = SERVERS[family][0]
        assert await ask.tcp(server, namespace=lab.router, user=NOBODY) == 2
        assert await ask.udp(server, namespace=lab.router, user=NOBODY) == 2
        assert await ask.tcp(server, namespace=lab.router) == 1
        # Nobody's user is not root: what cannot be seen does not exclude.
        assert await ask.tcp(server) == 3

    everywhere(lab, check)


def test_none_of_the_negated_conditions_may_hold(lab: Lab, start_daemon: StartDaemon) -> None:
    exempt = ", ".join(f'"{SERVERS[f][1]}"' for f in FAMILIES)
    started(lab, start_daemon, rule(f'not = {{to = [{exempt}], dscp = "ef", protocol = "udp"}}'))

    async def check(ask: Asker, family: Family) -> None:
        assert await ask.tcp(SERVERS[family][0]) == 2
        assert await ask.tcp(SERVERS[family][1]) == 1
        assert await ask.tcp(SERVERS[family][0], dscp=DSCP_EF) == 1
        assert await ask.udp(SERVERS[family][0]) == 1

    everywhere(lab, check)


def test_a_list_of_prefixes_steers_and_follows_its_file(
    lab: Lab, start_daemon: StartDaemon, wait_for: WaitFor, tmp_path: Path
) -> None:
    file = tmp_path / "list.txt"
    file.write_text("# elsewhere\n198.51.100.8/30\n2001:db8:198::/64\n")
    daemon = started(lab, start_daemon, rule(f'list = "{file}"'))

    async def check(ask: Asker, family: Family) -> None:
        assert await ask.tcp(SERVERS[family][1]) == 2
        assert await ask.tcp(SERVERS[family][0]) == 1

    everywhere(lab, check)
    before = daemon.status().generation
    file.write_text("203.0.113.10\n2001:db8:203::10\n")
    asyncio.run(later(wait_for, daemon, before, "the new contents are in force"))

    async def changed(ask: Asker, family: Family) -> None:
        assert await ask.tcp(SERVERS[family][0]) == 2
        assert await ask.tcp(SERVERS[family][1]) == 1

    everywhere(lab, changed)


def test_addresses_that_dnsmasq_has_seen_steer(lab: Lab, start_daemon: StartDaemon, wait_for: WaitFor) -> None:
    started(lab, start_daemon, rule('domains = "polywan.invalid"'))
    sets = lab.router.run(["nft", "list", "sets", "inet"]).stdout
    names = {word for word in sets.split() if word.startswith("dns_")}
    for family in FAMILIES:
        (name,) = (n for n in names if n.startswith(f"dns_{family}_"))
        lab.router.run(["nft", "add", "element", "inet", "polywan", name, f"{{ {SERVERS[family][1]} }}"])

    async def check(ask: Asker, family: Family) -> None:
        assert await ask.tcp(SERVERS[family][1]) == 2
        assert await ask.tcp(SERVERS[family][0]) == 1

    everywhere(lab, check)


def test_a_rule_holds_in_its_hours_of_local_time(
    lab: Lab, start_daemon: StartDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", "XYZ-05:30")
    names = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
    local = time.gmtime(time.time() + 5.5 * 3600)
    hours = {h: f"{(local.tm_hour + h) % 24:02d}:{local.tm_min:02d}" for h in (-2, 2, 3, 5)}
    near = [names[(local.tm_wday + d) % 7] for d in (-1, 0, 1)]
    others = ",".join(n for n in names if n not in near)
    started(
        lab,
        start_daemon,
        rule(f'time = "{hours[3]}-{hours[5]}"', to='action = "block"')
        + rule(f'time = "{others} {hours[-2]}-{hours[2]}"', to='action = "block"')
        + rule(
            f'time = "{",".join(near)} {hours[-2]}-{hours[2]}"',
            f'not = {{time = ["{others}", "{hours[3]}-{hours[5]}"]}}',
        ),
    )

    async def check(ask: Asker, family: Family) -> None:
        assert await ask.tcp(SERVERS[family][0]) == 2

    everywhere(lab, check)


MEMBER = f"""
import pathlib, signal, socket, sys
pathlib.Path(sys.argv[1], "cgroup.procs").write_text("0")
listeners = [socket.create_server(("::", {ECHO_PORT}), family=socket.AF_INET6, dualstack_ipv6=True)]
for address in sys.argv[2:]:
    print(socket.create_connection((address, {ECHO_PORT}), 5).recv(200).split()[0].decode(), flush=True)
signal.pause()
"""
"""A program of a control group: listens everywhere, says what servers see of it, and stays."""


@contextmanager
def member(lab: Lab, group: Path) -> Iterator[IO[str]]:
    """Such a program in the router, and its output: who it was taken for, by IPv4 and by IPv6."""
    argv = [sys.executable, "-c", MEMBER, str(group), *(str(SERVERS[family][0]) for family in FAMILIES)]
    with lab.router.start(argv, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            yield process.stdout
        finally:
            process.kill()


async def seen_by(lab: Lab, output: IO[str]) -> list[int | None]:
    lines = [await asyncio.to_thread(output.readline) for _ in FAMILIES]
    return [lab.topology.number_of(ip_address(line.strip())) for line in lines]


@pytest.fixture
def group() -> Iterator[Path]:
    """A control group of this test's own, as a path of the file system."""
    made = hierarchy().root / f"polywan-rules-{os.getpid()}"
    made.mkdir()
    yield made
    with suppress(FileNotFoundError):
        made.rmdir()


def renew(group: Path) -> None:
    group.rmdir()
    group.mkdir()


@pytest.mark.needs("cgroup2")
def test_a_control_group_steers_its_programs_and_no_forwarded_packet(
    lab: Lab, start_daemon: StartDaemon, wait_for: WaitFor, group: Path
) -> None:
    daemon = started(lab, start_daemon, rule(f'cgroup = "{group.name}"'))

    async def story() -> None:
        ask = Asker(lab)
        with member(lab, group) as output:
            assert await seen_by(lab, output) == [2, 2]
            for family in FAMILIES:
                # The program listens on the same port: the kernel must not take its socket for the packet's.
                assert await ask.tcp(SERVERS[family][0]) == 1
                assert await ask.tcp(SERVERS[family][0], namespace=lab.router) == 1
        before = daemon.status().generation
        renew(group)
        await later(wait_for, daemon, before, "the new group of that name is noticed")
        with member(lab, group) as output:
            assert await seen_by(lab, output) == [2, 2]

    with_servers(lab, story)
