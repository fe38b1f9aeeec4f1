"""UDP services of the router, asked at every uplink's address: they answer with the address that was asked."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

import pytest

from polywan.lab.network import Lab
from polywan.lab.scenario import configuration
from polywan.lab.topology import SERVERS

if TYPE_CHECKING:
    from support.netns import StartDaemon

from polywan.core.net import Family

PORT = 5353
_PKTINFO = 8  # IP_PKTINFO (ip(7))


def unnamed(server: socket.socket) -> None:
    """Answer as a program does that knows nothing of several addresses."""
    data, asker = server.recvfrom(100)
    server.sendto(data, asker)


def named(server: socket.socket) -> None:
    """Answer with the address that was asked, as IP_PKTINFO tells it."""
    data, more, _, asker = server.recvmsg(100, 100)
    (info,) = (d for level, kind, d in more if (level, kind) == (socket.IPPROTO_IP, _PKTINFO))
    source = struct.pack("=I", 0) + info[8:12] + bytes(4)
    server.sendmsg([data], [(socket.IPPROTO_IP, _PKTINFO, source)], 0, asker)


@contextmanager
def service(lab: Lab, answer: Callable[[socket.socket], None], address: str = "") -> Iterator[None]:
    """Answer every datagram to the port until the end."""
    with closing(lab.router.socket(socket.AF_INET, socket.SOCK_DGRAM)) as server:
        server.setsockopt(socket.IPPROTO_IP, _PKTINFO, 1)
        server.bind((address, PORT))
        server.settimeout(0.1)
        over = threading.Event()

        def serve() -> None:
            while not over.is_set():
                try:
                    answer(server)
                except TimeoutError:
                    continue

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()


def asked(lab: Lab) -> socket.socket:
    found = lab.server.socket(socket.AF_INET, socket.SOCK_DGRAM)
    found.settimeout(2)
    return found


def address(lab: Lab, number: int) -> str:
    return str(lab.topology.uplink(number).addresses[Family.V4].own.ip)


def answer_to(asker: socket.socket, address: str) -> str:
    asker.sendto(b"x", (address, PORT))
    return str(asker.recvfrom(100)[1][0])


@pytest.mark.parametrize("answer", [unnamed, named])
def test_an_answer_comes_from_the_address_that_was_asked_by_every_uplink(
    lab: Lab, start_daemon: StartDaemon, answer: Callable[[socket.socket], None]
) -> None:
    start_daemon(lab, configuration(lab.topology, (1, 1, 1)))
    with service(lab, answer):
        for number in (1, 2, 3):
            for _ in range(3):
                with closing(asked(lab)) as asker:
                    seen = [answer_to(asker, address(lab, number)) for _ in range(3)]
                    assert seen == [address(lab, number)] * 3


def test_a_service_bound_to_an_uplinks_address_answers_from_it(lab: Lab, start_daemon: StartDaemon) -> None:
    start_daemon(lab, configuration(lab.topology, (1, 1, 1)))
    for number in (1, 2, 3):
        with service(lab, unnamed, address(lab, number)), closing(asked(lab)) as asker:
            assert [answer_to(asker, address(lab, number)) for _ in range(3)] == [address(lab, number)] * 3


def test_a_service_that_names_its_source_serves_one_asker_at_all_addresses_by_turns(
    lab: Lab, start_daemon: StartDaemon
) -> None:
    start_daemon(lab, configuration(lab.topology, (1, 1, 1)))
    with service(lab, named), closing(asked(lab)) as asker:
        for number in (1, 2, 3, 2, 1, 3):
            assert answer_to(asker, address(lab, number)) == address(lab, number)


def test_answers_go_on_when_main_loses_the_default_that_gave_them_their_address(
    lab: Lab, start_daemon: StartDaemon
) -> None:
    start_daemon(lab, configuration(lab.topology, (1, 1, 1)))
    with service(lab, unnamed), closing(asked(lab)) as asker:
        assert answer_to(asker, address(lab, 2)) == address(lab, 2)
        lab.cut(1)
        lab.router.run(["ip", "addr", "flush", "dev", "wan1"])
        assert [answer_to(asker, address(lab, 2)) for _ in range(3)] == [address(lab, 2)] * 3


@pytest.mark.parametrize("bound", [True, False], ids=["bound to an address", "connected only"])
def test_what_comes_to_another_address_does_not_change_the_source_of_a_socket_that_has_one(
    lab: Lab, start_daemon: StartDaemon, bound: bool
) -> None:
    """Such as a late answer to a connection that nobody knows of any more."""
    start_daemon(lab, configuration(lab.topology, (1, 1, 1)))
    with closing(asked(lab)) as server, closing(lab.router.socket(socket.AF_INET, socket.SOCK_DGRAM)) as box:
        server.bind((str(SERVERS[Family.V4][0]), PORT))
        if bound:
            box.bind((address(lab, 1), 0))
        box.connect(server.getsockname())
        box.settimeout(2)
        for _ in range(3):
            box.send(b"x")
            seen = server.recvfrom(100)[1]
            assert seen[0] == address(lab, 1)
            server.sendto(b"late", (address(lab, 2), seen[1]))
            server.sendto(b"answer", seen)
            assert box.recv(100) == b"answer"
