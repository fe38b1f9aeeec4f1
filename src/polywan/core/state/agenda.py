"""What is due when: every time that the engine waits for, but those of a single uplink."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import Final

from polywan.core.net import Family
from polywan.core.world.paths import UplinkFamily


@dataclass(frozen=True, slots=True)
class Sweep:
    """A cut of connections that is still to come, at a monotonic time; `tcp` and `vanished` as in its effect."""

    at: float
    uplink: str
    mark: int
    family: Family
    tcp: bool = True
    vanished: bool = False


@dataclass(frozen=True, kw_only=True)
class Agenda:
    """Times, in monotonic seconds; endless for what is not due. Without slots, for `evolve.replace`.

    Attributes:
        wake: no probe is due before; a lower bound, so that an event need not look at every uplink. `looked`: when
            all of them were last looked at.
        verdict_at: when a verdict that waits for other uplinks has waited long enough.
        decided_at: when the last decision was made. `regrade_at`: when one about quality alone is due.
        ramp_at: when an uplink in slow start is given more.
        read_at: when the next full read is due, if something asks for one; `last_read`: when the last one was asked
            for, and `took` how many seconds it took.
        sweeps: cuts to come.
        write_at: when the account of outages has to be written down.
        renew_at: when the table of the fast path is written again (`core/state/rerouting.py`), `renewed`: when it was.
        seek_at: when connections of uplinks in doubt are looked at next. `seeking`: the uplinks that are
            just being looked at.
    """

    wake: float = 0.0
    looked: float = -inf
    verdict_at: float = inf
    decided_at: float = -inf
    regrade_at: float = inf
    ramp_at: float = inf
    read_at: float | None = None
    last_read: float = -inf
    took: float = 0.0
    sweeps: tuple[Sweep, ...] = ()
    write_at: float = inf
    renew_at: float = inf
    renewed: float = -inf
    seek_at: float = inf
    seeking: frozenset[UplinkFamily] = frozenset()


NOTHING_DUE: Final = Agenda()
"""Nothing was decided yet."""
