"""Control groups (version 2, cgroups(7)) as nftables can name them: find them, and remove those of ours."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath
from stat import S_ISDIR
from typing import Final

from polywan.core.errors import KernelError, MissingFeature
from polywan.core.world.lookups import VIA, ControlGroup
from polywan.kernel.nft.libnftables import Nftables
from polywan.kernel.requirements import attempt

MOUNTS: Final = Path("/proc/self/mountinfo")

_HOME: Final = PurePosixPath("/sys/fs/cgroup")
"""nft(8) looks for groups below this place only."""

_OUTPUT: Final = "type route hook output priority -150;"


@dataclass(frozen=True, slots=True, kw_only=True)
class Hierarchy:
    """The hierarchy of control groups, version 2, as it is mounted here.

    Attributes:
        root: where it is mounted.
        prefix: the same below /sys/fs/cgroup: "." where only version 2 is in use, "unified" on hybrid systems.
        depth: levels of the hierarchy above the root that is visible here; rules count them too.
    """

    root: Path
    prefix: PurePosixPath
    depth: int


def hierarchy(mounts: Path = MOUNTS) -> Hierarchy:
    """Return the hierarchy that is visible here.

    Raises:
        MissingFeature: none is mounted below /sys/fs/cgroup.
    """
    found: dict[PurePosixPath, int] = {}
    for line in mounts.read_text(encoding="utf-8", errors="replace").splitlines():
        # proc_pid_mountinfo(5): ID PARENT MAJOR:MINOR ROOT MOUNTPOINT …, then " - TYPE SOURCE OPTIONS".
        here, _, there = line.partition(" - ")
        if not there.startswith("cgroup2 "):
            continue
        top, place = map(PurePosixPath, here.split(" ")[3:5])
        if place.is_relative_to(_HOME):
            # Of several on one place the last one covers the others.
            found[place] = len(top.parts) - 1
    for place, depth in sorted(found.items()):
        if Path(place, "cgroup.procs").exists():
            return Hierarchy(root=Path(place), prefix=place.relative_to(_HOME), depth=depth)
    raise MissingFeature(f"control groups version 2 are not mounted below {_HOME}: mount -t cgroup2 none {_HOME}")


def find(path: str, within: Hierarchy) -> ControlGroup | None:
    """Return the control group of that path below the hierarchy's root; None when it is not there."""
    parts = PurePosixPath(path.strip("/")).parts
    # In nft's grammar nothing can be escaped between quotes.
    if not parts or ".." in parts or any(c == '"' or not c.isprintable() for c in path):
        return None
    try:
        status = within.root.joinpath(*parts).stat()
    except (OSError, ValueError):
        return None
    if not S_ISDIR(status.st_mode):
        return None
    return ControlGroup(path=str(within.prefix.joinpath(*parts)), level=within.depth + len(parts), inode=status.st_ino)


@cache
def require() -> None:
    """Make sure, once, that rules can ask for control groups.

    Raises:
        MissingFeature: none are mounted, or nft or the kernel cannot match them.
    """
    expression = f'socket cgroupv2 level 1 "{hierarchy().prefix}" accept'
    nft = Nftables()
    try:
        attempt(nft, _OUTPUT, expression)
    except KernelError as error:
        raise MissingFeature(
            f"rules cannot match control groups (Linux 5.13, kernel option CONFIG_NFT_SOCKET, nft 0.9.9): {error}"
        ) from error
    finally:
        nft.close()


def remove() -> None:
    """Remove the groups of `exec --via` that no program is in any more; others stay, and so does what may not go."""
    with suppress(MissingFeature, OSError):
        top = hierarchy().root / VIA
        for group in [entry for entry in top.iterdir() if entry.is_dir()]:
            with suppress(OSError):
                group.rmdir()
        top.rmdir()
