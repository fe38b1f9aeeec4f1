"""What policy rules of other programs decide: as nft chains for the first packets that are forwarded, and on paper.

nft cannot ask for a route with input device, protocol and port, so that the rules themselves are written down as
chains. Where a rule leads to a table, the destinations are written down for which the table's longest prefix is a
route that decides: not `throw`, and nothing that the rule suppresses. See docs/design/neighbours.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2s
from ipaddress import IPv4Address, IPv6Address
from typing import Final, Literal

from polywan.core.net import FAMILIES, TABLE_MAIN, Family, IPAddress, IPNetwork, TableId
from polywan.core.packet import Packet
from polywan.core.ruleset.model import QUOTABLE, Chain, NftRule, NftSet
from polywan.core.world.destinations import REFUSALS, Spans, Tables, decided, decides_for, whole
from polywan.core.world.foreign_routing import WHOLE, Destination, ForeignRule

ENTRY_CHAIN: Final = "theirs"
"""Name of the chain to jump to for forwarded packets, and beginning of the names of its parts and of all sets."""

OWN_ENTRY_CHAIN: Final = "theirs_own"
"""The same for packets of this box."""

MOST_TARGETS: Final = 6
"""Rules that `goto` may lead to, by family: the kernel follows 16 chains, and those that lead here are some of them."""

MOST_INLINE: Final = 16
"""Destinations that stand in the rule itself; any more are a named set."""

_EVERY: Final = frozenset(FAMILIES)
MAIN_RULE: Final = 32766
"""Priority of the kernel's own rule that leads to main."""
_WITH_PORTS: Final = "meta l4proto { 6, 17, 33, 132, 136 }"
_WITHOUT_PORTS: Final = "meta l4proto != { 6, 17, 33, 132, 136 }"
_TOS: Final = 0x1C
"""Bits of the TOS byte that an IPv4 rule compares (IPTOS_RT_MASK)."""


def matches(rule: ForeignRule, packet: Packet) -> bool:
    """Tell whether the kernel would find that a rule matches, for a packet that is bound to no device."""
    if rule.family is not packet.family or rule.unknown:
        return False
    return _holds(rule, packet) is not rule.invert


def _holds(rule: ForeignRule, packet: Packet) -> bool:
    # The kernel looks a forwarded packet up in the name of user 0.
    user = packet.user if packet.in_interface is None else 0
    return (
        not (rule.l3mdev or rule.oif is not None or rule.tun_id is not None)
        and (rule.from_ is None or packet.source in rule.from_)
        and (rule.to is None or packet.destination in rule.to)
        and (rule.iif is None or rule.iif == (packet.in_interface or "lo"))
        and (rule.mark is None or (rule.mark[0] ^ packet.mark) & rule.mark[1] == 0)
        and (rule.tos is None or packet.dscp << 2 & (_TOS if rule.family is Family.V4 else 0xFC) == rule.tos)
        and (rule.dscp is None or packet.dscp == rule.dscp)
        and (rule.ipproto is None or packet.protocol == rule.ipproto)
        and _in_range(packet.source_port, rule.sport)
        and _in_range(packet.port, rule.dport)
        and _in_range(user, rule.uidrange)
    )


def _in_range(value: int | None, ends: tuple[int, int] | None) -> bool:
    return ends is None or (value is not None and ends[0] <= value <= ends[1])


def decides(
    rules: Iterable[ForeignRule],
    tables: Tables,
    packet: Packet,
    *,
    main: frozenset[Family] = _EVERY,
) -> ForeignRule | Literal["main"] | None:
    """Return the rule of others that decides where a packet goes, as `theirs_chains` does.

    Args:
        rules: as `Observed` has them.
        tables: likewise.
        packet: with the mark that others have given it, and without bits of ours.
        main: families in which main has a default route.

    Returns:
        "main" when a rule of theirs leads to main, and None when no rule has a say: both are ours to balance.
    """
    jump = 0
    for rule in _sorted(rules, packet.family, main):
        if rule.priority < jump or not matches(rule, packet):
            continue
        if rule.action == "goto":
            jump = jump if rule.unresolved or rule.goto is None else rule.goto
        elif _ends(rule, main):
            return "main"
        elif rule.action in REFUSALS or (rule.action == "table" and decides_for(rule, tables, packet)):
            return rule
    return None


