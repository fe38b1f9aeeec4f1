"""What the engine asks the shell to do, as values."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final, TypeAlias

from polywan.core.health.layers import CheckOrder
from polywan.core.health.life import Inside, Watched
from polywan.core.health.probes import ProbeOrder
from polywan.core.journal.changes import Change
from polywan.core.net import Family
from polywan.core.plan.plan import Plan
from polywan.core.ruleset.model import NftTable
from polywan.core.state.memory import Memory

MOST_READS: Final = 4
"""Reads in a row before the result of a `Read` is taken although notifications keep coming."""


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
class Hold:
    """Make this a table that others cannot flush (`core/ruleset/second_table.py`, `fast_path.py`); None removes it."""

    name: str
    table: NftTable | None


@dataclass(frozen=True, slots=True)
class Read:
    """Read the whole kernel; answered by `ReadDone`."""


@dataclass(frozen=True, slots=True)
class StartProbe:
    """Send one round of probes; answered by one `ProbeResult` per target."""

    order: ProbeOrder


@dataclass(frozen=True, slots=True)
class StartCheck:
    """Check one layer; answered by one `CheckResult`."""

    order: CheckOrder


@dataclass(frozen=True, slots=True)
class SampleTraffic:
    """Look at connections of uplinks in doubt; answered by one `TrafficSampled`."""

    mask: int
    watched: tuple[Watched, ...]
    inside: Inside


@dataclass(frozen=True, slots=True)
class ReleaseConnections:
    """Let go of the connections of a mark in one family, so that their next packet chooses again.

    Attributes:
        tcp: established TCP is ended as well; it needs the mark to be dead already.
        clients: those that affinity keeps there are forgotten too. Not in the first moment: whoever connects again
            meanwhile has a new entry, which nobody could tell from the old one.
        inbound: so are those that came in from outside: the link itself is gone. On a link that is silent they may well
            be answered.
        vanished: nothing but TCP that the kernel forgot by itself of late, with an address that the link has lost.
    """

    uplink: str
    mark: int
    mask: int
    family: Family
    tcp: bool = True
    clients: bool = False
    inbound: bool = True
    vanished: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class InspectDrain:
    """Look at the connections of an uplink that is left, and forget those that may move; answered by `DrainInspected`.

    Attributes:
        since: names the leaving; connections are watched for as long as it is the same.
        idle: seconds without a packet after which a connection moves.
        gather: take in connections that were not seen yet.
        exempt: the uplink's own addresses; what was sent to them came from outside.
    """

    uplink: str
    mark: int
    mask: int
    family: Family
    since: float
    idle: float
    gather: bool
    exempt: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class ForgetAll:
    """Forget every connection of a mark in one family, TCP too; answered by `DrainInspected`."""

    uplink: str
    mark: int
    mask: int
    family: Family
    since: float


@dataclass(frozen=True, slots=True)
class ForgetUntranslated:
    """Forget connections that began while there was no rule set and found no way (`flows.stray`): they choose anew."""


@dataclass(frozen=True, slots=True)
class ForgetWrongSource:
    """Forget connections of an uplink that carry the address of another link: they choose anew.

    The kernel translates to any address of the box when the link has none, which is so for a moment when an address is
    exchanged, and an entry keeps what it was given.

    Attributes:
        others: the box's addresses on other links.
    """

    uplink: str
    mark: int
    mask: int
    family: Family
    others: frozenset[str]


@dataclass(frozen=True, slots=True)
class SaveMemory:
    """Write this to disk before anything that follows it."""

    memory: Memory


@dataclass(frozen=True, slots=True)
class Log:
    """Tell people: one log line, `event` is its stable name."""

    level: Level
    event: str
    text: str


@dataclass(frozen=True, slots=True)
class Record:
    """Record what became of uplinks in the journal, and call the hooks for it; both may take their time."""

    changes: tuple[Change, ...]


Effect: TypeAlias = (
    Apply
    | Hold
    | Read
    | StartProbe
    | StartCheck
    | SampleTraffic
    | ReleaseConnections
    | InspectDrain
    | ForgetAll
    | ForgetUntranslated
    | ForgetWrongSource
    | SaveMemory
    | Log
    | Record
)
