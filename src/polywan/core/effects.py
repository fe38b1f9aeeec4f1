"""What the engine asks the shell to do, as values."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

from polywan.core.compile import Memory
from polywan.core.health import ProbeOrder
from polywan.core.net import Family
from polywan.core.plan import Plan


class Level(StrEnum):
    """Severity of a log line."""

    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Apply:
    """Carry out a plan now; answered by `Applied`."""

    plan: Plan


@dataclass(frozen=True, slots=True)
class Read:
    """Read the whole kernel; answered by `ReadDone`."""


@dataclass(frozen=True, slots=True)
class StartProbe:
    """Send one round of probes; answered by one `ProbeResult` per target."""

    order: ProbeOrder


@dataclass(frozen=True, slots=True)
class Cut:
    """Forget the connections of a mark in one family, so that their next packet chooses again."""

    uplink: str
    mark: int
    mask: int
    family: Family


@dataclass(frozen=True, slots=True)
class Remember:
    """Write this to disk before anything that follows it."""

    memory: Memory


@dataclass(frozen=True, slots=True)
class Note:
    """Tell people: one log line, `event` is its stable name."""

    level: Level
    event: str
    text: str


Effect: TypeAlias = Apply | Read | StartProbe | Cut | Remember | Note
