"""Debian systems in folders, without a network: what an administrator types there, as root, and what it leaves."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from support.machine.trees import TreeError, make, tree

_ENTER: Final = """
set -e
mount -t overlay overlay -o "lowerdir=$1,upperdir=$2/upper,workdir=$2/work" "$2/root"
mount -t proc proc "$2/root/proc"
mount -t tmpfs tmpfs "$2/root/run"
mount --bind /dev "$2/root/dev"
cd /
exec chroot "$2/root" /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 DEBIAN_FRONTEND=noninteractive \\
    sh -ec "$3"
"""


def base(suite: str) -> Path:
    """Return a fresh system of a Debian suite with what the package depends on, made once and kept in the cache.

    Raises:
        OSError: it cannot be made here; the text says why.
    """
    try:
        make(suite)
        return tree(suite)
    except TreeError as error:
        raise OSError(str(error)) from error


@dataclass(frozen=True, slots=True)
class DebianRoot:
    """A system that begins as fresh and keeps what is done to it.

    Attributes:
        below: what it began as, the upper layers first; these stay as they are.
        place: where the differences are.
    """

    below: tuple[Path, ...]
    place: Path

    @classmethod
    def begin(cls, place: Path, *below: Path) -> DebianRoot:
        """Return one that is still as what is below it."""
        for name in ("upper", "work", "root"):
            (place / name).mkdir(parents=True)
        return cls(below, place)

    def copy(self, place: Path) -> DebianRoot:
        """Return one that goes on from here, by itself; this one must not change any more."""
        return DebianRoot.begin(place, self.place / "upper", *self.below)

    def put(self, source: Path, target: str) -> None:
        """Copy a file into it, before anything was changed there."""
        path = self.place / "upper" / target
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source, path)

    def run(self, script: str, *, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a shell script in it, with namespaces of its own: no network but loopback."""
        command = self._entering(script)
        done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
        if check and done.returncode != 0:
            raise AssertionError(f"{script}\nexit status {done.returncode}\n{done.stdout}{done.stderr}")
        return done

    def _entering(self, script: str) -> Sequence[str]:
        inside = ["sh", "-c", _ENTER, "enter", ":".join(map(str, self.below)), str(self.place), script]
        return ["unshare", "--mount", "--net", "--pid", "--ipc", "--uts", "--fork", "--kill-child", *inside]

    def files(self) -> dict[str, str]:
        """Return every file and folder of it but logs, and what kind it is."""
        left_out = " -o ".join(f"-path /{place}" for place in ("proc", "run", "dev", "tmp", "var/log"))
        script = rf"find / -xdev \( {left_out} \) -prune -o -printf '%y %m %u %p -> %l\n'"
        lines = self.run(script).stdout.splitlines()
        return {line.split(" ", 3)[3].partition(" -> ")[0]: line for line in lines}
