"""`polywan exec --via NAME`: a program's connections leave by one uplink or not at all."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import pytest

from polywan.core.net import FAMILIES, Family
from polywan.core.world.lookups import VIA
from polywan.kernel.cgroups import hierarchy
from polywan.lab.daemon import DaemonProcess
from polywan.lab.network import Lab
from polywan.lab.scenario import configuration
from polywan.lab.servers import ECHO_PORT, Servers
from polywan.lab.topology import LAN_CLIENT, LAN_ROUTER, SERVERS
from polywan.lab.traffic import connect, open_connections, shares
from support.netns import with_servers

if TYPE_CHECKING:
    from support.netns import BuildLab, StartDaemon, WaitFor

pytestmark = pytest.mark.needs("cgroup2")

ADDRESSES = [str(SERVERS[family][0]) for family in FAMILIES]

TALK = f"""
import json, socket, sys, time
def seen(address, kind):
    began = time.monotonic()
    try:
        with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, kind) as sock:
            sock.settimeout(5)
            sock.connect((address, {ECHO_PORT}))
            if kind == socket.SOCK_DGRAM:
                sock.send(b"hello")
            return sock.recv(200).split()[0].decode()
    except OSError as error:
        return f"{{type(error).__name__}} after {{time.monotonic() - began:.0f}} s"
kinds = (socket.SOCK_STREAM, socket.SOCK_DGRAM)
print(json.dumps({{f"{{a}} {{kind.name}}": seen(a, kind) for a in sys.argv[1:] for kind in kinds}}))
"""
"""Prints what the echo servers at the given addresses say about who asked, by TCP and UDP; or the error."""

NAG = f"""
import socket
while True:
    for address in {ADDRESSES!r}:
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
            with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, kind) as sock:
                sock.settimeout(0.02)
                try:
                    sock.connect((address, {ECHO_PORT}))
                    sock.send(b"still here")
                except OSError:
                    pass
