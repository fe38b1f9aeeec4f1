"""The first packet of a connection, as far as steering looks at it."""

from __future__ import annotations

from dataclasses import dataclass

from polywan.core.net import Family, IPAddress


@dataclass(frozen=True, slots=True, kw_only=True)
class Packet:
    """What a rule can see.

    Attributes:
        protocol: number (IANA), 6 is TCP.
        source_port, port: None for protocols without ports.
        in_interface: device it arrived by; None for the box's own.
        mac: hardware address of the sender, lower case with colons; None for the box's own.
        mark: bits of the packet mark that others set.
        user, group: numbers, of the box's own only.
        cgroup: path below the cgroup root, of the box's own only.
        bound: the socket is bound to the source, of the box's own only; otherwise routing has chosen it.
        at: Unix time, seconds.
    """

    family: Family
    source: IPAddress
    destination: IPAddress
    protocol: int
    source_port: int | None = None
    port: int | None = None
    in_interface: str | None = None
    dscp: int = 0
    mac: str | None = None
    mark: int = 0
    user: int | None = None
    group: int | None = None
    cgroup: str | None = None
    bound: bool = False
    at: int = 0
