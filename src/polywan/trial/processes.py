"""Processes: which one it is, what it was started with, who its ancestors are; and a daemon that is started again."""

from __future__ import annotations

import os
import re
import signal
import socket
import struct
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

from polywan import files
from polywan.core.errors import PolywanError
from polywan.core.trial.record import Daemon, Process

_PROC: Final = Path("/proc")
_STARTTIME, _PPID, _TTY = 19, 1, 4
"""Places behind the name in /proc/PID/stat (proc_pid_stat(5))."""

_UCRED: Final = struct.Struct("3i")
_TICKS: Final = os.sysconf("SC_CLK_TCK")
_UNIT: Final = re.compile(r"/([^/]+\.service)$", re.MULTILINE)
_UID: Final = re.compile(r"^Uid:\s+\d+\s+(\d+)", re.MULTILINE)
_LOOKED_AT: Final = ("PATH", "LANG", "LC_ALL", "PYTHONPATH", "PYTHONUNBUFFERED", "VIRTUAL_ENV")

COMMAND_TIMEOUT: Final = 60.0
"""Seconds that systemd may take to restart a unit."""


def identity(pid: int) -> Process | None:
    """Return a process that runs; None when there is none of that number."""
    fields = _stat(pid)
    return None if fields is None or fields[0] in "ZX" else Process(pid=pid, start=int(fields[_STARTTIME]))


def runs(process: Process) -> bool:
    """True while it is this very process that has the number."""
    return identity(process.pid) == process


def me() -> Process:
    """Return this process.

    Raises:
        PolywanError: /proc does not show it.
    """
    found = identity(os.getpid())
    if found is None:
        raise PolywanError("/proc does not show this process: mount it (proc(5))")
    return found


def daemon_at(runtime_dir: Path) -> Daemon | None:
    """Return the daemon that listens in a runtime directory; None when /proc does not show it.

    The kernel tells its number as it is here (SO_PEERCRED, unix(7)): the daemon may know itself by another one.
    """
    descriptor = files.own_socket(runtime_dir / files.SOCKET)
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            sock.connect(f"/proc/self/fd/{descriptor}")
            pid, _, _ = _UCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    finally:
        os.close(descriptor)
    return daemon_of(pid)


def daemon_of(pid: int) -> Daemon | None:
    """Return a daemon and how it was started; None when /proc does not show it."""
    process, folder = identity(pid), _PROC / str(pid)
    if process is None:
        return None
    try:
        argv = (folder / "cmdline").read_bytes().rstrip(b"\0").split(b"\0")
        said = (folder / "environ").read_bytes().split(b"\0")
        cwd = str((folder / "cwd").readlink())
        groups = (folder / "cgroup").read_text("utf-8", "replace")
    except OSError:
        return None
    environment = dict(entry.decode("utf-8", "replace").split("=", 1) for entry in said if b"=" in entry)
    found = _UNIT.search(groups)
    unit = found[1] if found and under_systemd() else ""
    # What a process of another user says of itself must not be run by us.
    if not unit and _user(pid) != os.geteuid():
        return None
    return Daemon(
        process=process,
        argv=tuple(word.decode("utf-8", "replace") for word in argv),
        cwd=cwd,
        environment={name: environment[name] for name in _LOOKED_AT if name in environment},
        unit=unit,
    )


def stopped(daemon: Daemon, runtime_dir: Path) -> bool:
    """True when a daemon that does not answer was stopped on purpose, or is about to: one that dies leaves its socket.

    A unit that ends without a job of systemd was not asked to; one that failed or was stopped has no job any more.
    """
    if not daemon.unit:
        return not runs(daemon.process) and not os.path.lexists(runtime_dir / files.SOCKET)
    with suppress(OSError, subprocess.SubprocessError):
        words = ["systemctl", "show", "--property=ActiveState,Job", daemon.unit]
        done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=COMMAND_TIMEOUT)
        said = dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)
        state = said.get("ActiveState")
        return state == "inactive" or (state == "deactivating" and said.get("Job", "0") not in {"", "0"})
    return False


def _user(pid: int) -> int | None:
    """Return the effective user of a process."""
    try:
        status = (_PROC / str(pid) / "status").read_text("utf-8", "replace")
    except OSError:
        return None
    found = _UID.search(status)
    return int(found[1]) if found else None


def under_systemd() -> bool:
    """True where systemd runs this machine or container, and this process is in the same network and processes."""
    if not Path("/run/systemd/system").is_dir():
        return False
    try:
        return os.path.samestat((_PROC / "1/ns/net").stat(), (_PROC / "self/ns/net").stat())
    except OSError:
        return False


class Ancestor(NamedTuple):
    """A process above this one, or this one.

    Attributes:
        start: seconds after boot at which it started.
        terminal: device number of its terminal; 0 for none.
    """

    pid: int
    name: str
    start: float
    terminal: int


def ancestors() -> Iterator[Ancestor]:
    """Yield this process, its parent, the parent of that and so on."""
    pid, seen = os.getpid(), set[int]()
    while pid > 0 and pid not in seen and (fields := _stat(pid)) is not None:
        seen.add(pid)
        with suppress(OSError):
            name = (_PROC / str(pid) / "comm").read_text("utf-8", "replace").strip()
            yield Ancestor(pid, name, int(fields[_STARTTIME]) / _TICKS, int(fields[_TTY]))
        pid = int(fields[_PPID])


def start_again(daemon: Daemon, words_to: int) -> None:
    """Start a daemon in place of one that died or hangs; what hangs is killed first, if it is still this process.

    Args:
        daemon: how it was started.
        words_to: descriptor for what it says.

    Raises:
        PolywanError: it cannot be started.
    """
    if runs(daemon.process):
        os.kill(daemon.process.pid, signal.SIGKILL)
    try:
        if daemon.unit:
            _run(["systemctl", "restart", daemon.unit])
            return
        subprocess.Popen(
            daemon.argv,
            cwd=daemon.cwd,
            env=dict(daemon.environment),
            stdin=subprocess.DEVNULL,
            stdout=words_to,
            stderr=words_to,
            start_new_session=True,
        )
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        raise PolywanError(f"cannot start the daemon again ({' '.join(daemon.argv)}): {error}") from error


def _run(argv: Sequence[str]) -> None:
    done = subprocess.run(
        argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=COMMAND_TIMEOUT
    )
    if done.returncode:
        raise OSError(f"{' '.join(argv)}: {done.stderr.strip() or done.returncode}")


def _stat(pid: int) -> list[str] | None:
    try:
        text = (_PROC / str(pid) / "stat").read_text("utf-8", "replace")
    except OSError:
        return None
    # The name may hold anything, the fields behind it are numbers.
    return text.rpartition(")")[2].split()
