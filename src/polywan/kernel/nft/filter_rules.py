"""What other programs' rules do with packets of established connections, straight from netlink.

Each rule is carried out for a packet of which one thing is known: ``ct state established``. Where its conditions ask
for nothing else the outcome is certain; whatever else they ask may hold or not.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final, TypeAlias

from polywan.core.errors import KernelError
from polywan.core.world.foreign_chains import FilterRule, HookedChain, watching
from polywan.kernel.netlink.lending import netfilter
from polywan.kernel.netlink.socket import NetlinkSocket, Refusal, attribute, attributes, text, walk
from polywan.kernel.nft.elements import verdict

# linux/netfilter/nf_tables.h; the first byte of struct nfgenmsg is the family.
_ANY_FAMILY: Final = bytes(4)
_GET_CHAIN, _GET_RULE, _GET_ELEMENTS, _GET_GENERATION = (10 << 8 | number for number in (4, 7, 13, 16))
_GENERATION_ID: Final = 1
_FAMILIES: Final = {1: "inet", 2: "ip", 10: "ip6"}
_FORWARDED: Final = frozenset(hook.to_bytes(4, "big") for hook in (0, 2, 4))  # prerouting, forward, postrouting
_TABLE, _CHAIN_NAME, _CHAIN_HOOK, _CHAIN_TYPE, _HOOK_NUMBER = 1, 3, 4, 7, 1
_RULE_CHAIN, _RULE_EXPRESSIONS, _EXPRESSION_NAME, _EXPRESSION_DATA = 2, 4, 1, 2
_VALUE, _VERDICT = 1, 2
_SET_NAME, _ELEMENTS, _ELEMENT, _KEY, _DATA = 2, 3, 1, 1, 2

_CT_STATE: Final = 0
_ESTABLISHED: Final = (2).to_bytes(4, sys.byteorder)
_COUNTED: Final = {14: "ct packets", 15: "ct bytes", 16: "ct avgpkt"}
_CHANGING: Final = {24: "meta random", 30: "meta time", 31: "meta day", 32: "meta hour"}
_SET_OF_META: Final = {2: "meta priority set", 3: "meta mark set"}

_XT_STATE, _XT_STATE_ALIAS, _XT_STATE_ESTABLISHED = 1, 1 << 13, 2
_XT_CONNTRACK_FLAGS: Final = 146
"""Place of match_flags, invert_flags and state_mask in struct xt_conntrack_mtinfo3 (linux/netfilter/xt_conntrack.h)."""
_XT_CONNMARK_MODES: Final = {1: 12, 2: 14}
"""Place of mode in struct xt_connmark_tginfo1 and 2 (linux/netfilter/xt_connmark.h), by revision."""
_XT_CONNMARK_KEEPS: Final = (b"\0", b"\1")  # it sets the connection's mark, or saves the packet's

_OBJECTS: Final = {1: "counter", 2: "quota", 3: "ct", 4: "limit", 5: "connlimit", 6: "tunnel", 7: "ct", 9: "ct"}
"""Named objects (NFT_OBJECT_*) by the expression that does the same; helper, timeout and expectation are set once."""

_PLAIN: Final = frozenset(
    {
        "bitwise",
        "byteorder",
        "cmp",
        "connlimit",
        "ct",
        "exthdr",
        "fib",
        "hash",
        "immediate",
        "inner",
        "lookup",
        "masq",
        "meta",
        "nat",
        "notrack",
        "osf",
        "payload",
        "range",
        "redir",
        "reject",
        "rt",
        "socket",
        "tunnel",
        "xfrm",
        "flow_offload",
    }
)
"""Expressions that say the same of every packet of a connection, or concern its first one."""
_SILENT: Final = frozenset(("counter", "last"))
_WATCHING_MATCHES: Final = frozenset(
    {
        "bpf",
        "cluster",
        "connbytes",
        "hashlimit",
        "ipp2p",
        "ndpi",
        "nth",
        "quota",
        "quota2",
        "random",
        "rateest",
        "recent",
        "statistic",
        "string",
        "time",
        "u32",
        "limit",
        "length",
    }
)
_PLAIN_TARGETS: Final = frozenset(
    {
        "CHECKSUM",
        "CT",
        "DNAT",
        "MASQUERADE",
        "NETMAP",
        "NOTRACK",
        "REDIRECT",
        "REJECT",
        "SNAT",
        "TCPMSS",
        "TRACE",
    }
)

Elements: TypeAlias = Callable[[str], Iterable[tuple[bytes, str]]]
"""Returns the keys and verdicts of a set by its name."""


_MOST_RULES: Final = 4096
"""Rules of others that are read."""


class Watchers:
    """Knows whether other programs have to see every packet that is forwarded, as long as no rule set changes.

    Args:
        ours: family and name of the tables that are ours.
        legacy: where the kernel names the tables of the older iptables, to root alone.
    """

    def __init__(self, ours: Iterable[str], legacy: Path = Path("/proc/net/ip_tables_names")) -> None:
        self._ours = frozenset(ours)
        self._legacy = (legacy, legacy.with_name("ip6_tables_names"))
        self._known: tuple[int, str] | None = None

    def reason(self) -> str:
        """Return who has to see every packet, and why, for people; empty when nobody has to."""
        for file in self._legacy:
            with suppress(FileNotFoundError):
                try:
                    if not file.read_text().strip():
                        continue
                except PermissionError:
                    pass
                return "iptables-legacy may have to see every packet: its rules cannot be read"
        try:
            with netfilter() as netlink:
                generation = _generation(netlink)
                if self._known is None or self._known[0] != generation:
                    # A change meanwhile makes the next generation another one.
                    self._known = generation, _who_watches(netlink, self._ours)
                return self._known[1]
        except KernelError as error:
            return f"some rule may have to see every packet: they cannot be read ({error})"


def _generation(netlink: NetlinkSocket) -> int:
    answer = netlink.query(_GET_GENERATION, _ANY_FAMILY)
    if isinstance(answer, Refusal):
        raise KernelError("read the rule set's generation", answer.errno, answer.text)
    return _number(attributes(answer.body, 4).get(_GENERATION_ID, b""))


def _who_watches(netlink: NetlinkSocket, ours: frozenset[str]) -> str:
    remaining = _MOST_RULES
    hooked = [
        chain
        for message in netlink.snapshot(_GET_CHAIN, _ANY_FAMILY)
        if (chain := _hooked(message.body)) is not None and f"{chain.family} {chain.table}" not in ours
    ]
    numbers = {name: number for number, name in _FAMILIES.items()}
    rules: dict[tuple[str, str], dict[str, list[FilterRule]]] = {}
    for family, table in sorted({(chain.family, chain.table) for chain in hooked}):
        about = bytes((numbers[family], 0, 0, 0)) + attribute(_TABLE, table.encode() + b"\0")
        chains = rules[family, table] = {}

        def elements(name: str, about: bytes = about) -> Iterator[tuple[bytes, str]]:
            for message in netlink.snapshot(_GET_ELEMENTS, about + attribute(_SET_NAME, name.encode() + b"\0")):
                yield from elements_in(message.body)

        for message in netlink.snapshot(_GET_RULE, about):
            remaining -= 1
            if not remaining:
                return f"some rule may have to see every packet: of more than {_MOST_RULES} not all are read"
            found = attributes(message.body, 4)
            if text(found.get(_TABLE, b"")) == table:
                rule = decode_rule(found.get(_RULE_EXPRESSIONS, b""), elements)
                chains.setdefault(text(found.get(_RULE_CHAIN, b"")), []).append(rule)
    return watching(hooked, rules)


def _hooked(body: bytes) -> HookedChain | None:
    about = attributes(body, 4)
    number = attributes(about.get(_CHAIN_HOOK, b"")).get(_HOOK_NUMBER)
    # Chains of the type nat see first packets only.
    if number not in _FORWARDED or body[0] not in _FAMILIES or text(about.get(_CHAIN_TYPE, b"")) == "nat":
        return None
    return HookedChain(_FAMILIES[body[0]], text(about.get(_TABLE, b"")), text(about.get(_CHAIN_NAME, b"")))


def elements_in(body: bytes) -> Iterator[tuple[bytes, str]]:
    """Yield the keys of one message of elements, as the kernel holds them, and their verdicts (empty in a set)."""
    for element in _list(attributes(body, 4).get(_ELEMENTS, b"")):
        key = attributes(element.get(_KEY, b"")).get(_VALUE, b"")
        yield key, verdict(attributes(element.get(_DATA, b"")).get(_VERDICT, b""))


def decode_rule(expressions: bytes, elements: Elements) -> FilterRule:
    """Carry out a rule for a packet of an established connection.

    Args:
        expressions: of the rule (NFTA_RULE_EXPRESSIONS).
        elements: returns what is in a set of the rule's table.
    """
    rule = _Rule(elements)
    for expression in _list(expressions):
        rule.take(text(expression.get(_EXPRESSION_NAME, b"")), attributes(expression.get(_EXPRESSION_DATA, b"")))
        if not rule.met:
            break
    return FilterRule(met=rule.met, sure=rule.sure, watches=rule.watches, verdicts=tuple(rule.verdicts))


class _Rule:
    """A rule while it is carried out."""

    def __init__(self, elements: Elements) -> None:
        self.met = self.sure = True
        self.watches = ""
        self.verdicts: list[str] = []
        self._elements = elements
        self._known: dict[bytes, bytes] = {}

    def take(self, name: str, about: Mapping[int, bytes]) -> None:
        """Carry out one expression."""
        special = getattr(self, f"_{name}", None)
        if special is not None:
            special(about)
        elif name in _PLAIN:
            self._known.pop(about.get(1, b""), None)
            self.sure = False
        elif name not in _SILENT:
            self._watch(name)

    def _watch(self, what: str) -> None:
        self.watches = self.watches or what

    def _ct(self, about: Mapping[int, bytes]) -> None:
        to, key = about.get(1), _number(about.get(2, b""))
        if to is None:
            return  # it sets the connection's own properties
        if key in _COUNTED:
            self._watch(_COUNTED[key])
        self._known.pop(to, None)
        if key == _CT_STATE:
            self._known[to] = _ESTABLISHED

    def _meta(self, about: Mapping[int, bytes]) -> None:
        to, key = about.get(1), _number(about.get(2, b""))
        if to is None:
            self._watch(_SET_OF_META[key]) if key in _SET_OF_META else None
            return
        if key in _CHANGING:
            self._watch(_CHANGING[key])
        self._known.pop(to, None)

    def _payload(self, about: Mapping[int, bytes]) -> None:
        if 1 in about:
            self._known.pop(about[1], None)
        else:
            self._watch("a header set")

    def _bitwise(self, about: Mapping[int, bytes]) -> None:
        value = self._known.get(about.get(1, b""))
        mask, xor = (attributes(about.get(kind, b"")).get(_VALUE, b"") for kind in (4, 5))
        self._known.pop(about.get(2, b""), None)
        if value is not None and len(value) == len(mask) == len(xor):
            self._known[about.get(2, b"")] = bytes(v & m ^ x for v, m, x in zip(value, mask, xor, strict=True))

    def _cmp(self, about: Mapping[int, bytes]) -> None:
        value, operator = self._known.get(about.get(1, b"")), _number(about.get(2, b""))
        if value is None or operator not in (0, 1):
            self.sure = False
        else:
            self.met = (value == attributes(about.get(3, b"")).get(_VALUE)) is (operator == 0)

    def _lookup(self, about: Mapping[int, bytes]) -> None:
        value, inverted = self._known.get(about.get(2, b"")), _number(about.get(5, b"")) & 1
        leads = about.get(3) == bytes(4)
        if value is None and not leads:
            self.sure = False
            return
        found = dict(self._elements(text(about.get(1, b""))))
        if value is not None:
            self.met = (value in found) is not bool(inverted)
            self.verdicts += [found[value]] if leads and self.met else []
            return
        self.sure = False
        self.verdicts += dict.fromkeys(found.values())

    def _immediate(self, about: Mapping[int, bytes]) -> None:
        said = attributes(about.get(2, b"")).get(_VERDICT)
        if said is not None:
            self.verdicts.append(verdict(said))

    def _objref(self, about: Mapping[int, bytes]) -> None:
        # What a map chooses names no type.
        name = _OBJECTS.get(_number(about.get(1, b"")), "objref")
        if name == "ct" or name in _PLAIN:
            self.sure = False
        elif name not in _SILENT:
            self._watch(name)

    def _reject(self, _: Mapping[int, bytes]) -> None:
        self.verdicts.append("drop")

    def _match(self, about: Mapping[int, bytes]) -> None:
        name, info = text(about.get(1, b"")), about.get(3, b"")
        if name in _WATCHING_MATCHES:
            self._watch(name)
        if name == "comment":
            return
        asked = _state_asked(name, _number(about.get(2, b"")), info)
        if asked is None:
            self.sure = False
        else:
            self.met = asked

    def _target(self, about: Mapping[int, bytes]) -> None:
        name, info = text(about.get(1, b"")), about.get(3, b"")
        if name == "REJECT":
            self.verdicts.append("drop")
        elif name == "CONNMARK":
            at = _XT_CONNMARK_MODES.get(_number(about.get(2, b"")), len(info))
            if info[at : at + 1] not in _XT_CONNMARK_KEEPS:
                self._watch(name)
        elif name not in _PLAIN_TARGETS:
            self._watch(name)


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


def _list(data: bytes) -> Iterator[dict[int, bytes]]:
    for _, start, end in walk(data, 0, len(data)):
        yield attributes(data[start:end])
