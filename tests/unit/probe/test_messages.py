"""What checks send and believe, byte by byte."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polywan.core.health.layers import CheckResult, Layer
from polywan.core.net import FAMILIES, Family
from polywan.probe.bound import SocketDeniedError, link_socket
from polywan.probe.check import MAX_TEXT, shown
from polywan.probe.dns import _decode, _question
from polywan.probe.large import _echo
from polywan.probe.neighbour import ArpPacket, advertises, solicitation, solicited_node
from polywan.probe.prober import FAIL_DELAY, NetProber
from support.probe_orders import check_order, inspect, take_checks

OURS, THEIRS, OTHER = b"\x02\0\0\0\0\x01", b"\x02\0\0\0\0\x02", b"\x02\0\0\0\0\x03"
US, GATEWAY, ELSE = map(IPv4Address, ("100.64.1.2", "100.64.1.1", "100.64.1.3"))
QUESTION = ArpPacket(1, OURS, US, bytes(6), GATEWAY)
ANSWER = ArpPacket(2, THEIRS, GATEWAY, OURS, US)
GATEWAY6 = IPv6Address("2001:db8:64:1::1")
ADVERT = bytes([136, 0, 0, 0, 0x60, 0, 0, 0]) + GATEWAY6.packed


def test_an_arp_request_is_that_of_rfc_826() -> None:
    assert QUESTION.encode() == bytes.fromhex("0001 0800 06 04 0001 020000000001 64400102 000000000000 64400101")


@pytest.mark.parametrize("packet", [QUESTION, ANSWER])
def test_an_arp_packet_is_read_as_it_was_written(packet: ArpPacket) -> None:
    assert ArpPacket.decode(packet.encode() + bytes(18)) == packet


def test_a_reply_of_the_asked_host_counts() -> None:
    assert ANSWER.answers(QUESTION)


@pytest.mark.parametrize(
    "packet",
    [
        QUESTION,
        replace(ANSWER, operation=1),
        replace(ANSWER, sender=ELSE),
        replace(ANSWER, target=ELSE),
        replace(ANSWER, target_link=OTHER),
    ],
)
def test_any_other_arp_packet_does_not_count(packet: ArpPacket) -> None:
    assert not packet.answers(QUESTION)


def test_an_arp_packet_about_other_protocols_is_none() -> None:
    wire = ANSWER.encode()
    assert ArpPacket.decode(wire[:2] + b"\x86\xdd" + wire[4:]) is None
    assert ArpPacket.decode(wire[:-1]) is None


def test_a_solicitation_is_that_of_rfc_4861() -> None:
    assert solicited_node(GATEWAY6) == IPv6Address("ff02::1:ff00:1")
    assert solicitation(GATEWAY6, OURS) == bytes([135] + [0] * 7) + GATEWAY6.packed + b"\x01\x01" + OURS


@pytest.mark.parametrize(
    ("message", "counts"),
    [
        (ADVERT, True),
        (ADVERT + b"\x02\x01" + THEIRS, True),
        (b"\x87" + ADVERT[1:], False),
        (ADVERT[:1] + b"\x01" + ADVERT[2:], False),
        (ADVERT[:4] + b"\xa0" + ADVERT[5:], False),
        (ADVERT[:-1] + b"\x02", False),
        (ADVERT[:-1], False),
    ],
)
def test_only_the_solicited_advertisement_of_the_gateway_counts(message: bytes, counts: bool) -> None:
    assert advertises(message, GATEWAY6) == counts


@given(st.binary(max_size=64))
def test_no_bytes_upset_the_readers(data: bytes) -> None:
    packet = ArpPacket.decode(data)
    assert packet is None or len(data) >= 28
    assert not advertises(data, IPv6Address("2001:db8::dead:beef")) or len(data) >= 24
    assert _decode(_question("page.example", Family.V4), data) is None


@pytest.mark.parametrize("family", FAMILIES)
def test_a_complaint_is_believed_about_our_own_packet_only(family: Family) -> None:
    echo = _echo(family, 1500)
    ours = echo.request
    assert echo.blamed_in(ours[:8])
    assert echo.blamed_in(ours[:548])
    assert not echo.blamed_in(ours[:7])
    assert not echo.blamed_in(ours[:6] + bytes([ours[6] ^ 1]) + ours[7:])
    assert not echo.blamed_in(ours[:8] + bytes([ours[8] ^ 1]))


@pytest.mark.parametrize(("family", "header"), [(Family.V4, 20), (Family.V6, 40)])
def test_the_size_is_that_of_the_ip_packet(family: Family, header: int) -> None:
    assert len(_echo(family, 1400).request) == 1400 - header


@pytest.mark.parametrize("name", ["", "." * 3, "x" * 64 + ".example", "\udcff", "a b\n" * 99])
def test_a_name_that_cannot_be_asked_for_is_a_result(name: str) -> None:
    order = check_order(Layer.DNS, name=name, servers=("127.0.0.1",), timeout=0.1)
    (found,) = run(lambda prober: inspect(prober, order))
    assert not found.ok or name == ""
    assert found.detail.isprintable()


@given(st.text())
def test_strangers_text_is_shown_short_and_plain(text: str) -> None:
    found = shown(text)
    assert found.isascii()
    assert found.isprintable() or found == ""
    assert len(found) <= MAX_TEXT


def run(work: Callable[[NetProber], object]) -> list[CheckResult]:
    async def main() -> list[CheckResult]:
        prober = NetProber()
        try:
            return await work(prober)  # type: ignore[misc, no-any-return]  # every caller gives a coroutine
        finally:
            prober.close()

    return asyncio.run(main())


EVERY = {
    Layer.GATEWAY: check_order(Layer.GATEWAY, gateway="192.0.2.1", timeout=0.3),
    Layer.DNS: check_order(Layer.DNS, name="page.example", servers=("192.0.2.1",), timeout=0.3),
    Layer.HTTP: check_order(Layer.HTTP, url="http://192.0.2.1/", timeout=0.3),
    Layer.LARGE: check_order(Layer.LARGE, size=1500, servers=("192.0.2.1",), timeout=0.3),
}


@pytest.mark.parametrize("layer", EVERY)
@pytest.mark.parametrize("interface", ["no-such-link0", "", "a" * 16, "lo\0b", "\udcff", "lo; reboot"])
def test_a_name_no_link_can_have_is_a_result_after_a_grace(layer: Layer, interface: str) -> None:
    async def check(prober: NetProber) -> list[CheckResult]:
        start = asyncio.get_running_loop().time()
        found = await inspect(prober, replace(EVERY[layer], interface=interface))
        assert asyncio.get_running_loop().time() - start >= FAIL_DELAY
        return found

    (found,) = run(check)
    assert (found.ok, found.rtt) == (False, None)
    assert found.detail


def test_a_unit_that_forbids_packet_sockets_is_told_how_to_allow_them(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*_: object) -> socket.socket:
        raise OSError(errno.EAFNOSUPPORT, "refused")

    monkeypatch.setattr("polywan.probe.bound.socket.socket", forbidden)
    with pytest.raises(SocketDeniedError, match="RestrictAddressFamilies=AF_PACKET"):
        link_socket(0x0806, "lo", 0)


@pytest.mark.parametrize("layer", EVERY)
@pytest.mark.parametrize(("code", "remedy"), [(errno.EPERM, "CAP_NET_RAW"), (errno.EMFILE, "LimitNOFILE")])
def test_a_denied_socket_is_remembered_with_its_remedy(
    monkeypatch: pytest.MonkeyPatch, layer: Layer, code: int, remedy: str
) -> None:
    def refused(*_: object) -> socket.socket:
        raise OSError(code, "refused")

    async def check(prober: NetProber) -> list[CheckResult]:
        monkeypatch.setattr("polywan.probe.bound.socket.socket", refused)
        prober.check(EVERY[layer])
        found = await take_checks(prober, 1)
        monkeypatch.undo()
        assert prober.problem is not None
        assert prober.problem.startswith(f"no {layer} probes: ")
        return found

    (found,) = run(check)
    assert remedy in found.detail


def test_a_link_with_nobody_to_ask_does_not_hide_that_sockets_are_denied(monkeypatch: pytest.MonkeyPatch) -> None:
    async def check(prober: NetProber) -> list[CheckResult]:
        monkeypatch.setitem(prober._denied, Layer.GATEWAY, "refused")
        prober.check(replace(EVERY[Layer.GATEWAY], gateway=None))
        found = await take_checks(prober, 1)
        assert prober.problem == "no gateway probes: refused"
        return found

    assert [found.ok for found in run(check)] == [True]
