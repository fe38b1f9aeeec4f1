"""A system that runs: systemd as process 1 of a container, in a network namespace of the lab."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, TypeVar

from polywan.lab.namespaces import Namespace

T = TypeVar("T")

CGROUPS: Final = Path("/sys/fs/cgroup")
PLACE: Final = Path("/run/machines")
"""Where disks are; in the sandbox /run is in memory, and its own."""

_GROUP: Final = "polywan-machine-"
_numbers = itertools.count(1)
_ENVIRONMENT: Final = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}


def until(predicate: Callable[[], T], timeout: float = 20.0, what: str = "") -> T:
    """Wait until a predicate returns something true, and return that.

    Raises:
        AssertionError: it did not in time.
    """
    deadline = time.monotonic() + timeout
    while not (value := predicate()):
        assert time.monotonic() < deadline, f"not within {timeout:g} s: {what or predicate}"
        # Nothing of another process tree can be awaited.
        time.sleep(0.02)
    return value


class Disk:
    """The files of one machine: a tree, and in memory whatever the machine writes. They outlast a boot."""

    def __init__(self, tree: Path) -> None:
        self.place = PLACE / f"disk-{os.getpid()}-{next(_numbers)}"
        self.root = self.place / "root"
        for part in ("root", "upper", "work"):
            (self.place / part).mkdir(parents=True)
        layers = f"lowerdir={tree},upperdir={self.place / 'upper'},workdir={self.place / 'work'}"
        subprocess.run(["mount", "-t", "overlay", "overlay", "-o", layers, str(self.root)], check=True)

    def close(self) -> None:
        """Forget everything that was written."""
        subprocess.run(["umount", str(self.root)], check=True)
        subprocess.run(["rm", "-rf", str(self.place)], check=True)

    def write(self, path: str, text: str) -> None:
        """Write a file, and make the folders above it; also while the machine runs."""
        file = self.root / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, "utf-8")

    def read(self, path: str) -> str:
        """Return what is in a file."""
        return (self.root / path.lstrip("/")).read_text("utf-8")


class Machine:
    """A disk that has been booted. `kill` or `power_off` ends it, and so does the end of this process."""

    def __init__(self, disk: Disk, network: Namespace) -> None:
        """Boot; the machine's network is that namespace, with everything in it."""
        self.disk = disk
        remove_stale_groups()
        name = f"{_GROUP}{os.getpid()}-{next(_numbers)}"
        self._group = CGROUPS / name
        self._group.mkdir()
        self._console = (disk.place / "console").open("a+")
        self._process = network.start(
            [*self._in_group(), *self._in_processes(), *self._nspawn(name, network)],
            stdout=self._console,
            stderr=self._console,
            environment={"SYSTEMD_NSPAWN_API_VFS_WRITABLE": "network", "SYSTEMD_LOG_LEVEL": "warning"},
        )
        try:
            self.pid = until(self._first_process, what="systemd as the first process of the machine")
            until(lambda: Path(f"/proc/{self.pid}/root/run/systemd/private").exists(), what="systemd takes calls")
        except BaseException:
            self.kill()
            raise

    def _in_group(self) -> list[str]:
        return ["sh", "-c", 'echo $$ >"$0/cgroup.procs" && exec "$@"', str(self._group)]

    @staticmethod
    def _in_processes() -> list[str]:
        # The machine's processes outlive a killed systemd-nspawn, but not the namespace of their numbers.
        return ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]

    def _nspawn(self, name: str, network: Namespace) -> list[str]:
        return [
            "systemd-nspawn",
            "--boot",
            "--register=no",
            "--keep-unit",
            f"--network-namespace-path={network.path}",
            "--capability=CAP_NET_ADMIN",
            f"--machine={name}",
            "--hostname=box",
            "--resolv-conf=off",
            "--timezone=off",
            "--link-journal=no",
            "--console=pipe",
            f"--directory={self.disk.root}",
        ]

    def _first_process(self) -> int:
        if self._process.poll() is not None:
            self._console.seek(0)
            raise AssertionError(f"the machine does not start: {self._console.read()}")
        try:
            pids = (self._group / "payload" / "init.scope" / "cgroup.procs").read_text().split()
        except FileNotFoundError:
            return 0
        return int(pids[0]) if pids else 0

    def settled(self, timeout: float = 30.0) -> str:
        """Wait until the boot is over and return how the system is, as `systemctl is-system-running` says it."""
        return self.run("systemctl", "is-system-running", "--wait", check=False, timeout=timeout).stdout.strip()

    def run(
        self, *argv: str, user: str = "", check: bool = True, timeout: float = 60.0
    ) -> subprocess.CompletedProcess[str]:
        """Run a program in the machine to its end, as root or as that user with all groups.

        Raises:
            AssertionError: it failed, unless told not to check.
        """
        done = subprocess.run(
            self._inside(argv, user),
            env=_ENVIRONMENT,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout,
        )
        assert not (check and done.returncode), f"{' '.join(argv)}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done

    def start(self, *argv: str, user: str = "") -> subprocess.Popen[str]:
        """Start a program in the machine, with its output in pipes; it may be killed, and ends with the machine."""
        return subprocess.Popen(
            self._inside(argv, user),
            env=_ENVIRONMENT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def _inside(self, argv: Sequence[str], user: str) -> list[str]:
        become = ["setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups", "--"] if user else []
        return ["nsenter", f"--target={self.pid}", "--all", *become, *argv]

    def show(self, unit: str, key: str) -> str:
        """Return a property of a unit."""
        return self.run("systemctl", "show", "--value", f"--property={key}", unit).stdout.strip()

    def processes_of(self, unit: str) -> list[int]:
        """Return the processes of a system service as they are numbered outside of the machine."""
        return [int(n) for n in (self._group / "payload/system.slice" / unit / "cgroup.procs").read_text().split()]

    def log(self, unit: str = "polywan", *more: str) -> str:
        """Return what a unit logged since the boot, systemd's own words about it included."""
        return self.run("journalctl", "--boot", "--output=cat", f"--unit={unit}", *more).stdout

    def power_off(self) -> None:
        """Shut down in order, and wait until that is done."""
        self.run("systemctl", "poweroff", check=False)
        try:
            self._process.wait(60)
        except subprocess.TimeoutExpired:
            self.kill()
            raise
        self._clean()

    def kill(self) -> None:
        """Pull the plug."""
        if self._process.poll() is None:
            # With the first process of a namespace all others go, and unshare(1), which waits for it.
            first = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
            os.kill(int(first[0]) if first else self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._clean()

    def _clean(self) -> None:
        self._console.close()
        remove_group(self._group)


def remove_stale_groups() -> None:
    """Remove what test runs have left that were killed; the processes went with them."""
    for group in CGROUPS.glob(f"{_GROUP}*"):
        owner = group.name.removeprefix(_GROUP).partition("-")[0]
        if not Path("/proc", owner).exists():
            remove_group(group)


def remove_group(group: Path) -> None:
    """Remove a control group and those in it, once their processes are gone."""
    if not group.exists():
        return
    until(lambda: "populated 0" in (group / "cgroup.events").read_text(), what=f"the processes of {group} end")
    for folder, _, _ in os.walk(group, topdown=False):
        os.rmdir(folder)
