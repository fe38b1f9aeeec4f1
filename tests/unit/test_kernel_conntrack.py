"""Conntrack entries as messages: which are cut, and what identifies them."""

from __future__ import annotations

import struct

import pytest

from polywan.kernel.conntrack import cuttable, deletion, mark_of
from polywan.kernel.netlink import attribute

TCP, UDP, ICMPV6 = 6, 17, 58


def entry(protocol: int = UDP, *, mark: int | None = None, state: int | None = None, extra: bytes = b"") -> bytes:
    body = b"\x02\0\0\0" + attribute(1 | 0x8000, attribute(2 | 0x8000, attribute(1, bytes((protocol,)))))
    if state is not None:
        body += attribute(4 | 0x8000, attribute(1 | 0x8000, attribute(1, bytes((state,)))))
    if mark is not None:
        body += attribute(8, struct.pack(">I", mark))
    return body + extra


def test_the_mark_is_found_behind_other_attributes() -> None:
    assert mark_of(entry(TCP, state=3, mark=0xDEADBEEF)) == 0xDEADBEEF


def test_an_entry_without_mark_counts_as_zero() -> None:
    assert mark_of(entry()) == 0


@pytest.mark.parametrize("protocol", [UDP, ICMPV6, 132])
def test_all_but_tcp_is_cut(protocol: int) -> None:
    assert cuttable(entry(protocol))


@pytest.mark.parametrize(("state", "cut"), [(1, True), (9, True), *((s, False) for s in (0, 2, 3, 4, 5, 6, 7, 8))])
def test_tcp_is_cut_before_its_first_answer_only(state: int, cut: bool) -> None:
    assert cuttable(entry(TCP, state=state)) is cut


def test_tcp_of_unknown_state_and_entries_that_make_no_sense_are_left_alone() -> None:
    assert not any(cuttable(body) for body in (entry(TCP), b"\x02\0\0\0", b""))


def test_a_deletion_names_the_tuple_the_zone_and_the_id() -> None:
    zone, identity = attribute(18, b"\0\5"), attribute(12, b"\1\2\3\4")
    body = entry(mark=5, extra=identity + zone)
    assert deletion(body).body == entry(extra=zone + identity)
