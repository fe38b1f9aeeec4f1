"""Keep account of outages: when each uplink was lost, for how long and why; what outlives the daemon.

An outage begins when an uplink that served is down or missing, and ends when it can serve again in any family. What the
daemon before left serving has served, and may have been lost while none ran. What is down when the machine starts,
before its network is there, is no outage, nor is what people take out of use.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Final, TypeAlias

from polywan.core.policy.uplink_state import OUT, SERVING, UplinkView

KEPT_OUTAGES: Final = 5
"""Outages of an uplink that are remembered; the day's are counted all the same."""

WRITTEN: Final = 2.0
"""Seconds until the account is on disk: that may take longer than to free connections, and must not stand before it."""

DAY: Final = 86400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Outage:
    """One outage: `began` is Unix seconds, `lasted` seconds, None while it lasts; `reason` as it began."""

    began: float
    lasted: float | None
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """Outages of one uplink.

    Attributes:
        day: number of the day (local time) that `count` is of.
        count: outages that began on that day.
        last: the last ones, newest first.
    """

    day: int
    count: int
    last: tuple[Outage, ...]

    @property
    def lasting(self) -> Outage | None:
        """The outage that lasts, if one does."""
        return self.last[0] if self.last and self.last[0].lasted is None else None

    @property
    def ended(self) -> Outage | None:
        """The last outage that has ended."""
        return next((outage for outage in self.last if outage.lasted is not None), None)


Outages: TypeAlias = Mapping[str, History]


def day_of(unix: float, zone: float) -> int:
    """Return the number of the local day; `zone` is local time minus UTC, seconds."""
    return int((unix + zone) // DAY)


def today(history: History | None, unix: float, zone: float) -> int:
    """Return how many outages have begun today."""
    return history.count if history is not None and history.day == day_of(unix, zone) else 0


def follow(
    known: Outages,
    before: Mapping[str, UplinkView],
    after: Mapping[str, UplinkView],
    unix: float,
    zone: float,
    served: Collection[str] = (),
) -> Outages:
    """Return the account after a decision; the same object when nothing began or ended.

    Args:
        known: the account so far.
        before: uplinks as they were; empty at a daemon's first decision.
        after: uplinks as they are.
        unix: now, Unix seconds.
        zone: local time minus UTC, seconds.
        served: uplinks that the daemon before left serving, at a daemon's first decision.
    """
    result = {name: history for name, history in known.items() if name in after}
    for name, seen in after.items():
        history, was = result.get(name), before.get(name)
        lasting = history.lasting if history else None
        if lasting is not None and history is not None and seen.state not in OUT:
            result[name] = replace(history, last=(_ended(lasting, unix), *history.last[1:]))
        elif lasting is None and seen.state in OUT and (name in served if was is None else was.state in SERVING):
            new = Outage(began=unix, lasted=None, reason=seen.reason)
            last = (new, *(history.last if history else ()))[:KEPT_OUTAGES]
            result[name] = History(day=day_of(unix, zone), count=today(history, unix, zone) + 1, last=last)
    return known if result == known else result


def began(before: Outages, after: Outages) -> frozenset[str]:
    """Return the uplinks that have an outage which lasts, and had none."""
    lasting = frozenset(name for name, history in before.items() if history.lasting is not None)
    return frozenset(name for name, history in after.items() if history.lasting is not None) - lasting


def _ended(outage: Outage, unix: float) -> Outage:
    return replace(outage, lasted=max(0.0, unix - outage.began))
