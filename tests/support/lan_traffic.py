"""Connections of hosts, users and sockets of every kind through the lab, and the router's configuration for rules."""

from __future__ import annotations

import asyncio
import fcntl
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from polywan.core.net import Family, IPAddress
from polywan.lab.daemon import DaemonProcess
from polywan.lab.namespaces import Namespace
from polywan.lab.network import Lab
from polywan.lab.scenario import configuration
from polywan.lab.servers import ECHO_PORT, SOCKET_FAMILY
from polywan.lab.topology import LAN_CLIENT
from polywan.lab.traffic import read_line
from support.netns import StartDaemon

NOBODY = 65534
DSCP_EF = 46
IPV6_TCLASS = getattr(socket, "IPV6_TCLASS", 67)

OTHER_CLIENT = {Family.V4: "192.168.15.11", Family.V6: "2001:db8:15::11"}
"""A second host of the LAN: another address of the same namespace."""

DEFAULT = '[policies.default]\ntiers = [["isp1"]]\n'
"""Whatever no rule takes goes by the first uplink."""


class Asker:
    """How a connection is opened, and what came of it."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab

    def open(
        self,
        family: Family,
        kind: socket.SocketKind,
        *,
        namespace: Namespace | None = None,
        source: str = "",
        port: int = 0,
        dscp: int = 0,
        user: int = 0,
    ) -> socket.socket:
        with (namespace or self.lab.client).entered(), acting_as(user):
            sock = socket.socket(SOCKET_FAMILY[family], kind)
        sock.settimeout(0)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if dscp and family is Family.V4:
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, dscp << 2)
        elif dscp:
            sock.setsockopt(socket.IPPROTO_IPV6, IPV6_TCLASS, dscp << 2)
        if namespace is None:
            sock.bind((source or str(LAN_CLIENT[family].ip), port))
        return sock

    async def tcp(
        self, address: IPAddress, *, patience: float = 3.0, server_port: int = ECHO_PORT, **how: Any
    ) -> int | None:
        """Open a connection and return the uplink that the server sees; None when there is none."""
        with self.open(Family(address.version), socket.SOCK_STREAM, **how) as sock, suppress(OSError):
            return await self._greeted(sock, address, patience, server_port)
        return None

    async def udp(self, address: IPAddress, *, patience: float = 3.0, **how: Any) -> int | None:
        """The same with one datagram."""
        with self.open(Family(address.version), socket.SOCK_DGRAM, **how) as sock, suppress(OSError):
            sock.connect((str(address), ECHO_PORT))
            async with asyncio.timeout(patience):
                await asyncio.get_running_loop().sock_sendall(sock, b"hello")
                answer = await asyncio.get_running_loop().sock_recv(sock, 4096)
            return self.lab.topology.number_of(ip_address(answer.split()[0].decode()))
        return None

    async def keep(self, address: IPAddress, open_until: ExitStack) -> socket.socket:
        """Open a TCP connection that stays open for a while."""
        sock = open_until.enter_context(self.open(Family(address.version), socket.SOCK_STREAM))
        assert await self._greeted(sock, address, 3.0) == 2
        return sock

    async def _greeted(
        self, sock: socket.socket, address: IPAddress, patience: float, port: int = ECHO_PORT
    ) -> int | None:
        async with asyncio.timeout(patience):
            await asyncio.get_running_loop().sock_connect(sock, (str(address), port))
            return self.lab.topology.number_of(ip_address(await read_line(sock)))


@contextmanager
def acting_as(user: int) -> Iterator[None]:
    """Make sockets that belong to that user; the kernel notes who opened them (credentials(7))."""
    if user:
        os.seteuid(user)
    try:
        yield
    finally:
        if user:
            os.seteuid(0)


def mac_of(namespace: Namespace, device: str) -> str:
    """The hardware address of a device (netdevice(7) SIOCGIFHWADDR)."""
    with namespace.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        answer: bytes = fcntl.ioctl(control, 0x8927, struct.pack("16s24x", device.encode()))
    return ":".join(f"{byte:02x}" for byte in answer[18:24])


def needs_users() -> None:
    """Skip where all users are one: netfilter knows the numbers outside of a user namespace."""
    if Path("/proc/self/uid_map").read_text().split() != ["0", "0", "4294967295"]:
        pytest.skip("this kernel has no users of the box inside a user namespace")


def started(lab: Lab, start: StartDaemon, rules: str) -> DaemonProcess:
    for family in lab.topology.families:
        address = f"{OTHER_CLIENT[family]}/{24 if family is Family.V4 else 64}"
        lab.client.ip([f"address replace {address} dev eth0 {'nodad' if family is Family.V6 else ''}"])
    return start(lab, configuration(lab.topology, (1, 1, 1)) + DEFAULT + rules)


def rule(*lines: str, to: str = 'uplink = "isp2"') -> str:
    return "\n".join(["[[rules]]", *lines, to, ""])
