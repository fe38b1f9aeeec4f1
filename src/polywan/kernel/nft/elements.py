"""Read the elements of simple sets and maps straight from netlink: keys of one field, and verdicts as values.

libnftables would first learn which sets there are, for each one that it lists: a third of a millisecond, and a router
of two uplinks has thirty of them.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from polywan.core.ruleset.model import Key
from polywan.kernel.netlink.socket import attributes, text, u32, walk

# linux/netfilter/nf_tables.h.
_ELEMENTS, _ELEMENT, _KEY, _DATA, _VALUE, _VERDICT = 3, 1, 1, 2, 1, 2
_CODE, _CHAIN = 1, 2
_WORDS: Final = {0: "drop", 1: "accept", -1: "continue", -3: "jump", -4: "goto", -5: "return"}
_NUMBER: Final = struct.Struct(">i")

VERDICTS: Final = 0xFFFF_FF00
"""Type of a map's values (NFT_DATA_VERDICT)."""

INTEGER: Final = 4
"""Type of the keys of a map of slots."""

KEY_TYPES: Final[dict[int, tuple[int, Callable[[bytes], Key]]]] = {
    INTEGER: (4, u32),  # of `numgen`
    5: (16, text),  # string, of `fib … oifname`
    7: (4, lambda value: str(IPv4Address(value))),
    8: (16, lambda value: str(IPv6Address(value))),
    19: (4, u32),  # mark
    41: (16, text),  # ifname
}
"""Size and decoder of a key by its type, as nft(8) numbers them (libnftables' `enum datatypes`)."""


def decode(body: bytes, key_type: int) -> Iterator[tuple[Key, str]]:
    """Yield keys and verdicts of one message of elements; a set's verdicts are empty, nonsense is left out."""
    size, read = KEY_TYPES[key_type]
    elements = attributes(body, 4).get(_ELEMENTS, b"")
    for kind, start, end in walk(elements, 0, len(elements)):
        found = attributes(elements[start:end]) if kind == _ELEMENT else {}
        key = attributes(found.get(_KEY, b"")).get(_VALUE, b"")
        if len(key) == size:
            yield read(key), verdict(attributes(found.get(_DATA, b"")).get(_VERDICT, b""))


def verdict(data: bytes) -> str:
    """Return a verdict as nft(8) writes it; empty without one."""
    found = attributes(data)
    code = found.get(_CODE, b"")
    word = _WORDS.get(_NUMBER.unpack(code)[0], "") if len(code) == _NUMBER.size else ""
    return f"{word} {text(found[_CHAIN])}" if _CHAIN in found else word
