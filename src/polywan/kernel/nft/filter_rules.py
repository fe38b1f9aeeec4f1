"""Whether rules of other programs have to see every packet of an established connection, straight from netlink."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Final

from polywan.core.errors import KernelError
from polywan.core.world.foreign_chains import FilterRule, HookedChain, watching
from polywan.kernel.netlink.lending import netfilter
from polywan.kernel.netlink.socket import NetlinkSocket, Refusal, attribute, attributes, text, walk
from polywan.kernel.nft.elements import verdict
from polywan.kernel.nft.established import SILENT, SetFacts, Sets, decode_rule

# linux/netfilter/nf_tables.h; the first byte of struct nfgenmsg is the family.
_ANY_FAMILY: Final = bytes(4)
_GET_CHAIN, _GET_RULE, _GET_SET, _GET_ELEMENTS, _GET_GENERATION = (10 << 8 | number for number in (4, 7, 10, 13, 16))
_GENERATION_ID: Final = 1
_FAMILIES: Final = {1: "inet", 2: "ip", 10: "ip6"}
_FORWARDED: Final = frozenset(hook.to_bytes(4, "big") for hook in (0, 2, 4))  # prerouting, forward, postrouting
_TABLE, _CHAIN_NAME, _CHAIN_HOOK, _CHAIN_TYPE, _HOOK_NUMBER = 1, 3, 4, 7, 1
_RULE_CHAIN, _RULE_EXPRESSIONS, _EXPRESSION_NAME = 2, 4, 1
_VALUE, _VERDICT = 1, 2
_SET_NAME, _ELEMENTS, _ELEMENT, _KEY, _DATA = 2, 3, 1, 1, 2

_FLAGS, _EXPRESSION, _EXPRESSIONS, _EXPIRES, _GROWS = 3, 17, 18, 0x10, 0x20
_UNKNOWN: Final = SetFacts(dict, grows=True)

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
        sets = _sets(netlink, about)
        for message in netlink.snapshot(_GET_RULE, about):
            remaining -= 1
            if not remaining:
                return f"some rule may have to see every packet: of more than {_MOST_RULES} not all are read"
            found = attributes(message.body, 4)
            if text(found.get(_TABLE, b"")) == table:
                rule = decode_rule(found.get(_RULE_EXPRESSIONS, b""), sets)
                chains.setdefault(text(found.get(_RULE_CHAIN, b"")), []).append(rule)
    return watching(hooked, rules)


def _sets(netlink: NetlinkSocket, about: bytes) -> Sets:
    """Read the sets of a table; their elements are read once, when somebody asks for them."""
    found: dict[str, SetFacts] = {}
    for message in netlink.snapshot(_GET_SET, about):
        known = attributes(message.body, 4)
        name, flags = text(known.get(_SET_NAME, b"")), _number(known.get(_FLAGS, b""))
        does = [attributes(known[_EXPRESSION])] if _EXPRESSION in known else list(_list(known.get(_EXPRESSIONS, b"")))
        counts = all(text(one.get(_EXPRESSION_NAME, b"")) in SILENT for one in does)

        @lru_cache(maxsize=1)
        def elements(name: str = name) -> Mapping[bytes, str]:
            about_set = about + attribute(_SET_NAME, name.encode() + b"\0")
            return {
                key: value
                for message in netlink.snapshot(_GET_ELEMENTS, about_set)
                for key, value in elements_in(message.body)
            }

        found[name] = SetFacts(elements, expires=bool(flags & _EXPIRES), grows=bool(flags & _GROWS) or not counts)
    return lambda name: found.get(name, _UNKNOWN)


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


def _number(data: bytes) -> int:
    return int.from_bytes(data, "big")


def _list(data: bytes) -> Iterator[dict[int, bytes]]:
    for _, start, end in walk(data, 0, len(data)):
        yield attributes(data[start:end])
