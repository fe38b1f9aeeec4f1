"""What a status document amounts to, for scripts. Imports nothing but that, since every `status` waits for it."""

from __future__ import annotations

from collections.abc import Iterable

from polywan.api.status import UplinkStatus


def exit_code(uplinks: Iterable[UplinkStatus]) -> int:
    """Exit code of ``status --check``: 0 all up, 6 an uplink that is to be used is not up, 7 none is."""
    states = [u.state for u in uplinks if u.state not in ("disabled", "draining", "drained")]
    alive = [s for s in states if s in ("up", "degraded")]
    if not alive:
        return 7
    return 0 if all(s == "up" for s in states) else 6
