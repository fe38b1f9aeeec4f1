"""Make idle ends of dead TCP connections speak, so that they meet the reset of `reject_dead` (core/ruleset/table.py).

A stalled download only listens, and nobody but its two ends knows the sequence numbers that a reset needs. But a
segment outside of the receive window is answered with an acknowledgement (RFC 9293, 3.10.7.4), whatever else is
wrong with it. So each end inside is sent one bare acknowledgement in the name of its peer. Its answer comes back
through this box, belongs to the connection, and is rejected with a reset that carries the right numbers.
"""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Sequence
from typing import Final, NamedTuple

from polywan.core.errors import KernelError
from polywan.core.net import CHALLENGE_PRIORITY, Family

CHALLENGE_TURNS: Final = 4
"""How many different segments there are for one end; one of them is old in both of its numbers.

A receiver answers to any number outside of its window. A stateful firewall in front of it (``ct state invalid drop``)
lets pass what is *behind* the window, in both numbers, and drops what is ahead (since Linux 6.1; before, both). Half
of all numbers are behind, and nobody knows which half.
"""

_HALF: Final = 1 << 31
_NUMBERS: Final = ((0, 0), (_HALF, _HALF), (0, _HALF), (_HALF, 0))  # sequence and acknowledgement of each turn

_EACH: Final = 0.01 / 2000
"""Seconds that a segment takes at least: a burst would overrun queues of the network inside."""

_AF: Final = {Family.V4: socket.AF_INET, Family.V6: socket.AF_INET6}
_TCP: Final = 6
_HOPS: Final = 64
_OFFSET_AND_ACK: Final = 0x5010  # five words of header, and nothing set but ACK
_WINDOW: Final = 0xFFFF
_SEGMENT: Final = struct.Struct(">HHIIHHHH")
_HEADER4: Final = struct.Struct(">BBHHHBBH4s4s")
_HEADER6: Final = struct.Struct(">IHBB16s16s")
_DONT_FRAGMENT: Final = 0x4000


class End(NamedTuple):
    """One end of a TCP connection and the peer that it knows; addresses are packed."""

    address: bytes
    port: int
    peer: bytes
    peer_port: int


def segment(end: End, turn: int) -> bytes:
    """Return the packet for one end, from the IP header on; `turn` counts from 0 and chooses the numbers."""
    sequence, acknowledgement = _NUMBERS[turn % CHALLENGE_TURNS]
    addresses = end.peer + end.address
    words = struct.unpack(f">{len(addresses) // 2}H", addresses)
    total = sum(words) + _TCP + _SEGMENT.size + end.peer_port + end.port + _OFFSET_AND_ACK + _WINDOW
    total += (sequence >> 16) + (acknowledgement >> 16)
    total = (total & 0xFFFF) + (total >> 16)
    checksum = ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF
    tcp = _SEGMENT.pack(end.peer_port, end.port, sequence, acknowledgement, _OFFSET_AND_ACK, _WINDOW, checksum, 0)
    if len(end.address) == 4:
        # The kernel fills in the checksum of this header (raw(7)).
        ip = _HEADER4.pack(0x45, 0, 20 + len(tcp), 0, _DONT_FRAGMENT, _HOPS, _TCP, 0, end.peer, end.address)
    else:
        ip = _HEADER6.pack(6 << 28, len(tcp), _TCP, _HOPS, end.peer, end.address)
    return ip + tcp


def challenge(ends: Sequence[End], family: Family, turn: int) -> None:
    """Send one segment to each end, all of one family; blocks for as long as that takes.

    Args:
        ends: whom to make speak, a few hundred at most.
        family: theirs.
        turn: see `segment`.

    Raises:
        KernelError: no raw socket is to be had (CAP_NET_RAW).
    """
    if not ends:
        return
    try:
        with socket.socket(_AF[family], socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.IPPROTO_RAW) as raw:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_PRIORITY, CHALLENGE_PRIORITY)
            began = time.monotonic()
            _send(raw, ends, family, turn)
            time.sleep(max(0.0, began + len(ends) * _EACH - time.monotonic()))
    except OSError as e:
        raise KernelError("open a raw socket", e.errno or 0, e.strerror or str(e)) from e


def _send(raw: socket.socket, ends: Sequence[End], family: Family, turn: int) -> None:
    af = _AF[family]
    for end in ends:
        try:
            raw.sendto(segment(end, turn), (socket.inet_ntop(af, end.address), 0))
        except OSError:
            # No way to it, or the way leads outside and the chain `challenge` refuses: nobody here to tell.
            continue
