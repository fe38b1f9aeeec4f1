"""Rules of a packet filter, whichever program wrote them: tables, chains, and what a rule matches and does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from polywan.core.net import Family, IPNetwork

Program: TypeAlias = Literal["nftables", "iptables", "iptables-legacy"]
"""Who made a table: nft(8), iptables on nftables (iptables-nft(8)), or iptables with a kernel part of its own."""

TableFamily: TypeAlias = Literal["ip", "ip6", "inet", "netdev", "bridge", "arp"]
"""As nft(8) names it; a table of iptables is "ip", one of ip6tables "ip6"."""

Hook: TypeAlias = Literal["prerouting", "input", "forward", "output", "postrouting", "ingress", "egress"]
"""Where the kernel calls a base chain, as nft(8) names it."""

Verdict: TypeAlias = Literal["accept", "drop", "reject", "return", "jump", "goto", "queue", ""]
"""What a rule ends with; empty when the next rule follows."""

MarkOf: TypeAlias = Literal["packet", "connection"]
"""Whose mark: `meta mark` or `ct mark`."""

End: TypeAlias = Literal["source", "destination"]

ConnectionState: TypeAlias = Literal["new", "established", "related", "invalid", "untracked"]

ALL_MARK_BITS: Final = 0xFFFF_FFFF


@dataclass(frozen=True, slots=True)
class Device:
    """The packet comes in, or leaves, by one of these devices.

    Attributes:
        names: one that ends with ``*`` stands for all that begin so (iptables writes ``+``).
        invert: by none of them.
    """

    end: Literal["in", "out"]
    names: tuple[str, ...]
    invert: bool = False


@dataclass(frozen=True, slots=True)
class Prefix:
    """An address of the packet is in one of these networks; all are of one family.

    A packet of the other family does not match, inverted or not. So 0.0.0.0/0 stands for ``meta nfproto ipv4``.
    """

    end: End
    networks: tuple[IPNetwork, ...]
    invert: bool = False


@dataclass(frozen=True, slots=True)
class State:
    """The state of the packet's connection is one of these."""

    states: frozenset[ConnectionState]
    invert: bool = False


@dataclass(frozen=True, slots=True)
class Direction:
    """The packet goes in this direction of its connection."""

    direction: Literal["original", "reply"]
    invert: bool = False


@dataclass(frozen=True, slots=True)
class MarkIs:
    """The bits `mask` of a mark are `value`."""

    of: MarkOf
    value: int
    mask: int = ALL_MARK_BITS
    invert: bool = False


@dataclass(frozen=True, slots=True)
class Protocol:
    """The packet's protocol is one of these: names of `net.PROTOCOLS`, or numbers in decimal for others."""

    names: tuple[str, ...]
    invert: bool = False


@dataclass(frozen=True, slots=True)
class Port:
    """A port of the packet is in one of these ranges, both ends included."""

    end: End
    ranges: tuple[tuple[int, int], ...]
    invert: bool = False


@dataclass(frozen=True, slots=True)
class TcpFlags:
    """Of these flags of a TCP header, exactly `set_flags` are set (iptables' ``--tcp-flags`` and ``--syn``).

    Attributes:
        examined, set_flags: names as nft(8) writes them: "fin", "syn", "rst", "psh", "ack", "urg", "ecn", "cwr".
    """

    examined: frozenset[str]
    set_flags: frozenset[str]
    invert: bool = False


@dataclass(frozen=True, slots=True)
class Statistic:
    """One of several packets: hand-made balancing (iptables' ``statistic``, nft's ``numgen … mod``).

    Attributes:
        mode: "nth" takes turns, "random" draws.
        every, packet: of "nth": packet number `packet`, counted from 0, of every `every`; otherwise 0.
        probability: part of the packets that match, 0 to 1; of "nth" 1/`every`.
        invert: the others.
    """

    mode: Literal["nth", "random"]
    every: int = 0
    packet: int = 0
    probability: float = 0.0
    invert: bool = False


@dataclass(frozen=True, slots=True)
class Other:
    """A condition that this model does not know: a packet may match it or not."""

    text: str


