"""What a chaos run recorded, as values: deeds, lives of the daemon, flows, counts. Times are monotonic seconds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from chaos.plan import Action, Plan
from polywan.core.net import Family
from polywan.lab.traffic import Attempt
from polywan.lab.witness import Move

BEAT: Final = 0.1
"""Seconds between two questions of a flow."""


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of time, both ends included."""

    begin: float
    end: float

    def __contains__(self, moment: object) -> bool:
        return isinstance(moment, float) and self.begin <= moment <= self.end

    def meets(self, begin: float, end: float) -> bool:
        """Tell whether the two stretches have a moment in common."""
        return self.begin <= end and begin <= self.end

    @property
    def length(self) -> float:
        """Seconds."""
        return self.end - self.begin


def any_meets(spans: Iterable[Span], begin: float, end: float) -> bool:
    """Tell whether any of the stretches meets this one."""
    return any(span.meets(begin, end) for span in spans)


def merged(spans: Iterable[Span]) -> list[Span]:
    """Return the same time as stretches that do not touch, in order."""
    result: list[Span] = []
    for span in sorted(spans, key=lambda s: s.begin):
        if result and span.begin <= result[-1].end:
            result[-1] = Span(result[-1].begin, max(result[-1].end, span.end))
        elif span.begin <= span.end:
            result.append(span)
    return result


def outside(gap: Span, spans: Iterable[Span]) -> float:
    """Return how many seconds of a gap no stretch covers."""
    covered = (Span(max(gap.begin, s.begin), min(gap.end, s.end)) for s in spans if s.meets(gap.begin, gap.end))
    return gap.length - sum(s.length for s in merged(covered))


@dataclass(frozen=True, slots=True)
class Deed:
    """An action that was carried out, and when; `begun` is before anything of it can be felt."""

    action: Action
    begun: float
    done: float

    def __str__(self) -> str:
        return str(self.action).partition(" s ")[2]


@dataclass(slots=True)
class Life:
    """One process of the daemon; `ready` and `ended` stay None until they happen."""

    launched: float
    ready: float | None = None
    ended: float | None = None


@dataclass(slots=True, kw_only=True)
class Flow:
    """One long-lived flow.

    Attributes:
        role: "talk" asks and is answered, "listen" only reads what the server sends now and then; "tunnel" asks from
            the box itself, bound to the address of its uplink, and has no other way.
        uplink: number of the uplink that it began on.
        last: time of the last answer.
        gaps: stretches without an answer that were longer than usual.
        broken: time when it broke (TCP), None while it lives.
        moves: when the server saw it change uplinks (UDP).
    """

    name: str
    protocol: Literal["tcp", "udp"]
    role: Literal["talk", "listen", "tunnel"]
    family: Family
    uplink: int
    born: float
    last: float
    gaps: list[Span] = field(default_factory=list)
    broken: float | None = None
    error: str = ""
    moves: list[Move] = field(default_factory=list)

    def stages(self, end: float) -> Iterator[tuple[int, Span]]:
        """Yield each uplink that carried it, and when."""
        begin, uplink = self.born, self.uplink
        for move in self.moves:
            yield uplink, Span(begin, move.at)
            begin, uplink = move.at, move.after
        yield uplink, Span(begin, end if self.broken is None else self.broken)


@dataclass(frozen=True, slots=True)
class Inbound:
    """A connection from the outside to a forwarded port of an uplink."""

    uplink: int
    attempt: Attempt


@dataclass(frozen=True, slots=True)
class Sample:
    """Providers' counts by uplink number: foreign sources, and packets of the class that only one may carry.

    Attributes:
        foreign: all packets with foreign sources so far, for people.
    """

    at: float
    spoofed: Mapping[int, int]
    forbidden: Mapping[int, int]
    foreign: Mapping[int, frozenset[str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Repair:
    """Something of ours that was taken away; `back` is when it was seen again, None when it never was."""

    deed: Deed
    back: float | None


@dataclass(frozen=True, slots=True)
class Vitals:
    """What the daemon uses: descriptors, threads, resident memory in MiB."""

    descriptors: int
    threads: int
    memory: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """What was found once everything was mended and had time to settle.

    Attributes:
        back: seconds until every uplink was up again, None when that never came.
        states: states of the uplinks then, by name.
        differences: what `polywan plan` would still change.
        reload_writes: plans that a reload without a change carried out.
        restart_writes: plans that a daemon carried out that was killed and started again.
        restart_changes: lines of the kernel that this restart changed.
        deviation: connections that the worst uplink was off its exact share, None when shares are not exact.
        old: what the daemon used after all this.
        young: what it used after a fresh start.
        left_behind: lines of the kernel that `down` left different from how they were found.
    """

    at: float
    back: float | None
    states: Mapping[str, str]
    differences: tuple[str, ...]
    reload_writes: int
    restart_writes: int
    restart_changes: tuple[str, ...]
    deviation: float | None
    old: Vitals
    young: Vitals
    left_behind: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What the checker allows, in seconds; see `timings`.

    Attributes:
        loss: until the loss of a link itself is acted upon.
        silence: until a silent loss is noticed and acted upon.
        flood: by which the silence of a line that is full may be noticed later.
        repair: until what others took away is back.
        answer: from the mending of an uplink until it may serve if nobody else can.
        back: from the mending of an uplink until it is surely in use again.
        hold: from the mending of an uplink until it may be in use again at the earliest.
        free: from the verdict until a flow of the lost uplink is free to go on.
        hang: for which a flow of a healthy uplink may stay without an answer.
        patience: that a first packet needs to succeed.
    """

    loss: float
    silence: float
    flood: float
    repair: float
    answer: float
    back: float
    hold: float
    free: float
    hang: float
    patience: float


@dataclass(slots=True, kw_only=True)
class History:
    """A whole run. Lists grow while it goes on."""

    plan: Plan
    rules: Rules
    begun: float
    ended: float = 0.0
    deeds: list[Deed] = field(default_factory=list)
    lives: list[Life] = field(default_factory=list)
    attempts: list[Attempt] = field(default_factory=list)
    inbound: list[Inbound] = field(default_factory=list)
    flows: list[Flow] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    repairs: list[Repair] = field(default_factory=list)
    marks: list[tuple[float, Mapping[str, tuple[int, int]]]] = field(default_factory=list)
    stalls: list[Span] = field(default_factory=list)
    troubles: list[tuple[float, str]] = field(default_factory=list)
    vitals: list[tuple[float, Vitals]] = field(default_factory=list)
    ending: Ending | None = None
