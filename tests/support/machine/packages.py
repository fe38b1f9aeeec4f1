"""Debian packages like another one."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path


def as_version(deb: Path, version: str, place: Path) -> Path:
    """Return a package like that one whose version, and that of the program in it, is another."""
    tree = place / "tree"
    subprocess.run(["dpkg-deb", "--raw-extract", str(deb), str(tree)], check=True)
    _replace(tree / "DEBIAN/control", r"^Version: .*", f"Version: {version}")
    (program,) = tree.glob("usr/lib/polywan/**/polywan/__init__.py")
    _replace(program, r"^__version__ = .*", f'__version__ = "{version}"')
    made = place / f"polywan_{version}.deb"
    # Quickly, since it is installed once and thrown away.
    build = ["dpkg-deb", "--root-owner-group", "-Zgzip", "-z1", "--build", str(tree), str(made)]
    subprocess.run(build, check=True, capture_output=True)
    return made


def _replace(file: Path, pattern: str, text: str) -> None:
    changed, times = re.subn(pattern, text, file.read_text("utf-8"), flags=re.MULTILINE)
    assert times == 1, f"{file}: {times} lines are like {pattern}"
    file.write_text(changed, "utf-8")
