"""Chains of others that may drop what is forwarded, as the kernel's messages tell them."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polywan.core.world.foreign_chains import ForwardChain
from polywan.kernel.netlink.socket import attribute
from polywan.kernel.nft.foreign_chains import at_ingress, dropping


def body(family: int = 2, *, table: str = "filter", hook: int | None = 2, policy: int | None = 0) -> bytes:
    found = bytes((family, 0, 0, 0)) + attribute(1, f"{table}\0".encode()) + attribute(3, b"FORWARD\0")
    if hook is not None:
        found += attribute(4 | 0x8000, attribute(1, struct.pack("!I", hook)) + attribute(2, struct.pack("!i", 0)))
    return found if policy is None else found + attribute(5, struct.pack("!I", policy))


@pytest.mark.parametrize(("number", "family"), [(1, "inet"), (2, "ip"), (10, "ip6")])
def test_a_chain_that_drops_what_is_forwarded_is_found_in_each_family(number: int, family: str) -> None:
    assert dropping([body(number)]) == (ForwardChain(family, "filter", "FORWARD"),)


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
    assert dropping([other]) == ()


@given(st.lists(st.binary(max_size=80)))
def test_messages_that_make_no_sense_are_no_chains(bodies: list[bytes]) -> None:
    assert isinstance(dropping(bodies), tuple)


def hooked(family: int, number: int, devices: bytes, table: bytes = b"guard") -> bytes:
    hook = attribute(1, number.to_bytes(4, "big")) + devices
    return bytes((family, 0, 0, 0)) + attribute(1, table + b"\0") + attribute(3, b"filter\0") + attribute(4, hook)


ONE = attribute(3, b"eth0\0")
ALL = attribute(4, attribute(1, b"eth0\0") + attribute(1, b"eth1\0") + attribute(2, b"ppp"))


def test_a_chain_at_the_hook_ingress_meets_its_devices_and_those_that_begin_alike() -> None:
    (chain,) = at_ingress([hooked(5, 0, ONE + ALL)])
    assert str(chain) == "chain filter of table netdev guard"
    assert [d for d in ("eth0", "eth1", "eth2", "ppp0", "ppp", "pp") if chain.meets(d)] == [
        "eth0",
        "eth1",
        "ppp0",
        "ppp",
    ]


@pytest.mark.parametrize(
    ("body", "families"),
    [
        (hooked(5, 0, ONE), ["netdev"]),
        (hooked(1, 5, ONE), ["inet"]),
        (hooked(5, 1, ONE), []),
        (hooked(1, 0, ONE), []),
        (hooked(1, 5, ONE, b"polywan"), []),
        (hooked(5, 0, b""), []),
        (b"", []),
        (b"\5\0\0\0", []),
    ],
)
def test_only_chains_of_others_at_that_hook_count(body: bytes, families: list[str]) -> None:
    assert [chain.family for chain in at_ingress([body])] == families
