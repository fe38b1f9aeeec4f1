"""Bytes that went by a device between two looks, over devices that are replaced, restarts of the daemon, and boots.

The kernel counts for a device from the moment at which it is made. What a device moved after the last look at it is
lost with it: a second of traffic, or after a power cut what was not written yet.
"""

from __future__ import annotations

from typing import NamedTuple


class Seen(NamedTuple):
    """A look at the counters of a device.

    Attributes:
        device: its name.
        ifindex: tells it from another one of that name.
        boot: names the boot of the machine since which it counts; empty where that is not known.
        rx, tx: bytes received and sent.
    """

    device: str
    ifindex: int
    boot: str
    rx: int
    tx: int


class Moved(NamedTuple):
    """Bytes received and sent."""

    rx: int
    tx: int


NOTHING_MOVED = Moved(0, 0)


def moved(before: Seen | None, now: Seen) -> Moved:
    """Return what went by since the look before.

    A device of the same name that is another one, or counts anew, has counted all it shows since then. Of a device of
    another name, or without a look before, nobody knows when its bytes went by: they do not count.
    """
    if before is None or before.device != now.device:
        return NOTHING_MOVED
    if _goes_on(before, now):
        return Moved(now.rx - before.rx, now.tx - before.tx)
    return Moved(now.rx, now.tx)


def _goes_on(before: Seen, now: Seen) -> bool:
    same = (before.ifindex, before.boot) == (now.ifindex, now.boot)
    return same and before.rx <= now.rx and before.tx <= now.tx
