"""The Debian package of this checkout."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]


def build(out: Path, *options: str) -> Path:
    """Build it into a folder, by the command that everybody uses."""
    command = [str(ROOT / "scripts/package"), "--out", str(out), *options]
    return Path(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.strip())
