"""What a rule of another program does with a packet of an established connection.

It is carried out for a packet of which one thing is known: ``ct state established``. Where its conditions ask for
nothing else the outcome is certain. What else it asks may hold or not, but has to be the same for every packet of a
connection; otherwise, and where this module does not know what is asked, the rule *watches*: it has to see them all.

Packets that begin or end a TCP connection, fragments, and those with IP options or extension headers never take the
fast path, so that rules about them may go on as they are.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from polywan.core.world.foreign_chains import FilterRule
from polywan.kernel.netlink.socket import attributes, text, walk
from polywan.kernel.nft.elements import verdict

# linux/netfilter/nf_tables.h
_EXPRESSION_NAME, _EXPRESSION_DATA = 1, 2
_VALUE, _VERDICT = 1, 2

_CT_STATE: Final = 0
_ESTABLISHED: Final = (2).to_bytes(4, sys.byteorder)
_CT_CHANGING: Final = {5: "ct expiration", 14: "ct packets", 15: "ct bytes", 16: "ct avgpkt"}
_META_CHANGING: Final = {
    0: "meta length", 20: "meta cpu", 24: "meta random", 30: "meta time", 31: "meta day", 32: "meta hour",
}  # fmt: skip
_META_SET: Final = {2: "meta priority set", 3: "meta mark set"}

_LINK, _NETWORK, _TRANSPORT = 0, 1, 2
_IPV4_ADDRESSES, _IPV6_ADDRESSES, _PORTS = (12, 20), (8, 40), (0, 4)
_PROTOCOLS: Final = frozenset({(0, 1), (6, 1), (6, 2), (9, 1)})
"""Places and lengths in a network header: version, IPv6's next header, fragments and protocol of IPv4."""
_TCP_FLAGS: Final = (13, 1)
_FLAGS, _MEANWHILE = 0x17, 0x10
"""FIN, SYN, RST and ACK: of these a packet that neither begins nor ends a connection has ACK alone (RFC 9293)."""

_TCP_OPTION, _SEGMENT_SIZE = 1, 2

_XT_STATE, _XT_STATE_ALIAS, _XT_STATE_ESTABLISHED, _XT_EXPIRES = 1, 1 << 13, 2, 1 << 7
_XT_CONNTRACK_FLAGS: Final = 146
"""Place of match_flags, invert_flags and state_mask in struct xt_conntrack_mtinfo3 (linux/netfilter/xt_conntrack.h)."""
_XT_TCP_FLAGS, _XT_TCP_INVERTED = 9, 4
"""Place of flg_mask, flg_cmp and invflags in struct xt_tcp, and the bit of that (linux/netfilter/xt_tcpudp.h)."""
_XT_CONNMARK_MODES: Final = {1: 12, 2: 14}
"""Place of mode in struct xt_connmark_tginfo1 and 2 (linux/netfilter/xt_connmark.h), by revision."""
_XT_CONNMARK_KEEPS: Final = (b"\0", b"\1")  # it sets the connection's mark, or saves the packet's

