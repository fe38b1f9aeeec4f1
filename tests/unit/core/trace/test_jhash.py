"""The kernel's hash, against the values that its author published (lookup3.c, driver5)."""

from __future__ import annotations

import sys

import pytest

from polywan.core.trace.jhash import jhash, register_bytes, scaled

SPEECH = b"Four score and seven years ago"


@pytest.mark.skipif(sys.byteorder != "little", reason="tool missing: a machine of little-endian order")
@pytest.mark.parametrize(
    ("key", "seed", "value"),
    [
        (b"", 0, 0xDEADBEEF),
        (b"", 0xDEADBEEF, 0xBD5B7DDE),
        (SPEECH, 0, 0x17770551),
        (SPEECH, 1, 0xCD628161),
    ],
)
def test_published_values_are_met(key: bytes, seed: int, value: int) -> None:
    assert jhash(key, seed) == value


def test_a_hash_is_scaled_over_the_whole_range() -> None:
    assert [scaled(value, 1024) for value in (0, (1 << 22) - 1, 1 << 22, 0xFFFF_FFFF)] == [0, 0, 1, 1023]


def test_fields_are_padded_to_registers() -> None:
    assert register_bytes([b"\x06", b"\x01\xbb", b"\x0a\0\0\x01"]) == b"\x06\0\0\0\x01\xbb\0\0\x0a\0\0\x01"
