"""Small statistics of alternating runs, and what machine they were made on; shared by every benchmark."""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
from collections.abc import Iterator, Sequence


def median(xs: Sequence[float]) -> float:
    """Return the middle value; of an even number of values, the mean of the two in the middle."""
    return statistics.median(xs)


def spread(xs: Sequence[float]) -> tuple[float, float]:
    """Return the smallest and the largest value."""
    return min(xs), max(xs)


def ratios(a: Sequence[float], b: Sequence[float]) -> list[float]:
    """Return a/b round by round: what slows the machine down for a while slows both down.

    Raises:
        ValueError: not as many rounds of the one as of the other.
    """
    return [x / y for x, y in zip(a, b, strict=True)]


def ratio(a: Sequence[float], b: Sequence[float]) -> float:
    """Return the median of `ratios`."""
    return median(ratios(a, b))


def turns(names: Sequence[str], rounds: int) -> Iterator[tuple[int, str]]:
    """Yield (round, name) for alternating runs, there and back, so that nobody is always the first after a pause."""
    for number in range(rounds):
        for name in names if number % 2 == 0 else reversed(names):
            yield number, name


def environment() -> dict[str, str]:
    """Return what the numbers depend on: kernel, tools, interpreter and processors; "absent" where there is none."""
    return {
        "kernel": platform.release(),
        "machine": f"{platform.machine()}, {len(os.sched_getaffinity(0))} processors, {_processor()}",
        "nft": _version("nft", "--version"),
        "iproute2": _version("ip", "-Version"),
        "python": platform.python_version(),
    }


def _version(*argv: str) -> str:
    try:
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
    except OSError:
        return "absent"
    return (done.stdout or done.stderr).strip().partition("\n")[0]


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as lines:
            return next((x.partition(":")[2].strip() for x in lines if x.startswith("model name")), "unknown")
    except OSError:
        return "unknown"
