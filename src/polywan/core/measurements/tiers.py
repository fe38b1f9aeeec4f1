"""For how long measurements are kept at which resolution, and which of them answer a question."""

from __future__ import annotations

from typing import Final, NamedTuple


class Tier(NamedTuple):
    """Intervals of `step` seconds, of which the last `kept` are there."""

    step: int
    kept: int

    @property
    def span(self) -> int:
        """Seconds that they are about."""
        return self.step * self.kept

    def start(self, unix: float) -> int:
        """Return the begin of the interval in which a moment lies."""
        return int(unix) // self.step * self.step

    def slot(self, start: int) -> int:
        """Return the place of an interval: a later one takes the place of the oldest one."""
        return start // self.step % self.kept

    def slots(self, since: float, until: float) -> list[tuple[int, int]]:
        """Return the places of the intervals of a span, as ranges of first and last one."""
        first, last = self.start(since), self.start(until)
        if last < first:
            return []
        if (last - first) // self.step >= self.kept - 1:
            return [(0, self.kept - 1)]
        one, other = self.slot(first), self.slot(last)
        return [(one, other)] if one <= other else [(one, self.kept - 1), (0, other)]


SECONDS: Final = Tier(1, 3600)
TENS: Final = Tier(10, 8640)
MINUTES: Final = Tier(60, 10_080)
QUARTERS: Final = Tier(900, 5760)
HOURS: Final = Tier(3600, 9600)

TIERS: Final = (SECONDS, TENS, MINUTES, QUARTERS, HOURS)
"""Each is made of the one before, and lasts longer: an hour, a day, 7, 60 and 400 days."""


def tier_of(since: float, until: float, now: float, most: int) -> tuple[Tier, int]:
    """Return which intervals answer a question, and the seconds of an interval of the answer.

    Args:
        since: begin of what is asked about, Unix seconds.
        until: its end.
        now: the present.
        most: intervals that the answer may have.
    """
    wanted = max(1.0, (until - since) / most)
    coarse_enough = next((tier for tier in reversed(TIERS) if tier.step <= wanted), TIERS[0])
    old_enough = next((tier for tier in TIERS if tier.span >= now - since), TIERS[-1])
    tier = max(coarse_enough, old_enough)
    return tier, tier.step * max(1, -int(-wanted // tier.step))
