"""Several clients behind the lab's router: further addresses of its one client, and connections from each."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterable, Sequence
from ipaddress import ip_address

from polywan.core.net import Family, IPAddress
from polywan.lab.network import Lab
from polywan.lab.servers import ECHO_PORT, SOCKET_FAMILY
from polywan.lab.traffic import read_line

LAN = {Family.V4: "192.168.15.", Family.V6: "2001:db8:15::"}


def many_clients(lab: Lab, family: Family, count: int) -> list[str]:
    """Give the client further addresses of the LAN, as if it were many; return them."""
    host = str if family is Family.V4 else "{:x}".format
    return as_clients(lab, [f"{LAN[family]}{host(n)}" for n in range(101, 101 + count)])


def as_clients(lab: Lab, addresses: Sequence[str]) -> list[str]:
    """Give the client these addresses."""
    for_each = ((a, "64" if ":" in a else "24", " nodad" if ":" in a else "") for a in addresses)
    lab.client.ip(f"address add {a}/{length} dev eth0{at_once}" for a, length, at_once in for_each)
    return list(addresses)


async def ask_from(lab: Lab, source: str, target: IPAddress, port: int = 0) -> int | None:
    """Open a connection from one of the client's addresses and return the uplink that the server saw."""
    with lab.client.socket(SOCKET_FAMILY[Family(target.version)], socket.SOCK_STREAM) as sock:
        sock.bind((source, port))
        async with asyncio.timeout(5):
            await asyncio.get_running_loop().sock_connect(sock, (str(target), ECHO_PORT))
            return lab.topology.number_of(ip_address(await read_line(sock)))


async def uplinks_of(lab: Lab, sources: Iterable[str], target: IPAddress) -> dict[str, int | None]:
    """Return the uplink of a new connection from each source."""
    return {source: await ask_from(lab, source, target) for source in sources}
