"""The real daemon tells of real connections: which uplink, which addresses, how many bytes; and of its clients."""

from __future__ import annotations

import json
import socket
import time
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from polywan.api import calls
from polywan.api.affinity import KeptClient
from polywan.api.requests import OfPolicy, Words
from polywan.api.views.flow_rows import FlowRow, rows_of
from polywan.core.errors import ControlError
from polywan.core.net import Family
from polywan.core.world.conntrack import BLUR, stray
from polywan.kernel.conntrack import table as conntrack
from polywan.lab.daemon import DaemonProcess
from polywan.lab.network import Lab
from polywan.lab.scenario import configuration
from polywan.lab.servers import ECHO_PORT
from polywan.lab.topology import LAN_CLIENT, SERVERS
from polywan.lab.traffic import Opened, open_connections
from support.netns import polywan, with_servers

if TYPE_CHECKING:
    from support.netns import StartDaemon, WaitFor

FAMILIES = [Family.V4, Family.V6]
AFFINITY = """
[policies.default]
tiers = [["isp1", "isp2", "isp3"]]
affinity = { key = "KEY", timeout = "10m" }
"""


def flows(daemon: DaemonProcess, **wanted: str) -> list[FlowRow]:
    return rows_of(daemon.client.ask(calls.FLOWS, Words(words=wanted)))


def kept_clients(daemon: DaemonProcess, policy: str | None = None) -> tuple[KeptClient, ...]:
    return daemon.client.ask(calls.AFFINITY, OfPolicy(policy=policy)).clients


def uplink_names(lab: Lab, opened: Opened) -> list[str]:
    return [lab.topology.uplink(a.uplink).name for a in opened.attempts if a.uplink is not None]


@pytest.mark.parametrize("family", FAMILIES)
def test_every_connection_is_listed_with_its_uplink_and_its_translation(
    lab: Lab, start_daemon: StartDaemon, family: Family
) -> None:
    daemon = start_daemon(lab, configuration(lab.topology, (1, 1, 1)))
    server = SERVERS[family][0]

    async def story() -> None:
        with closing(await open_connections(lab, 6, server)) as opened:
            names = {c.sock.getsockname()[1]: lab.topology.uplink(c.attempt.uplink or 0) for c in opened.connections}
            document = flows(
                daemon, to=str(server), port=str(ECHO_PORT), proto="tcp", client=str(LAN_CLIENT[family].ip)
            )
            assert {flow.client_port: flow.uplink for flow in document} == {p: u.name for p, u in names.items()}
            assert {flow.client_port: flow.reply_destination for flow in document} == {
                p: str(u.addresses[family].own.ip) for p, u in names.items()
            }
            assert {flow.state for flow in document} == {"ESTABLISHED"}

    with_servers(lab, story)


def test_bytes_and_age_are_known_of_connections_that_began_under_the_daemon(
    lab: Lab, start_daemon: StartDaemon
) -> None:
    daemon = start_daemon(lab, configuration(lab.topology, (1, 1, 1)))

    async def story() -> None:
        with closing(await open_connections(lab, 1, SERVERS[Family.V4][0])) as opened:
            answer = await opened.connections[0].ask("x" * 1000)
            assert "x" * 1000 in answer
            (flow,) = flows(daemon, port=str(ECHO_PORT), proto="tcp", client=str(LAN_CLIENT[Family.V4].ip))
            assert (flow.bytes_up or 0) > 1000
            assert (flow.bytes_down or 0) > 1000
            assert (flow.packets_up or 0) > 3
            assert flow.age is not None
            assert 0 <= flow.age < 60

    with_servers(lab, story)


def test_accounting_is_switched_on_and_put_back(lab: Lab, start_daemon: StartDaemon) -> None:
    settings = ("netfilter/nf_conntrack_acct", "netfilter/nf_conntrack_timestamp")
    lab.router.sysctl(dict.fromkeys(settings, 0))
    daemon = start_daemon(lab, configuration(lab.topology, (1, 1, 1)))
    assert [lab.router.read_sysctl(path) for path in settings] == ["1", "1"]
    daemon.down()
    assert [lab.router.read_sysctl(path) for path in settings] == ["0", "0"]


@pytest.mark.needs("conntrack")
def test_the_counts_are_those_of_the_kernel_and_of_status(lab: Lab, start_daemon: StartDaemon) -> None:
    daemon = start_daemon(lab, configuration(lab.topology, (3, 2, 1)))

    async def story() -> None:
        with closing(await open_connections(lab, 12, SERVERS[Family.V4][0])):
            totals = {
                t.uplink: t.connections for t in daemon.client.ask(calls.FLOWS, Words(words={"limit": "0"})).totals
            }
            status = {u.name: u for u in daemon.status().uplinks}
            for name, uplink in status.items():
                shown = lab.router.run(["conntrack", "-L", "-m", f"{uplink.mark:#x}/0x3f000000"]).stdout
                shown += lab.router.run(["conntrack", "-L", "-f", "ipv6", "-m", f"{uplink.mark:#x}/0x3f000000"]).stdout
                assert totals[name] == uplink.connections == len(shown.splitlines())
            assert sum(totals[name] for name in status) >= 12

    with_servers(lab, story)


