"""Policy rules and tables as other programs have them, drawn from a seed, and packets that meet them."""

from __future__ import annotations

import random
import socket
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, ip_address, ip_network

from polywan.core.net import FAMILIES, Family, IPAddress
from polywan.core.packet import Packet
from polywan.lab.namespaces import Namespace

TABLES = (201, 202, 203)
MARKS = (0, 0, 0x1, 0x10, 0x33, 0xCA6C, 0x8_0000)
COMPARED = ("0x1", "0xca6c", "0x10/0xf0", "0x3/0xf", "0x80000/0xff0000", "0/0xff")
PORTS = (25, 53, 443, 5000)


@dataclass(frozen=True, slots=True)
class Place:
    """A network of the inside: the device by which its packets arrive, and who is there."""

    device: str
    networks: dict[Family, str]

    def hosts(self, family: Family) -> tuple[IPAddress, ...]:
        first = ip_network(self.networks[family])[0]
        return (first + 40, first + 41, first + 42)


@dataclass(frozen=True, slots=True)
class Outside:
    """Where packets go to: networks that tables know, addresses in them, and devices that lead there."""

    devices: tuple[str, ...]
    sites: dict[Family, tuple[str, ...]]
    servers: dict[Family, tuple[str, ...]]


def tables(chance: random.Random, outside: Outside) -> Iterator[tuple[Family, str]]:
    """Lines of ``ip route`` that fill the tables; some know a default, some a few sites, some what they refuse."""
    for family in FAMILIES:
        for table in TABLES:
            if chance.random() < 0.5:
                yield family, f"route add {_leads(chance, str(family.default), outside.devices)} table {table}"
            for site in chance.sample(outside.sites[family], chance.randrange(4)):
                yield family, f"route add {_leads(chance, site, outside.devices)} table {table}"


def _leads(chance: random.Random, prefix: str, devices: Sequence[str]) -> str:
    kind = chance.choice(["unicast"] * 5 + ["throw", "throw", "unreachable", "prohibit", "blackhole"])
    return f"unicast {prefix} dev {chance.choice(devices)}" if kind == "unicast" else f"{kind} {prefix}"


def rules(
    chance: random.Random, places: Sequence[Place], outside: Outside, priorities: Sequence[int], *, ports: bool = True
) -> Iterator[tuple[Family, str]]:
    """Lines of ``ip rule`` with these priorities, lowest first; every `goto` finds a rule. `ports` are sources."""
    for family in FAMILIES:
        for at, priority in enumerate(priorities):
            words = " ".join(w for w in _selectors(chance, family, places, outside) if ports or "sport" not in w)
            does = _does(chance, priorities[at + 1 :])
            yield family, f"rule add pref {priority} {'not ' if chance.random() < 0.2 else ''}{words} {does}"


def _selectors(chance: random.Random, family: Family, places: Sequence[Place], outside: Outside) -> list[str]:
    place = chance.choice(places)
    sources = (*map(str, place.hosts(family)), place.networks[family])
    ends = chance.choice(["25", "443", "1-1000", "53-5000"])
    known = [
        f"from {chance.choice(sources)}",
        f"to {chance.choice(outside.sites[family])}",
        f"iif {chance.choice([place.device, place.device, 'lo'])}",
        f"fwmark {chance.choice(COMPARED)}",
        f"fwmark {chance.choice(COMPARED)}",
        f"tos {chance.choice(['0x10', '0x8'])}",
        f"ipproto {chance.choice(['tcp', 'udp', 'icmp' if family is Family.V4 else 'ipv6-icmp'])}",
        f"dport {ends}",
        f"sport {ends}",
        f"uidrange {chance.choice(['0-0', '1000-2000'])}",
    ]
    chosen = chance.sample(known, chance.choice([0, 1, 1, 1, 2, 2, 3]))
    return [*{words.split()[0]: words for words in chosen}.values()]


