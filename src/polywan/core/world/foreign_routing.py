"""Policy rules of other programs and the routes that their tables know, as values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from polywan.core.net import TABLE_MAIN, Family, IPNetwork, RulePriority, TableId

RuleAction: TypeAlias = Literal["table", "goto", "nop", "blackhole", "unreachable", "prohibit", "other"]
"""What a rule does with a packet that it matches, in the words of ip-rule(8); "other" is what we do not know."""

RouteKind: TypeAlias = Literal["unicast", "local", "blackhole", "unreachable", "prohibit", "throw", "large"]
"""What a route does, in the words of ip-route(8); "large" stands for routes that were too many to be read."""

TABLE_DEFAULT: Final = TableId(253)
TABLE_LOCAL: Final = TableId(255)
_TABLES: Final = {TABLE_MAIN: "main", TABLE_DEFAULT: "default", TABLE_LOCAL: "local"}

WHOLE: Final = 0xFFFF_FFFF
"""Mask of a mark that is compared as a whole."""

MOST_ROUTES: Final = 4096
"""Routes of one table and family that are read; a table with more is `large`."""

_PROTOCOLS: Final = {1: "icmp", 6: "tcp", 17: "udp", 58: "ipv6-icmp", 132: "sctp"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeignRule:
    """A policy rule of another program (ip-rule(8)). It matches when every selector that is not None holds.

    Attributes:
        table, goto: where the actions "table" and "goto" lead; an l3mdev rule has no table of its own.
        unresolved: there is no rule with priority `goto`: the kernel passes over this one.
        invert: it matches when the selectors do not (``ip rule add not …``).
        iif, oif: devices of the lookup; "lo" means traffic of the box itself.
        mark: (value, mask) of the packet mark; bits of the value outside of the mask count for nothing.
        tos: TOS byte; of IPv4 the bits 0x1c are compared, of IPv6 all but the lowest two.
        dscp: the six upper bits of that byte, compared as they are.
        sport, dport, uidrange: lowest and highest, both included.
        suppress_prefixlength: routes of this prefix length or shorter do not count (0: "no default routes").
        suppress_ifgroup: routes by devices of this group do not count.
        l3mdev: the table is that of the VRF to which the packet's device belongs.
        tun_id: of packets from a tunnel that keeps its key beside the packet.
        unknown: it has selectors that we do not know.
        protocol: number of who made it (rtnetlink(7) rtm_protocol), 0 when it is not told.
    """

    family: Family
    priority: RulePriority
    action: RuleAction = "table"
    table: TableId | None = None
    goto: RulePriority | None = None
    unresolved: bool = False
    invert: bool = False
    from_: IPNetwork | None = None
    to: IPNetwork | None = None
    iif: str | None = None
    oif: str | None = None
    mark: tuple[int, int] | None = None
    tos: int | None = None
    dscp: int | None = None
    ipproto: int | None = None
    sport: tuple[int, int] | None = None
    dport: tuple[int, int] | None = None
    uidrange: tuple[int, int] | None = None
    suppress_prefixlength: int | None = None
    suppress_ifgroup: int | None = None
    l3mdev: bool = False
    tun_id: int | None = None
    unknown: bool = False
    protocol: int = 0

    @property
    def selective(self) -> bool:
        """True when it has any selector."""
        plain = (self.from_, self.to, self.iif, self.oif, self.mark, self.tos, self.dscp, self.ipproto)
        more = (self.sport, self.dport, self.uidrange, self.tun_id)
        return self.l3mdev or self.unknown or any(s is not None for s in (*plain, *more))

    def text(self) -> str:
        """The rule in the words of ``ip rule``; one of IPv6 begins with -6."""
        words = ["-6"] if self.family is Family.V6 else []
        words += [f"{self.priority}:", *(["not"] if self.invert else []), f"from {_prefix(self.from_)}"]
        words += [f"to {_prefix(self.to)}"] if self.to else []
        words += [f"tos {self.tos:#x}"] if self.tos is not None else []
        words += [f"dscp {self.dscp:#x}"] if self.dscp is not None else []
        words += [f"fwmark {self.mark[0]:#x}{_mask(self.mark[1])}"] if self.mark else []
        words += [f"{key} {name}" for key, name in (("iif", self.iif), ("oif", self.oif)) if name is not None]
        words += ["l3mdev"] if self.l3mdev else []
        words += [f"uidrange {self.uidrange[0]}-{self.uidrange[1]}"] if self.uidrange else []
        words += [f"ipproto {_PROTOCOLS.get(self.ipproto, self.ipproto)}"] if self.ipproto is not None else []
        words += [f"{key} {_span(ports)}" for key, ports in (("sport", self.sport), ("dport", self.dport)) if ports]
        words += [f"tun_id {self.tun_id}"] if self.tun_id is not None else []
        return " ".join([*words, *(["…"] if self.unknown else []), self._does()])

    def _does(self) -> str:
        if self.action == "goto":
            return f"goto {self.goto}" + (" [unresolved]" if self.unresolved else "")
        if self.action != "table":
            return self.action
        table = "[l3mdev-table]" if self.table is None else _TABLES.get(self.table, self.table)
        length, group = self.suppress_prefixlength, self.suppress_ifgroup
        suppressed = f" suppress_prefixlength {length}" if length is not None else ""
        return f"lookup {table}{suppressed}" + (f" suppress_ifgroup {group}" if group is not None else "")


def _prefix(network: IPNetwork | None) -> str:
    if network is None:
        return "all"
    return str(network.network_address if network.prefixlen == network.max_prefixlen else network)


def _mask(mask: int) -> str:
    return "" if mask == WHOLE else f"/{mask:#x}"


def _span(ends: tuple[int, int]) -> str:
    return f"{ends[0]}" if ends[0] == ends[1] else f"{ends[0]}-{ends[1]}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Destination:
    """What a table of others knows about a prefix: the best route to it that works.

    Attributes:
        link: the device, the first one of several; None when it leads nowhere.
        from_: it serves packets from this prefix only (``default from PREFIX``, IPv6); None serves all.
    """

    prefix: IPNetwork
    kind: RouteKind = "unicast"
    link: str | None = None
    from_: IPNetwork | None = None
