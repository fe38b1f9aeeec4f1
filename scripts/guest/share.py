"""The directory that a guest and this machine share: what the guest reads while it starts, and what it writes back."""

from __future__ import annotations

import os
import shlex
from dataclasses import dataclass
from pathlib import Path

PASSED = ("PATH", "LANG", "CI", "TERM", "PYTHONPATH", "XDG_CACHE_HOME")
"""Variables that the guest gets, beside those that begin with POLYWAN_ or PYTEST_."""
OWN = ("/tmp", "/run", "/dev/shm")  # noqa: S108 - named, not written to
"""Directories that are the guest's own."""

SYSTEM = """
mount -t overlay -o lowerdir=$lower,upperdir=$top/over,workdir=$top/work all $new
mount -t proc proc $new/proc
mount -t sysfs sys $new/sys
mount -t devtmpfs dev $new/dev
mkdir -p $new/dev/pts $new/dev/shm $new/dev/net $new/mnt/share
mount -t devpts pts $new/dev/pts
mount -t tmpfs -o mode=1777 shm $new/dev/shm
mount -t tmpfs -o mode=755 run $new/run
mount -t tmpfs -o mode=1777 tmp $new/tmp
mount -t cgroup2 cgroup $new/sys/fs/cgroup
ln -s /proc/self/fd $new/dev/fd
ln -s fd/0 $new/dev/stdin
ln -s fd/1 $new/dev/stdout
ln -s fd/2 $new/dev/stderr
[ -e $new/dev/net/tun ] || mknod $new/dev/net/tun c 10 200
[ -e $new/dev/ppp ] || mknod $new/dev/ppp c 108 0
"""
"""Puts the guest's files together at $new: this machine's at $lower below a file system in memory at $top."""

RUN = """
. /mnt/share/variables
ip link set lo up
cd "$(cat /mnt/share/directory)"
sh /mnt/share/command < /dev/null >> /mnt/share/stdout 2>> /mnt/share/stderr
echo $? > /mnt/share/status.new
mv /mnt/share/status.new /mnt/share/status
sync
echo o > /proc/sysrq-trigger
sleep 10
"""


@dataclass(frozen=True)
class Request:
    """A command for a guest."""

    command: tuple[str, ...]
    directory: Path
    """Where it runs."""
    writable: tuple[Path, ...]
    """Directories below which what it writes stays."""
    cpus: int
    mem: int
    """Megabytes."""
    seconds: float
    """Until its end."""


def is_hidden(path: Path) -> bool:
    """Tell whether the guest has something else at that place."""
    return any(map(path.is_relative_to, OWN))


def prepare(share: Path, request: Request) -> None:
    """Write what the guest reads once its files are there, and empty files for what comes back."""
    (share / "run").write_text(RUN)
    (share / "command").write_text(f"exec {shlex.join(request.command)}\n")
    (share / "directory").write_text(str(request.directory))
    (share / "kept").write_text("".join(f"{path}\n" for path in request.writable))
    passed = {k: v for k, v in os.environ.items() if k in PASSED or k.startswith(("POLYWAN_", "PYTEST_"))}
    lines = [f"export {name}={shlex.quote(value)}\n" for name, value in {"HOME": "/root", **passed}.items()]
    (share / "variables").write_text("".join(lines))
    for name in ("stdout", "stderr", "console"):
        (share / name).touch()