def _sorted(rules: Iterable[ForeignRule], family: Family, main: frozenset[Family]) -> list[ForeignRule]:
    """Rules of a family in the order of their priority; where main has a default, none comes after main's rule."""
    found = (rule for rule in rules if rule.family is family)
    return sorted((r for r in found if family not in main or r.priority < MAIN_RULE), key=lambda rule: rule.priority)


def _ends(rule: ForeignRule, main: frozenset[Family]) -> bool:
    """True when main decides, by any of its routes."""
    return rule.action == "table" and rule.table == TABLE_MAIN and rule.family in main and not _suppresses(rule)


def _suppresses(rule: ForeignRule) -> bool:
    return rule.suppress_prefixlength is not None


@dataclass(frozen=True, slots=True, eq=False)
class _ForeignRules:
    """What chains and sets depend on. Tables are compared as objects: hashing thousands of prefixes takes too long."""

    rules: tuple[ForeignRule, ...]
    tables: tuple[tuple[TableId, tuple[Destination, ...]], ...]
    verdict: str
    main: frozenset[Family]
    own: frozenset[Family] | None

    def __hash__(self) -> int:
        return hash((self.rules, tuple((t, id(known)) for t, known in self.tables), self.verdict, self.main, self.own))

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, _ForeignRules)
            and (self.rules, self.verdict, self.main, self.own) == (other.rules, other.verdict, other.main, other.own)
            and [(t, id(known)) for t, known in self.tables] == [(t, id(known)) for t, known in other.tables]
        )


def theirs_chains(
    rules: Sequence[ForeignRule], tables: Tables, *, verdict: str = "accept", main: frozenset[Family] = _EVERY
) -> dict[str, Chain]:
    """Return chain `theirs` and its parts: for first packets that are forwarded, after destination translation.

    Jump to `theirs` with the packet as others have left it: no bit of ours on its mark. It returns for what main
    decides. There is no chain `theirs`, and nothing to jump to, when no rule of others can decide anything. Its
    deepest part is 2 + MOST_TARGETS chains down. Sets that it refers to are those of `theirs_sets`.

    Args:
        rules: as `Observed` has them.
        tables: likewise.
        verdict: what becomes of a packet that a rule of others decides, in the words of nft(8).
        main: families in which main has a default route; elsewhere a rule that leads to main decides nothing.
    """
    return dict(_compiled(_ForeignRules(tuple(rules), tuple(tables.items()), verdict, main, None))[0])


def theirs_sets(
    rules: Sequence[ForeignRule], tables: Tables, *, verdict: str = "accept", main: frozenset[Family] = _EVERY
) -> dict[str, NftSet]:
    """Return the sets that the chains of the same arguments refer to; their names say what is in them."""
    return dict(_compiled(_ForeignRules(tuple(rules), tuple(tables.items()), verdict, main, None))[1])


def own_chains(
    rules: Sequence[ForeignRule],
    tables: Tables,
    families: frozenset[Family],
    *,
    verdict: str = "accept",
    main: frozenset[Family] = _EVERY,
) -> dict[str, Chain]:
    """Return chain `theirs_own` and its parts, for first packets of this box in these families.

    The same as `theirs_chains` otherwise, and with the same sets. Jump to it in output, where the kernel has made the
    first route already, by the mark that the packet has; sockets that are bound to a device are not looked at.
    """
    return dict(_compiled(_ForeignRules(tuple(rules), tuple(tables.items()), verdict, main, families))[0])


@lru_cache(maxsize=4)
def _compiled(foreign: _ForeignRules) -> tuple[Mapping[str, Chain], Mapping[str, NftSet]]:
    chains: dict[str, Chain] = {}
    sets: dict[str, NftSet] = {}
    entry: list[NftRule] = []
    start = ENTRY_CHAIN if foreign.own is None else OWN_ENTRY_CHAIN
    for family in FAMILIES if foreign.own is None else sorted(foreign.own):
        parts = _Parts(foreign, family, sets).chains()
        if parts:
            name = f"{start}_{family}"
            entry.append(NftRule(f"meta nfproto {family.nfproto} goto {name}", "what policy rules of others decide"))
            chains |= parts
    return ({start: Chain(tuple(entry)), **chains}, sets) if entry else ({}, {})


