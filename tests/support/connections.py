"""What becomes of open connections while something happens to the uplinks that they are on."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable

from polywan.lab.traffic import Opened, error_name


async def endings(opened: Opened, uplink: int, patience: float) -> Counter[str]:
    """Read from the idle connections of an uplink until they end, and count how; "timeout" where nothing comes."""
    loop = asyncio.get_running_loop()

    async def ending(index: int) -> str:
        try:
            async with asyncio.timeout(patience):
                return "data" if await loop.sock_recv(opened.connections[index].sock, 1) else "closed"
        except OSError as error:
            return error_name(error)

    mine = [index for index, c in enumerate(opened.connections) if c.attempt.uplink == uplink]
    return Counter(await asyncio.gather(*map(ending, mine)))


async def answers(opened: Opened, uplinks: Iterable[int]) -> int:
    """Return how many connections of these uplinks go on."""
    wanted = set(uplinks)
    heard = [await c.ask("still there?") for c in opened.connections if c.attempt.uplink in wanted]
    return heard.count("still there?")
