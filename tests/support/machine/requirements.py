"""What machines need of the system that they run on."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Final

from polywan.core.errors import MissingFeature
from polywan.kernel.cgroups import hierarchy
from polywan.lab import sandbox
from support.machine.booted import CGROUPS

TOOLS: Final = {"debootstrap": "debootstrap", "systemd-nspawn": "systemd-container", "dpkg-deb": "dpkg"}
"""Programs, and the packages that bring them."""


def missing() -> str:
    """Say why no machine can be booted here, and make ready what can be made; empty when all is well."""
    if reason := sandbox.not_private():
        return f"{reason}: run scripts/test machine"
    if Path("/proc/self/uid_map").read_text("ascii").split() != ["0", "0", "4294967295"]:
        return "kernel lacks machines for ordinary users: run as root"
    for tool, package in TOOLS.items():
        if shutil.which(tool) is None:
            return f"tool missing: {tool} (package {package})"
    sandbox.prepare()
    return _groups() or _overlay()


def _groups() -> str:
    """Have control groups of version 2 where systemd looks for them, in this mount namespace only."""
    try:
        if hierarchy().root != CGROUPS:
            subprocess.run(["mount", "-t", "cgroup2", "cgroup2", str(CGROUPS)], check=True, capture_output=True)
        spare = CGROUPS / f"polywan-feature-{os.getpid()}"
        spare.mkdir()
        spare.rmdir()
    except (MissingFeature, OSError, subprocess.CalledProcessError):
        return "kernel lacks control groups (version 2) that root can make here"
    return ""


def _overlay() -> str:
    if "overlay" in Path("/proc/filesystems").read_text("ascii"):
        return ""
    done = subprocess.run(["modprobe", "overlay"], capture_output=True, check=False)
    return "kernel lacks overlay filesystems (CONFIG_OVERLAY_FS)" if done.returncode else ""
