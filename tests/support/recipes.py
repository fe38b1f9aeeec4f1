"""The files that the pages under docs/recipes show, made fit for the lab."""

from __future__ import annotations

import re
from pathlib import Path

from polywan.lab.network import Lab
from polywan.lab.topology import SERVERS

ROOT = Path(__file__).parents[2]


def file_of(page: str) -> str:
    """Return the configuration that a page shows."""
    found = re.search(r"```toml\n(.*?)```", (ROOT / "docs/recipes" / page).read_text("utf-8"), re.DOTALL)
    assert found, f"{page} shows no file"
    return found[1]


def with_lab_targets(toml: str, lab: Lab) -> str:
    """Add what only the lab needs: health targets that exist there, and no waiting for what is back."""
    targets = ", ".join(f'"{a}"' for family in lab.topology.families for a in SERVERS[family])
    return f'{toml}\n[health]\ntargets = [{targets}]\nhold_down = "1s"\nslow_start = "0s"\n'
