"""Quantities as people read them."""

from __future__ import annotations


def duration(seconds: float) -> str:
    """Return a time in its largest whole unit: ``3 h``."""
    whole = int(seconds)
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if whole >= size:
            return f"{whole // size} {unit}"
    return f"{whole} s"


def size(count: int) -> str:
    """Return bytes in decimal units, as bit/s are: ``1.5 MB``."""
    if count < 1000:
        return f"{count} B"
    if count < 1_000_000:
        return f"{count / 1e3:.1f} kB"
    return f"{count / 1e6:.1f} MB" if count < 1_000_000_000 else f"{count / 1e9:.1f} GB"
