"""Count the bytes of uplinks by hour, over devices that are replaced, daemons that follow each other, and reboots.

Nothing is lost while the device stays: its own counters go on while no daemon looks. A device that was replaced, or
that counts from zero after a boot, is counted whole; what its predecessor moved after the last look at it is lost.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple, TypeAlias

from polywan.core.status.rates import Counters
from polywan.core.status.tally import NO_BYTES, Bytes

HOUR: Final = 3600


class UplinkBytes(NamedTuple):
    """Bytes that an uplink received and sent; `probes`: of these, what probes and checks took, both ways."""

    rx: int = 0
    tx: int = 0
    probes: int = 0

    def plus(self, other: UplinkBytes) -> UplinkBytes:
        """Return the sum of both."""
        return UplinkBytes(self.rx + other.rx, self.tx + other.tx, self.probes + other.probes)

    def minus(self, other: UplinkBytes) -> UplinkBytes:
        """Return what there is beside a part."""
        return UplinkBytes(self.rx - other.rx, self.tx - other.tx, self.probes - other.probes)


NO_VOLUME: Final = UplinkBytes()

Volumes: TypeAlias = Mapping[tuple[int, str], UplinkBytes]
"""By hour (its begin, Unix seconds) and uplink."""


class StoredDevice(NamedTuple):
    """A device as the daemon before has looked at it last; `boot` names the boot of the machine."""

    boot: str
    counters: Counters


@dataclass(frozen=True, slots=True)
class DeviceCounts:
    """What is known of the devices of uplinks.

    Attributes:
        last: their counters at the last look; None where there was no such device.
        first: their counters when this daemon saw them first: what came before is for `gap`.
    """

    last: Mapping[str, Counters | None] = field(default_factory=dict)
    first: Mapping[str, Counters] = field(default_factory=dict)

    def looked(self, seen: Mapping[str, Counters], devices: Iterable[str]) -> tuple[DeviceCounts, dict[str, Bytes]]:
        """Look at devices again, and forget all others.

        Returns:
            What is known then, and the bytes of each device since the look before.
        """
        last, first, moved = {}, {}, {}
        for device in devices:
            now = seen.get(device)
            known = self.last.get(device)
            last[device] = now if now is not None else known
            if device in self.first:
                first[device] = self.first[device]
            elif device not in self.last and now is not None:
                first[device] = now
            if now is not None and device in self.last:
                moved[device] = since(known, now)
        return DeviceCounts(last, first), moved

    def gap(self, stored: Mapping[str, StoredDevice], boot: str) -> dict[str, Bytes]:
        """Return the bytes of each device between the last look of the daemon before and the first one of this."""
        return {
            device: since(stored[device].counters if stored[device].boot == boot else None, now)
            for device, now in self.first.items()
            if device in stored
        }


def since(before: Counters | None, now: Counters) -> Bytes:
    """Return what a device has counted since a look; all of it when it is another one, or has begun anew."""
    goes_on = before is not None and before.ifindex == now.ifindex and before.rx <= now.rx and before.tx <= now.tx
    base = Bytes(before.rx, before.tx) if before is not None and goes_on else NO_BYTES
    return Bytes(now.rx, now.tx) - base


def hour_of(unix: float, offset: int) -> int:
    """Return the begin of an hour of local time; `offset`: seconds that local time is ahead of UTC.

    Where local time is half an hour off, so are the hours: a month begins with one.
    """
    return int(unix) - (int(unix) + offset) % HOUR


def added(volumes: Volumes, more: Volumes) -> dict[tuple[int, str], UplinkBytes]:
    """Return the sum of both."""
    keys = (*volumes, *(key for key in more if key not in volumes))
    return {key: volumes.get(key, NO_VOLUME).plus(more.get(key, NO_VOLUME)) for key in keys}


def without(volumes: Volumes, written: Volumes) -> dict[tuple[int, str], UplinkBytes]:
    """Return what is there beside a part that was written."""
    remaining = {key: one.minus(written.get(key, NO_VOLUME)) for key, one in volumes.items()}
    return {key: one for key, one in remaining.items() if one != NO_VOLUME}


def renamed(volumes: Volumes, names: Mapping[str, str]) -> dict[tuple[int, str], UplinkBytes]:
    """Return volumes of uplinks that are called otherwise now; `names`: the new one by the old one."""
    found: dict[tuple[int, str], UplinkBytes] = {}
    for (hour, name), one in volumes.items():
        key = hour, names.get(name, name)
        found[key] = found.get(key, NO_VOLUME).plus(one)
    return found
