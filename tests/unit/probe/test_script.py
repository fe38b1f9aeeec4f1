"""Programs as checks: their status, their words, and that nothing of them is left."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import threading
import time
from pathlib import Path

import pytest

from polywan.child import CLEAN
from polywan.core.health.layers import CheckOrder, CheckResult, Layer
from polywan.core.net import Family
from polywan.probe.check import MAX_TEXT
from polywan.probe.prober import NetProber
from polywan.probe.script import environment
from support.hung_file import hung
from support.probe_orders import check_order, inspect, reported


def script(*command: str, timeout: float = 5.0) -> CheckOrder:
    return check_order(Layer.SCRIPT, command=command, timeout=timeout)


def shell(text: str, *arguments: str, timeout: float = 5.0) -> CheckOrder:
    return script("sh", "-c", text, "check", *arguments, timeout=timeout)


def run(order: CheckOrder) -> CheckResult:
    async def main() -> list[CheckResult]:
        return await inspect(NetProber(), order)

    (found,) = asyncio.run(main())
    return found


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text("ascii").rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def ends(pid: int) -> bool:
    """Wait for the end of somebody else's child."""
    deadline = time.monotonic() + 5
    while alive(pid) and time.monotonic() < deadline:
        time.sleep(0.005)
    return not alive(pid)


def test_a_program_that_succeeds_is_well_and_its_last_line_is_shown() -> None:
    found = run(shell("echo first; echo '-71 dBm, LTE'; echo"))
    assert (found.ok, found.detail) == (True, "-71 dBm, LTE")
    assert found.rtt is not None


def test_a_program_that_fails_is_told_by_its_status_and_its_last_words() -> None:
    found = run(shell("echo looking; echo 'no signal' >&2; exit 3"))
    assert (found.ok, found.detail) == (False, "exit status 3: no signal")


def test_a_program_that_a_signal_ends_is_not_well() -> None:
    assert run(shell("kill -SEGV $$")).detail == "killed by SIGSEGV"


def test_an_absent_program_is_a_result() -> None:
    found = run(script("/nonexistent/check"))
    assert (found.ok, found.detail) == (False, "/nonexistent/check cannot be run: No such file or directory")


def test_a_file_that_is_no_program_is_a_result(tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("hello")
    assert run(script(str(tmp_path / "plain"))).detail.endswith("cannot be run: Permission denied")


@pytest.mark.parametrize("command", [(), ("",), ("true\0",), ("\udcff",), ("x" * 5000,)])
def test_a_command_that_nobody_can_run_is_a_result(command: tuple[str, ...]) -> None:
    found = run(script(*command))
    assert not found.ok
    assert found.detail


def test_arguments_reach_the_program_as_they_are() -> None:
    assert run(script("printf", "%s", "$(id); `id` 'x' > /tmp/y")).detail == "$(id); `id` 'x' > /tmp/y"


def test_the_environment_is_the_uplinks_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "of the daemon")
    order = check_order(
        Layer.SCRIPT, Family.V6, interface="wwan0", mark=0x200, gateway="fe80::1", command=("env",), timeout=5.0
    )
    assert {**CLEAN, **environment(order)} == {
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
        "LANG": "C",
        "POLYWAN_UPLINK": "by-wwan0",
        "POLYWAN_INTERFACE": "wwan0",
        "POLYWAN_FAMILY": "ipv6",
        "POLYWAN_MARK": "0x200",
        "POLYWAN_GATEWAY": "fe80::1",
    }
    assert run(shell('echo "[$SECRET$HOME]$POLYWAN_UPLINK$POLYWAN_GATEWAY"')).detail == "[]by-lo"


INHERITED = """
import fcntl, sys
def is_open(fd):
    try:
        return fcntl.fcntl(fd, fcntl.F_GETFD) >= 0
    except OSError:
        return False
print(repr(sys.stdin.read()), [fd for fd in range(256) if is_open(fd)])
"""


def test_a_program_reads_nothing_and_holds_nothing_of_the_daemon() -> None:
    with socket.socket() as ours:
        ours.set_inheritable(True)
        assert run(script(sys.executable, "-ISc", INHERITED)).detail == "'' [0, 1, 2]"


