"""A network device's own account: errors that it counted, and the speed that it agreed on with the other end."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

MANY_ERRORS: Final = 50
"""Errors below which a share means nothing: a cable that was plugged in leaves some."""

BAD_SHARE: Final = 0.001
"""Errors for each packet from which they hurt: with 0.1 % and 50 ms one TCP connection stays below 10 Mbit/s
(Mathis and others, 1997)."""


class PortCounters(NamedTuple):
    """Packets and errors of a device since it was made, by the names of ``ip -s -s link``."""

    received: int
    sent: int
    errors: Mapping[str, int]

    @property
    def rx_errors(self) -> int:
        """All that arrived damaged; some drivers count each kind and no sum."""
        kinds = sum(self.errors.get(f"rx {kind}", 0) for kind in ("crc_errors", "frame_errors", "length_errors"))
        return max(self.errors.get("rx errors", 0), kinds)

    @property
    def tx_errors(self) -> int:
        """All that could not be sent because of the line: carrier and collisions."""
        return self.errors.get("tx carrier_errors", 0) + self.errors.get("tx collisions", 0)

    @property
    def bad(self) -> bool:
        """True when errors are many, and many for the packets."""
        counts = ((self.rx_errors, self.received), (self.tx_errors, self.sent))
        return any(n >= MANY_ERRORS and n >= BAD_SHARE * (n + packets) for n, packets in counts)


_COUNTED: Final = {
    "rx": ("errors", "crc_errors", "frame_errors", "length_errors"),
    "tx": ("carrier_errors", "collisions"),
}


def counters(listing: object) -> Iterator[tuple[str, PortCounters]]:
    """Yield what ``ip -json -s -s link show`` says of each device."""
    for entry in listing if isinstance(listing, list) else ():
        stats = entry.get("stats64", entry.get("stats")) if isinstance(entry, Mapping) else None
        if not isinstance(stats, Mapping) or not isinstance(entry.get("ifname"), str):
            continue
        found = {f"{end} {key}": _number(stats, end, key) for end, keys in _COUNTED.items() for key in keys}
        yield entry["ifname"], PortCounters(_number(stats, "rx", "packets"), _number(stats, "tx", "packets"), found)


def _number(stats: Mapping[str, object], end: str, key: str) -> int:
    one = stats.get(end)
    value = one.get(key) if isinstance(one, Mapping) else None
    return value if isinstance(value, int) else 0


class PortMode(NamedTuple):
    """Speed and duplex of a port.

    Attributes:
        speed: Mbit/s; 0 when it is not known.
        half: it sends or receives, never both.
        offers: speeds that both ends offered when they agreed; empty when the other end did not say.
        partner: speeds that the other end offered, and whether half duplex.
    """

    speed: int
    half: bool
    offers: frozenset[int] = frozenset()
    partner: frozenset[tuple[int, bool]] = frozenset()


GET: Final = 0x1
"""ETHTOOL_GSET (linux/ethtool.h), which every driver answers, whichever call it knows itself."""

COMMAND: Final = struct.Struct("=IIIHBBBBBBIIHBBI8x")
"""struct ethtool_cmd (linux/ethtool.h)."""

_HALF, _UNKNOWN = 0, 0xFFFF_FFFF
_MODES: Final = {
    0: (10, True),
    1: (10, False),
    2: (100, True),
    3: (100, False),
    4: (1000, True),
    5: (1000, False),
    12: (10000, False),
}
"""Speed, and whether it is half duplex, by bit of the modes that a port offers (SUPPORTED_10baseT_Half and so on)."""


def mode(answer: bytes) -> PortMode:
    """Return what a driver said."""
    _, _, ours, speed, duplex, _, _, _, _, _, _, _, high, _, _, theirs = COMMAND.unpack_from(answer)
    whole = speed | high << 16
    known = whole if whole not in (0, 0xFFFF, _UNKNOWN) else 0
    partner = _modes(theirs)
    both = frozenset(speed for speed, _ in _modes(ours) & partner)
    return PortMode(known, bool(known) and duplex == _HALF, both, partner)


def _modes(bits: int) -> frozenset[tuple[int, bool]]:
    return frozenset(mode for bit, mode in _MODES.items() if bits >> bit & 1)
