"""How far a TCP connection is, as the kernel tells of real ones on loopback."""

from __future__ import annotations

import socket
from ipaddress import ip_address

import pytest

from polywan.kernel.conntrack.progress import progress


@pytest.mark.parametrize(
    ("family", "listens", "asks"),
    [
        (socket.AF_INET, "127.0.0.1", "127.0.0.1"),
        (socket.AF_INET6, "::1", "::1"),
        (socket.AF_INET6, "::ffff:127.0.0.1", "127.0.0.1"),
    ],
)
def test_what_the_peer_acknowledged_counts(family: socket.AddressFamily, listens: str, asks: str) -> None:
    with socket.socket(family) as listener:
        listener.bind((listens, 0))
        listener.listen()
        with socket.create_connection((asks, listener.getsockname()[1])) as client:
            server, _ = listener.accept()
            with server:
                ends = ip_address(asks), server.getsockname()[1], ip_address(asks), client.getsockname()[1]
                before = progress(*ends)
                server.sendall(b"x" * 1000)
                assert len(client.recv(1000, socket.MSG_WAITALL)) == 1000
                after = progress(*ends)
    assert before is not None
    assert after is not None
    assert after.acknowledged - before.acknowledged == 1000
    assert (after.waiting, after.silent < 10.0) == (0, True)


def test_a_connection_that_there_is_not_has_no_progress() -> None:
    assert progress(ip_address("127.0.0.1"), 1, ip_address("127.0.0.1"), 2) is None