"""
"""Opens connections as fast as it can, for ever."""

REFUSED = {"SOCK_STREAM": "ConnectionRefusedError after 0 s", "SOCK_DGRAM": "PermissionError after 0 s"}


@pytest.fixture
def own_groups() -> Iterator[Path]:
    """A hierarchy of control groups that only this test sees: others on this machine have an uplink isp1, too."""
    root = hierarchy().root
    top = root / f"polywan-test-{os.getpid()}"
    top.mkdir()
    subprocess.run(["mount", "--bind", top, root], check=True)
    yield root
    subprocess.run(["umount", root], check=True)
    for group in sorted((path for path in top.rglob("*") if path.is_dir()), reverse=True):
        group.rmdir()
    top.rmdir()


def execute(lab: Lab, daemon: DaemonProcess, uplink: str, *argv: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "polywan", "exec", "--runtime-dir", daemon.runtime, "--via", uplink, *argv]
    return lab.router.run([str(word) for word in command], check=False)


@contextmanager
def started(
    lab: Lab, daemon: DaemonProcess, uplink: str, *argv: str
) -> Iterator[tuple[subprocess.Popen[str], IO[str]]]:
    """A program that `exec` runs meanwhile, and its output; it is killed in the end."""
    command = [sys.executable, "-m", "polywan", "exec", "--runtime-dir", str(daemon.runtime), "--via", uplink, *argv]
    with lab.router.start(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            yield process, process.stdout
        finally:
            process.kill()


async def talk(lab: Lab, daemon: DaemonProcess, uplink: str, *addresses: str) -> dict[str, str]:
    """What the servers saw of a program that `exec` runs."""
    argv = (sys.executable, "-c", TALK, *(addresses or ADDRESSES))
    done = await asyncio.to_thread(execute, lab, daemon, uplink, *argv)
    assert done.returncode == 0, done.stderr
    answers: dict[str, str] = json.loads(done.stdout)
    return answers


def by(lab: Lab, number: int) -> dict[str, str]:
    """What they see when all of it leaves by one uplink."""
    own = lab.topology.uplink(number).addresses
    return {
        f"{address} {kind}": str(own[family].own.ip)
        for family, address in zip(FAMILIES, ADDRESSES, strict=True)
        for kind in REFUSED
        if family in own
    }


def refused(address: str) -> dict[str, str]:
    return {f"{address} {kind}": error for kind, error in REFUSED.items()}


async def heard_out(lab: Lab) -> None:
    """Wait until the servers have taken all connections that were opened before: they take them in order."""
    for family in FAMILIES:
        attempt, connection = await connect(lab, SERVERS[family][0])
        assert connection is not None, attempt.error
        connection.close()


def count_echo(lab: Lab) -> None:
    """Let every provider count what goes to the echo port, which probes never do."""
    for uplink in lab.topology.uplinks:
        lab.provider(uplink.number).nft(
            "table inet watch { counter echo { }\nchain in { type filter hook prerouting priority -300;\n"
            f'iifname "wan" meta l4proto {{ tcp, udp }} th dport {ECHO_PORT} counter name echo\n}}\n}}\n'
        )


def echoes(lab: Lab) -> list[int]:
    return [lab.provider(u.number).counters("inet watch")["echo"] for u in lab.topology.uplinks]


def state_of(daemon: DaemonProcess, uplink: str) -> Any:
    return next(u.state for u in daemon.status().uplinks if u.name == uplink)


def test_a_program_leaves_by_its_uplink_in_both_families_with_tcp_and_udp(
    own_groups: Path, lab: Lab, start_daemon: StartDaemon
) -> None:
    daemon = start_daemon(lab, configuration(lab.topology, (1, 1, 1)))

    async def story() -> None:
        for number in (1, 2, 3, 3, 2, 1):
            assert await talk(lab, daemon, f"isp{number}") == by(lab, number)

    with_servers(lab, story)
    assert all(seen.spoofed == 0 for seen in lab.all_seen().values())


def test_its_children_leave_by_the_same_uplink(own_groups: Path, lab: Lab, start_daemon: StartDaemon) -> None:
    daemon = start_daemon(lab, configuration(lab.topology, (1, 1, 1)))
    parent = "import subprocess, sys; sys.exit(subprocess.call(sys.argv[1:]))"

    async def story() -> None:
        argv = (sys.executable, "-c", parent, sys.executable, "-c", TALK, *ADDRESSES)
        done = await asyncio.to_thread(execute, lab, daemon, "isp3", *argv)
        assert json.loads(done.stdout) == by(lab, 3)

    with_servers(lab, story)


def test_other_programs_of_the_box_are_shared_out_as_before(
    own_groups: Path, lab: Lab, start_daemon: StartDaemon
) -> None:
    daemon = start_daemon(lab, configuration(lab.topology, (3, 2, 1)))

    async def story() -> None:
        await talk(lab, daemon, "isp3")
        opened = await open_connections(lab, 12, SERVERS[Family.V4][0], namespace=lab.router)
        opened.close()
        assert shares(a.uplink for a in opened.attempts) == {1: 6, 2: 4, 3: 2}

    with_servers(lab, story)


def test_programs_of_two_uplinks_do_not_disturb_each_other(
    own_groups: Path, lab: Lab, start_daemon: StartDaemon
) -> None:
    daemon = start_daemon(lab, configuration(lab.topology, (1, 1, 1)))

    async def story() -> None:
        seen = await asyncio.gather(*(talk(lab, daemon, f"isp{n}") for n in (1, 2, 3)))
        assert seen == [by(lab, n) for n in (1, 2, 3)]

    with_servers(lab, story)


def test_while_its_uplink_is_down_a_program_is_refused_at_once_and_sends_nothing_elsewhere(
    own_groups: Path, lab: Lab, start_daemon: StartDaemon, wait_for: WaitFor
) -> None:
    daemon = start_daemon(lab, configuration(lab.topology, (1, 1, 1)))
    count_echo(lab)

    async def story() -> None:
        assert await talk(lab, daemon, "isp2") == by(lab, 2)
        before = echoes(lab)
        lab.cut(2)
        wait_for(lambda: state_of(daemon, "isp2") == "down")
        seen = await talk(lab, daemon, "isp2")
        assert seen == {key: error for address in ADDRESSES for key, error in refused(address).items()}
        assert echoes(lab) == before

    with_servers(lab, story)


def test_exec_says_on_stderr_that_the_uplink_is_down(
    own_groups: Path, lab: Lab, start_daemon: StartDaemon, wait_for: WaitFor
) -> None:
    daemon = start_daemon(lab, configuration(lab.topology, (1, 1, 1)))
    lab.cut(2)
    wait_for(lambda: state_of(daemon, "isp2") == "down")
    done = execute(lab, daemon, "isp2", "true")
    assert done.returncode == 0
    assert done.stderr == "warning: isp2 is down: no carrier; its new connections are refused until it is up\n"


def test_not_one_packet_goes_elsewhere_while_the_cable_is_pulled(
    own_groups: Path, lab: Lab, start_daemon: StartDaemon, wait_for: WaitFor
) -> None:
    daemon = start_daemon(lab, configuration(lab.topology, (1, 1, 1)))
    count_echo(lab)

    async def story() -> None:
        with started(lab, daemon, "isp1", sys.executable, "-c", NAG):
            await asyncio.to_thread(wait_for, lambda: echoes(lab)[0] > 20)
            # Main's best default is by this one: the kernel itself turns to the next one at once.
            lab.cut(1)
            await asyncio.to_thread(wait_for, lambda: state_of(daemon, "isp1") == "down")
            lab.restore(1)
            before = echoes(lab)[0]
            await asyncio.to_thread(wait_for, lambda: echoes(lab)[0] > before + 20, 20.0)
        assert echoes(lab)[1:] == [0, 0]
        await heard_out(lab)

    with_servers(lab, story)


SLEEP = "import os, signal; print(os.getpid(), flush=True); signal.pause()"

HOLD = f"""
import socket
sock = socket.create_connection(("{ADDRESSES[0]}", {ECHO_PORT}))
sock.recv(100)
print("connected", flush=True)
try:
    while True:
        sock.sendall(b"x")
        sock.recv(100)
