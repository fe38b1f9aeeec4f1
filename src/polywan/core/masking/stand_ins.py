"""Stand-ins for addresses: in ranges that nobody owns, in the same order, and in the same network if they were in one.

Networks that contain all others get blocks of the range, in their order. Inside of a block, a bit of a stand-in is set
only where two addresses part for the first time: so it tells how addresses are related, and nothing else of them. Bits
that are not set stay so, which keeps networks networks. The last bits stay: they tell a gateway from a broadcast.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import ip_network
from typing import Final

from polywan.core.masking.networks import LONGEST_OF_MANY
from polywan.core.net import Family

_RANGES: Final = {Family.V4: ip_network("240.0.0.0/4"), Family.V6: ip_network("3fff::/20")}
"""Reserved (RFC 1112), and for documentation (RFC 9637). The last block of the first holds the broadcast address."""

_OWNED: Final = {Family.V4: 16, Family.V6: 48}
"""Length of the network that an address is taken for when none is known."""

_TAIL: Final = {Family.V4: 8, Family.V6: 16}
"""Bits at the end that stay."""


@dataclass(frozen=True, slots=True)
class StandIns:
    """The addresses of one family, each with its stand-in.

    Attributes:
        by_address: those that were asked for.
        shared: addresses that share stand-ins, since the range has no room for more networks.
    """

    by_address: dict[int, int]
    shared: int = 0


def stand_ins(family: Family, found: Iterable[tuple[int, int]]) -> StandIns:
    """Return stand-ins for addresses; each comes with the length of its network, that of a host when it has none."""
    named = sorted(set(found))
    bits, tail = family.host_length, _TAIL[family]
    blocks = _blocks(family, named)
    starts = sorted(blocks)
    by_address: dict[int, int] = {}
    shared = before = label = 0
    last = -1
    for value in dict.fromkeys(value for value, _ in named):
        start = starts[bisect_right(starts, value) - 1]
        length, base = blocks[start]
        if start != last:
            label, last = 0, start
        else:
            label = _next_label(label, before >> tail, value >> tail)
        before = value
        if base is None:
            shared += 1
            base = int(_RANGES[family].network_address)
        inside = (label << tail) & (1 << bits - length) - 1
        by_address[value] = base | inside | value & (1 << min(tail, bits - length)) - 1
    return StandIns(by_address, shared)


def _next_label(label: int, before: int, value: int) -> int:
    """Return the label of the next larger value: as that before it up to where they part, then a one, then zeros."""
    if before == value:
        return label
    part = (before ^ value).bit_length() - 1
    return label >> part + 1 << part + 1 | 1 << part


def _blocks(family: Family, named: Iterable[tuple[int, int]]) -> dict[int, tuple[int, int | None]]:
    """Return the outermost networks by first address: their lengths, and where their blocks are; None without room."""
    bits = family.host_length
    lengths: dict[int, int] = {}
    for value, length in named:
        shortest = min(length if length > LONGEST_OF_MANY[family] else bits, _OWNED[family])
        start = value >> bits - shortest << bits - shortest
        lengths[start] = min(lengths.get(start, bits), shortest)
    room = _RANGES[family]
    free, end = int(room.network_address), int(room.broadcast_address) + 1 - (1 << bits - _OWNED[family])
    blocks: dict[int, tuple[int, int | None]] = {}
    covered = -1
    for start, length in sorted(lengths.items()):
        if start <= covered:
            continue
        covered = start + (1 << bits - length) - 1
        size = 1 << bits - length
        base = -(-free // size) * size
        if base + size > end:
            blocks[start] = (length, None)
        else:
            blocks[start], free = (length, base), base + size
    return blocks
