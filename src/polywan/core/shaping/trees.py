"""What stands at a device's root for each algorithm, as trees; and the same in the words of tc(8)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import Enum
from functools import lru_cache
from typing import Final

from polywan.config.model.shaping import DEFAULT_LINK, LinkLayer, Shaping
from polywan.core.world.queues import ROOT, STAMP, Part

MOST_TREES: Final = 1024
"""Trees that are kept once they are made: more than two for each uplink that there may be."""

HTB_OPTIONS: Final = (("default", 1),)
"""All goes to the one class."""

MTU: Final = 1514
"""Bytes of a full packet with its Ethernet header."""


class Direction(Enum):
    """Which packets: those that leave by the uplink, or those that come in by it."""

    UP = "up"
    DOWN = "down"


DIFFSERV3, BESTEFFORT = 0, 3
DUAL_SRCHOST, DUAL_DSTHOST = 5, 6
NO_CELLS, ATM, PTM = 0, 1, 2

_LAYERS: Final[Mapping[LinkLayer, tuple[tuple[str, int], ...]]] = {
    # As tc-cake(8) has them: bytes beyond the IP packet, cells, and the least that a packet takes.
    "ethernet": (("overhead", 38), ("cells", NO_CELLS), ("mpu", 84)),
    "docsis": (("overhead", 18), ("cells", NO_CELLS), ("mpu", 64)),
    "pppoe-ptm": (("overhead", 30), ("cells", PTM), ("mpu", 0)),
    "bridged-ptm": (("overhead", 22), ("cells", PTM), ("mpu", 0)),
    "pppoe-llcsnap": (("overhead", 40), ("cells", ATM), ("mpu", 0)),
    "bridged-llcsnap": (("overhead", 32), ("cells", ATM), ("mpu", 0)),
    "raw": (("raw", 1), ("overhead", 0), ("cells", NO_CELLS), ("mpu", 0)),
}

BANDS: Final = 3
MIDDLE_BAND: Final = 0x1111_1111_1111_1111
"""A priority map (tc-prio(8)) by which everything goes to the second band: filters know better than the kernel's
priorities, which only forwarded IPv4 packets get, and none on the fast path."""

DSCP_PLACES: Final = {0x0800: 18, 0x86DD: 22}
"""EtherType of each family, and how far the DSCP is from the end of the first 32 bits of its header."""

_BY_DSCP: Final = (
    # Value and mask of the DSCP, and the band from 1. CS6 and CS7: routing. CS5, VA, EF: calls. 4: TOS "low delay".
    (0b110000, 0b110000, 1),
    (0b101000, 0b111000, 1),
    (0b000100, 0b111111, 1),
    # CS1 and LE: what may wait. 2: TOS "throughput".
    (0b001000, 0b111111, 3),
    (0b000001, 0b111111, 3),
    (0b000010, 0b111111, 3),
)


@lru_cache(maxsize=MOST_TREES)
def tree(shaping: Shaping, bandwidth: int, direction: Direction) -> tuple[Part, ...]:
    """Return what belongs at the root of a device, parents first.

    Args:
        shaping: what the file says.
        bandwidth: of the line in this direction, bit/s.
        direction: of the packets; those that come in are shaped when they leave the ifb device.
    """
    rate = rate_of(shaping, bandwidth)
    if shaping.algorithm == "cake":
        return (_cake(shaping.link or DEFAULT_LINK, rate, direction),)
    leaves = (_fq_codel(1, _handle(0, 1), rate),) if shaping.algorithm == "fq_codel" else tuple(_prio(rate))
    return (
        Part("htb", _handle(0), ROOT, HTB_OPTIONS),
        Part("class", _handle(0, 1), _handle(0), (("rate", rate),)),
        *leaves,
    )


def rate_of(shaping: Shaping, bandwidth: int) -> int:
    """Return the rate at which a line of that bandwidth is used, bit/s; whole bytes, which the kernel counts in."""
    return max(8, round(bandwidth * shaping.share) // 8 * 8)


def wanted_kinds(shaping: Shaping) -> frozenset[str]:
    """Return what the kernel must have for it, by the names that it asks modules for."""
    kinds = {"cake": {"cake"}, "fq_codel": {"htb", "fq_codel"}, "prio": {"htb", "prio", "fq_codel"}}
    return frozenset(kinds[shaping.algorithm])


def _handle(number: int, minor: int = 0) -> int:
    return (STAMP + number) << 16 | minor


def _cake(link: LinkLayer, rate: int, direction: Direction) -> Part:
    up = direction is Direction.UP
    # Whoever sends to us may write any DSCP, so incoming packets are all alike. What was dropped had crossed the line.
    options = (
        ("bandwidth", rate),
        ("diffserv", DIFFSERV3 if up else BESTEFFORT),
        ("hosts", DUAL_SRCHOST if up else DUAL_DSTHOST),
        ("nat", 1),
        *_LAYERS[link],
        ("ingress", int(not up)),
    )
    return Part("cake", _handle(0), ROOT, options)


def _fq_codel(number: int, parent: int, rate: int) -> Part:
    # A packet that takes longer than the target by itself would always count as having waited.
    target = max(5, -(-MTU * 8 * 1500 // rate))
    return Part("fq_codel", _handle(number), parent, (("target", target), ("interval", 95 + target)))


def _prio(rate: int) -> Iterator[Part]:
    bands = _handle(1)
    yield Part("prio", bands, _handle(0, 1), (("bands", BANDS), ("priomap", MIDDLE_BAND)))
    for band in range(1, BANDS + 1):
        yield _fq_codel(1 + band, bands | band, rate)
    for protocol, shift in DSCP_PLACES.items():
        for number, (value, mask, band) in enumerate(_BY_DSCP, 1):
            match = (("value", value << shift), ("mask", mask << shift), ("class", bands | band))
            yield Part("u32", number, bands, (("protocol", protocol), *match))


def words(device: str, part: Part) -> str:
    """Return a part in the words of tc(8)."""
    found = dict(part.options)
    parent = "root" if part.parent == ROOT else f"parent {handle_text(part.parent)}"
    if part.kind == "class":
        return f"class dev {device} {parent} classid {handle_text(part.handle)} htb rate {bits(found['rate'])}"
    if part.kind == "u32":
        protocol = {0x0800: "ip", 0x86DD: "ipv6"}.get(found["protocol"], hex(found["protocol"]))
        match = f"match u32 {found['value']:#010x} {found['mask']:#010x} at 0"
        return f"filter dev {device} {parent} protocol {protocol} u32 {match} classid {handle_text(found['class'])}"
    return " ".join(["qdisc dev", device, parent, "handle", handle_text(part.handle), part.kind, *_options(part)])


def _options(part: Part) -> Iterator[str]:
    found = dict(part.options)
    match part.kind:
        case "cake":
            yield f"bandwidth {bits(found['bandwidth'])}"
            yield {DIFFSERV3: "diffserv3", BESTEFFORT: "besteffort"}.get(found["diffserv"], "")
            yield {DUAL_SRCHOST: "dual-srchost", DUAL_DSTHOST: "dual-dsthost"}.get(found["hosts"], "")
            yield "nat"
            cells = {NO_CELLS: "noatm", ATM: "atm", PTM: "ptm"}[found["cells"]]
            yield "raw" if "raw" in found else f"overhead {found['overhead']} {cells} mpu {found['mpu']}"
            yield from ["ingress"] if found["ingress"] else []
        case "fq_codel":
            yield f"target {found['target']}ms interval {found['interval']}ms"
        case "prio":
            yield f"bands {found['bands']} priomap {' '.join(format(found['priomap'], '016x'))}"
        case kind:
            yield from (f"{name} {value}" for name, value in part.options if kind == "htb")


def handle_text(handle: int) -> str:
    """Return a handle as tc(8) writes it: ``6000:`` or ``6000:1``."""
    return f"{handle >> 16:x}:{handle & 0xFFFF:x}" if handle & 0xFFFF else f"{handle >> 16:x}:"


def bits(rate: int) -> str:
    """Return a rate as tc(8) writes it: ``9.5Mbit``."""
    for least, unit in ((1_000_000_000, "Gbit"), (1_000_000, "Mbit"), (1_000, "Kbit")):
        if rate >= least:
            return f"{rate / least:.6g}{unit}"
    return f"{rate}bit"
