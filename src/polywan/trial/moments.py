"""Moments of a trial: neither sleep nor a clock that is set moves a deadline, and a restart ends all."""

from __future__ import annotations

import time
from pathlib import Path


def now() -> float:
    """Return seconds since boot, time asleep included (clock_gettime(2) CLOCK_BOOTTIME)."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def boot() -> str:
    """Return what tells this boot from others; empty where the kernel does not say."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    except OSError:
        return ""
