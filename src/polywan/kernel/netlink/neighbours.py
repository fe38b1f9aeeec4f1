"""The table of neighbours as rtnetlink(7) messages (RTM_GETNEIGH): which hardware address a router has. Pure."""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from polywan.core.net import IPAddress, family_of
from polywan.kernel.netlink.rtnetlink import decode_ip
from polywan.kernel.netlink.socket import AF, attribute, attributes

NEWNEIGH: Final = 28
DELNEIGH: Final = 29
GETNEIGH: Final = 30

_NEIGHBOUR: Final = struct.Struct("=BxxxiHBB")  # struct ndmsg
_ADDRESS, _HARDWARE = 1, 2  # NDA_DST, NDA_LLADDR
_KNOWN: Final = 0x02 | 0x04 | 0x08 | 0x10 | 0x40 | 0x80
"""States in which the hardware address is one: reachable, stale, delay, probe, noarp, permanent."""
_ETHERNET: Final = 6


class Neighbour(NamedTuple):
    """Who is at an address of a link; `mac` is empty while nobody has answered, and where it is no Ethernet address."""

    link: int
    address: IPAddress
    mac: str


def get_neighbour(address: IPAddress, index: int) -> bytes:
    """Body of the question for one neighbour of the link with this number."""
    return _NEIGHBOUR.pack(AF[family_of(address)], index, 0, 0, 0) + attribute(_ADDRESS, address.packed)


def decode_neighbour(kind: int, body: bytes) -> Neighbour | None:
    """Decode a message of this kind; None for what makes no sense."""
    if len(body) < _NEIGHBOUR.size:
        return None
    af, index, state, _, _ = _NEIGHBOUR.unpack_from(body)
    found = attributes(body, _NEIGHBOUR.size)
    address, hardware = decode_ip(found.get(_ADDRESS, b"")), found.get(_HARDWARE, b"")
    if address is None or AF[family_of(address)] != af:
        return None
    known = kind == NEWNEIGH and bool(state & _KNOWN) and len(hardware) == _ETHERNET
    return Neighbour(index, address, hardware.hex(":") if known else "")
