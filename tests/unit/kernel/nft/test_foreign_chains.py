"""Chains of others that may drop what is forwarded, as the kernel's messages tell them."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polywan.core.world.foreign_chains import ForwardChain
from polywan.kernel.netlink.socket import attribute
from polywan.kernel.nft.foreign_chains import decode


def body(family: int = 2, *, table: str = "filter", hook: int | None = 2, policy: int | None = 0) -> bytes:
    found = bytes((family, 0, 0, 0)) + attribute(1, f"{table}\0".encode()) + attribute(3, b"FORWARD\0")
    if hook is not None:
        found += attribute(4 | 0x8000, attribute(1, struct.pack("!I", hook)) + attribute(2, struct.pack("!i", 0)))
    return found if policy is None else found + attribute(5, struct.pack("!I", policy))


@pytest.mark.parametrize(("number", "family"), [(1, "inet"), (2, "ip"), (10, "ip6")])
def test_a_chain_that_drops_what_is_forwarded_is_found_in_each_family(number: int, family: str) -> None:
    assert decode([body(number)]) == (ForwardChain(family, "filter", "FORWARD"),)


@pytest.mark.parametrize(
    "other",
    [
        body(policy=1),
        body(policy=None),
        body(hook=1),
        body(hook=None),
        body(family=7),
        body(family=1, table="polywan"),
        b"",
    ],
)
def test_other_hooks_policies_and_families_and_our_own_table_are_passed_over(other: bytes) -> None:
    assert decode([other]) == ()


@given(st.lists(st.binary(max_size=80)))
def test_messages_that_make_no_sense_are_no_chains(bodies: list[bytes]) -> None:
    assert isinstance(decode(bodies), tuple)
