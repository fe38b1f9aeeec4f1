"""The kernel's hash of a packet's fields, as nft(8) ``jhash`` computes it.

nft puts each field of a concatenation into registers of four bytes, in network byte order and padded with zero
bytes, hashes them with Jenkins' lookup3 (Linux, include/linux/jhash.h) and reduces the result by
``reciprocal_scale`` (include/linux/kernel.h), which is no remainder.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Final

_GOLDEN: Final = 0xDEAD_BEEF
_WORD: Final = 0xFFFF_FFFF
_BLOCK: Final = 12


def jhash(key: bytes, seed: int) -> int:
    """Return the 32-bit hash of a key."""
    a = b = c = (_GOLDEN + len(key) + seed) & _WORD
    while len(key) > _BLOCK:
        a, b, c = _mix(*_sums((a, b, c), key[:_BLOCK], sys.byteorder))
        key = key[_BLOCK:]
    if not key:
        return c
    # What is left is added byte by byte, the first one lowest, whatever the machine's order is.
    return _final(*_sums((a, b, c), key.ljust(_BLOCK, b"\0"), "little"))


def scaled(value: int, modulus: int) -> int:
    """Reduce a 32-bit hash to 0 … modulus - 1."""
    return value * modulus >> 32


def register_bytes(fields: Iterable[bytes]) -> bytes:
    """Return what nft hashes for a concatenation of fields."""
    return b"".join(field.ljust(-(-len(field) // 4) * 4, b"\0") for field in fields)


def _sums(state: tuple[int, int, int], block: bytes, order: str) -> tuple[int, int, int]:
    words = [int.from_bytes(block[at : at + 4], "big" if order == "big" else "little") for at in (0, 4, 8)]
    a, b, c = ((have + word) & _WORD for have, word in zip(state, words, strict=True))
    return a, b, c


def _rotated(word: int, by: int) -> int:
    return (word << by | word >> (32 - by)) & _WORD


def _mix(a: int, b: int, c: int) -> tuple[int, int, int]:
    for by in (4, 6, 8, 16, 19, 4):
        a = (a - c & _WORD) ^ _rotated(c, by)
        c = (c + b) & _WORD
        a, b, c = b, c, a
    return a, b, c


def _final(a: int, b: int, c: int) -> int:
    for by in (14, 11, 25, 16, 4, 14, 24):
        c = ((c ^ b) - _rotated(b, by)) & _WORD
        a, b, c = b, c, a
    return b
