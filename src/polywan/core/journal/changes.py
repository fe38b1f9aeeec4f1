"""Compare what was last recorded of every uplink with what is told of it now: each difference is a change.

States and addresses are those of the log (`core/engine/log_events.py`), so that journal, hooks and log tell one story:
an uplink that returns in one family and then in the other returns once, and an address that goes before another one
comes is one exchange.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

from polywan.core.evolve import replace
from polywan.core.journal.ends import NO_ENDS, Ends, exchanged
from polywan.core.net import Family
from polywan.core.policy.uplink_state import UplinkState


class What(StrEnum):
    """Kinds of changes: FOUND is the first that is known of an uplink, or what a new daemon finds.

    QUOTA leaves the uplink as it is: a limit is passed, or not any more.
    """

    FOUND = "found"
    STATE = "state"
    ADDRESS = "address"
    RENAMED = "renamed"
    REMOVED = "removed"
    QUOTA = "quota"


@dataclass(frozen=True, kw_only=True)
class Standing:
    """What is recorded of an uplink. Times are monotonic seconds.

    Attributes:
        uplink, interface: its name, and its device.
        state: its state; `reason`: why.
        families: which families it has, and whether they work; empty where nobody asks: out of use, or missing.
        ends: address and gateway of each family.
        since: when it came to that state and those families; `ends_since`: to those addresses and gateways.
    """

    uplink: str
    interface: str
    state: UplinkState
    reason: str
    families: Mapping[Family, bool]
    ends: Mapping[Family, Ends]
    since: float
    ends_since: float


Standings: TypeAlias = Mapping[str, Standing]
"""By uplink."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What became of an uplink.

    Attributes:
        what: the kind of change.
        at: when, monotonic seconds.
        before, after: what was recorded, and what is; None for an uplink that was not, or is no more, in the file.
        reason: why, for people.
        lasted: seconds that what was before had lasted; None when that is not known.
        hooks: the keys of [hooks] that are called for it, in that order.
    """

    what: What
    at: float
    before: Standing | None
    after: Standing | None
    reason: str
    lasted: float | None
    hooks: tuple[str, ...] = ()

    @property
    def standing(self) -> Standing:
        """What there is to say of the uplink: how it is, or was at last."""
        found = self.after or self.before
        assert found is not None  # noqa: S101 - a change is about one of the two
        return found


def follow(known: Standings, seen: Standings, now: float, *, first: bool) -> tuple[Standings, tuple[Change, ...]]:
    """Return what is recorded after a decision, and the changes; the same object when nothing is new.

    Args:
        known: what was recorded so far.
        seen: how every uplink of the file is; `since` is when it came to its state, whatever its families.
        now: monotonic seconds.
        first: this is a daemon's first decision, so that `known` is from the one before.
    """
    changes = tuple(_changes(known, seen, now, first=first))
    if not changes:
        return known, ()
    after = {name: standing for name, standing in known.items() if name in seen}
    after |= {change.after.uplink: change.after for change in changes if change.after is not None}
    return after, changes


def _changes(known: Standings, seen: Standings, now: float, *, first: bool) -> Iterator[Change]:
    for name, standing in known.items():
        if name not in seen:
            lasted = max(0.0, now - standing.since)
            reason = "no longer in the configuration"
            yield Change(what=What.REMOVED, at=now, before=standing, after=None, reason=reason, lasted=lasted)
    for name, standing in seen.items():
        before = known.get(name)
        if before is None or first:
            yield _found(before, standing, now)
            continue
        if before.uplink != name:
            after = replace(before, uplink=name)
            reason = f"called {before.uplink} before"
            yield Change(what=What.RENAMED, at=now, before=before, after=after, reason=reason, lasted=None)
            before = after
        if before is standing:
            continue
        if (before.state, before.families) != (standing.state, standing.families):
            yield _changed_state(before, standing, now)
        elif not same_ends(before.ends, standing.ends):
            yield _changed_ends(before, standing, now)


def _found(before: Standing | None, seen: Standing, now: float) -> Change:
    """What a daemon finds as the one before has left it has lasted all the while, as far as anybody knows."""
    if before is None:
        after = replace(seen, since=now, ends_since=now)
        return Change(what=What.FOUND, at=now, before=None, after=after, reason=seen.reason, lasted=None)
    same = (before.state, before.families) == (seen.state, seen.families)
    # The clock may have been set back since: nothing has lasted from the future on.
    since = min(before.since, now) if same else now
    ends_since = min(before.ends_since, now) if same_ends(before.ends, seen.ends) else now
    after = replace(seen, since=since, ends_since=ends_since)
    lasted = max(0.0, now - before.since)
    return Change(what=What.FOUND, at=now, before=before, after=after, reason=seen.reason, lasted=lasted)


def _changed_state(before: Standing, seen: Standing, now: float) -> Change:
    # Of a family that is lost or returns while the state stays, nobody knows a moment but this one.
    at = max(before.since, seen.since if seen.state is not before.state else now)
    since = before.ends_since if same_ends(before.ends, seen.ends) else at
    after = replace(seen, since=at, ends_since=since)
    return Change(
        what=What.STATE, at=at, before=before, after=after, reason=seen.reason, lasted=max(0.0, at - before.since)
    )


def _changed_ends(before: Standing, seen: Standing, now: float) -> Change:
    families = dict.fromkeys((*before.ends, *seen.ends))
    texts = {f: exchanged(before.ends.get(f, NO_ENDS), seen.ends.get(f, NO_ENDS)) for f in families}
    # An uplink without an address may still lose or change its gateway.
    reason = "; ".join(text for f, text in texts.items() if text and before.ends.get(f) != seen.ends.get(f))
    after = replace(before, ends=seen.ends, ends_since=now)
    lasted = max(0.0, now - before.ends_since)
    reason = reason or "another gateway"
    return Change(what=What.ADDRESS, at=now, before=before, after=after, reason=reason, lasted=lasted)


def same_ends(one: Mapping[Family, Ends], other: Mapping[Family, Ends]) -> bool:
    """True when addresses and gateways are the same; a family without any is as one that is not there."""
    return all(one.get(f, NO_ENDS) == other.get(f, NO_ENDS) for f in (*one, *other))