def test_a_program_without_an_end_is_killed_with_its_children_at_the_timeout(tmp_path: Path) -> None:
    note = tmp_path / "pids"
    start = time.monotonic()
    found = run(shell('sleep 60 & echo $! $$ > "$1"; wait', str(note), timeout=0.5))
    assert (found.ok, found.detail) == (False, "sh: did not end within 0.5 s")
    assert 0.5 <= time.monotonic() - start < 1.5
    assert all(ends(int(pid)) for pid in note.read_text().split())


def test_a_program_that_leaves_a_child_behind_is_not_waited_for_longer(tmp_path: Path) -> None:
    note = tmp_path / "pid"
    found = run(shell('sleep 60 & echo $! > "$1"; echo done', str(note)))
    assert (found.ok, found.detail) == (True, "done")
    assert ends(int(note.read_text()))


def test_close_kills_what_runs(tmp_path: Path) -> None:
    note = tmp_path / "pid"

    async def main() -> int:
        prober = NetProber()
        prober.check(shell('echo $$ > "$1.new"; mv "$1.new" "$1"; exec sleep 60', str(note), timeout=30.0))
        async with asyncio.timeout(5):
            while not note.exists():
                await asyncio.sleep(0.005)
        prober.close()
        return reported(prober).qsize()

    assert asyncio.run(main()) == 0
    assert ends(int(note.read_text()))


def test_a_program_that_says_too_much_is_ended() -> None:
    found = run(script("yes"))
    assert (found.ok, found.detail) == (False, "yes wrote more than 1 MiB")


def test_what_a_program_says_cannot_forge_a_log_line() -> None:
    found = run(shell(r"printf 'well\rERROR: \033[31mred\033[0m\tname=%0500d' 1"))
    assert found.detail.isprintable()
    assert len(found.detail) <= MAX_TEXT
    assert "\033" not in found.detail


def test_no_process_or_file_outlives_its_check() -> None:
    async def main() -> tuple[int, int]:
        await inspect(NetProber(), shell("exit 0"))
        before = len(os.listdir("/proc/self/fd"))
        for order in (shell("echo x"), script("/nonexistent"), shell("exec sleep 60", timeout=0.05), script("yes")):
            await inspect(NetProber(), order)
        return before, len(os.listdir("/proc/self/fd"))

    before, after = asyncio.run(main())
    assert after == before
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def test_the_loop_goes_on_while_a_program_runs() -> None:
    async def main() -> int:
        checking = asyncio.create_task(inspect(NetProber(), shell("sleep 0.2")))
        turns = 0
        while not checking.done():
            await asyncio.sleep(0.005)
            turns += 1
        await checking
        return turns

    assert asyncio.run(main()) > 10


def test_a_program_starts_with_the_usual_signals() -> None:
    ignored = run(shell("grep SigIgn /proc/$$/status")).detail.split()[1]
    assert not int(ignored, 16) >> (signal.SIGPIPE - 1) & 1


def test_a_program_on_a_disk_that_hangs_holds_up_nobody_and_is_killed_when_it_starts_at_last(tmp_path: Path) -> None:
    async def main() -> tuple[float, list[CheckResult]]:
        inspection = asyncio.create_task(inspect(NetProber(), script(path, timeout=0.5)))
        worst, last = 0.0, time.monotonic()
        while not inspection.done():
            await asyncio.sleep(0.01)
            worst, last = max(worst, time.monotonic() - last), time.monotonic()
        return worst, await inspection

    started = tmp_path / "started"
    with hung(tmp_path / "check", f'#!/bin/sh\necho $$ > "{started}"\nexec sleep 300\n') as path:
        worst, (found,) = asyncio.run(main())
    assert worst < 0.4
    assert found.detail == f"{path}: did not start within 0.5 s"
    for thread in threading.enumerate():
        if thread.name == "script":
            thread.join(5)
    assert not started.exists() or ends(int(started.read_text() or "0"))
