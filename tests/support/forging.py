"""Frames that nobody should believe, put on a wire as they are."""

from __future__ import annotations

import select
import socket
import struct
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from ipaddress import ip_address
from typing import Self

from polywan.core.net import Family, IPAddress
from polywan.lab.namespaces import Namespace
from polywan.probe.icmp import checksum

TCP, UDP = 6, 17
ICMP = {Family.V4: 1, Family.V6: 58}
REQUEST = {Family.V4: 8, Family.V6: 128}
REPLY = {Family.V4: 0, Family.V6: 129}
UNREACHABLE = {Family.V4: (3, 1), Family.V6: (1, 0)}
"""Type and code that say "no route to host" (RFC 792, RFC 4443)."""

_EVERYTHING = 3  # ETH_P_ALL
_ETHER = {Family.V4: 0x0800, Family.V6: 0x86DD}
_OUTGOING = 4  # PACKET_OUTGOING, packet(7)


@dataclass(frozen=True)
class Packet:
    """An IP packet: ends, protocol and what it carries."""

    source: IPAddress
    destination: IPAddress
    protocol: int
    body: bytes

    @property
    def family(self) -> Family:
        return Family(self.source.version)

    def encode(self) -> bytes:
        if self.family is Family.V6:
            head = struct.pack("!IHBB", 6 << 28, len(self.body), self.protocol, 255)
            return head + self.source.packed + self.destination.packed + self.body
        head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(self.body), 0, 0, 64, self.protocol, 0)
        ends = self.source.packed + self.destination.packed
        return head[:10] + checksum(head + ends).to_bytes(2) + ends + self.body

    @classmethod
    def decode(cls, data: bytes) -> Packet | None:
        if len(data) >= 20 and data[0] >> 4 == 4:
            ends = ip_address(data[12:16]), ip_address(data[16:20])
            return cls(*ends, data[9], data[(data[0] & 15) * 4 : int.from_bytes(data[2:4])])
        if len(data) >= 40 and data[0] >> 4 == 6:
            ends6 = ip_address(data[8:24]), ip_address(data[24:40])
            return cls(*ends6, data[6], data[40 : 40 + int.from_bytes(data[4:6])])
        return None

    def with_sum(self, place: int) -> Packet:
        """Put in the checksum at a place of the body; ICMP of IPv4 alone leaves out the ends."""
        bare = self.body[:place] + b"\0\0" + self.body[place + 2 :]
        ends = self.source.packed + self.destination.packed + struct.pack("!II", len(bare), self.protocol)
        total = checksum(bare if self.protocol == ICMP[Family.V4] else ends + bare)
        return replace(self, body=bare[:place] + total.to_bytes(2) + bare[place + 2 :])


def is_probe(packet: Packet) -> bool:
    """Tell whether it is an echo request, or opens a TCP connection."""
    if packet.protocol == TCP:
        return packet.body[13] & 0x12 == 0x02
    return packet.protocol == ICMP[packet.family] and packet.body[0] == REQUEST[packet.family]


def answer(probe: Packet, *, wrong: bool) -> list[Packet]:
    """Return what the target would answer; or all but that, since a stranger cannot guess the random part."""
    back = replace(probe, source=probe.destination, destination=probe.source)
    if probe.protocol != TCP:
        body = bytes([REPLY[probe.family]]) + probe.body[1:]
        return [replace(back, body=body[:-1] + bytes([body[-1] ^ wrong])).with_sum(2)]
    return [replace(back, body=_segment(probe.body, flags, wrong=wrong)).with_sum(16) for flags in (0x12, 0x14)]


def _segment(opening: bytes, flags: int, *, wrong: bool) -> bytes:
    """Return a SYN and ACK, or a reset, for a segment that opens a connection."""
    ours, theirs, sequence = struct.unpack("!HHI", opening[:8])
    acknowledged = (sequence + 1 + 99_999 * wrong) % (1 << 32)
    return struct.pack("!HHIIBBHHH", theirs, ours, 1, acknowledged, 5 << 4, flags, 65535, 0, 0)


def refusal(probe: Packet, *, wrong: bool) -> list[Packet]:
    """Return a router's word that the target cannot be reached; or one that quotes a packet that was never sent."""
    quoted = probe
    if wrong:
        place = 7 if probe.protocol == TCP else len(probe.body) - 1
        body = probe.body[:place] + bytes([probe.body[place] ^ 0x55]) + probe.body[place + 1 :]
        quoted = replace(probe, body=body)
    kind, code = UNREACHABLE[probe.family]
    body = struct.pack("!BBHI", kind, code, 0, 0) + quoted.encode()
    router = probe.destination - 1
    return [Packet(router, probe.source, ICMP[probe.family], body).with_sum(2)]


class Wire:
    """A device of a namespace, for whole frames."""

    def __init__(self, namespace: Namespace, device: str, towards: str) -> None:
        """Open it; frames go to the device with the MAC address `towards`."""
        self._sock = namespace.socket(socket.AF_PACKET, socket.SOCK_RAW)
        self._sock.bind((device, _EVERYTHING))
        self._towards = bytes.fromhex(towards.replace(":", ""))

    def close(self) -> None:
        self._sock.close()

    def send(self, packet: Packet) -> None:
        ether = self._towards + b"\x02\0\0\0\0\x99" + _ETHER[packet.family].to_bytes(2)
        self._sock.send(ether + packet.encode())

    def received(self, timeout: float) -> Packet | None:
        """Return a packet that came in, or None when nothing did in that time (seconds)."""
        if not select.select([self._sock], [], [], timeout)[0]:
            return None
        data, (_, _, kind, *_) = self._sock.recvfrom(2048)
        return None if kind == _OUTGOING else Packet.decode(data[14:])


class Forger:
    """Sees every probe that comes in by one wire, and puts what it makes of it on another one."""

    def __init__(self, seen: Wire, put: Wire, make: Callable[[Packet], Iterable[Packet]]) -> None:
        self.sent = 0
        self._seen, self._put, self._make = seen, put, make
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        self._seen.close()
        self._put.close()

    def _run(self) -> None:
        while not self._ended.is_set():
            packet = self._seen.received(0.05)
            if packet is not None and is_probe(packet):
                for spoofed in self._make(packet):
                    self._put.send(spoofed)
                    self.sent += 1
