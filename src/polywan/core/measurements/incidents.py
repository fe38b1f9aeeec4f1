"""Outages and times of bad quality, read from the entries of the journal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from polywan.api.events import LinkEvent
from polywan.api.views.measurements import Incident
from polywan.core.evolve import replace
from polywan.core.journal.changes import Standings
from polywan.core.status.times import iso

_OUT: Final = ("down", "missing")
_BAD: Final = (*_OUT, "degraded")

_BESIDE: Final = ("address", "renamed", "quota")
"""Events that leave the state as it is: they neither begin an incident nor say when one began."""

MOST_EVIDENCE: Final = 50
"""Lines of evidence that an incident has: the first ones."""


@dataclass(frozen=True, kw_only=True)
class Open:
    """An incident that has begun. Without slots, for `evolve.replace`.

    Attributes:
        id: number of the entry that tells of it first.
        state: of the uplink.
        since: when it began, Unix seconds.
        reason: why.
        evidence: lines for people.
    """

    id: int
    state: str
    since: float
    reason: str
    evidence: tuple[str, ...]


def incidents(entries: Iterable[LinkEvent], now: float) -> list[Incident]:
    """Return the incidents that entries tell of, newest first.

    One that began before the first entry is known from what the entry says of before. Down and missing are one
    incident; so is what a new daemon finds as the one before has left it. What happened while no daemon ran nobody
    knows: such an incident ends when a daemon finds the uplink well.

    Args:
        entries: oldest first.
        now: Unix seconds.
    """
    running: dict[str, Open] = {}
    displaced: dict[str, tuple[Open, float]] = {}
    found: list[Incident] = []
    for entry in entries:
        at = _unix(entry.time)
        before = _renamed_from(entry)
        if before is not None:
            _rename(running, displaced, before, entry.uplink, at)
        known = running.get(entry.uplink) or _from_before(entry, at)
        if known is None and entry.event in _BESIDE:
            continue
        line = f"{_local(at)} {_said(entry)}"
        if known is not None and _same(known.state, entry.state):
            more = (*known.evidence, line)[:MOST_EVIDENCE]
            running[entry.uplink] = replace(known, evidence=more)
            continue
        if known is not None:
            running.pop(entry.uplink, None)
            found.append(_incident(entry.uplink, replace(known, evidence=(*known.evidence, line)), at, now))
        if entry.state in _BAD:
            running[entry.uplink] = Open(
                id=entry.id, state=str(entry.state), since=at, reason=entry.reason, evidence=(line,)
            )
    found += [_incident(name, one, at, now) for name, (one, at) in displaced.items()]
    found += [_incident(name, one, None, now) for name, one in running.items()]
    return sorted(found, key=lambda one: (one.since, one.id), reverse=True)


def _rename(
    running: dict[str, Open], displaced: dict[str, tuple[Open, float]], before: str, name: str, at: float
) -> None:
    """Move the incident of an uplink to its new name.

    Names may be exchanged at one moment, entry by entry: what had the new name waits for its own entry. Without one it
    was removed, and its incident ends then.
    """
    waiting = displaced.get(before)
    if waiting is not None and waiting[1] == at:
        del displaced[before]
        moved: Open | None = waiting[0]
    else:
        moved = running.pop(before, None)
    if name in running:
        displaced[name] = running.pop(name), at
    if moved is not None:
        running[name] = moved


def lasting(standings: Standings, entries: Iterable[LinkEvent], offset: float, now: float) -> list[Incident]:
    """Return the incidents that last, and of which no entry tells: they began before the first one.

    Args:
        standings: what was recorded of the uplinks last.
        entries: that were read.
        offset: what added to monotonic seconds gives Unix time.
        now: Unix seconds.
    """
    named = {entry.uplink for entry in entries if entry.event not in _BESIDE}
    return [
        _incident(
            name, Open(id=0, state=one.state, since=one.since + offset, reason=one.reason, evidence=()), None, now
        )
        for name, one in standings.items()
        if one.state in _BAD and name not in named
    ]


def _from_before(entry: LinkEvent, at: float) -> Open | None:
    """Return the incident that an entry ends, or goes on with, and of which no earlier one tells."""
    if entry.previous_state not in _BAD or entry.lasted_s is None or entry.event in _BESIDE:
        return None
    since = at - entry.lasted_s
    return Open(id=entry.id, state=str(entry.previous_state), since=since, reason="", evidence=())


def _same(one: str, other: str | None) -> bool:
    return other == one or (one in _OUT and other in _OUT)


def _renamed_from(entry: LinkEvent) -> str | None:
    """Return what an uplink was called before, which is part of the reason only (`core/journal/changes.py`)."""
    if entry.event != "renamed":
        return None
    return entry.reason.removeprefix("called ").removesuffix(" before")


def _incident(uplink: str, one: Open, until: float | None, now: float) -> Incident:
    return Incident(
        id=one.id,
        uplink=uplink,
        state=one.state,
        since=iso(one.since),
        until=None if until is None else iso(until),
        seconds=round(max(0.0, (now if until is None else until) - one.since), 3),
        reason=one.reason,
        evidence=one.evidence,
    )


def _said(entry: LinkEvent) -> str:
    if entry.event == "state":
        return f"{entry.previous_state} → {entry.state}: {entry.reason}"
    return f"{entry.event} {entry.state or ''}".rstrip() + f": {entry.reason}"


def _unix(time: str) -> float:
    return datetime.fromisoformat(time).timestamp()


def _local(unix: float) -> str:
    return datetime.fromtimestamp(unix).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def touching(found: Iterable[Incident], since: float, until: float) -> list[Incident]:
    """Return the incidents that touch a span (Unix seconds)."""
    return [one for one in found if _unix(one.since) <= until and (one.until is None or _unix(one.until) >= since)]


def reasons(found: Iterable[Incident], spans: Iterable[tuple[int, int]]) -> Mapping[tuple[str, int], list[str]]:
    """Return the reasons of the outages that touch each span, by uplink and its begin; each once, oldest first."""
    outages = [one for one in found if one.state in _OUT][::-1]
    texts: dict[tuple[str, int], list[str]] = {}
    for start, end in spans:
        for one in touching(outages, start, end):
            known = texts.setdefault((one.uplink, start), [])
            if one.reason and one.reason not in known:
                known.append(one.reason)
    return texts
