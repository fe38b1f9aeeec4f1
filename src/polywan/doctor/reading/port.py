"""Read what network devices count, and the speed that they agreed on."""

from __future__ import annotations

import array
import fcntl
import socket
import struct
from collections.abc import Iterable, Mapping
from contextlib import closing
from typing import Final

from polywan.doctor.facts import port
from polywan.doctor.facts.port import PortCounters, PortMode
from polywan.kernel.programs import listing

_SIOCETHTOOL: Final = 0x8946


def counters() -> Mapping[str, PortCounters]:
    """Return what each device has counted; errors as `programs.output`."""
    return dict(port.counters(listing(["ip", "-json", "-s", "-s", "link", "show"], "iproute2")))


def modes(devices: Iterable[str]) -> Mapping[str, PortMode]:
    """Return speed and duplex of those devices that have any."""
    found: dict[str, PortMode] = {}
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as control:
        for device in devices:
            answer = array.array("B", port.COMMAND.pack(port.GET, *(0,) * 15))
            place, _ = answer.buffer_info()
            try:
                fcntl.ioctl(control, _SIOCETHTOOL, struct.pack("16sP16x", device.encode(), place))
            except OSError:
                continue
            found[device] = port.mode(answer.tobytes())
    return found
