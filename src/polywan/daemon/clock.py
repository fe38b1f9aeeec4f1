"""When regular work is done: at common times, so that it shares wake-ups. And what local time is."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta, tzinfo
from math import floor
from typing import Final

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_SIDE: Final = 86400.0
"""Seconds; clocks are not set twice within two days."""


async def turn(period: float) -> None:
    """Sleep until the next multiple of `period` seconds of the loop's clock, at least half of the period.

    Work whose periods are multiples of each other wakes the loop together: waking up costs more than most of it.
    """
    now = asyncio.get_running_loop().time()
    await asyncio.sleep(period * (floor(now / period + 0.5) + 1) - now)


class LocalTime(tzinfo):
    """Local time as the C library knows it, with its changes of the clocks; so `tzset` holds for it, too."""

    def utcoffset(self, when: datetime | None) -> timedelta:
        """Return local time minus UTC at a local time; of a time that there is twice, as of its first."""
        if when is None:
            return timedelta(seconds=time.localtime().tm_gmtoff)
        local = (when.replace(tzinfo=UTC) - _EPOCH).total_seconds()
        # Offsets a day before and after: of the two, the one holds that leads back to this local time.
        before, after = (time.localtime(local + side).tm_gmtoff for side in (-_SIDE, _SIDE))
        fits = [offset for offset in (before, after) if time.localtime(local - offset).tm_gmtoff == offset]
        return timedelta(seconds=fits[0] if fits else before)

    def dst(self, when: datetime | None) -> timedelta | None:
        """Nobody asks for it."""
        del when
        return None

    def tzname(self, when: datetime | None) -> str:
        """Return what local time is called."""
        del when
        return "local time"

    def fromutc(self, when: datetime) -> datetime:
        """Return the local time of a moment whose UTC is in `when`."""
        offset = time.localtime((when.replace(tzinfo=UTC) - _EPOCH).total_seconds()).tm_gmtoff
        return when + timedelta(seconds=offset)