def test_the_command_prints_connections_and_sums(lab: Lab, start_daemon: StartDaemon) -> None:
    daemon = start_daemon(lab, configuration(lab.topology, (1, 1, 1)))
    client = str(LAN_CLIENT[Family.V4].ip)

    async def story() -> None:
        with closing(await open_connections(lab, 3, SERVERS[Family.V4][0])):
            shown = polywan(daemon, "flows", "--client", client, "--sort", "uplink")
            lines = shown.stdout.splitlines()
            assert [line.split()[4] for line in lines[1:]] == ["isp1", "isp2", "isp3"]
            assert [line.split(":")[0] for line in shown.stderr.splitlines()] == ["isp1", "isp2", "isp3"]
            limited = polywan(daemon, "flows", "--client", client, "--sort", "bytes", "--limit", "1")
            assert len(limited.stdout.splitlines()) == 2
            assert limited.stderr.splitlines()[-1] == "1 of 3 connections shown"
            counted = polywan(daemon, "flows", "--client", client, "--count")
            assert counted.stdout.splitlines() == ["isp1  1", "isp2  1", "isp3  1"]
            listed = json.loads(polywan(daemon, "flows", "--client", client, "--json").stdout)
            assert sorted(flow["uplink"] for flow in listed["flows"]) == ["isp1", "isp2", "isp3"]
            wrong = polywan(daemon, "flows", "--uplink", "isp9")
            assert (wrong.returncode, wrong.stdout) == (1, "")
            assert 'did you mean "isp' in wrong.stderr

    with_servers(lab, story)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_kept_client_is_listed_and_can_be_forgotten(lab: Lab, start_daemon: StartDaemon, family: Family) -> None:
    daemon = start_daemon(lab, configuration(lab.topology, (1, 1, 1)) + AFFINITY.replace("KEY", "source"))
    address = str(LAN_CLIENT[family].ip)

    async def story() -> None:
        with closing(await open_connections(lab, 4, SERVERS[family][0])) as opened:
            (name,) = set(uplink_names(lab, opened))
        (kept,) = [c for c in kept_clients(daemon, "default") if c.client == address]
        assert (kept.uplink, kept.server, kept.policy) == (name, None, "default")
        assert 590 < kept.expires_s <= 600
        assert address in polywan(daemon, "affinity").stdout
        done = polywan(daemon, "affinity", "clear", address)
        assert (done.returncode, done.stderr) == (0, "1 client forgotten\n")
        assert [c for c in kept_clients(daemon) if c.client == address] == []

    with_servers(lab, story)
    assert daemon.status().drift == ()


def test_a_client_and_server_that_are_kept_together_are_listed_together(lab: Lab, start_daemon: StartDaemon) -> None:
    policy = AFFINITY.replace("KEY", "source-destination")
    daemon = start_daemon(lab, configuration(lab.topology, (1, 1, 1)) + policy)

    async def story() -> None:
        for server in SERVERS[Family.V4]:
            (await open_connections(lab, 1, server)).close()
        pairs = {(c.client, c.server) for c in kept_clients(daemon)}
        client = str(LAN_CLIENT[Family.V4].ip)
        assert {(client, str(server)) for server in SERVERS[Family.V4]} <= pairs

    with_servers(lab, story)


def test_clients_of_an_uplink_that_dies_are_forgotten(lab: Lab, start_daemon: StartDaemon, wait_for: WaitFor) -> None:
    daemon = start_daemon(lab, configuration(lab.topology, (1, 1, 1)) + AFFINITY.replace("KEY", "source"))
    address = str(LAN_CLIENT[Family.V4].ip)

    def uplinks() -> list[str]:
        return [c.uplink for c in kept_clients(daemon) if c.client == address]

    async def story() -> None:
        with closing(await open_connections(lab, 1, SERVERS[Family.V4][0])) as opened:
            (name,) = uplink_names(lab, opened)
            number = opened.attempts[0].uplink
        assert number is not None
        assert uplinks() == [name]
        lab.cut(number)
        wait_for(lambda: uplinks() == [], what="the client of the dead uplink is forgotten")
        with closing(await open_connections(lab, 2, SERVERS[Family.V4][0])) as opened:
            (other,) = set(uplink_names(lab, opened))
        assert uplinks() == [other] != [name]

    with_servers(lab, story)


def test_a_policy_that_does_not_exist_is_refused(lab: Lab, start_daemon: StartDaemon) -> None:
    daemon = start_daemon(lab, configuration(lab.topology, (1, 1, 1)))
    with pytest.raises(ControlError, match='no policy "nobody"'):
        kept_clients(daemon, "nobody")


def test_only_what_began_before_the_rule_set_is_a_stray(lab: Lab) -> None:
    lab.router.nft("table inet firewall { chain c { type filter hook output priority 0; ct state new counter; }; }")

    def speak(*ports: int) -> None:
        with lab.router.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            for port in ports:
                sock.sendto(b"hello", (str(SERVERS[Family.V4][0]), port))

    def remaining() -> set[int | None]:
        return {flow.port for flow in conntrack.flows(0)}

    with lab.router.entered():
        speak(1)
        Path("/proc/sys/net/netfilter/nf_conntrack_timestamp").write_text("1")
        speak(2, 3)
        time.sleep(BLUR)
        ruled = time.monotonic()
        time.sleep(BLUR)
        speak(4)
        assert remaining() == {1, 2, 3, 4}
        assert conntrack.drop(0, 0, Family.V4, partial(stray, time.monotonic() - ruled)) == 3
        assert remaining() == {4}
