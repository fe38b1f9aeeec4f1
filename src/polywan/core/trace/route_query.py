"""A question to the kernel's own routing, and its answer: what ``ip route get`` asks (ip-route(8))."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from polywan.core.net import Family, IPAddress, TableId

AnswerKind: TypeAlias = Literal[
    "unicast", "local", "broadcast", "multicast", "unreachable", "prohibit", "blackhole", "none"
]
"""What becomes of the packet, in the words of ip-route(8); "none" when no route matches at all."""

UNKNOWN_TABLE: Final = TableId(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteQuery:
    """One packet, as far as routing looks at it (rtnetlink(7) RTM_GETROUTE).

    Attributes:
        source: None lets the kernel choose one. The box's own packets need an address of the box (else the answer
            is "none"); forwarded ones of IPv4 need a source, or else nothing would be forwarded ("blackhole").
        mark: the whole packet mark, as it is when the packet is routed.
        in_interface: device it arrived by; None for the box's own.
        uid: of the socket's owner, of the box's own packets only; None for the asker's own.
        protocol: number (IANA); routing looks at it only where a policy rule does. None for not said.
        source_port, port: likewise; None for not said.
        dscp: the six upper bits of the TOS byte or traffic class.
    """

    family: Family
    destination: IPAddress
    source: IPAddress | None = None
    mark: int = 0
    in_interface: str | None = None
    uid: int | None = None
    protocol: int | None = None
    source_port: int | None = None
    port: int | None = None
    dscp: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteAnswer:
    """What the kernel would do with the packet.

    Attributes:
        link: device by which it leaves, "lo" when it stays in this box; None when it is dropped or refused.
        via: next hop; None on the link itself and on point-to-point links.
        source: address of this box that the kernel prefers; None for forwarded packets.
        table: where the route is, 0 when it is not known: of refusals the kernel says nothing.
        prefix: length of the route's prefix, 0 for a default; None when it is not known.
    """

    kind: AnswerKind
    link: str | None = None
    via: IPAddress | None = None
    source: IPAddress | None = None
    table: TableId = UNKNOWN_TABLE
    prefix: int | None = None