_OBJECTS: Final = {1: "counter", 2: "quota", 3: "ct", 4: "limit", 5: "connlimit", 6: "tunnel", 7: "ct", 9: "ct"}
"""Named objects (NFT_OBJECT_*) by the expression that does the same; helper, timeout and expectation are set once."""
_PLAIN: Final = frozenset({
    "byteorder", "fib", "flow_offload", "hash", "masq", "nat", "notrack", "osf", "range", "redir", "rt", "socket",
    "tunnel", "xfrm",
})  # fmt: skip
"""Expressions that say the same of every packet of a connection, or concern its first one."""
SILENT: Final = frozenset({"counter", "last"})
"""Expressions that nothing depends on."""
_PLAIN_MATCHES: Final = frozenset({
    "addrtype", "ah", "cgroup", "connlabel", "connmark", "dccp", "devgroup", "esp", "helper", "icmp", "icmp6",
    "iprange", "mac", "mark", "multiport", "owner", "physdev", "pkttype", "policy", "rpfilter", "sctp", "socket",
    "state", "tcpmss", "udp",
})  # fmt: skip
_PLAIN_TARGETS: Final = frozenset({
    "CHECKSUM", "CT", "DNAT", "MASQUERADE", "NETMAP", "NOTRACK", "REDIRECT", "SNAT", "TCPMSS", "TRACE",
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class SetFacts:
    """What a set of a rule's table is like.

    Attributes:
        elements: returns keys as the kernel holds them, and verdicts (empty in a set); an empty key stands for any
            other. A set may have many, so they are asked for only where they count.
        expires: elements leave by themselves.
        grows: packets add elements, or elements count, limit or the like.
    """

    elements: Callable[[], Mapping[bytes, str]]
    expires: bool = False
    grows: bool = False


Sets = Callable[[str], SetFacts]
"""Returns a set of the rule's table by its name."""


def decode_rule(expressions: bytes, sets: Sets) -> FilterRule:
    """Carry out a rule for a packet of an established connection.

    Args:
        expressions: of the rule (NFTA_RULE_EXPRESSIONS).
        sets: returns what is in a set of the rule's table.
    """
    rule = _Rule(sets)
    for expression in _list(expressions):
        rule.take(text(expression.get(_EXPRESSION_NAME, b"")), attributes(expression.get(_EXPRESSION_DATA, b"")))
        if not rule.met:
            break
    return rule.outcome()


def _list(data: bytes) -> Iterator[dict[int, bytes]]:
    for _, start, end in walk(data, 0, len(data)):
        yield attributes(data[start:end])


class _Rule:
    """A rule while it is carried out."""

    def __init__(self, sets: Sets) -> None:
        self.met = self.sure = True
        self.watches = ""
        self.verdicts: list[str] = []
        self._sets = sets
        self._known: dict[bytes, bytes] = {}
        self._flags: dict[bytes, tuple[int, int]] = {}
        self._expiring = ""

    def outcome(self) -> FilterRule:
        """Return what it does. Where a set's element has expired, a rule that drops lets more pass, and may be late."""
        if self._expiring and self.met and self.verdicts != ["drop"]:
            self._watch(self._expiring)
        return FilterRule(met=self.met, sure=self.sure, watches=self.watches, verdicts=tuple(self.verdicts))

    def take(self, name: str, about: Mapping[int, bytes]) -> None:
        """Carry out one expression."""
        if (special := _SPECIAL.get(name)) is not None:
            special(self, about)
        elif name in _PLAIN:
            # Which register it writes to differs from one to the other.
            self._known.clear()
            self._flags.clear()
            self.sure = False
        elif name not in SILENT:
            self._watch(name)

    def _watch(self, what: str) -> None:
        self.watches = self.watches or what

    def _load(self, to: bytes) -> None:
        self._known.pop(to, None)
        self._flags.pop(to, None)

    def ct(self, about: Mapping[int, bytes]) -> None:
        to, key = about.get(1), _number(about.get(2, b""))
        if to is None:
            return  # it sets the connection's own properties
        if key in _CT_CHANGING:
            self._watch(_CT_CHANGING[key])
        self._load(to)
        if key == _CT_STATE:
            self._known[to] = _ESTABLISHED

    def meta(self, about: Mapping[int, bytes]) -> None:
        to, key = about.get(1), _number(about.get(2, b""))
        if to is None:
            self._watch(_META_SET[key]) if key in _META_SET else None
            return
        if key in _META_CHANGING:
            self._watch(_META_CHANGING[key])
        self._load(to)

    def payload(self, about: Mapping[int, bytes]) -> None:
        to = about.get(1)
        if to is None:
            self._watch("a header set")
            return
        self._load(to)
        base, start, length = (_number(about.get(kind, b"")) for kind in (2, 3, 4))
        if base == _TRANSPORT and (start, length) == _TCP_FLAGS:
            self._flags[to] = (0xFF, 0)
        elif not _lasting(base, start, length):
            self._watch("a header field")

    def exthdr(self, about: Mapping[int, bytes]) -> None:
        option = _number(about.get(6, b"")) == _TCP_OPTION and _number(about.get(2, b"")) != _SEGMENT_SIZE
        if 1 in about:
            self._load(about[1])
        if option or not (1 in about or 7 in about):
            self._watch("tcp option")
        self.sure = False

    def bitwise(self, about: Mapping[int, bytes]) -> None:
        source, to = about.get(1, b""), about.get(2, b"")
        value, flags = self._known.get(source), self._flags.get(source)
        mask, xor = (attributes(about.get(kind, b"")).get(_VALUE, b"") for kind in (4, 5))
        self._load(to)
        if value is not None and len(value) == len(mask) == len(xor):
            self._known[to] = bytes(v & m ^ x for v, m, x in zip(value, mask, xor, strict=True))
        elif flags is not None and len(mask) == len(xor) == 1:
            if mask[0] & flags[0] & ~_FLAGS:
                self._flags[to] = (mask[0] & flags[0], flags[1] & mask[0] ^ xor[0])
            else:
                self._known[to] = bytes(((_MEANWHILE & flags[0] ^ flags[1]) & mask[0] ^ xor[0],))

    def cmp(self, about: Mapping[int, bytes]) -> None:
        source, operator = about.get(1, b""), _number(about.get(2, b""))
        wanted = attributes(about.get(3, b"")).get(_VALUE, b"")
        value, flags = self._known.get(source), self._flags.get(source)
        if operator not in (0, 1):
            self.sure = False
            self._watch("tcp flags") if flags is not None else None
        elif value is not None and len(value) == len(wanted):
            self.met = (value == wanted) is (operator == 0)
        elif flags is not None and len(wanted) == 1 and (wanted[0] ^ flags[1] ^ _MEANWHILE & flags[0]) & _FLAGS:
            self.met = operator == 1
        else:
            self.sure = False
            self._watch("tcp flags") if flags is not None else None

    def lookup(self, about: Mapping[int, bytes]) -> None:
        name, source, inverted = text(about.get(1, b"")), about.get(2, b""), bool(_number(about.get(5, b"")) & 1)
        found, value, leads = self._sets(name), self._known.get(source), about.get(3) == bytes(4)
        if 3 in about and not leads:
            self._load(about[3])
        if source in self._flags:
            self._watch("tcp flags")
        if found.grows or (found.expires and (3 in about or inverted)):
            self._watch(f"set {name}")
        elif found.expires:
            self._expiring = f"set {name}"
        if value is None and not leads:
            self.sure = False
            return
        elements = dict(found.elements())
        other = elements.pop(b"", None)
        if value is not None and all(len(key) == len(value) for key in elements):
            self.met = (value in elements or other is not None) is not inverted
            self.verdicts += [elements.get(value, other or "")] if leads and self.met else []
            return
        self.sure = False
        if leads:
            self.verdicts += dict.fromkeys((*elements.values(), *([] if other is None else [other])))

    def objref(self, about: Mapping[int, bytes]) -> None:
        # What a map chooses names no type.
        name = _OBJECTS.get(_number(about.get(1, b"")), "objref")
        if name == "ct" or name in _PLAIN:
            self.sure = False
        elif name not in SILENT:
            self._watch(name)

    def immediate(self, about: Mapping[int, bytes]) -> None:
        self._load(about.get(1, b""))
        said = attributes(about.get(2, b"")).get(_VERDICT)
        if said is not None:
            self.verdicts.append(verdict(said))

    def reject(self, _: Mapping[int, bytes]) -> None:
        self.verdicts.append("drop")

    def match(self, about: Mapping[int, bytes]) -> None:
        name, revision, info = text(about.get(1, b"")), _number(about.get(2, b"")), about.get(3, b"")
        if name == "comment":
            return
        if name == "tcp":
            self._match_tcp(info)
        elif name in ("conntrack", "state"):
            asked = _state_asked(name, revision, info)
            self.met, self.sure = asked is not False, self.sure and asked is not None
            if asked is None and name == "conntrack" and _conntrack_flags(info) & _XT_EXPIRES:
                self._watch("ct expiration")
        else:
            self.sure = False
            if name not in _PLAIN_MATCHES:
                self._watch(name)

    def _match_tcp(self, info: bytes) -> None:
        self.sure = False
        if len(info) < _XT_TCP_FLAGS + 3:
            self._watch("tcp")
            return
        option, mask, wanted, inverted = info[_XT_TCP_FLAGS - 1 : _XT_TCP_FLAGS + 3]
        if option:
            self._watch("tcp option")
        if not mask:
            return
        differs = bool((wanted ^ _MEANWHILE) & mask & _FLAGS)
        if not differs and mask & ~_FLAGS:
            self._watch("tcp flags")
        elif differs is not bool(inverted & _XT_TCP_INVERTED):
            self.met = False

    def target(self, about: Mapping[int, bytes]) -> None:
        name, info = text(about.get(1, b"")), about.get(3, b"")
        if name == "REJECT":
            self.verdicts.append("drop")
        elif name == "CONNMARK":
            at = _XT_CONNMARK_MODES.get(_number(about.get(2, b"")), len(info))
            if info[at : at + 1] not in _XT_CONNMARK_KEEPS:
                self._watch(name)
        elif name not in _PLAIN_TARGETS:
            self._watch(name)


_SPECIAL: Final[Mapping[str, Callable[[_Rule, Mapping[int, bytes]], None]]] = {
    "bitwise": _Rule.bitwise,
    "cmp": _Rule.cmp,
    "ct": _Rule.ct,
    "exthdr": _Rule.exthdr,
    "immediate": _Rule.immediate,
    "lookup": _Rule.lookup,
    "match": _Rule.match,
    "meta": _Rule.meta,
    "objref": _Rule.objref,
    "payload": _Rule.payload,
    "reject": _Rule.reject,
    "target": _Rule.target,
}


def _lasting(base: int, start: int, length: int) -> bool:
    """True for a part of a header that all packets of a connection have in common, and for fragments: they are slow."""
    match base:
        case 0:
            return True
        case 1:
            inside = any(low <= start and start + length <= high for low, high in (_IPV4_ADDRESSES, _IPV6_ADDRESSES))
            # One byte there is how far an IPv4 packet may still go.
            return (inside and (start, length) not in ((8, 1), (8, 2), (10, 2))) or (start, length) in _PROTOCOLS
        case 2:
            return start + length <= _PORTS[1]
    return False


def _conntrack_flags(info: bytes) -> int:
    return int.from_bytes(info[_XT_CONNTRACK_FLAGS : _XT_CONNTRACK_FLAGS + 2], sys.byteorder)


def _state_asked(name: str, revision: int, info: bytes) -> bool | None:
    """Whether iptables' ``-m conntrack --ctstate`` or ``-m state`` holds; None when it asks for anything else."""
    if name == "state" and len(info) >= 4:
        return bool(int.from_bytes(info[:4], sys.byteorder) & _XT_STATE_ESTABLISHED)
    if name != "conntrack" or revision < 2 or len(info) < _XT_CONNTRACK_FLAGS + 6:
        return None
    flags, inverted, states = (
        int.from_bytes(info[at : at + 2], sys.byteorder)
        for at in range(_XT_CONNTRACK_FLAGS, _XT_CONNTRACK_FLAGS + 6, 2)
    )
    if flags & ~_XT_STATE_ALIAS != _XT_STATE:
        return None
    return bool(states & _XT_STATE_ESTABLISHED) is not bool(inverted & _XT_STATE)


def _number(data: bytes) -> int:
    return int.from_bytes(data, "big")
