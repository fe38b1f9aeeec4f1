"""The administrator's own connection to this box."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address
from typing import Final

from polywan.core.net import Family, IPAddress

_WORDS: Final = 4
_HIGHEST_PORT: Final = 65535


@dataclass(frozen=True, slots=True)
class Session:
    """A TCP connection from a client to this box."""

    peer: IPAddress
    peer_port: int
    local: IPAddress
    local_port: int

    @property
    def family(self) -> Family:
        """Its address family."""
        return Family(self.peer.version)

    def __str__(self) -> str:
        return f"{self.peer} {self.peer_port} {self.local} {self.local_port}"


def parse(text: str) -> Session:
    """Read a connection as SSH_CONNECTION has it: "CLIENT PORT SERVER PORT" (ssh(1)).

    Raises:
        ValueError: it is none.
    """
    words = text.split()
    if len(words) != _WORDS or not all(words[n].isascii() and words[n].isdigit() for n in (1, 3)):
        raise ValueError(f"expected client, port, server and port, got {text[:80]!r}")
    peer, local = (_address(words[n]) for n in (0, 2))
    ports = int(words[1]), int(words[3])
    if peer.version != local.version or not all(0 < port <= _HIGHEST_PORT for port in ports):
        raise ValueError(f"expected two ends of one connection, got {text[:80]!r}")
    return Session(peer, ports[0], local, ports[1])


def _address(text: str) -> IPAddress:
    address = ip_address(text.partition("%")[0])
    # A server that listens on IPv6 sees clients of IPv4 so.
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address
