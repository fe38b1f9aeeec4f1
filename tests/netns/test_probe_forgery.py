"""Replies that are not the target's, not to this round, or not whole."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

import pytest

from polywan.core.health.probes import ProbeResult
from polywan.lab.namespaces import Namespace
from polywan.probe.icmp import EchoSocket, checksum
from polywan.probe.prober import NetProber
from support.probe_orders import take
from support.two_providers import SERVER, World, build, by

_IP_PKTINFO = 8


@pytest.fixture
def world() -> Iterator[World]:
    with build() as made:
        yield made


@dataclass(frozen=True)
class Request:
    """An echo request as the provider sees it."""

    identifier: bytes
    sequence: bytes
    payload: bytes
    sender: str


class Impostor:
    """Answers echo requests at provider 1 in place of its kernel, and as the test says."""

    def __init__(self, provider: Namespace) -> None:
        provider.sysctl({"ipv4/icmp_echo_ignore_all": 1})
        with provider.entered():
            self._raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
        self._raw.settimeout(2.0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._raw.close()

    def receive(self) -> Request:
        while True:
            datagram, (sender, _) = self._raw.recvfrom(256)
            if datagram[20] == 8:
                return Request(datagram[24:26], datagram[26:28], datagram[28:], sender)

    def reply(self, to: Request, *, source: str = SERVER[4], change: str = "") -> None:
        body = {name: getattr(to, name) for name in ("identifier", "sequence", "payload")}
        if change:
            body[change] = body[change][:-1] + bytes([body[change][-1] ^ 1])
        rest = body["identifier"] + body["sequence"] + body["payload"]
        message = b"\0\0" + checksum(b"\0\0\0\0" + rest).to_bytes(2) + rest
        self._raw.sendmsg([message], [(socket.IPPROTO_IP, _IP_PKTINFO, _source(source))], 0, (to.sender, 0))


def _source(address: str) -> bytes:
    """Return `struct in_pktinfo` (ip(7)) with a local address to send from."""
    return bytes(4) + socket.inet_aton(address) + bytes(4)


@pytest.fixture
def impostor(world: World) -> Iterator[Impostor]:
    with Impostor(world.providers[1]) as made:
        yield made


def test_an_exact_reply_of_the_target_counts(world: World, impostor: Impostor) -> None:
    async def answer(prober: NetProber) -> list[ProbeResult]:
        prober.start(by(1, SERVER[4]))
        impostor.reply(impostor.receive())
        return await take(prober, 1)

    assert world.run(answer)[0].rtt is not None


@pytest.mark.parametrize("change", ["identifier", "sequence", "payload"])
def test_a_reply_that_differs_from_its_request_does_not_count(world: World, impostor: Impostor, change: str) -> None:
    async def forge(prober: NetProber) -> list[ProbeResult]:
        prober.start(by(1, SERVER[4], timeout=0.3))
        impostor.reply(impostor.receive(), change=change)
        return await take(prober, 1)

    assert world.run(forge)[0].rtt is None


def test_a_reply_from_another_address_than_the_target_does_not_count(world: World, impostor: Impostor) -> None:
    async def spoof(prober: NetProber) -> list[ProbeResult]:
        prober.start(by(1, SERVER[4], timeout=0.3))
        impostor.reply(impostor.receive(), source="100.64.1.1")
        return await take(prober, 1)

    assert world.run(spoof)[0].rtt is None


def test_a_late_reply_does_not_count_for_a_later_round(world: World, impostor: Impostor) -> None:
    async def reply_late(prober: NetProber) -> list[ProbeResult]:
        prober.start(by(1, SERVER[4], number=1, timeout=0.1))
        late = impostor.receive()
        await take(prober, 1)
        prober.start(by(1, SERVER[4], number=2, timeout=0.3))
        impostor.receive()
        impostor.reply(late)
        return await take(prober, 2)

    first, second = world.run(reply_late)
    assert (first.round, first.late) == (1, True)
    assert (second.round, second.rtt) == (2, None)


class Reads:
    """Counts what reaches this process by the sockets of echo probes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        take_one = EchoSocket._take

        def counted(echo: EchoSocket, datagram: bytes, sender: bytes) -> None:
            self.count += 1
            take_one(echo, datagram, sender)

        monkeypatch.setattr(EchoSocket, "_take", counted)


@pytest.mark.parametrize("version", [4, 6])
def test_replies_to_others_do_not_reach_the_daemon_whatever_its_identifier(
    world: World, monkeypatch: pytest.MonkeyPatch, version: int
) -> None:
    reads = Reads(monkeypatch)
    kind, protocol, family = {
        4: (0, socket.IPPROTO_ICMP, socket.AF_INET),
        6: (129, socket.IPPROTO_ICMPV6, socket.AF_INET6),
    }[version]
    with world.providers[1].entered(), socket.socket(family, socket.SOCK_RAW, protocol) as stranger:

        async def flood(prober: NetProber) -> list[ProbeResult]:
            prober.start(by(1, SERVER[version]))
            first = await take(prober, 1)
            ours = {echo._identifier for echo in prober._echoes.values()}
            for identifier in set(range(0, 1 << 16, 97)) - ours:
                rest = identifier.to_bytes(2) + bytes(10)
                total = b"\0\0" if version == 6 else checksum(bytes([kind, 0, 0, 0]) + rest).to_bytes(2)
                stranger.sendto(bytes([kind, 0]) + total + rest, ({4: "100.64.1.2", 6: "2001:db8:1::2"}[version], 0))
            prober.start(by(1, SERVER[version], number=2))
            return first + await take(prober, 1)

        for own in (1, 2, 3):
            results = world.run(flood)
            assert all(result.rtt is not None for result in results)
            assert reads.count == 2 * own