def _does(chance: random.Random, later: Sequence[int]) -> str:
    draw = chance.random()
    if draw < 0.1 and later:
        return f"goto {chance.choice(later)}"
    if draw < 0.2:
        return f"lookup main{chance.choice(['', '', ' suppress_prefixlength 0'])}"
    if draw < 0.3:
        return chance.choice(["unreachable", "prohibit", "blackhole", "nop"])
    suppressed = chance.choice(["", "", "", " suppress_prefixlength 0", " suppress_prefixlength 25"])
    return f"lookup {chance.choice(TABLES)}{suppressed}"


def carry_out(place: Namespace, lines: Iterable[tuple[Family, str]]) -> None:
    """Carry out lines of ``ip`` in a namespace."""
    listed = list(lines)
    for family in FAMILIES:
        mine = [line for f, line in listed if f is family]
        place.run(["ip", f"-{family}", "-batch", "-"], text="\n".join(mine) + "\n")


def packets(
    chance: random.Random, places: Sequence[Place], outside: Outside, many: int, *, ported: bool = False
) -> list[Packet]:
    """First packets of connections from the inside; `ported` leaves out protocols without ports."""
    return [_packet(chance, chance.choice(FAMILIES), chance.choice(places), outside, ported) for _ in range(many)]


def _packet(chance: random.Random, family: Family, place: Place, outside: Outside, only: bool) -> Packet:
    protocol = chance.choice([6, 17, 17, 6 if only else 1 if family is Family.V4 else 58])
    ported = protocol in (6, 17)
    return Packet(
        family=family,
        source=chance.choice(place.hosts(family)),
        destination=ip_address(chance.choice(outside.servers[family])),
        protocol=protocol,
        source_port=chance.choice(PORTS) if ported else None,
        port=chance.choice(PORTS) if ported else None,
        in_interface=place.device,
        dscp=chance.choice([0, 0, 4, 2, 46]),
        mark=chance.choice(MARKS),
    )


def on_wire(packet: Packet, number: int) -> bytes:
    """The packet from its IP header on; `number` is its identification, or its flow label."""
    payload = _payload(packet)
    ends = packet.source.packed + packet.destination.packed
    payload = _checked(packet, ends, payload)
    if isinstance(packet.source, IPv4Address):
        length = 20 + len(payload)
        head = struct.pack(">BBHHHBBH", 0x45, packet.dscp << 2, length, number, 0, 64, packet.protocol, 0) + ends
        return head[:10] + struct.pack(">H", _sum(head)) + head[12:] + payload
    return (
        struct.pack(">IHBB", 6 << 28 | packet.dscp << 22 | number, len(payload), packet.protocol, 64) + ends + payload
    )


def _payload(packet: Packet) -> bytes:
    if packet.protocol == 6:
        return struct.pack(">HHIIBBHHH", packet.source_port, packet.port, 1, 0, 0x50, 2, 8192, 0, 0)
    if packet.protocol == 17:
        return struct.pack(">HHHH", packet.source_port, packet.port, 8, 0)
    return struct.pack(">BBHHH", 8 if packet.family is Family.V4 else 128, 0, 0, 7, 1)


def _checked(packet: Packet, ends: bytes, payload: bytes) -> bytes:
    at = {6: 16, 17: 6}.get(packet.protocol, 2)
    pseudo = b"" if packet.protocol == 1 else ends + struct.pack(">II", len(payload), packet.protocol)
    return payload[:at] + struct.pack(">H", _sum(pseudo + payload) or 0xFFFF) + payload[at + 2 :]


def _sum(data: bytes) -> int:
    total = sum(int.from_bytes(data[at : at + 2], "big") for at in range(0, len(data), 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def frame(packet: Packet, number: int, to: bytes) -> bytes:
    """The packet as an Ethernet frame to a hardware address."""
    kind = 0x0800 if packet.family is Family.V4 else 0x86DD
    return to + b"\x02\0\0\0\0\x01" + struct.pack(">H", kind) + on_wire(packet, number)


def packet_socket(device: str) -> socket.socket:
    """A socket of the calling thread's namespace that sends frames by a device."""
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    sock.bind((device, 0))
    return sock
