"""A second table that others cannot flush: it carries what is under way while somebody has flushed ours.

``nft flush ruleset``, as every reload of a firewall does it, passes over a table with the flag ``owner``, which belongs
to the socket that made it (nft(8), Linux 5.12). It goes with the daemon. So nothing is moved into it: what is here is
doubled, and the main table does without. That one stays open to others, dnsmasq for one, who fills its sets.

Five things have to go on meanwhile. Connection tracking and translation are unhooked with the last rule that uses
them, and this box then answers for those behind it, with resets. What cannot be translated must not leave. Packets of
a connection need its mark, or they leave by another uplink. What comes in by an uplink has to be answered by it. And
the kill switch has to hold.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import takewhile
from typing import Final, Self

from polywan.core.identity import PerKey
from polywan.core.ruleset.model import QUOTABLE, Chain, NftRule, NftTable, unread
from polywan.core.ruleset.neighbours.ipsec import from_outside
from polywan.core.ruleset.table import INVALID

KEEP_TABLE: Final = "inet polywan_keep"
"""Family and name of the table (nft(8))."""

_REFERS: Final = re.compile(r"(?:@|goto |jump )(\w+)")
_COPIED: Final = ("nat", "kill_switch")
_OWN: Final = ("prerouting", "output")
"""Chains that have other rules here; of those in the table nothing counts but the hook."""


def keep(table: NftTable, mask: int, *, ipsec: bool, xfrm: bool = True) -> NftTable:
    """Return the table that stands in for `table`.

    Sets that others fill, or that come in pieces, are not here. A chain ends before the first rule that needs one of
    them, since each rule says what those before it have left.

    Args:
        table: ours.
        mask: bits of the mark that are ours.
        ipsec: packets that leave may go into a tunnel.
        xfrm: the kernel can do IPsec.
    """
    known = _KEPT.get(mask, ipsec, xfrm)
    if known is not None and known[0].holds(table):
        return known[1]
    kept = _keep(table, mask, ipsec=ipsec, xfrm=xfrm)
    return _KEPT.put(mask, (_Seen.of(table, kept), kept), ipsec, xfrm)[1]


@dataclass(frozen=True, slots=True)
class _Seen:
    """The parts of a table that a second table was made from; most decisions change none of them."""

    table: NftTable
    names: frozenset[str]

    @classmethod
    def of(cls, table: NftTable, kept: NftTable) -> Self:
        guards = table.maps["guards"].elements.values() if "guards" in table.maps else ()
        # What a rule refers to that was left out may be why.
        copied = _named(table, {name: table.chains[name] for name in _COPIED if name in table.chains})
        names = {*copied, *kept.chains, *kept.sets, *kept.maps, *_COPIED, "guards"}
        return cls(table, frozenset(names | {verdict.removeprefix("goto ") for verdict in guards}) - {*_OWN})

    def holds(self, table: NftTable) -> bool:
        """True when these parts are the very same objects in another table."""
        before = self.table
        return all(
            table.chains.get(name) is before.chains.get(name)
            and table.sets.get(name) is before.sets.get(name)
            and table.maps.get(name) is before.maps.get(name)
            for name in self.names
        )


_KEPT: Final[PerKey[int, tuple[_Seen, NftTable]]] = PerKey()


def _keep(table: NftTable, mask: int, *, ipsec: bool, xfrm: bool) -> NftTable:
    chains = {
        n: _later(replace(table.chains[n], rules=rules))
        for n, rules in _marks(table, mask, ipsec=ipsec, xfrm=xfrm).items()
    }
    for name in _COPIED:
        if name in table.chains:
            whole = tuple(takewhile(lambda rule: _sound(rule.text, table), table.chains[name].rules))
            chains[name] = _later(replace(table.chains[name], rules=whole))
    named = _named(table, chains)
    return NftTable(
        chains={**{n: c for n, c in table.chains.items() if n in named and n not in chains}, **chains},
        sets={n: s for n, s in table.sets.items() if n in named},
        maps={n: m for n, m in table.maps.items() if n in named},
    )


def _marks(table: NftTable, mask: int, *, ipsec: bool, xfrm: bool) -> Mapping[str, tuple[NftRule, ...]]:
    """The mark of the connection back on its packet, where the main table has not done so.

    What begins meanwhile and comes from outside is given one: its answer would leave by main's default.
    """
    done = NftRule(f"meta mark & {mask:#010x} != 0 accept", "has it")
    back = NftRule(f"ct mark & {mask:#010x} vmap @restore", "already chosen")
    answer = NftRule(
        "ct direction reply iifname @outside_ifs accept", "an answer from outside: routed by its destination"
    )
    arrived = NftRule(
        f"ct state new {from_outside(xfrm=xfrm)}iifname vmap @arrival", "from outside: replies go back the way it came"
    )
    return {
        "prerouting": (done, answer, arrived, back, *(() if ipsec else _untranslated(table))),
        "output": (done, NftRule("oifname != @uplinks accept", "does not leave by an uplink"), back),
    }


def _untranslated(table: NftTable) -> Iterator[NftRule]:
    """Drop what connection tracking calls invalid where it comes in, so that packets that leave are asked nothing.

    With IPsec it may go into a tunnel, which shows only when it leaves: then there is no such rule.
    """
    devices = []
    for device, verdict in table.maps["guards"].elements.items() if "guards" in table.maps else ():
        rules = [rule.text for rule in table.chains[verdict.removeprefix("goto ")].rules]
        if INVALID in rules and QUOTABLE.fullmatch(str(device)):
            devices.append(f'"{device}"')
    if devices:
        leaves = f"fib daddr . mark oifname {{ {', '.join(sorted(devices))} }}"
        yield NftRule(f"ct state invalid iifname != @outside_ifs {leaves} counter drop", "would leave untranslated")


def _later(chain: Chain) -> Chain:
    """The same chain just behind the one that it stands in for."""
    return chain if chain.hook is None else replace(chain, hook=replace(chain.hook, priority=chain.hook.priority + 1))


def _sound(text: str, table: NftTable) -> bool:
    """True when nothing that the rule refers to is filled by others."""
    return not any(unread(name) for name in _reached(text, table))


def _named(table: NftTable, chains: Mapping[str, Chain]) -> frozenset[str]:
    texts = (rule.text for chain in chains.values() for rule in chain.rules)
    return frozenset(name for text in texts for name in _reached(text, table))


@lru_cache(maxsize=8192)
def _referred(text: str) -> tuple[str, ...]:
    return tuple(_REFERS.findall(text))


def _reached(text: str, table: NftTable) -> Iterator[str]:
    """Yield what a rule refers to, and what that refers to in turn."""
    found: set[str] = set()
    todo = [text]
    while todo:
        for name in _referred(todo.pop()):
            if name in found:
                continue
            found.add(name)
            if name in table.chains:
                todo += [rule.text for rule in table.chains[name].rules]
            if name in table.maps:
                todo += table.maps[name].elements.values()
    yield from found