class _Parts:
    """The chains of one family: one for its first rules, and one more for each rule that a `goto` leads to."""

    def __init__(self, foreign: _ForeignRules, family: Family, sets: dict[str, NftSet]) -> None:
        self._arguments = foreign
        self._tables = dict(foreign.tables)
        self._rules = _sorted(foreign.rules, family, foreign.main)
        self._family = family
        self._start = ENTRY_CHAIN if foreign.own is None else OWN_ENTRY_CHAIN
        self._sets = sets
        self._where: dict[tuple[TableId | None, int | None], tuple[str, ...]] = {}

    def chains(self) -> dict[str, Chain]:
        targets = self._targets()
        starts = [0, *targets]
        parts: dict[str, Chain] = {}
        name = f"{self._start}_{self._family}"
        for start, end in zip(starts, [*targets, None], strict=True):
            lines, ended = self._lines(self._rules[start:end], targets)
            if end is not None and not ended:
                lines.append(NftRule(f"goto {self._part(self._rules[end])}", "next rules"))
            while end is None and lines and lines[-1].text.endswith("return"):
                lines.pop()
            parts[name] = Chain(tuple(lines))
            name = self._part(self._rules[end]) if end is not None else ""
        decided = any(line.text.endswith(self._arguments.verdict) for part in parts.values() for line in part.rules)
        return parts if decided else {}

    def _targets(self) -> list[int]:
        """Where in the list each `goto` arrives; further ones than there is room for lead nowhere."""
        found = {self._arrival(rule) for rule in self._rules if rule.action == "goto"}
        return sorted(at for at in found if at is not None)[:MOST_TARGETS]

    def _arrival(self, rule: ForeignRule) -> int | None:
        """Place of the first rule with the priority that a `goto` names, or a later one; None when there is none."""
        if rule.unresolved or rule.goto is None:
            return None
        return next((at for at, r in enumerate(self._rules) if r.priority >= (rule.goto or 0)), None)

    def _part(self, rule: ForeignRule) -> str:
        return f"{self._start}_{self._family}_{rule.priority}"

    def _lines(self, rules: Sequence[ForeignRule], targets: Sequence[int]) -> tuple[list[NftRule], bool]:
        """Return the lines of some rules, and whether no packet comes past them."""
        lines: list[NftRule] = []
        for rule in rules:
            alternatives = _conditions(rule, own=self._arguments.own is not None)
            for where, outcome, why in self._outcomes(rule, targets):
                for condition in alternatives:
                    text = " ".join(filter(None, (condition, where, outcome)))
                    lines.append(NftRule(text, f"rule {rule.priority}: {why}"))
                if "" in alternatives and not where:
                    return lines, True
        return lines, False

    def _outcomes(self, rule: ForeignRule, targets: Sequence[int]) -> Iterator[tuple[str, str, str]]:
        """Yield what becomes of a packet that the rule matches: with which addresses, the verdict, and why."""
        if rule.action in REFUSALS:
            yield "", self._arguments.verdict, rule.action
        elif rule.action == "goto" and not rule.unresolved:
            at = self._arrival(rule)
            if at is None:
                yield "", "return", "past all others"
            elif at in targets:
                yield "", f"goto {self._part(self._rules[at])}", f"goto {rule.goto}"
        elif _ends(rule, self._arguments.main):
            yield "", "return", "main decides"
        elif rule.action == "table":
            for where in self._decided(rule):
                yield where, self._arguments.verdict, f"lookup {rule.table}"

    def _decided(self, rule: ForeignRule) -> tuple[str, ...]:
        """Addresses that the rule's table decides, as texts; the same for every rule that leads there."""
        key = (rule.table, rule.suppress_prefixlength)
        if key not in self._where:
            self._where[key] = tuple(
                " ".join(filter(None, (self._from(sender), self._to(rule, spans))))
                for sender, spans in decided(rule, self._tables)
            )
        return self._where[key]

    def _from(self, sender: IPNetwork | None) -> str:
        return "" if sender is None else f"{self._family.header} saddr {sender}"

    def _to(self, rule: ForeignRule, spans: Spans) -> str:
        if spans == whole(self._family):
            return ""
        elements = [_range(self._family, span) for span in spans]
        if len(elements) <= MOST_INLINE:
            return f"{self._family.header} daddr {{ {', '.join(elements)} }}"
        digest = blake2s("\n".join(elements).encode(), digest_size=4).hexdigest()
        name = f"{ENTRY_CHAIN}_{self._family}_{rule.table}_{digest}"
        kind = "ipv4_addr" if self._family is Family.V4 else "ipv6_addr"
        self._sets[name] = NftSet(f"type {kind}; flags interval;", frozenset(elements))
        return f"{self._family.header} daddr @{name}"


