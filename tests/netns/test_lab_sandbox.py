"""What is left of a sandbox when it ends: nothing, whichever way it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from polywan.lab import sandbox

if TYPE_CHECKING:
    from netlab import WaitFor

PROGRAM = """
import os, signal, sys
from polywan.lab import sandbox
if os.environ.get(sandbox.INSIDE) != "1":
    sandbox.enter([sys.executable, "-c", sys.argv[1], sys.argv[1]])
sandbox.prepare()
from polywan.lab.network import build
try:
    with build(2) as lab:
        child = lab.router.start(["sleep", "600"])
        print(child.pid, flush=True)
        signal.pause()
except KeyboardInterrupt:
    child.kill()
    child.wait()
    sys.exit(130)
"""


def start() -> tuple[subprocess.Popen[str], int]:
    """Start a sandbox with a network and a process in it; return it and the process's pid."""
    environment = {name: value for name, value in os.environ.items() if name != sandbox.INSIDE}
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, PROGRAM],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        pytest.fail(process.communicate()[1])
    return process, int(line)


def outside() -> tuple[list[str], list[str], str]:
    """Everything of the surroundings that a sandbox could have touched."""
    links = subprocess.run(["ip", "-brief", "link"], capture_output=True, text=True, check=True).stdout
    mounts = Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines()
    return sorted(os.listdir("/run")), sorted(mounts), links


def gone(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)])
def test_a_sandbox_leaves_nothing_behind(number: signal.Signals, code: int, wait_for: WaitFor) -> None:
    before = outside()
    process, child = start()
    namespace = os.readlink(f"/proc/{child}/ns/net")
    assert outside() == before
    process.send_signal(number)
    assert process.wait(10) == code
    wait_for(lambda: gone(child), what="the child is gone")
    assert outside() == before
    alive = [link for link in Path("/proc").glob("[0-9]*/ns/net") if _reads(link) == namespace]
    assert alive == []
    process.communicate()


def test_the_process_keeps_its_pid() -> None:
    process, child = start()
    parent = Path(f"/proc/{child}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[1]
    assert int(parent) == process.pid
    process.kill()
    process.communicate()


def test_the_systems_own_namespaces_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(sandbox.INSIDE)
    with pytest.raises(sandbox.LabError):
        sandbox.prepare()


def _reads(link: Path) -> str:
    try:
        return os.readlink(link)
    except OSError:
        return ""
