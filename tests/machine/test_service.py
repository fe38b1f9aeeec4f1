"""The service under the systemd of each release: who it is, how it is reloaded, and what becomes of one that hangs."""

from __future__ import annotations

import asyncio
import re
import signal
from collections.abc import Callable
from ipaddress import ip_address

import pytest

from polywan.core.net import Family
from polywan.lab.servers import ECHO_PORT
from polywan.lab.topology import SERVERS
from polywan.lab.traffic import open_connections
from support.connections import answers
from support.machine.booted import until
from support.machine.box import CONFIG, SERVICE, Box
from support.machine.deaf import stop_answering
from support.netns import with_servers

NET_ADMIN, NET_RAW = 12, 13
QUICK = f"/etc/systemd/system/{SERVICE}.d/quick.conf"
HOOK = "/etc/polywan/hook"
WATCHDOG = 12
"""Seconds: a pass is made every 10."""


def has_notify_reload(box: Box) -> bool:
    """Tell whether systemd knows that type of service, which it learnt in version 253."""
    found = re.match(r"systemd (\d+)", box.machine.run("systemctl", "--version").stdout)
    return found is not None and int(found[1]) >= 253


def survives(box: Box, accident: Callable[[], None]) -> None:
    """Bring about what ends the daemon, and see that another one comes and no open connection notices."""
    before = box.pid

    async def story() -> None:
        opened = await open_connections(box.lab, 6, SERVERS[Family.V4][0])
        await asyncio.to_thread(accident)
        await asyncio.to_thread(box.restarted, before, 60.0)
        assert await answers(opened, (1, 2)) == 6
        opened.close()

    with_servers(box.lab, story)
    box.balanced()


def test_the_service_is_ready_once_its_rules_are_in_force(box: Box) -> None:
    assert box.machine.show(SERVICE, "ActiveState") == "active"
    assert "table inet polywan\n" in box.machine.run("nft", "list", "tables").stdout


def process_status(box: Box) -> dict[str, list[str]]:
    """What the kernel says of the daemon (proc_pid_status(5))."""
    lines = box.machine.run("cat", f"/proc/{box.pid}/status").stdout.splitlines()
    return {key: value.split() for key, _, value in (line.partition(":") for line in lines)}


def test_the_daemon_is_an_ordinary_user_with_two_capabilities_and_no_way_to_more(box: Box) -> None:
    status = process_status(box)
    polywan = box.machine.run("id", "--user", "polywan").stdout.strip()
    assert status["Uid"] == [polywan] * 4 != ["0"] * 4
    both, inherited = 1 << NET_ADMIN | 1 << NET_RAW, 1 << NET_RAW
    found = {kind: int(status[kind][0], 16) for kind in ("CapPrm", "CapEff", "CapBnd", "CapAmb")}
    assert found == {"CapPrm": both, "CapEff": both, "CapBnd": both, "CapAmb": inherited}
    assert status["NoNewPrivs"] == ["1"]


