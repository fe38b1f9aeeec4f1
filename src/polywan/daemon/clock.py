"""When regular work is done: at common times, so that it shares wake-ups."""

from __future__ import annotations

import asyncio
from math import floor


async def turn(period: float) -> None:
    """Sleep until the next multiple of `period` seconds of the loop's clock, at least half of the period.

    Work whose periods are multiples of each other wakes the loop together: waking up costs more than most of it.
    """
    now = asyncio.get_running_loop().time()
    await asyncio.sleep(period * (floor(now / period + 0.5) + 1) - now)
