"""Packets that connection tracking calls invalid."""

from __future__ import annotations

import socket
from contextlib import closing, suppress

from polywan.core.net import Family, IPAddress
from polywan.lab.namespaces import Namespace
from polywan.lab.network import Lab
from polywan.lab.servers import SOCKET_FAMILY
from polywan.lab.topology import SERVERS
from polywan.probe.icmp import checksum


def unasked_answer(lab: Lab, family: Family, sender: Namespace, source: IPAddress | None = None) -> None:
    """Send three echo replies that no server has asked for, from an address of the sender."""
    kind, protocol = (0, socket.IPPROTO_ICMP) if family is Family.V4 else (129, socket.IPPROTO_ICMPV6)
    rest = b"\0\1\0\1" + bytes(8)
    total = checksum(bytes([kind, 0, 0, 0]) + rest).to_bytes(2) if family is Family.V4 else b"\0\0"
    with sender.entered():
        raw = socket.socket(SOCKET_FAMILY[family], socket.SOCK_RAW, protocol)
    with closing(raw):
        if source is not None:
            raw.bind((str(source), 0))
        for _ in range(3):
            with suppress(PermissionError):
                raw.sendto(bytes([kind, 0]) + total + rest, (str(SERVERS[family][0]), 0))
