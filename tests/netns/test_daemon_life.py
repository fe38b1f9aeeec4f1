"""Restart, repair, reload, leave: the kernel is shared and the daemon may die at any moment."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from polywan.api import calls
from polywan.api.requests import Nothing
from polywan.api.status import UplinkStatus
from polywan.core.errors import ConfigError, ControlError
from polywan.core.net import FAMILIES, Family
from polywan.lab.network import Lab
from polywan.lab.sandbox import LabError
from polywan.lab.scenario import configuration
from polywan.lab.servers import ECHO_PORT, SOCKET_FAMILY
from polywan.lab.topology import SERVERS
from polywan.lab.traffic import SteadyLoad, connect, exchange, open_connections, shares, udp_socket
from support.kernel_state import add_foreign, kernel
from support.netns import with_servers

if TYPE_CHECKING:
    from support.netns import BuildLab, StartDaemon, WaitFor


def spoofed(lab: Lab) -> int:
    """How many packets met a provider with a source that it never gave out."""
    return sum(seen.spoofed for seen in lab.all_seen().values())


def test_down_leaves_the_kernel_as_found(lab: Lab, start_daemon: StartDaemon, wait_for: WaitFor) -> None:
    add_foreign(lab)
    before = kernel(lab)
    daemon = start_daemon(lab, configuration(lab.topology, (1, 1, 1)))
    assert kernel(lab) != before
    daemon.down()
    wait_for(lambda: daemon.process is None or daemon.process.poll() is not None)
    assert kernel(lab) == before


def command(lab: Lab, *argv: str) -> subprocess.CompletedProcess[str]:
    """Run `polywan VERB …` in the router."""
    return lab.router.run([sys.executable, "-m", "polywan", *argv], check=False)


def test_plan_shows_what_the_daemon_then_does_and_nothing_afterwards(
    lab: Lab, start_daemon: StartDaemon, tmp_path: Path
) -> None:
    config = tmp_path / "polywan.toml"
    config.write_text(configuration(lab.topology, (1, 1, 1)))
    before = command(lab, "plan", "--config", str(config), "--state-dir", str(tmp_path))
    assert before.returncode == 9, before.stderr
    assert "+ route -4 default via 100.64.1.1 dev wan1 table 6001 metric 1" in before.stdout.splitlines()
    box = tmp_path / "box.json"
    assert command(lab, "plan", "--config", str(config), "--record", str(box)).returncode == 0
    recorded = command(lab, "plan", "--config", str(config), "--observed", str(box), "--state-dir", str(tmp_path))
    assert recorded.stdout == before.stdout
    daemon = start_daemon(lab, config.read_text())
    after = command(lab, "plan", "--config", str(config), "--state-dir", str(daemon.state))
    assert (after.returncode, after.stdout) == (0, "nothing to change\n")


@pytest.mark.parametrize("what", ["nft", "routes", "rules", "config"])
def test_show_prints_what_is_in_force(lab: Lab, start_daemon: StartDaemon, what: str) -> None:
    daemon = start_daemon(lab, configuration(lab.topology, (1, 1, 1)))
    done = command(lab, "show", what, "--runtime-dir", str(daemon.runtime))
    assert done.returncode == 0
    assert {"nft": "table inet polywan", "routes": "table 6001", "rules": "fwmark", "config": '"isp1"'}[
        what
    ] in done.stdout


def test_status_check_tells_an_uplink_that_is_down(lab: Lab, start_daemon: StartDaemon, wait_for: WaitFor) -> None:
    daemon = start_daemon(lab, configuration(lab.topology, (1, 1, 1)))
    argv = ("status", "--check", "--runtime-dir", str(daemon.runtime))
    assert command(lab, *argv).returncode == 0
    lab.cut(2)
    wait_for(lambda: daemon.uplink(2).state == "down")
    assert command(lab, *argv).returncode == 6
    lab.cut(1)
    lab.cut(3)
    wait_for(lambda: all(u.state == "down" for u in daemon.status().uplinks))
    assert command(lab, *argv).returncode == 7


def test_down_works_without_a_daemon(lab: Lab, start_daemon: StartDaemon) -> None:
    before = kernel(lab)
    daemon = start_daemon(lab, configuration(lab.topology, (1, 1, 1)))
    daemon.kill()
    done = command(lab, "down", "--runtime-dir", str(daemon.runtime), "--state-dir", str(daemon.state), "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["failed"] == []
    assert kernel(lab) == before


def test_stopping_the_daemon_leaves_the_data_plane(lab: Lab, start_daemon: StartDaemon) -> None:
    daemon = start_daemon(lab, configuration(lab.topology, (1, 1, 1)))
    running = kernel(lab)
    daemon.stop()
    assert kernel(lab) == running


def test_a_restart_after_a_kill_adopts_and_writes_nothing(lab: Lab, start_daemon: StartDaemon) -> None:
    daemon = start_daemon(lab, configuration(lab.topology, (3, 2, 1)))
    running = kernel(lab)
    daemon.kill()
    daemon.start()
    status = daemon.status()
    assert (status.generation, status.drift) == (0, ())
    assert kernel(lab) == running


def test_no_connection_fails_or_moves_while_the_daemon_is_dead_and_back(lab: Lab, start_daemon: StartDaemon) -> None:
    daemon = start_daemon(lab, configuration(lab.topology, (1, 1, 1)))

    async def story() -> None:
        with closing(await open_connections(lab, 9, SERVERS[Family.V4][0])) as opened:
            async with SteadyLoad(lab) as load:
                daemon.kill()
                await asyncio.sleep(0.4)
                daemon.launch()
                await asyncio.to_thread(daemon.wait_ready)
            assert [a for a in load.attempts if not a.ok] == []
            for connection in opened.connections:
                assert await connection.ask("still?")

    with_servers(lab, story)


@pytest.mark.parametrize("delay_ms", [0, 120, 240, 280, 300, 320, 340, 360, 400])
def test_a_kill_at_any_moment_of_the_start_is_healed_by_the_next_one(
    lab: Lab, start_daemon: StartDaemon, delay_ms: int
) -> None:
    daemon = start_daemon(lab, configuration(lab.topology, (1, 1, 1)))
    complete = kernel(lab)
    daemon.down()
    daemon.stop()
    daemon.launch()
    daemon.wait_log(lambda _: False, delay_ms / 1000)
    daemon.kill()
    daemon.start()
    assert {k: v for k, v in kernel(lab).items() if "all" not in k} == {
        k: v for k, v in complete.items() if "all" not in k
    }


TAMPERING = {
    "table": ["nft", "delete", "table", "inet", "polywan"],
    "everything of nft": ["nft", "flush", "ruleset"],
    "a chain's rules": ["nft", "flush", "chain", "inet", "polywan", "classify"],
    "an element": ["nft", "delete", "element", "inet", "polywan", "uplinks", "{ wan1 }"],
    "a foreign rule within ours": ["nft", "insert", "rule", "inet", "polywan", "classify", "drop"],
    "a flag of the table": ["nft", "add", "table", "inet", "polywan", "{ flags dormant; }"],
    "a chain's policy": ["nft", "add", "chain", "inet", "polywan", "prerouting", "{ policy drop; }"],
    "a chain of somebody in our table": ["nft", "add chain inet polywan mine { type filter hook forward priority 0; }"],
    "a rule": ["ip", "rule", "del", "priority", "6271"],
    "all rules": ["ip", "rule", "flush"],
    "an IPv6 rule": ["ip", "-6", "rule", "del", "priority", "6272"],
    "a routing table": ["ip", "route", "flush", "table", "6002"],
    "an IPv6 route": ["ip", "-6", "route", "flush", "table", "6003"],
}


@pytest.mark.parametrize("what", TAMPERING)
def test_what_somebody_else_removed_is_back_within_two_seconds_and_the_log_says_so(
    lab: Lab, start_daemon: StartDaemon, wait_for: WaitFor, what: str
) -> None:
    daemon = start_daemon(lab, configuration(lab.topology, (1, 1, 1)))
    before = kernel(lab)
    lab.router.run(TAMPERING[what])
    if what == "all rules":
        # The kernel's own rules are not ours to restore.
        lab.router.ip(["rule add pref 32766 lookup main", "rule add pref 32767 lookup default"])
    wait_for(lambda: kernel(lab) == before, timeout=2.0, what=f"repair of {what}")
    assert daemon.wait_log(lambda text: "drift.repaired" in text, 1.0) is not None


@pytest.mark.parametrize("family", FAMILIES)
def test_connections_that_began_while_the_rule_set_was_gone_find_their_way_when_it_is_back(
    lab: Lab, start_daemon: StartDaemon, wait_for: WaitFor, family: Family
) -> None:
    daemon = start_daemon(lab, configuration(lab.topology, (1, 1, 1)))
    server = SERVERS[family][0]
    # With nobody's rules asking for them, connections would not be tracked at all.
    lab.router.nft("table inet firewall { chain c { type filter hook forward priority 0; ct state new counter; }; }")

    async def story() -> None:
        daemon.kill()
        lab.router.nft("delete table inet polywan")
        with udp_socket(lab, server) as call:
            with pytest.raises(TimeoutError):
                await exchange(lab, call, "into the void", 0.2)
            connecting = asyncio.create_task(connect(lab, server, patience=10.0))
            sent = ["conntrack", "-L", "-f", f"ipv{family:d}", "-p", "tcp", "--state", "SYN_SENT"]
            await asyncio.to_thread(wait_for, lambda: "SYN_SENT" in lab.router.run(sent).stdout, what="the first SYN")
            await asyncio.to_thread(daemon.start)
            line = await asyncio.to_thread(daemon.wait_log, lambda text: "began without a rule set" in text, 5.0)
            assert line is not None
            assert await exchange(lab, call, "again") in (1, 2, 3)
        attempt, connection = await connecting
        assert attempt.ok
        assert connection is not None
        connection.close()

    with_servers(lab, story)


def test_tcp_that_was_taken_up_while_the_rule_set_was_gone_does_not_go_on_untranslated(
    lab: Lab, start_daemon: StartDaemon, wait_for: WaitFor
) -> None:
    daemon = start_daemon(lab, configuration(lab.topology, (1, 1, 1)))
    lab.router.nft("table inet firewall { chain c { type filter hook forward priority 0; ct state new counter; }; }")

    async def story() -> None:
        with closing(await open_connections(lab, 6, SERVERS[Family.V4][0])) as opened:
            daemon.kill()
            lab.router.nft("delete table inet polywan")
            lab.router.run(["conntrack", "-F"])
            asking = [asyncio.create_task(c.ask("anybody there?", patience=10.0)) for c in opened.connections]
            await asyncio.to_thread(wait_for, lambda: spoofed(lab), what="packets without translation")
            await asyncio.to_thread(daemon.start)
            line = await asyncio.to_thread(daemon.wait_log, lambda text: "began without a rule set" in text, 5.0)
            assert line is not None
            before = spoofed(lab)
            ends = await asyncio.gather(*asking, return_exceptions=True)
            # Whoever meets its old uplink again goes on, as if nothing had been; the server resets the others.
            assert {type(end) for end in ends} <= {str, ConnectionResetError}
            assert spoofed(lab) == before

    with_servers(lab, story)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_flow_of_the_box_from_before_the_rule_set_does_not_leave_by_another_uplink_with_its_old_address(
    lab: Lab, start_daemon: StartDaemon, family: Family
) -> None:
    """It was answered, so it is left alone; it is never translated; and its uplink is lost."""
    own = lab.topology.uplink(1).addresses[family].own.ip
    # Somebody tracks connections already.
    lab.router.nft("table inet firewall { chain c { type filter hook output priority 0; ct state new counter; }; }")

    async def story() -> None:
        with lab.router.socket(SOCKET_FAMILY[family], socket.SOCK_DGRAM) as call:
            call.bind((str(own), 0))
            call.connect((str(SERVERS[family][0]), ECHO_PORT))
            assert await exchange(lab, call, "before") == 1
            daemon = await asyncio.to_thread(start_daemon, lab, configuration(lab.topology, (1, 1, 1)))
            assert await exchange(lab, call, "with rules") == 1
            lab.router.run(["ip", "link", "set", "wan1", "down"])
            assert await asyncio.to_thread(daemon.wait_log, lambda text: "uplink.down" in text, 5.0)
            for _ in range(3):
                with suppress(OSError, TimeoutError):
                    await exchange(lab, call, "after", 0.2)
            assert spoofed(lab) == 0

    with_servers(lab, story)


def test_a_flow_that_began_while_its_uplink_was_between_two_addresses_carries_no_others_and_is_let_go(
    lab: Lab, start_daemon: StartDaemon
) -> None:
    daemon = start_daemon(
        lab, configuration(lab.topology, (1, 1, 1)) + '[policies.default]\ntiers = [["isp1"], ["isp2"]]\n'
    )
    own = lab.topology.uplink(1).addresses[Family.V6].own
    prefix = f"{own.ip + 7}/{own.network.prefixlen}"

    async def story() -> None:
        assert daemon.process is not None
        daemon.process.send_signal(signal.SIGSTOP)
        lab.router.ip([f"address del {own} dev wan1"])
        with udp_socket(lab, SERVERS[Family.V6][0]) as call:
            with pytest.raises(TimeoutError):
                await exchange(lab, call, "into the void", 0.2)
            assert spoofed(lab) == 0
            lab.router.ip([f"address add {prefix} dev wan1 nodad"])
            daemon.process.send_signal(signal.SIGCONT)
            message = "had another link's address"
            assert await asyncio.to_thread(daemon.wait_log, lambda text: message in text, 5.0) is not None
            assert await exchange(lab, call, "again") is not None

    with_servers(lab, story)


def test_a_reload_without_change_writes_nothing(lab: Lab, start_daemon: StartDaemon) -> None:
    daemon = start_daemon(lab, configuration(lab.topology, (1, 1, 1)))
    before = kernel(lab)
    assert daemon.reload().changed is False
    assert kernel(lab) == before


def test_a_weight_change_is_exact_at_once_and_moves_no_connection(lab: Lab, start_daemon: StartDaemon) -> None:
    daemon = start_daemon(lab, configuration(lab.topology, (1, 1, 1)))

    async def story() -> None:
        with closing(await open_connections(lab, 9, SERVERS[Family.V4][0])) as opened:
            daemon.config.write_text(configuration(lab.topology, (1, 2, 3)))
            assert (await asyncio.to_thread(daemon.reload)).changed is True
            with closing(await open_connections(lab, 12, SERVERS[Family.V4][0])) as later:
                assert shares(a.uplink for a in later.attempts) == {1: 2, 2: 4, 3: 6}
            for connection in opened.connections:
                assert await connection.ask("moved?")

    with_servers(lab, story)
    assert spoofed(lab) == 0


BAD_FILES = {
    "half-written": '[uplinks.isp1]\ninterface = "wa',
    "unknown key": '[uplinks.isp1]\ninterfaces = "wan1"\n',
    "empty": "",
    "not text": "\x00\x01",
}


@pytest.mark.parametrize("kind", BAD_FILES)
def test_a_bad_file_changes_nothing_on_reload(lab: Lab, start_daemon: StartDaemon, kind: str) -> None:
    daemon = start_daemon(lab, configuration(lab.topology, (1, 1, 1)), may_complain=True)
    before = kernel(lab)
    daemon.config.write_text(BAD_FILES[kind])
    with pytest.raises(ConfigError, match=r"polywan\.toml"):
        daemon.reload()
    assert kernel(lab) == before
    assert daemon.status().ready is True


def test_a_missing_file_changes_nothing_on_reload(lab: Lab, start_daemon: StartDaemon) -> None:
    daemon = start_daemon(lab, configuration(lab.topology, (1, 1, 1)), may_complain=True)
    daemon.config.unlink()
    with pytest.raises(ConfigError):
        daemon.reload()


def test_a_second_daemon_on_the_same_directory_is_refused(lab: Lab, start_daemon: StartDaemon) -> None:
    daemon = start_daemon(lab, configuration(lab.topology, (1, 1, 1)))
    done = command(
        lab,
        "run",
        "--config",
        str(daemon.config),
        "--runtime-dir",
        str(daemon.runtime),
        "--state-dir",
        str(daemon.state),
    )
    assert done.returncode == 1
    assert "another daemon (pid " in done.stderr
    assert daemon.status().ready is True


def test_an_interface_that_appears_later_is_picked_up(
    lab_of: BuildLab, start_daemon: StartDaemon, wait_for: WaitFor
) -> None:
    lab = lab_of(2)
    more = '[uplinks.late]\ninterface = "late0"\ngateway = "192.0.2.1"\n'
    daemon = start_daemon(lab, configuration(lab.topology, (1, 1)) + more)

    def late() -> UplinkStatus:
        return daemon.uplink(3)

    assert late().state == "missing"
    lab.router.ip(
        [
            "link add late0 type veth peer name late1",
            "link set late1 up",
            "link set late0 up",
            "addr add 192.0.2.2/24 dev late0",
        ]
    )
    wait_for(lambda: late().state == "down" and late().gateway == "192.0.2.1")
    lab.router.ip(["link del late0"])
    wait_for(lambda: late().state == "missing")


def test_a_gateway_that_comes_later_is_found_by_its_event(
    lab_of: BuildLab, start_daemon: StartDaemon, wait_for: WaitFor
) -> None:
    lab = lab_of(2, without_default=(2,))
    daemon = start_daemon(lab, configuration(lab.topology, (1, 1)))
    assert "gateway not known yet" in daemon.uplink(2).reason
    uplink = lab.topology.uplink(2)
    lab.router.ip([f"route add default via {uplink.addresses[Family.V4].gateway} dev wan2 metric 200"])

    def ipv4() -> str:
        return str(daemon.uplink(2).families["ipv4"].state)

    wait_for(lambda: ipv4() == "up", timeout=10.0)


def test_rules_of_others_in_our_way_are_named_and_left_alone(lab: Lab, start_daemon: StartDaemon) -> None:
    lab.router.ip(["rule add pref 6100 fwmark 0x1000000/0xff000000 lookup 77"])
    daemon = start_daemon(lab, configuration(lab.topology, (1, 1, 1)))
    warnings = "\n".join(daemon.status().warnings)
    assert "global.priority" in warnings
    assert "global.mark_mask = 0x3f00" in warnings
    assert "6100:" in lab.router.run(["ip", "rule"]).stdout


def test_a_flood_of_notifications_loses_nothing(lab: Lab, start_daemon: StartDaemon, wait_for: WaitFor) -> None:
    daemon = start_daemon(lab, configuration(lab.topology, (1, 1, 1)), may_complain=True)
    before = kernel(lab)
    assert daemon.process is not None
    os.kill(daemon.process.pid, 19)
    many = [f"route add 198.18.{n // 250}.{n % 250}/32 dev lan0" for n in range(5000)]
    lab.router.ip(many)
    lab.router.ip([line.replace("add", "del") for line in many])
    lab.router.run(["ip", "rule", "del", "priority", "6272"])
    os.kill(daemon.process.pid, 18)
    wait_for(lambda: kernel(lab) == before, timeout=3.0)


def test_the_socket_is_not_for_everyone(lab: Lab, start_daemon: StartDaemon) -> None:
    daemon = start_daemon(lab, configuration(lab.topology, (1, 1, 1)))
    assert oct((daemon.runtime / "control.sock").stat().st_mode & 0o777) == "0o660"


def test_without_a_daemon_the_client_says_where_it_looked(tmp_path: Path) -> None:
    from polywan.client import Client

    with pytest.raises(ControlError, match=r"control\.sock"):
        Client(tmp_path).ask(calls.STATUS, Nothing())


def test_a_bad_file_at_the_start_is_refused_with_every_problem(lab: Lab, start_daemon: StartDaemon) -> None:
    with pytest.raises(LabError, match="ended with 3"):
        start_daemon(lab, "[uplinks.a]\ninterface = 1\nwheight = 2\n", may_complain=True)


def test_after_a_downgrade_the_daemon_refuses_and_what_the_newer_one_left_goes_on(
    lab: Lab, start_daemon: StartDaemon
) -> None:
    daemon = start_daemon(lab, configuration(lab.topology, (1, 1, 1)))
    daemon.stop()
    file = daemon.state / "memory.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "version": 2}))
    before, content = kernel(lab), file.read_bytes()
    with pytest.raises(
        LabError, match=r"ended with 1:(.*\n)*.*memory.json was written by a newer polywan \(version 2;"
    ):
        daemon.start()
    places = ["--runtime-dir", str(daemon.runtime), "--state-dir", str(daemon.state)]
    plan = lab.router.run(
        [sys.executable, "-m", "polywan", "plan", "--config", str(daemon.config), *places], check=False
    )
    assert (plan.returncode, plan.stdout) == (1, "")
    assert "install the newer polywan again" in plan.stderr
    assert (kernel(lab), file.read_bytes()) == (before, content)
    down = lab.router.run([sys.executable, "-m", "polywan", "down", *places], check=False)
    assert down.returncode == 1
    assert "net.ipv4.conf.all.accept_local = 1" in down.stderr
    assert "table inet polywan" not in kernel(lab)["nft list ruleset"]
    assert file.read_bytes() == content


def test_an_uplink_whose_cable_is_out_at_the_start_is_complete_once_it_is_plugged_in(
    lab: Lab, start_daemon: StartDaemon, wait_for: WaitFor
) -> None:
    daemon = start_daemon(lab, configuration(lab.topology, (1, 1, 1)))
    whole = kernel(lab)
    daemon.down()
    daemon.stop()
    lab.cut(1)
    daemon.start()
    lab.restore(1)
    wait_for(lambda: kernel(lab) == whole, what="the kernel as it was")


def test_a_table_that_was_flushed_while_its_cable_is_out_is_back_with_the_cable(
    lab: Lab, start_daemon: StartDaemon, wait_for: WaitFor
) -> None:
    daemon = start_daemon(lab, configuration(lab.topology, (1, 1, 1)))
    whole = kernel(lab)
    lab.cut(1)
    assert daemon.wait_log(lambda text: "isp1 is down" in text, 5.0) is not None
    for family in ("-4", "-6"):
        lab.router.run(["ip", family, "route", "flush", "table", "6001"])
    assert daemon.wait_log(lambda text: "drift.repaired" in text, 5.0) is not None
    lab.restore(1)
    wait_for(lambda: kernel(lab) == whole, what="the kernel as it was")


def test_a_second_daemon_of_the_same_namespace_is_refused_whatever_its_directories(
    lab: Lab, start_daemon: StartDaemon, tmp_path: Path
) -> None:
    daemon = start_daemon(lab, configuration(lab.topology, (1, 1, 1)))
    before = kernel(lab)
    done = command(lab, "run", "--config", str(daemon.config), "--runtime-dir", str(tmp_path / "run"),
                   "--state-dir", str(tmp_path / "state"))  # fmt: skip
    assert done.returncode == 1
    assert daemon.process is not None
    assert f"(pid {daemon.process.pid}, runtime directory {daemon.runtime})" in done.stderr
    remaining = command(lab, "down", "--runtime-dir", str(tmp_path / "run"), "--state-dir", str(tmp_path / "state"))
    assert remaining.returncode == 1
    assert "another daemon" in remaining.stderr
    assert kernel(lab) == before


def first_routes(lab: Lab) -> list[str]:
    """The devices of the copies of main's defaults, best first."""
    shown = lab.router.run(["ip", "-4", "route", "show", "table", "6256"], check=False).stdout.splitlines()
    return [line.split("dev ")[1].split()[0] for line in shown]


