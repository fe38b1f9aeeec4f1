"""Shares as percentages that add up."""

from __future__ import annotations

from collections.abc import Sequence


def percents(shares: Sequence[float]) -> list[str]:
    """Return the percentages of shares of a whole: they add up to exactly 100, unless all are 0.

    Whole numbers where these say it, else one decimal. Nobody who has a share is shown with 0, as long as there are
    fewer than a thousand.
    """
    total = sum(shares)
    if total <= 0:
        return ["0 %" for _ in shares]
    parts = [max(0.0, share) / total for share in shares]
    whole = all(abs(100 * part - round(100 * part)) < 0.005 for part in parts)
    units = _units(parts, 100 if whole else 1000)
    return [f"{unit} %" if whole else f"{unit // 10}.{unit % 10} %" for unit in units]


def _units(parts: Sequence[float], count: int) -> list[int]:
    """Deal out so many units by largest remainder."""
    units = [int(part * count + 1e-9) for part in parts]
    remainders = sorted(range(len(parts)), key=lambda i: (units[i] - parts[i] * count, i))
    for index in remainders[: count - sum(units)]:
        units[index] += 1
    for index, part in enumerate(parts):
        largest = max(range(len(units)), key=units.__getitem__)
        if part > 0 and not units[index] and units[largest] > 1:
            units[index], units[largest] = 1, units[largest] - 1
    return units
