"""Conntrack entries as messages: which are cut, and what identifies them."""

from __future__ import annotations

import struct
from typing import Any

import pytest

from polywan.kernel.conntrack.challenge_ack import End
from polywan.kernel.conntrack.decode import layout_of
from polywan.kernel.conntrack.table import cuttable, deletion, ends_of, inside_of
from polywan.kernel.netlink.socket import attribute

TCP, UDP, ICMPV6 = 6, 17, 58


def entry(protocol: int = UDP, *, mark: int | None = None, state: int | None = None, extra: bytes = b"") -> bytes:
    body = b"\x02\0\0\0" + attribute(1 | 0x8000, attribute(2 | 0x8000, attribute(1, bytes((protocol,)))))
    if state is not None:
        body += attribute(4 | 0x8000, attribute(1 | 0x8000, attribute(1, bytes((state,)))))
    if mark is not None:
        body += attribute(8, struct.pack(">I", mark))
    return body + extra


def values(body: bytes) -> tuple[Any, ...]:
    return layout_of(body).read(body)


@pytest.mark.parametrize("protocol", [UDP, ICMPV6, 132])
def test_all_but_tcp_is_cut(protocol: int) -> None:
    assert cuttable(values(entry(protocol)))


@pytest.mark.parametrize(("state", "cut"), [(1, True), (9, True), *((s, False) for s in (0, 2, 3, 4, 5, 6, 7, 8))])
def test_tcp_is_cut_before_its_first_answer_only(state: int, cut: bool) -> None:
    assert cuttable(values(entry(TCP, state=state))) is cut


def test_tcp_of_unknown_state_and_entries_that_make_no_sense_are_left_alone() -> None:
    assert not any(cuttable(values(body)) for body in (entry(TCP), b"\x02\0\0\0", b""))


def test_a_deletion_names_the_tuple_the_zone_and_the_id() -> None:
    zone, identity = attribute(18, b"\0\5"), attribute(12, b"\1\2\3\4")
    body = entry(mark=5, extra=identity + zone)
    assert deletion(body).body == entry(extra=zone + identity)


CLIENT, SERVER, BOX, HOST = b"\xc0\xa8\x0f\x0a", b"\xcb\0\x71\x0a", b"\x64\x40\1\2", b"\xc0\xa8\x0f\x63"


def ends(*parts: bytes | int) -> tuple[End | None, End | None]:
    return ends_of((TCP, *parts, *(None,) * 9))


def test_behind_a_masquerade_it_is_the_client_that_is_inside() -> None:
    original, reply = ends(CLIENT, 5000, SERVER, 443, SERVER, 443, BOX, 5000)
    assert inside_of(original, reply) == (End(CLIENT, 5000, SERVER, 443),)


def test_behind_a_port_forward_it_is_the_server_that_is_inside() -> None:
    original, reply = ends(CLIENT, 5000, BOX, 8080, HOST, 80, CLIENT, 5000)
    assert inside_of(original, reply) == (End(HOST, 80, CLIENT, 5000),)


def test_without_a_translation_both_ends_may_be_inside() -> None:
    original, reply = ends(CLIENT, 5000, SERVER, 443, SERVER, 443, CLIENT, 5000)
    assert inside_of(original, reply) == (End(CLIENT, 5000, SERVER, 443), End(SERVER, 443, CLIENT, 5000))


def test_with_both_sides_translated_too() -> None:
    original, reply = ends(CLIENT, 5000, BOX, 8080, HOST, 80, BOX, 6000)
    assert inside_of(original, reply) == (End(CLIENT, 5000, BOX, 8080), End(HOST, 80, BOX, 6000))


def test_an_entry_that_lacks_an_end_has_nobody_inside() -> None:
    assert inside_of(*ends_of((TCP, *(None,) * 17))) == ()
