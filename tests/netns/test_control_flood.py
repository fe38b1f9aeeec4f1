"""Somebody who may read the control socket uses it up, while the daemon has work to do."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from polywan.daemon.api.admission import EACH, SPARE
from polywan.lab.network import Lab
from polywan.lab.scenario import configuration

if TYPE_CHECKING:
    from support.netns import StartDaemon, WaitFor

READER = 12345
CONNECTIONS = 400
HOLD = """
import os, socket, sys
try:
    os.setresuid(*[int(sys.argv[3])] * 3)
except OSError:
    sys.exit("no other user here")
held = []
for _ in range(int(sys.argv[2])):
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(sys.argv[1])
    held.append(sock)
print("held", flush=True)
sys.stdin.read()
"""


@contextmanager
def held(path: Path, uid: int, count: int) -> Iterator[None]:
    """Have connections of a user open, and never ask anything."""
    argv = [sys.executable, "-I", "-S", "-c", HOLD, str(path), str(count), str(uid)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        if child.stdout.readline() != "held\n":
            pytest.skip("this kernel has no other user for a process without root")
        yield
        child.communicate()


def files(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def cpu(pid: int) -> float:
    """Seconds of processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@pytest.mark.alone
def test_a_reader_with_hundreds_of_idle_connections_changes_nothing(
    lab: Lab, start_daemon: StartDaemon, wait_for: WaitFor
) -> None:
    daemon = start_daemon(lab, configuration(lab.topology, (1, 1, 1)).replace("3s", "1s"))
    assert daemon.process is not None
    pid, path = daemon.process.pid, daemon.runtime / "control.sock"
    before = files(pid)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (before + SPARE + EACH, before + SPARE + EACH))
    path.chmod(0o666)

    def state(name: str) -> str:
        return next(u.state for u in daemon.status().uplinks if u.name == name)

    first = lab.topology.uplinks[0]
    with held(path, READER, CONNECTIONS):
        used, lines = cpu(pid), len(daemon.log)
        assert files(pid) <= before + EACH + 1
        lab.cut(1)
        wait_for(lambda: state(first.name) == "down")
        lab.restore(1)
        wait_for(lambda: state(first.name) == "up", 20)
        assert len(daemon.log) - lines < 40
        assert cpu(pid) - used < 5
        with held(path, READER + 1, 1):
            assert daemon.status().uplinks
    assert [line.text for line in daemon.log if "Traceback" in line.text] == []
