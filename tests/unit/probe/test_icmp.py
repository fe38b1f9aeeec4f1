from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polywan.core.net import Family
from polywan.probe.icmp import EchoReply, checksum, decode_reply, encode_request
from polywan.probe.tap import raw_replies, replies

IP_HEADER = bytes([0x45]) + bytes(19)
V4, V6 = Family.V4, Family.V6


def reply(family: Family, kind: int, code: int = 0) -> bytes:
    message = struct.pack("!BBHHH", kind, code, 0, 0x1234, 7) + b"token"
    return IP_HEADER + message if family is V4 else message


def test_the_checksum_is_that_of_rfc_1071() -> None:
    assert checksum(bytes.fromhex("0001f203f4f5f6f7")) == 0x220D


@given(st.integers(0, 0xFFFF), st.integers(0, 0xFFFF), st.binary(max_size=64))
def test_a_request_sums_up_to_zero(identifier: int, sequence: int, payload: bytes) -> None:
    assert checksum(encode_request(V4, identifier, sequence, payload)) == 0


def test_an_ipv6_request_leaves_the_checksum_to_the_kernel() -> None:
    assert encode_request(V6, 0x1234, 7, b"x") == bytes.fromhex("8000000012340007") + b"x"


@pytest.mark.parametrize(("family", "kind"), [(V4, 0), (V6, 129)])
def test_an_echo_reply_is_read(family: Family, kind: int) -> None:
    assert decode_reply(family, reply(family, kind)) == EchoReply(0x1234, 7, b"token")


@pytest.mark.parametrize(("family", "kind"), [(V4, 3), (V4, 8), (V6, 1), (V6, 128)])
def test_other_messages_are_no_replies(family: Family, kind: int) -> None:
    assert decode_reply(family, reply(family, kind)) is None


def test_a_reply_with_a_code_is_none() -> None:
    assert decode_reply(V4, reply(V4, 0, code=1)) is None


def test_ip_options_are_skipped() -> None:
    with_options = bytes([0x46]) + bytes(23) + reply(V6, 0)
    assert decode_reply(V4, with_options) == EchoReply(0x1234, 7, b"token")


@given(st.sampled_from([V4, V6]), st.binary(max_size=80))
def test_no_datagram_upsets_the_decoder(family: Family, datagram: bytes) -> None:
    found = decode_reply(family, datagram)
    assert found is None or len(found.payload) <= len(datagram)


@pytest.mark.parametrize("family", [V4, V6])
def test_the_filter_of_a_tap_has_one_step_for_each_test_and_two_verdicts(family: Family) -> None:
    program = replies(family, 0x1234)
    assert len(program) == {V4: 9, V6: 8}[family]


@pytest.mark.parametrize("family", [V4, V6])
@pytest.mark.parametrize("identifier", [0, 1, 0xFF, 0x100, 0xFFFF])
def test_the_filter_of_a_raw_socket_asks_for_its_own_identifier(family: Family, identifier: int) -> None:
    program = raw_replies(family, identifier)
    assert len(program) == {V4: 7, V6: 6}[family]
    assert program[-3] >> 32 == identifier