@pytest.mark.parametrize("order", [(3, 1, 2), (2, 3, 1), (2, 1, 3)])
def test_the_first_route_follows_mains_defaults_when_they_change_places(
    lab: Lab, start_daemon: StartDaemon, wait_for: WaitFor, order: tuple[int, ...]
) -> None:
    daemon = start_daemon(lab, configuration(lab.topology, (1, 1, 1)))
    assert first_routes(lab) == ["wan1", "wan2", "wan3"]
    for place, number in enumerate(order):
        gateway = lab.topology.uplink(number).addresses[Family.V4].gateway
        lab.router.run(["ip", "route", "del", "default", "dev", f"wan{number}"])
        lab.router.ip([f"route add default via {gateway} dev wan{number} metric {1000 + place}"])
    wait_for(lambda: first_routes(lab) == [f"wan{number}" for number in order])
    assert daemon.status().drift == ()


def test_what_has_a_source_follows_main_while_a_dead_daemon_cannot_put_its_table_back(
    lab: Lab, start_daemon: StartDaemon
) -> None:
    daemon = start_daemon(lab, configuration(lab.topology, (1, 1, 1)))
    daemon.kill()
    lab.router.set_link("wan1", up=False)
    lab.restore(1)
    own = str(lab.topology.uplink(1).addresses[Family.V4].own.ip)
    argv = ["ip", "-j", "route", "get", str(SERVERS[Family.V4][0]), "ipproto", "tcp"]
    assert json.loads(lab.router.run([*argv, "from", own]).stdout)[0]["dev"] == "wan1"
    assert json.loads(lab.router.run(argv).stdout)[0]["prefsrc"] == "192.0.0.8"
