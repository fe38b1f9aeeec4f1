"""Settings of devices, as the kernel adds them to what it says of a link (linux/if_link.h, ip.h and ipv6.h). Pure.

The values of /proc/sys/net/ipv4/conf and of its neighbour, without opening five files for each device.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from polywan.core.net import Family
from polywan.kernel.netlink.socket import AF, first, text, walk

_LINK: Final = struct.Struct("=4xi8x")  # struct ifinfomsg: the index is its third field
_IFLA_IFNAME, _IFLA_AF_SPEC = 3, 26
_VALUE: Final = struct.Struct("=i")

_CONF: Final[Mapping[int, tuple[int, tuple[tuple[str, int], ...]]]] = {
    # Number of the attribute that holds the values, then a setting and its place among them.
    AF[Family.V4]: (
        1,
        (("rp_filter", 7), ("arp_announce", 17), ("arp_ignore", 18), ("ignore_routes_with_linkdown", 28)),
    ),
    AF[Family.V6]: (2, (("accept_ra", 3), ("use_oif_addrs_only", 37), ("ignore_routes_with_linkdown", 39))),
}


@dataclass(frozen=True, slots=True)
class DeviceSettings:
    """Values by their paths below /proc/sys, and the index of each device at that moment, by its name."""

    values: Mapping[str, str] = field(default_factory=dict)
    indexes: Mapping[str, int] = field(default_factory=dict)


def decode_settings(bodies: Iterable[bytes]) -> DeviceSettings:
    """Decode RTM_NEWLINK into the settings of devices; what makes no sense is left out.

    Devices without IPv6 have no settings of it.
    """
    values: dict[str, str] = {}
    indexes: dict[str, int] = {}
    for body in bodies:
        # The name comes among the first attributes of a link, and the settings among the last of many.
        if name := text(first(body, _LINK.size, _IFLA_IFNAME)):
            indexes[name] = _LINK.unpack_from(body)[0]
            values.update(_of(body, name))
    return DeviceSettings(values, indexes)


def _of(body: bytes, name: str) -> list[tuple[str, str]]:
    spec = first(body, _LINK.size, _IFLA_AF_SPEC)
    result: list[tuple[str, str]] = []
    for af, start, end in walk(spec, 0, len(spec)):
        if af not in _CONF:
            continue
        kind, settings = _CONF[af]
        values = first(spec[start:end], 0, kind)
        folder = f"net/ipv{4 if af == AF[Family.V4] else 6}/conf/{name}/"
        result += [
            (folder + setting, str(_VALUE.unpack_from(values, 4 * place)[0]))
            for setting, place in settings
            if 4 * place + 4 <= len(values)
        ]
    return result
