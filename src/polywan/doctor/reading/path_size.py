"""Which sizes of packets come back by a line: full ones, and where those do not, the largest that do."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from polywan.core.health.layers import CheckOrder
from polywan.core.net import IPAddress
from polywan.doctor.facts.egress import Egress
from polywan.doctor.facts.line import PathSize
from polywan.probe.check import CheckOutcome, carry_out
from polywan.probe.large import PATH_ALLOWS, check_large

SMALL: Final = 128
"""Bytes of the small ones: they pass everywhere."""

FIRST_TIMEOUT: Final = 1.2
SEARCH_TIMEOUT: Final = 0.8
"""Seconds for each step of the search; there are three."""

_USUAL: Final = (576, 800, 1000, 1200, 1240, 1280, 1320, 1360, 1380, 1400, 1420, 1440, 1460, 1480, 1492)
_STEPS: Final = 8


async def measure(order: CheckOrder, egress: Egress, targets: tuple[IPAddress, ...]) -> tuple[PathSize, str | None]:
    """Return what comes back by an egress, and why this process could not ask at all; None when it could.

    Args:
        order: of the layer of large packets; its size is the largest that is asked for.
        egress: which it is.
        targets: each of them is sent a large packet and a small one.
    """
    small, full = await asyncio.gather(*(_answers(order, targets, size) for size in (SMALL, order.size)))
    found = PathSize(
        egress,
        order.size,
        alive=_well(small),
        full=_well(full),
        reported=any(PATH_ALLOWS in outcome.result.detail for outcome in full.values()),
    )
    denied = next((outcome.denied for outcome in small.values() if outcome.denied), None)
    if found.alive and not found.full and not found.reported and denied is None:
        found = found._replace(largest=await _largest(order, found.alive))
    return found, denied


async def _answers(order: CheckOrder, targets: Iterable[IPAddress], size: int) -> dict[IPAddress, CheckOutcome]:
    each = [replace(order, servers=(target,), size=size, timeout=FIRST_TIMEOUT) for target in targets]
    outcomes = await asyncio.gather(*(carry_out(one, check_large) for one in each))
    return {one.servers[0]: outcome for one, outcome in zip(each, outcomes, strict=True)}


def _well(outcomes: dict[IPAddress, CheckOutcome]) -> tuple[IPAddress, ...]:
    return tuple(target for target, outcome in outcomes.items() if outcome.result.ok)


async def _largest(order: CheckOrder, alive: tuple[IPAddress, ...]) -> int:
    """Return the largest size that comes back, by some sizes at once, then by some between the two nearest."""
    passes, fails = SMALL, order.size
    sizes = [size for size in _USUAL if size < fails]
    # Between two of them there are fewer than eight times eight above 1200.
    for _ in range(3):
        orders = [replace(order, servers=alive[:1], size=size, timeout=SEARCH_TIMEOUT) for size in sizes]
        outcomes = await asyncio.gather(*(carry_out(one, check_large) for one in orders))
        passes = max([passes, *(s for s, outcome in zip(sizes, outcomes, strict=True) if outcome.result.ok)])
        fails = min([fails, *(size for size in sizes if size > passes)])
        sizes = _between(passes, fails)
        if not sizes:
            break
    return passes


def _between(passes: int, fails: int) -> list[int]:
    step = max(1, (fails - passes + _STEPS) // (_STEPS + 1))
    return list(itertools.takewhile(lambda size: size < fails, itertools.count(passes + step, step)))