Match: TypeAlias = Device | Prefix | State | Direction | MarkIs | Protocol | Port | TcpFlags | Statistic | Other


@dataclass(frozen=True, slots=True)
class SetMark:
    """Writes a constant: the mark becomes ``(mark & ~mask) ^ value``, as iptables' ``--set-xmark value/mask``.

    So ``--set-mark 1`` has all bits in its mask, ``--or-mark 4`` is 4/4, and ``--and-mark 0xff`` is 0/0xffffff00.
    """

    of: MarkOf
    value: int
    mask: int = ALL_MARK_BITS


@dataclass(frozen=True, slots=True)
class Restore:
    """Copies the connection's mark to the packet: the packet's becomes ``(mark & keep) ^ (ct mark & mask)``."""

    mask: int = ALL_MARK_BITS
    keep: int = 0


@dataclass(frozen=True, slots=True)
class Save:
    """Copies the packet's mark to the connection: the connection's becomes ``(ct mark & keep) ^ (mark & mask)``."""

    mask: int = ALL_MARK_BITS
    keep: int = 0


@dataclass(frozen=True, slots=True)
class Choose:
    """Writes one of several constants over a whole mark (``meta mark set numgen inc mod 2 map { … }``).

    Attributes:
        mode: takes turns, draws, or derives the choice from properties of the packet.
        shares: value and how many of `every` get it; those that get none keep their mark.
    """

    of: MarkOf
    mode: Literal["nth", "random", "hash"]
    every: int
    shares: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Translate:
    """Translates an address or port; `text` is the statement as the program prints it."""

    kind: Literal["masquerade", "snat", "dnat", "redirect", "tproxy", "netmap"]
    text: str


@dataclass(frozen=True, slots=True)
class Offload:
    """Moves the connection to a flowtable; iptables' FLOWOFFLOAD has none with a name."""

    flowtable: str = ""


@dataclass(frozen=True, slots=True)
class ActionOther:
    """Something else that is done with the packet: it is logged, copied, changed. A counter is no action.

    Attributes:
        harmless: known to change no mark and to let the packet go on to the next rule.
    """

    text: str
    harmless: bool = True


Action: TypeAlias = SetMark | Restore | Save | Choose | Translate | Offload | ActionOther


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule. What matches all conditions meets the actions in their order, then the verdict.

    A rule of nft that looks a verdict up in a map is several here, one for each verdict, with the same text.

    Attributes:
        text: as iptables-save(8) or ``nft list ruleset`` prints it, without counters.
        verdict: a translation that ends its chain has "accept".
        target: the chain of "jump" and "goto".
        packets, bytes: what it has counted; None when it does not count.
    """

    text: str
    matches: tuple[Match, ...] = ()
    actions: tuple[Action, ...] = ()
    verdict: Verdict = ""
    target: str = ""
    packets: int | None = None
    bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Chain:
    """A chain; a base chain has a hook, and the others are there to jump to.

    Attributes:
        priority: base chains of one hook see a packet in ascending order.
        policy: of a base chain; empty for others.
        devices: of a base chain at ingress or egress.
    """

    name: str
    kind: Literal["filter", "nat", "route", ""] = ""
    hook: Hook | Literal[""] = ""
    priority: int = 0
    policy: Literal["accept", "drop", ""] = ""
    rules: tuple[Rule, ...] = ()
    devices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Flowtable:
    """Where connections bypass the rules: packets between its devices are forwarded at ingress."""

    name: str
    devices: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Table:
    """A table of one program.

    Attributes:
        opaque: nft shows rules of it as extensions of iptables only, so iptables-save(8) knows more of it (`replaced`).
    """

    program: Program
    family: TableFamily
    name: str
    chains: tuple[Chain, ...] = ()
    flowtables: tuple[Flowtable, ...] = ()
    opaque: bool = False

    def __str__(self) -> str:
        return f"table {self.family} {self.name}"

    def meets(self, family: Family) -> bool:
        """True when routed packets of the family come by here."""
        return self.family in ("inet", "ip" if family is Family.V4 else "ip6")


@dataclass(frozen=True, slots=True)
class Firewall:
    """All tables of the machine, ours among them if they were read, too."""

    tables: tuple[Table, ...] = ()