@dataclass(frozen=True, slots=True)
class _Selector:
    """One selector as nft text, and what holds when it does not: one of several texts."""

    text: str
    negated: tuple[str, ...]


def _conditions(rule: ForeignRule, *, own: bool) -> tuple[str, ...]:
    """Return when the rule matches a packet, forwarded or of this box: one of the texts has to hold; () for never."""
    named = rule.iif is None or QUOTABLE.fullmatch(rule.iif)
    if rule.unknown or not named:
        return ()
    never = rule.oif is not None or rule.l3mdev or rule.tun_id is not None
    never = never or (rule.iif is not None and (rule.iif == "lo") is not own)
    # The kernel looks a forwarded packet up in the name of user 0.
    if never or (not own and not _in_range(0, rule.uidrange)):
        return ("",) if rule.invert else ()
    selectors = list(_selectors(rule))
    if own and rule.uidrange is not None:
        low, high = rule.uidrange
        selectors.append(_plain("meta skuid", f"{low}-{high}" if low != high else f"{low}"))
    if rule.invert:
        return tuple(text for selector in selectors for text in selector.negated)
    return (" ".join(selector.text for selector in selectors),)


def _selectors(rule: ForeignRule) -> Iterator[_Selector]:
    word = rule.family.header
    if rule.iif not in (None, "lo"):
        yield _plain("iifname", f'"{rule.iif}"')
    if rule.mark is not None and rule.mark[1]:
        value, mask = rule.mark[0] & rule.mark[1], rule.mark[1]
        yield _plain("meta mark" if mask == WHOLE else f"meta mark & {mask:#010x}", f"{value:#010x}")
    for end, network in (("saddr", rule.from_), ("daddr", rule.to)):
        if network is not None:
            yield _plain(f"{word} {end}", str(network))
    if rule.tos is not None and rule.family is Family.V4:
        # Of IPv4 the upper three bits of the byte count for nothing.
        yield _plain(f"@nh,8,8 & {_TOS:#04x}", f"{rule.tos:#04x}")
    elif rule.tos is not None:
        yield _plain("ip6 dscp", f"{rule.tos >> 2:#04x}")
    if rule.dscp is not None:
        yield _plain(f"{word} dscp", f"{rule.dscp:#04x}")
    if rule.ipproto is not None:
        yield _plain("meta l4proto", f"{rule.ipproto}")
    for end, ports in (("sport", rule.sport), ("dport", rule.dport)):
        if ports is not None:
            span = f"{ports[0]}" if ports[0] == ports[1] else f"{ports[0]}-{ports[1]}"
            yield _Selector(f"{_WITH_PORTS} th {end} {span}", (_WITHOUT_PORTS, f"{_WITH_PORTS} th {end} != {span}"))


def _plain(key: str, value: str) -> _Selector:
    return _Selector(f"{key} == {value}" if "&" in key else f"{key} {value}", (f"{key} != {value}",))


def _range(family: Family, span: tuple[int, int]) -> str:
    low, high = (_address(family, end) for end in span)
    return str(low) if low == high else f"{low}-{high}"


def _address(family: Family, number: int) -> IPAddress:
    return IPv4Address(number) if family is Family.V4 else IPv6Address(number)
