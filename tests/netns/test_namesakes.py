"""Programs of users without rights that take the names by which daemons of a network namespace find each other."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from polywan.lab.daemon import DaemonProcess, Spawn, executed
from polywan.lab.namespaces import Namespace
from polywan.lab.network import Lab
from polywan.lab.scenario import configuration
from support.users import KILLED_WITH_US, PYTHON, SERVICE, as_the_service

pytestmark = pytest.mark.needs("root")

HOME = Path("/run/polywan-namesakes")
TAKE = """
import os, socket, sys
held = []
for name in ("polywan", f"polywan:{sys.argv[1] or os.getpid()}:{sys.argv[2]}"):
    held.append(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
    held[-1].bind("\\0" + name)
print("held", flush=True)
sys.stdin.read()
"""


def hidden(namespace: Namespace, arguments: Sequence[str]) -> subprocess.Popen[str]:
    """Start it as its service does, which shows it no process of another user (ProtectProc=invisible)."""
    with_own_proc = ["unshare", "--mount", "sh", "-c", 'mount -t proc -o hidepid=invisible proc /proc; exec "$@"', "sh"]
    return as_the_service(namespace, arguments, behind=with_own_proc)


SPAWNS: dict[str, Spawn] = {"root": executed, "the service": as_the_service, "the service, others hidden": hidden}


@contextmanager
def taken(lab: Lab, user: int, *, contained: bool = False, pid: str = "") -> Iterator[None]:
    """Have both names taken by a user's program, be he root in a user namespace, and let it name another process."""
    rights = [f"--reuid={user}", f"--regid={user}", "--clear-groups"]
    own = ["unshare", "--user", "--map-root-user"] if contained else []
    argv = ["setpriv", *rights, *KILLED_WITH_US, "--", *own, PYTHON, "-I", "-c", TAKE, pid, "/tmp/nowhere"]
    with lab.router.entered():
        process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield
        process.communicate()


@pytest.fixture
def daemon(lab: Lab, request: pytest.FixtureRequest) -> Iterator[DaemonProcess]:
    shutil.rmtree(HOME, ignore_errors=True)
    made = DaemonProcess(lab.router, configuration(lab.topology, (1, 1, 1)), HOME, SPAWNS[request.param])
    for path in (HOME, made.state):
        os.chown(path, SERVICE, SERVICE)
    yield made
    made.stop()


@pytest.mark.parametrize("pid", ["", "1"], ids=["its own process", "the first process"])
@pytest.mark.parametrize("contained", [False, True], ids=["a user", "a user who is root in a container"])
@pytest.mark.parametrize("daemon", SPAWNS, indirect=True)
def test_no_user_without_rights_keeps_a_daemon_from_starting(
    lab: Lab, daemon: DaemonProcess, contained: bool, pid: str
) -> None:
    with taken(lab, 4713, contained=contained, pid=pid):
        daemon.start()
        assert any("presence.taken: another program uses the socket name @polywan" in line.text for line in daemon.log)
        argv = [
            sys.executable,
            "-m",
            "polywan",
            "plan",
            "--config",
            str(daemon.config),
            "--state-dir",
            str(daemon.state),
        ]
        planned = lab.router.run([*argv, "--runtime-dir", str(daemon.runtime)], check=False)
        assert planned.returncode == 0, planned.stderr


@pytest.mark.parametrize("daemon", SPAWNS, indirect=True)
def test_root_finds_the_daemon_of_any_user(lab: Lab, daemon: DaemonProcess, tmp_path: Path) -> None:
    daemon.start()
    argv = [sys.executable, "-m", "polywan", "run", "--config", str(daemon.config), "--state-dir", str(tmp_path / "s")]
    second = lab.router.run([*argv, "--runtime-dir", str(tmp_path / "r")], check=False)
    assert second.returncode == 1
    assert daemon.process is not None
    assert f"(pid {daemon.process.pid}, runtime directory {HOME})" in second.stderr
