"""Probes as values: what is asked of a target, and what came of it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from polywan.config import HealthSettings
from polywan.core.identity import Same
from polywan.core.net import Family, IPAddress


@dataclass(frozen=True, slots=True)
class ProbeTarget:
    """Where a probe goes: the methods are alternatives, any answer counts."""

    address: IPAddress
    methods: tuple[Literal["icmp", "tcp"], ...]
    tcp_port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeOrder:
    """One round: probe every target once by this uplink.

    Attributes:
        interface: device the sockets are bound to before anything is sent.
        mark: packet mark of the uplink, set on the sockets as well.
        round: number that every result carries back.
        timeout: seconds a target has to answer, from when it is asked.
        spread: seconds over which the targets are asked one after the other.
    """

    uplink: str
    family: Family
    interface: str
    mark: int
    round: int
    timeout: float
    targets: tuple[ProbeTarget, ...]
    spread: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeResult:
    """One target answered a round's probe, or did not in time.

    Attributes:
        round: number of the round, as given in `StartProbe`.
        rtt: seconds until the answer; None when there was none.
        late: it came after the timeout, when the probe had been reported without an answer.
    """

    uplink: str
    family: Family
    round: int
    target: IPAddress
    rtt: float | None
    late: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """A round under way: when it was sent, who answered and who did not.

    Attributes:
        decides: the target that alone decides it; None when a quorum of its `targets` does.
    """

    number: int
    sent: float
    targets: int
    decides: IPAddress | None = None
    answered: int = 0
    failed: int = 0


def targets_of(settings: HealthSettings, family: Family) -> tuple[ProbeTarget, ...]:
    """Return the targets that can be probed in this family."""
    return _targets(Same(settings), family)


@lru_cache(maxsize=1024)
def _targets(settings: Same[HealthSettings], family: Family) -> tuple[ProbeTarget, ...]:
    methods, port = settings.value.methods, settings.value.tcp_port
    return tuple(ProbeTarget(a, methods, port) for a in settings.value.targets if a.version == family)
