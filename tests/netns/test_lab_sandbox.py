"""What is left of a sandbox when it ends: nothing, whichever way it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from polywan.lab import sandbox
from polywan.lab.network import Lab

if TYPE_CHECKING:
    from support.netns import WaitFor

PROGRAM = """
import os, signal, sys
from polywan.lab import sandbox
if os.environ.get(sandbox.INSIDE) != "1":
    sandbox.enter([sys.executable, "-c", sys.argv[1], sys.argv[1]])
sandbox.prepare()
signal.signal(signal.SIGINT, signal.default_int_handler)
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


@dataclass(frozen=True)
class Inner:
    """A sandbox of its own, with a network and a process in it."""

    process: subprocess.Popen[str]
    child: int


@pytest.fixture
def inner() -> Iterator[Inner]:
    with started(sys.executable, "-c", PROGRAM, PROGRAM) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            pytest.fail(process.communicate()[1])
        yield Inner(process, int(line))


@contextmanager
def started(*argv: str) -> Iterator[subprocess.Popen[str]]:
    """Run a command outside every sandbox but this one; whatever happens, it is ended."""
    environment = {name: value for name, value in os.environ.items() if name != sandbox.INSIDE}
    process = subprocess.Popen(argv, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def outside() -> tuple[list[str], list[str], str]:
    """Everything of the surroundings that a sandbox could have touched."""
    links = subprocess.run(["ip", "-brief", "link"], capture_output=True, text=True, check=True).stdout
    mounts = Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines()
    return sorted(os.listdir("/run")), sorted(mounts), links


def processes_in(namespace: str) -> list[str]:
    return [link.parts[2] for link in Path("/proc").glob("[0-9]*/ns/net") if _reads(link) == namespace]


def parent_of(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[1])
    except OSError:
        return 0


def _reads(link: Path) -> str:
    try:
        return os.readlink(link)
    except OSError:
        return ""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)])
def test_a_sandbox_leaves_nothing_behind(number: signal.Signals, code: int, wait_for: WaitFor) -> None:
    before = outside()
    with started(sys.executable, "-c", PROGRAM, PROGRAM) as process:
        assert process.stdout is not None
        namespace = os.readlink(f"/proc/{int(process.stdout.readline())}/ns/net")
        assert outside() == before
        process.send_signal(number)
        assert process.wait(10) == code
        wait_for(lambda: not processes_in(namespace), what="the sandbox's process is gone")
    assert outside() == before


def test_the_process_keeps_its_pid(inner: Inner) -> None:
    assert parent_of(inner.child) == inner.process.pid


def test_a_sandbox_within_a_sandbox_has_names_of_its_own(inner: Inner, lab: Lab) -> None:
    with lab.router.entered():
        assert _reads(Path("/proc/thread-self/ns/net")) != os.readlink(f"/proc/{inner.child}/ns/net")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 130), (signal.SIGKILL, -9)])
def test_the_command_leaves_no_daemon_behind(number: signal.Signals, code: int, wait_for: WaitFor) -> None:
    before = outside()
    with started(sys.executable, "-m", "polywan", "lab", "--uplinks", "2", "--connections", "12") as process:
        assert process.stdout is not None
        while "ready after" not in (line := process.stdout.readline()):
            if not line:
                pytest.fail(process.communicate()[1])
        daemons = [pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if parent_of(pid) == process.pid]
        assert daemons
        process.send_signal(number)
        assert process.wait(15) == code
        wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in daemons), what="the daemon is gone")
        last = process.communicate()[1].splitlines()
    assert last == ([] if number is signal.SIGKILL else ["polywan lab: interrupted, everything taken down"])
    assert outside() == before


def test_the_systems_own_namespaces_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(sandbox.INSIDE)
    with pytest.raises(sandbox.LabError):
        sandbox.prepare()
