"""Spans of the week in local time, and what they are for a kernel that counts days and seconds by itself."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from polywan.config import Window

DAY: Final = 86_400
WEEK: Final = 7 * DAY


def within(windows: Iterable[Window], local: int) -> bool:
    """True when a moment lies in one of the windows; `local` is Unix time plus the local offset from UTC, seconds."""
    second = local % DAY
    today = (local // DAY + 3) % 7  # 1 January 1970 was a Thursday
    yesterday = (today - 1) % 7
    for window in windows:
        if window.end > window.start:
            if today in window.days and window.start <= second < window.end:
                return True
        elif (today in window.days and second >= window.start) or (yesterday in window.days and second < window.end):
            return True
    return False


def windows_utc(windows: Iterable[Window], offset: int, west: int = 0) -> tuple[tuple[int, int, int], ...]:
    """Return the same windows as (day, first second, last second), sorted; none overlap or touch within a day.

    Days are 0 for Sunday to 6, as ``meta day`` counts them; seconds are those of the UTC day, as ``meta hour`` does.

    Args:
        windows: in local time.
        offset: seconds that local time is ahead of UTC.
        west: seconds that the kernel's own time zone lies west of UTC (settimeofday(2)): by it alone ``meta day``
            is counted, while ``meta hour`` is always UTC (net/netfilter/nft_meta.c).
    """
    pieces = (piece for begin, end in _merged(_weekly(windows, offset)) for piece in _split(begin, end, west))
    by_day: dict[int, list[tuple[int, int]]] = {}
    for day, begin, end in pieces:
        by_day.setdefault(day, []).append((begin, end))
    return tuple((day, begin, end - 1) for day in sorted(by_day) for begin, end in _merged(by_day[day]))


def window_texts(windows: Iterable[Window], offset: int, west: int = 0) -> tuple[str, ...]:
    """Return nft matches of which one holds while a window is open; days with the same hours share one.

    Plain integers mean the same to nft(8) in every time zone, unlike "08:00".
    """
    hours: dict[int, list[tuple[int, int]]] = {}
    for day, first, last in windows_utc(windows, offset, west):
        hours.setdefault(day, []).append((first, last))
    days: dict[tuple[tuple[int, int], ...], list[int]] = {}
    for day, spans in hours.items():
        days.setdefault(tuple(spans), []).append(day)
    return tuple(_text(shared, spans) for spans, shared in days.items())


def _text(days: list[int], spans: tuple[tuple[int, int], ...]) -> str:
    day = "" if len(days) == 7 else f"meta day {{ {', '.join(map(str, days))} }}"
    whole = spans == ((0, DAY - 1),)
    hour = "" if whole else f"meta hour {{ {', '.join(f'{first}-{last}' for first, last in spans)} }}"
    return f"{day} {hour}".strip()


def _weekly(windows: Iterable[Window], offset: int) -> Iterator[tuple[int, int]]:
    """Yield [begin, end) in seconds since Sunday 00:00 UTC, within the week."""
    for window in windows:
        length = window.end - window.start + (0 if window.end > window.start else DAY)
        for day in window.days:
            begin = ((day + 1) * DAY + window.start - offset) % WEEK
            yield begin, min(begin + length, WEEK)
            if begin + length > WEEK:
                yield 0, begin + length - WEEK


def _merged(spans: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    joined: list[tuple[int, int]] = []
    for begin, end in sorted(spans):
        if joined and begin <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        else:
            joined.append((begin, end))
    return joined


def _split(begin: int, end: int, west: int) -> Iterator[tuple[int, int, int]]:
    """Yield (day by the kernel's zone, begin, end) of the parts between midnights, UTC's and the kernel's."""
    while begin < end:
        midnights = ((begin // DAY + 1) * DAY, ((begin - west) // DAY + 1) * DAY + west)
        until = min(end, *midnights)
        second = begin % DAY
        yield (begin - west) // DAY % 7, second, second + until - begin
        begin = until
