"""What makes an idle end speak, and which sockets are ended: bytes on the wire and to the kernel."""

from __future__ import annotations

import socket
import struct
from ipaddress import ip_address

import pytest

from polywan.core.errors import KernelError
from polywan.core.net import Family
from polywan.kernel.conntrack import local_sockets, release
from polywan.kernel.conntrack import table as conntrack
from polywan.kernel.conntrack.challenge_ack import CHALLENGE_TURNS, End, segment
from polywan.kernel.conntrack.table import Found
from polywan.kernel.netlink.socket import Request

END4 = End(ip_address("192.168.15.10").packed, 35684, ip_address("203.0.113.10").packed, 443)
END6 = End(ip_address("2001:db8:15::10").packed, 1, ip_address("2001:db8:ffff:ffff::10").packed, 65535)
MASK = 0x3F00


def folded(data: bytes) -> int:
    total: int = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


@pytest.mark.parametrize("turn", range(CHALLENGE_TURNS))
@pytest.mark.parametrize("end", [END4, END6])
def test_a_segment_comes_from_the_peer_and_its_checksum_holds(end: End, turn: int) -> None:
    packet = segment(end, turn)
    header, tcp = packet[:-20], packet[-20:]
    assert header.endswith(end.peer + end.address)
    assert struct.unpack(">HH", tcp[:4]) == (end.peer_port, end.port)
    assert folded(end.peer + end.address + struct.pack(">HH", 6, len(tcp)) + tcp) == 0xFFFF


def test_a_segment_is_a_bare_acknowledgement() -> None:
    offset, flags = segment(END4, 0)[-8:-6]
    assert (offset >> 4, flags) == (5, 0x10)


def test_the_headers_tell_version_length_and_protocol() -> None:
    four, six = segment(END4, 0), segment(END6, 0)
    assert (four[0], four[9]) == (0x45, 6)
    assert (six[0] >> 4, six[4:6], six[6]) == (6, b"\0\x14", 6)


@pytest.mark.parametrize("window", [0, 1, 0x7FFF_FFFF, 0x8000_0001, 0xFFFF_FFFF])
@pytest.mark.parametrize("acknowledged", [5, 0x9000_0000])
def test_one_of_the_turns_is_behind_in_both_numbers_wherever_a_connection_is(window: int, acknowledged: int) -> None:
    def behind(number: int, at: int) -> bool:
        return 0 < (at - number) % 2**32 <= 2**31

    pairs = [struct.unpack(">II", segment(END4, turn)[-16:-8]) for turn in range(CHALLENGE_TURNS)]
    assert any(behind(sequence, window + 1) and behind(ack, acknowledged) for sequence, ack in pairs)


class Refuses(socket.socket):
    def __init__(self, *_: object) -> None:
        raise PermissionError(1, "Operation not permitted")


def test_without_the_right_to_raw_sockets_the_rest_is_done_and_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conntrack, "find", lambda *_, **__: iter([Found(inside=[(END4,)])]))
    monkeypatch.setattr(conntrack, "delete", len)
    monkeypatch.setattr("polywan.kernel.conntrack.challenge_ack.socket.socket", Refuses)
    freed = release.free(0x100, MASK, Family.V4, frozenset(), tcp=True)
    assert (freed.challenged, freed.silent) == (1, 1)
    assert freed.problems == (
        "idle TCP clients are reset only when they next send: open a raw socket: Operation not permitted",
    )


def test_what_cannot_be_ended_is_made_to_speak(monkeypatch: pytest.MonkeyPatch) -> None:
    spoken: list[End] = []

    def refuse(*_: object) -> list[bool]:
        raise KernelError("close sockets", 95, "Operation not supported")

    monkeypatch.setattr(conntrack, "find", lambda *_, **__: iter([Found(own=[(END4, Request(0, 0, b""))])]))
    monkeypatch.setattr(conntrack, "delete", len)
    monkeypatch.setattr(local_sockets, "destroy", refuse)
    monkeypatch.setattr(release, "challenge", lambda ends, *_: spoken.extend(ends))
    freed = release.free(0x100, MASK, Family.V4, frozenset(), tcp=True)
    assert set(spoken) == {END4}
    assert (freed.ended, freed.challenged) == (0, 1)
    assert "sockets cannot be closed" in freed.problems[0]


def test_without_tcp_established_connections_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    found = Found(doomed=[Request(0, 0, b"")], inside=[(END4,)], own=[(END4, Request(0, 0, b""))])
    monkeypatch.setattr(conntrack, "find", lambda *_, **__: iter([found]))
    monkeypatch.setattr(conntrack, "delete", len)
    freed = release.free(0x100, MASK, Family.V4, frozenset(), tcp=False)
    assert (freed.forgotten, freed.challenged, freed.ended) == (1, 0, 0)


def answer(state: int) -> bytes:
    identity = struct.pack(">HH16s16s", END4.port, END4.peer_port, END4.address, END4.peer) + bytes(4) + b"cookies!"
    return bytes((2, state, 0, 0)) + identity + bytes(20)


def test_a_socket_is_named_by_its_cookie() -> None:
    assert local_sockets.identity(answer(1)).endswith(b"cookies!")
    assert local_sockets.identity(answer(1))[:4] == struct.pack(">HH", END4.port, END4.peer_port)


@pytest.mark.parametrize("state", [6, 10])
def test_a_listener_and_a_socket_that_is_closed_already_are_never_ended(state: int) -> None:
    assert local_sockets.identity(answer(state)) == b""


def test_a_short_answer_names_no_socket() -> None:
    assert local_sockets.identity(answer(1)[:50]) == b""
