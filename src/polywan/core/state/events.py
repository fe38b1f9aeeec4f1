"""What happened, as values: every input of the engine. Raw netlink messages never get this far."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import tzinfo
from typing import ClassVar, TypeAlias

from polywan.config import Config
from polywan.core.health.layers import CheckResult
from polywan.core.health.life import Moved
from polywan.core.health.passive import Opening
from polywan.core.health.probes import ProbeResult
from polywan.core.net import Family
from polywan.core.plan.plan import ActualState, ApplyReport
from polywan.core.policy.operator import Verb
from polywan.core.quota.counting import Seen
from polywan.core.world.lookups import Lookups
from polywan.core.world.observed import Link, Observed


@dataclass(frozen=True, slots=True)
class LinkChanged:
    """A link appeared or changed; `link` is its state after the change."""

    link: Link


@dataclass(frozen=True, slots=True)
class LinkRemoved:
    """A link is gone."""

    name: str


@dataclass(frozen=True, slots=True)
class ForeignStateChanged:
    """Something of others changed: read again, or nearly.

    Attributes:
        what: "address", "route", "rule", "nexthop", "setting", "qdisc"; of nftables "chain", "filter" (rules) or
            "elements".
        link: the one device that the change is about, where it is about one; no difference between two changes.
    """

    what: str
    link: str | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class AddressLost:
    """A link lost an address; it may be back before anybody can look: read again."""

    link: str
    family: Family


@dataclass(frozen=True, slots=True)
class OwnStateChanged:
    """Another program changed something that carries our stamp.

    Attributes:
        what: "rule", "route", "nexthop", "table" or "qdisc".
        by: the program's name and pid where the kernel tells, otherwise empty.
    """

    what: str
    by: str = ""


@dataclass(frozen=True, slots=True)
class EventsLost:
    """The kernel dropped notifications (ENOBUFS, netlink(7)): only a full read tells the truth."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewConnections:
    """A look at new connections: some that began since the last one, and which of those told of were answered."""

    opened: tuple[Opening, ...] = ()
    answered: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class TrafficSampled:
    """A look at connections of uplinks in doubt.

    Attributes:
        moved: what their connections have moved since the look before, by uplink and family.
        since: when that look was, monotonic seconds.
        took: seconds of work.
    """

    moved: Mapping[tuple[str, Family], Moved]
    since: float
    took: float


@dataclass(frozen=True, slots=True)
class TestRequested:
    """Somebody wants to know how an uplink is: a round and every check are due now."""

    __test__: ClassVar[bool] = False  # pytest takes every class whose name begins so for a test

    uplink: str


@dataclass(frozen=True, slots=True)
class ReadDone:
    """A full read of the kernel: the world, and what is ours in it."""

    observed: Observed
    actual: ActualState


@dataclass(frozen=True, slots=True)
class Applied:
    """A plan was carried out, whole or in part."""

    report: ApplyReport


@dataclass(frozen=True, slots=True)
class ConfigLoaded:
    """A new configuration is in force from now on.

    Attributes:
        warnings: what the loader found odd in it, for people.
        lookups: what its rules refer to, as far as it is known already; None leaves what was known before.
        rules_at: file and line of each rule.
    """

    config: Config
    warnings: tuple[str, ...] = ()
    lookups: Lookups | None = field(default=None, kw_only=True)
    rules_at: tuple[str, ...] = field(default=(), kw_only=True)


@dataclass(frozen=True, slots=True)
class ListsPreloaded:
    """From now on these sets, and no others, are declared in the kernel ahead of their use; complete or not there."""

    names: frozenset[str]


@dataclass(frozen=True, slots=True)
class LookupsChanged:
    """What rules refer to outside of the file was read anew."""

    lookups: Lookups


@dataclass(frozen=True, slots=True)
class OperatorCommand:
    """Somebody disables, drains or enables an uplink; `deadline` is how many seconds `drain` gives connections."""

    uplink: str
    verb: Verb
    deadline: float


@dataclass(frozen=True, slots=True, kw_only=True)
class DrainInspected:
    """The connections of an uplink that is left were looked at, or forgotten.

    Attributes:
        since: names the leaving.
        remaining: how many there still are.
        movable: how many of them may still move.
    """

    uplink: str
    family: Family
    since: float
    remaining: int
    movable: int


@dataclass(frozen=True, slots=True)
class BytesCounted:
    """A look at the counters of devices, at a Unix time and in a time zone; `seen` by uplink, without missing ones."""

    seen: Mapping[str, Seen]
    unix: float
    zone: tzinfo


@dataclass(frozen=True, slots=True, kw_only=True)
class QuotaEntered:
    """Somebody enters what the provider says was used of an uplink's quota, or what was bought, in bytes."""

    uplink: str
    reading: int | None
    bought: int | None
    unix: float
    zone: tzinfo


@dataclass(frozen=True, slots=True)
class ProbesReported:
    """What came of probes, as much as one wake-up brought, in that order."""

    results: tuple[ProbeResult, ...]


@dataclass(frozen=True, slots=True)
class Tick:
    """Time went by: the deadline that `agenda.deadline` named has come."""


KernelEvent: TypeAlias = LinkChanged | LinkRemoved | ForeignStateChanged | AddressLost | OwnStateChanged | EventsLost
Event: TypeAlias = (
    KernelEvent
    | ProbeResult
    | ProbesReported
    | CheckResult
    | TestRequested
    | NewConnections
    | TrafficSampled
    | ReadDone
    | Applied
    | ConfigLoaded
    | ListsPreloaded
    | LookupsChanged
    | OperatorCommand
    | DrainInspected
    | BytesCounted
    | QuotaEntered
    | Tick
)


def first_of(queue: deque[Event]) -> Event:
    """Take the first event out of a queue that has one; results of probes that follow each other are one event."""
    event = queue.popleft()
    if not isinstance(event, ProbeResult):
        return event
    results = [event]
    while queue and isinstance(after := queue[0], ProbeResult):
        results.append(after)
        queue.popleft()
    return ProbesReported(tuple(results))
