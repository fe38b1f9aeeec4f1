"""What a status document amounts to, for scripts. Imports nothing, since every `status` waits for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def exit_code(status: Mapping[str, Any]) -> int:
    """Exit code of ``status --check``: 0 all up, 6 an uplink that is to be used is not up, 7 none is."""
    states = [u["state"] for u in status["uplinks"] if u["state"] not in ("disabled", "draining", "drained")]
    alive = [s for s in states if s in ("up", "degraded")]
    if not alive:
        return 7
    return 0 if all(s == "up" for s in states) else 6
