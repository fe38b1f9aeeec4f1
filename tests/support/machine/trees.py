"""Systems of several releases, made once and kept in the cache; no test writes into them.

As a program (`python -m support.machine.trees RELEASE...`) it makes those that are not there: tests have no network.
"""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from guest.cache import CACHE

MACHINES = CACHE / "machines"
DEBIAN = ("bookworm", "trixie", "forky", "sid")
"""Releases in the archive that apt uses here; of any other debootstrap knows the archive."""

PACKAGES = (
    "dbus",
    "ifupdown",
    "iproute2",
    "iputils-ping",
    "libnftables1",
    "nftables",
    "procps",
    "python3",
    "systemd",
    "systemd-sysv",
)
"""What a machine has before polywan comes: a system that boots, and what the package depends on.

A machine has no network from which it could get that.
"""


class TreeError(Exception):
    """A tree cannot be made; the text says why."""


def name_of(release: str, packages: tuple[str, ...] = PACKAGES) -> str:
    """Return the name of a tree: another list of packages is another tree."""
    return f"{release}-{hashlib.sha256(' '.join(packages).encode()).hexdigest()[:12]}"


def tree(release: str) -> Path:
    """Return the root of a system.

    Raises:
        TreeError: there is none.
    """
    found = MACHINES / name_of(release)
    if not found.is_dir():
        raise TreeError(f"no tree of {release} is in {MACHINES}")
    return found


def make(release: str) -> None:
    """Make the tree of a release if there is none yet (a minute), and remove an outdated one.

    Raises:
        TreeError: debootstrap failed; the text has its last line.
    """
    MACHINES.mkdir(parents=True, exist_ok=True)
    with (MACHINES / f".{release}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        found = MACHINES / name_of(release)
        if found.is_dir():
            return
        print(f"polywan: making a tree of {release} in {MACHINES}", file=sys.stderr)
        for outdated in MACHINES.glob(f"{release}-*"):
            shutil.rmtree(outdated)
        _make(release, found)


def _make(release: str, found: Path) -> None:
    with tempfile.TemporaryDirectory(prefix=f"{release}-", dir=MACHINES, ignore_cleanup_errors=True) as place:
        root = Path(place, "root")
        argv = ["debootstrap", "--variant=minbase", f"--include={','.join(PACKAGES)}", release, str(root)]
        mirror = _mirror() if release in DEBIAN else ""
        done = subprocess.run([*argv, *filter(None, [mirror])], capture_output=True, text=True, check=False)
        if done.returncode:
            said = (done.stdout + done.stderr).strip().splitlines()
            raise TreeError(f"debootstrap cannot make a tree of {release}: {said[-1] if said else done.returncode}")
        shutil.rmtree(root / "var/cache/apt/archives", ignore_errors=True)
        root.rename(found)


def _mirror() -> str:
    """Return the address of Debian's archive that apt uses here; empty when it has none."""
    argv = ["apt-get", "indextargets", "--format", "$(ORIGIN) $(REPO_URI)", "Created-By: Packages"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    found = (line.partition(" ")[2] for line in done.stdout.splitlines() if line.startswith("Debian "))
    return next(found, "")


def main(releases: list[str]) -> None:
    """Make what is absent; a release that cannot be had is no reason to leave out the others."""
    for release in releases:
        try:
            make(release)
        except (TreeError, OSError) as error:
            print(f"polywan: {error}", file=sys.stderr)


if __name__ == "__main__":
    main(sys.argv[1:])
