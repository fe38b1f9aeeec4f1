"""Control groups of one's own: labs in different namespaces have uplinks of the same name, and groups by that name."""

from __future__ import annotations

import os
import subprocess
from contextlib import suppress
from pathlib import Path

from polywan.core.errors import MissingFeature
from polywan.kernel.cgroups import hierarchy


def cover() -> Path | None:
    """Let this mount namespace see a fresh group in the place of all groups; None where that cannot be."""
    try:
        place = hierarchy().root
        own = place / f"polywan-tests-{os.getpid()}"
        own.mkdir()
    except (MissingFeature, OSError):
        return None
    if subprocess.run(["mount", "--bind", str(own), str(place)], capture_output=True, check=False).returncode:
        own.rmdir()
        return None
    return own


def uncover(own: Path) -> None:
    """Undo that; groups in which something still runs stay."""
    subprocess.run(["umount", str(own.parent)], capture_output=True, check=False)
    groups = [own, *(path for path in own.rglob("*") if path.is_dir())]
    for group in sorted(groups, key=lambda path: len(path.parts), reverse=True):
        with suppress(OSError):
            group.rmdir()
