"""What a connection meets that no uplink can serve: the words of ip-route(8), as the client feels them."""

from __future__ import annotations

import socket
import struct
from typing import TYPE_CHECKING

import pytest

from polywan.core.net import Family
from polywan.lab.network import Lab
from polywan.lab.scenario import configuration
from polywan.lab.topology import SERVERS
from polywan.lab.traffic import connect
from support.netns import with_servers

if TYPE_CHECKING:
    from support.netns import BuildLab, StartDaemon, WaitFor

ERROR = struct.Struct("=IBBBxII")  # struct sock_extended_err (ip(7))
RECEIVE_ERRORS = {Family.V4: (socket.IPPROTO_IP, 11), Family.V6: (socket.IPPROTO_IPV6, 25)}
SOCKETS = {Family.V4: socket.AF_INET, Family.V6: socket.AF_INET6}


def counters(lab: Lab, family: Family, wait_for: WaitFor) -> tuple[int, int]:
    """Send a datagram from the client and return type and code of the ICMP message that comes back."""
    with lab.client.socket(SOCKETS[family], socket.SOCK_DGRAM) as sock:
        level, option = RECEIVE_ERRORS[family]
        sock.setsockopt(level, option, 1)
        sock.setblocking(False)
        sock.connect((str(SERVERS[family][0]), 9))
        sock.send(b"anybody?")

        def heard() -> bytes | None:
            try:
                _, ancillary, _, _ = sock.recvmsg(1024, 1024, socket.MSG_ERRQUEUE)
            except BlockingIOError:
                return None
            return next(data for _, _, data in ancillary)

        _, _, kind, code, _, _ = ERROR.unpack_from(wait_for(heard, 2.0, "no ICMP message came back") or b"")
        return kind, code


def without_any_uplink(lab: Lab, start_daemon: StartDaemon, wait_for: WaitFor, resort: str) -> None:
    toml = configuration(lab.topology, (1, 1))
    tiers = ", ".join(f'"{u.name}"' for u in lab.topology.uplinks)
    daemon = start_daemon(lab, f'{toml}\n[policies.default]\ntiers = [[{tiers}]]\nlast_resort = "{resort}"\n')
    lab.cut(1)
    lab.cut(2)
    wait_for(lambda: daemon.status().policies[0].members == ())


@pytest.mark.parametrize(
    ("resort", "family", "message"),
    [
        ("unreachable", Family.V4, (3, 1)),
        ("unreachable", Family.V6, (1, 3)),
        ("prohibit", Family.V4, (3, 13)),
        ("prohibit", Family.V6, (1, 1)),
        ("throw", Family.V4, (3, 0)),
        ("throw", Family.V6, (1, 0)),
    ],
)
def test_the_client_is_told_at_once_in_the_words_of_the_route_type(
    lab_of: BuildLab,
    start_daemon: StartDaemon,
    wait_for: WaitFor,
    resort: str,
    family: Family,
    message: tuple[int, int],
) -> None:
    lab = lab_of(2)
    without_any_uplink(lab, start_daemon, wait_for, resort)
    assert counters(lab, family, wait_for) == message


@pytest.mark.parametrize("family", [Family.V4, Family.V6])
def test_a_blackhole_says_nothing(
    lab_of: BuildLab, start_daemon: StartDaemon, wait_for: WaitFor, family: Family
) -> None:
    lab = lab_of(2)
    without_any_uplink(lab, start_daemon, wait_for, "blackhole")

    async def story() -> None:
        attempt, _ = await connect(lab, SERVERS[family][0], patience=0.5)
        assert attempt.error == "timeout"

    with_servers(lab, story)


@pytest.mark.alone
@pytest.mark.parametrize("family", [Family.V4, Family.V6])
def test_a_program_of_the_box_fails_at_once_too(
    lab_of: BuildLab, start_daemon: StartDaemon, wait_for: WaitFor, family: Family
) -> None:
    lab = lab_of(2)
    without_any_uplink(lab, start_daemon, wait_for, "unreachable")

    async def story() -> None:
        attempt, _ = await connect(lab, SERVERS[family][0], namespace=lab.router, patience=2.0)
        assert attempt.error in {"EHOSTUNREACH", "ENETUNREACH"}
        assert attempt.ended - attempt.started < 0.5

    with_servers(lab, story)