except (ConnectionResetError, ConnectionAbortedError):
    print("reset", flush=True)
"""


def test_an_open_connection_of_the_program_is_reset_when_its_uplink_dies(
    own_groups: Path, lab: Lab, start_daemon: StartDaemon, wait_for: WaitFor
) -> None:
    daemon = start_daemon(lab, configuration(lab.topology, (1, 1, 1)))

    async def story() -> None:
        with started(lab, daemon, "isp2", sys.executable, "-c", HOLD) as (_, output):
            assert await asyncio.to_thread(output.readline) == "connected\n"
            lab.cut(2)
            assert await asyncio.to_thread(output.readline) == "reset\n"

    with_servers(lab, story)


def test_ipv6_is_refused_at_once_where_the_uplink_has_none(
    own_groups: Path, lab_of: BuildLab, start_daemon: StartDaemon
) -> None:
    lab = lab_of(2, ipv4_only=(1,))
    daemon = start_daemon(lab, configuration(lab.topology, (1, 1)))

    async def story() -> None:
        seen = await talk(lab, daemon, "isp1")
        assert seen == {**by(lab, 1), **refused(ADDRESSES[1])}

    with_servers(lab, story)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_lan_and_the_box_itself_are_reached_as_ever(
    own_groups: Path, lab: Lab, start_daemon: StartDaemon, wait_for: WaitFor, family: Family
) -> None:
    daemon = start_daemon(lab, configuration(lab.topology, (1, 1, 1)))
    lab.cut(1)
    wait_for(lambda: state_of(daemon, "isp1") == "down")
    client, loopback = str(LAN_CLIENT[family].ip), "127.0.0.1" if family is Family.V4 else "::1"

    async def story() -> None:
        own = Servers()
        for namespace in (lab.client, lab.router):
            await own.listen(namespace, family, ECHO_PORT)
        seen = await talk(lab, daemon, "isp1", client, loopback)
        assert seen[f"{client} SOCK_STREAM"] == str(LAN_ROUTER[family].ip)
        assert seen[f"{loopback} SOCK_STREAM"] == loopback
        await own.close()

    asyncio.run(story())


def test_a_program_whose_uplink_is_removed_from_the_file_is_refused(
    own_groups: Path, lab: Lab, start_daemon: StartDaemon
) -> None:
    toml = configuration(lab.topology, (1, 1, 1))
    daemon = start_daemon(lab, toml)

    async def story() -> None:
        ready = "import signal; signal.pthread_sigmask(0, {10}); print('ready', flush=True); signal.sigwait({10})"
        with started(lab, daemon, "isp3", sys.executable, "-c", f"{ready}{TALK}", *ADDRESSES) as (process, output):
            await asyncio.to_thread(output.readline)
            daemon.config.write_text(toml.partition("[uplinks.isp3]")[0], encoding="utf-8")
            await asyncio.to_thread(daemon.reload)
            process.send_signal(signal.SIGUSR1)
            seen = json.loads(await asyncio.to_thread(output.read))
            assert seen == {key: error for address in ADDRESSES for key, error in refused(address).items()}

    with_servers(lab, story)


def test_a_group_that_was_removed_is_made_anew(own_groups: Path, lab: Lab, start_daemon: StartDaemon) -> None:
    daemon = start_daemon(lab, configuration(lab.topology, (1, 1, 1)))

    async def story() -> None:
        assert await talk(lab, daemon, "isp2") == by(lab, 2)
        (own_groups / VIA / "isp2").rmdir()
        assert await talk(lab, daemon, "isp2") == by(lab, 2)

    with_servers(lab, story)


def test_a_failover_works_although_somebody_removed_the_groups(
    own_groups: Path, lab: Lab, start_daemon: StartDaemon, wait_for: WaitFor
) -> None:
    daemon = start_daemon(lab, configuration(lab.topology, (1, 1, 1)))

    async def story() -> None:
        await talk(lab, daemon, "isp2")
        (own_groups / VIA / "isp2").rmdir()
        (own_groups / VIA).rmdir()
        lab.cut(2)
        await asyncio.to_thread(wait_for, lambda: state_of(daemon, "isp2") == "down")
        opened = await open_connections(lab, 6, SERVERS[Family.V4][0])
        opened.close()
        assert shares(a.uplink for a in opened.attempts) == {1: 3, 3: 3}

    with_servers(lab, story)


def test_a_program_keeps_its_uplink_when_the_daemon_is_killed_and_started_again(
    own_groups: Path, lab: Lab, start_daemon: StartDaemon, wait_for: WaitFor
) -> None:
    daemon = start_daemon(lab, configuration(lab.topology, (1, 1, 1)))
    count_echo(lab)

    async def story() -> None:
        with started(lab, daemon, "isp3", sys.executable, "-c", NAG):
            await asyncio.to_thread(wait_for, lambda: echoes(lab)[2] > 20)
            daemon.kill()
            daemon.start()
            before = echoes(lab)[2]
            await asyncio.to_thread(wait_for, lambda: echoes(lab)[2] > before + 20)
        assert echoes(lab)[:2] == [0, 0]
        await heard_out(lab)

    with_servers(lab, story)


def test_down_removes_the_groups_that_nobody_is_in(own_groups: Path, lab: Lab, start_daemon: StartDaemon) -> None:
    daemon = start_daemon(lab, configuration(lab.topology, (1, 1, 1)))
    execute(lab, daemon, "isp1", "true")
    argv = ["down", "--runtime-dir", str(daemon.runtime), "--state-dir", str(daemon.state)]
    down = [sys.executable, "-m", "polywan", *argv]
    with started(lab, daemon, "isp2", sys.executable, "-c", SLEEP) as (_, output):
        output.readline()
        lab.router.run(down)
        assert sorted(path.name for path in (own_groups / VIA).iterdir() if path.is_dir()) == ["isp2"]
    lab.router.run(down)
    assert not (own_groups / VIA).exists()


def test_the_program_takes_the_place_of_exec_and_its_end_is_the_end(
    own_groups: Path, lab: Lab, start_daemon: StartDaemon
) -> None:
    daemon = start_daemon(lab, configuration(lab.topology, (1, 1, 1)))
    assert execute(lab, daemon, "isp1", sys.executable, "-c", "raise SystemExit(7)").returncode == 7
    with started(lab, daemon, "isp1", sys.executable, "-c", SLEEP) as (process, output):
        assert int(output.readline()) == process.pid
        process.terminate()
        assert process.wait() == -signal.SIGTERM


WRONG: list[tuple[tuple[str, ...], int, str]] = [
    (("isp9", "true"), 1, 'there is no uplink "isp9"; did you mean "isp'),
    (("../isp1", "true"), 1, 'there is no uplink "../isp1"'),
    (("isp1", "no-such-program"), 127, "no-such-program: No such file or directory"),
    (("isp1", "/etc"), 126, "/etc: Permission denied"),
    (("isp1", "--", "true", "--via"), 0, ""),
    (("isp1",), 2, "Missing argument 'CMD [ARG]...'"),
]


def test_exec_says_what_is_wrong(own_groups: Path, lab: Lab, start_daemon: StartDaemon) -> None:
    daemon = start_daemon(lab, configuration(lab.topology, (1, 1, 1)))
    for argv, code, words in WRONG:
        done = execute(lab, daemon, *argv)
        assert (done.returncode, words in done.stderr) == (code, True), (argv, done.stderr)


def test_without_a_daemon_exec_says_so_and_makes_nothing(own_groups: Path, lab: Lab, start_daemon: StartDaemon) -> None:
    daemon = start_daemon(lab, configuration(lab.topology, (1, 1, 1)))
    daemon.stop()
    done = execute(lab, daemon, "isp1", "true")
    assert done.returncode == 4
    assert "no daemon answers" in done.stderr
    assert not (own_groups / VIA).exists()


NOBODY = """
import os, sys
import polywan.cli, polywan.cli.exec
os.setgroups([])
os.setresuid(65534, 65534, 65534)
polywan.cli.main()
"""
"""The command as a user of group root, who may ask the socket; everything is imported before, wherever it lives."""


def test_who_is_not_root_is_told_what_is_needed(own_groups: Path, lab: Lab, start_daemon: StartDaemon) -> None:
    daemon = start_daemon(lab, configuration(lab.topology, (1, 1, 1)))
    argv = ["exec", "--runtime-dir", str(daemon.runtime), "--via", "isp1", "true"]
    done = lab.router.run([sys.executable, "-c", NOBODY, *argv], check=False)
    assert done.returncode == 5, done.stderr
    assert "sudo polywan exec" in done.stderr


def test_without_control_groups_exec_says_so(lab: Lab, start_daemon: StartDaemon) -> None:
    root = hierarchy().root
    subprocess.run(["mount", "-t", "tmpfs", "none", root], check=True)
    try:
        daemon = start_daemon(lab, configuration(lab.topology, (1, 1, 1)))
        done = execute(lab, daemon, "isp1", "true")
    finally:
        subprocess.run(["umount", root], check=True)
    assert done.returncode == 1
    assert "control groups version 2 are not mounted below /sys/fs/cgroup" in done.stderr