def test_systemd_finds_nothing_to_complain_of(box: Box) -> None:
    done = box.machine.run("systemd-analyze", "verify", "--man=no", SERVICE, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_exposure_is_at_most_2_0(box: Box) -> None:
    box.machine.run("systemd-analyze", "security", "--no-pager", "--threshold=20", SERVICE)


def test_of_the_kernels_settings_the_service_can_write_those_of_the_network_only(box: Box) -> None:
    write = 'echo 1 >"/proc/sys/$0"'
    inside = ["nsenter", f"--target={box.pid}", "--mount", "sh", "-c", write]
    assert box.machine.run(*inside, "net/ipv4/ip_forward").returncode == 0
    assert "Read-only" in box.machine.run(*inside, "kernel/panic", check=False).stderr


def test_the_type_is_notify_reload_where_systemd_knows_it(box: Box) -> None:
    assert box.machine.show(SERVICE, "Type") == ("notify-reload" if has_notify_reload(box) else "notify")


def test_the_daemon_takes_the_reload_signal_without_which_new_versions_of_systemd_refuse_it(box: Box) -> None:
    handled = int(process_status(box)["SigCgt"][0], 16)
    assert handled >> signal.SIGCONT - 1 & 1


@pytest.fixture(scope="module")
def users(box: Box) -> Box:
    """Two ordinary users; alice is in the service's group."""
    box.machine.run("useradd", "alice", "--groups=polywan")
    box.machine.run("useradd", "bob")
    return box


def test_a_member_of_the_group_sees_the_status_without_being_root(users: Box) -> None:
    shown = users.polywan("status", user="alice").stdout
    assert re.search(r"^isp1 +up ", shown, re.MULTILINE), shown


def test_another_user_is_told_which_group_may_see_the_status(users: Box) -> None:
    done = users.polywan("status", user="bob", check=False)
    assert done.returncode == 5
    assert "join the group of the socket (`polywan`)" in done.stderr


def test_a_member_of_the_group_may_change_nothing(users: Box) -> None:
    assert users.polywan("reload", user="alice", check=False).returncode == 5


def test_systemctl_reload_returns_once_the_new_file_is_in_force(box: Box) -> None:
    box.disk.write(CONFIG, box.config + '\n[uplinks.later]\ninterface = "wan9"\n')
    box.machine.run("systemctl", "reload", SERVICE)
    assert box.machine.run("polywan", "status", "--json").stdout.count('"later"')
    box.disk.write(CONFIG, box.config)
    box.machine.run("systemctl", "reload", SERVICE)
    assert '"later"' not in box.machine.run("polywan", "show", "config").stdout


def test_systemctl_reload_fails_on_a_bad_file_and_the_old_one_stays_in_force(box: Box) -> None:
    before = box.pid, box.machine.run("polywan", "show", "config").stdout
    box.disk.write(CONFIG, box.config + "\nnonsense = 3\n")
    try:
        done = box.machine.run("systemctl", "reload", SERVICE, check=False)
    finally:
        box.disk.write(CONFIG, box.config)
    assert done.returncode == 1
    assert (box.pid, box.machine.run("polywan", "show", "config").stdout) == before
    assert "nonsense" in box.machine.log()
    box.machine.run("systemctl", "reload", SERVICE)


def test_a_hook_runs_in_the_sandbox_of_the_service(box: Box) -> None:
    box.disk.write(HOOK, "#!/bin/sh\necho $UPLINK is $STATE for $(id --user --name)\n")
    box.machine.run("chmod", "755", HOOK)
    box.disk.write(CONFIG, f'{box.config}\n[hooks]\ndown = "{HOOK}"\n')
    box.machine.run("systemctl", "reload", SERVICE)
    box.lab.cut(1)
    until(lambda: "isp1 is down for polywan" in box.machine.log(), what="the hook's line in the journal")
    box.lab.restore(1)
    box.disk.write(CONFIG, box.config)
    box.machine.run("systemctl", "reload", SERVICE)
    box.balanced()


def test_a_program_is_sent_by_the_uplink_that_was_asked_for(box: Box) -> None:
    ask = "import socket; print(socket.create_connection(($SERVER, $PORT), 5).recv(99).decode().strip())"
    code = ask.replace("$SERVER", repr(str(SERVERS[Family.V4][0]))).replace("$PORT", str(ECHO_PORT))
    seen: list[str] = []

    async def story() -> None:
        for name in ("isp1", "isp2", "isp1"):
            argv = ("exec", "--via", name, "--", "python3", "-c", code)
            seen.append((await asyncio.to_thread(box.polywan, *argv)).stdout.strip())

    with_servers(box.lab, story)
    assert [box.lab.topology.number_of(ip_address(address)) for address in seen] == [1, 2, 1]


def test_a_killed_daemon_is_started_again_and_open_connections_do_not_notice(box: Box) -> None:
    survives(box, lambda: box.signal("KILL"))


@pytest.fixture
def watched(box: Box) -> Box:
    """The same service with a watchdog that does not wait long."""
    box.disk.write(QUICK, f"[Service]\nWatchdogSec={WATCHDOG}\n")
    before = box.pid
    box.machine.run("systemctl", "daemon-reload")
    box.machine.run("systemctl", "restart", SERVICE)
    box.restarted(before)
    return box


def test_a_daemon_that_hangs_is_replaced_by_the_watchdog(watched: Box) -> None:
    survives(watched, lambda: watched.signal("STOP"))
    assert "Watchdog timeout" in watched.machine.log()


def test_the_watchdog_is_fed_by_good_passes_alone(watched: Box) -> None:
    survives(watched, lambda: stop_answering(watched.daemon_outside))
    assert "read.failed" in watched.machine.log()


def test_nothing_that_the_service_logged_is_a_traceback(box: Box) -> None:
    assert "Traceback" not in box.machine.log()
