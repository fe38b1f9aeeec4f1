"""What rules make of marks: one packet at a time, with the choices that `statistic` and `numgen` make for it."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Final, NamedTuple

from polywan.core.firewall.model import (
    Action,
    Chain,
    Choose,
    Direction,
    Firewall,
    Hook,
    Restore,
    Rule,
    Save,
    SetMark,
    Statistic,
    Table,
    Translate,
)
from polywan.core.firewall.passing import Changed, Passing, meets
from polywan.core.net import Family

FORWARD_HOOKS: Final[tuple[Hook, ...]] = ("prerouting", "forward", "postrouting")
OWN_HOOKS: Final[tuple[Hook, ...]] = ("output", "postrouting")

_TRACKING: Final = -200
_DEEPEST: Final = 16
_OF_MARKS: Final = (SetMark, Restore, Save, Choose, Translate)


class Place(NamedTuple):
    """A rule, and where it is; `number` counts from 1, as ``iptables -I`` does."""

    table: Table
    chain: Chain
    number: int
    rule: Rule

    def __str__(self) -> str:
        counted = f" [{self.rule.packets} packets]" if self.rule.packets is not None else ""
        return f"{self.table}: {self.rule.text}{counted}"


class Draw(NamedTuple):
    """A rule that took part in a choice for a packet, and whether the packet was its."""

    place: Place
    taken: bool


@dataclass(slots=True)
class Turns:
    """How often each rule has chosen: the kernel counts for every rule by itself.

    "random" is drawn from what is always the same, so that two examinations find the same.
    """

    counts: Counter[tuple[int, int]] = field(default_factory=Counter)

    def take(self, place: Place, statistic: Statistic) -> bool:
        """Tell whether the next packet is the rule's."""
        number = self._next(place)
        if statistic.mode == "nth":
            found = number % max(statistic.every, 1) == statistic.packet
        else:
            found = self._part(place, number) < statistic.probability
        return found is not statistic.invert

    def choose(self, place: Place, choice: Choose) -> int | None:
        """Return the value that the next packet gets; None when it keeps its mark. A hash does not take turns."""
        number = 0 if choice.mode == "hash" else self._next(place)
        slot = number if choice.mode != "random" else int(self._part(place, number) * choice.every)
        slot %= max(choice.every, 1)
        for value, share in choice.shares:
            if slot < share:
                return value
            slot -= share
        return None

    def _next(self, place: Place) -> int:
        key = (id(place.chain), place.number)
        self.counts[key] += 1
        return self.counts[key] - 1

    @staticmethod
    def _part(place: Place, number: int) -> float:
        text = f"{place.number} {place.rule.text} {number}"
        return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=6).digest(), "big") / (1 << 48)


class Marked(NamedTuple):
    """What a packet has behind the rules.

    Attributes:
        mark: of the packet when its route is looked up: behind the first hook.
        ct_mark: of its connection behind all hooks.
        draws: choices on its way.
        translated: the rule that translated its source or destination last; None also when that is not known.
    """

    mark: int
    ct_mark: int
    draws: tuple[Draw, ...]
    translated: Place | None


class _NotKnownError(Exception):
    """What becomes of the packet depends on something that is not known."""


def marked(
    firewall: Firewall, packet: Passing, hooks: tuple[Hook, ...], turns: Turns, *, reply: bool = False
) -> Marked | None:
    """Send one packet through the rules.

    Args:
        firewall: of others; tables of polywan are passed over.
        packet: everything of it should be known that rules may ask for.
        hooks: those on its way, in their order.
        turns: of the rules that choose.
        reply: it goes in the direction of answers.

    Returns:
        None when that depends on what is not known, or when it is dropped.
    """
    walk = _Walk(packet, turns, reply=reply)
    try:
        changed = Changed(packet.mark, packet.ct_mark)
        first: int | None = None
        for number, hook in enumerate(hooks):
            for table, chain in _chains(firewall, packet, hook):
                changed = walk.base(table, chain, changed, tracked=_tracked(hook, chain))
            first = changed.mark if number == 0 else first
    except _NotKnownError:
        return None
    if first is None or changed.ct_mark is None:
        return None
    return Marked(first, changed.ct_mark, tuple(walk.draws), None if walk.doubtful else walk.translated)


def theirs(firewall: Firewall, family: Family) -> Iterator[Table]:
    """Yield the tables of other programs that routed packets of a family meet."""
    for table in firewall.tables:
        if table.meets(family) and not table.name.startswith("polywan"):
            yield table


def writes_marks(firewall: Firewall) -> bool:
    """Tell whether any rule chooses a mark for some packets."""
    rules = (rule for table in firewall.tables for chain in table.chains for rule in chain.rules)
    return any(any(isinstance(part, Statistic | Choose) for part in (*r.matches, *r.actions)) for r in rules)


def _tracked(hook: Hook, chain: Chain) -> bool:
    return hook not in ("prerouting", "output") or chain.priority > _TRACKING


def _chains(firewall: Firewall, packet: Passing, hook: Hook) -> Iterator[tuple[Table, Chain]]:
    """Yield base chains whose tables touch marks or translate; what others do is of no interest here."""
    found = [
        (table, chain)
        for table in theirs(firewall, packet.family)
        if _interesting(table)
        for chain in table.chains
        if chain.hook == hook and (chain.kind != "nat" or packet.state in ("new", "related"))
    ]
    yield from sorted(found, key=lambda place: place[1].priority)


def _interesting(table: Table) -> bool:
    return any(isinstance(a, _OF_MARKS) for chain in table.chains for rule in chain.rules for a in rule.actions)


class _Walk:
    def __init__(self, packet: Passing, turns: Turns, *, reply: bool) -> None:
        self.draws: list[Draw] = []
        self.translated: Place | None = None
        self.doubtful = False
        self._translating = False
        self._packet, self._turns, self._reply = packet, turns, reply

    def base(self, table: Table, chain: Chain, changed: Changed, *, tracked: bool) -> Changed:
        self._translating = chain.kind == "nat"
        chains = {each.name: each for each in table.chains}
        return self._chain(table, chains, chain, changed, 0 if tracked else -1)[0]

    def _chain(
        self, table: Table, chains: dict[str, Chain], chain: Chain, changed: Changed, depth: int
    ) -> tuple[Changed, bool]:
        """Return what is known behind a chain, and whether the packet goes back to the chain that led here."""
        if depth > _DEEPEST:
            raise _NotKnownError
        for number, rule in enumerate(chain.rules, 1):
            place = Place(table, chain, number, rule)
            if not self._met(place, changed, tracked=depth >= 0):
                continue
            changed = self._after(place, changed)
            match rule.verdict:
                case "accept":
                    return changed, False
                case "return":
                    return changed, True
                case "drop" | "reject" | "queue":
                    raise _NotKnownError
                case "jump" | "goto":
                    target = chains.get(rule.target)
                    if target is None:
                        raise _NotKnownError
                    changed, back = self._chain(table, chains, target, changed, depth + 1 if depth >= 0 else depth)
                    if not back or rule.verdict == "goto":
                        return changed, back
        return changed, True

    def _met(self, place: Place, changed: Changed, *, tracked: bool) -> bool:
        known = True
        drawn: list[Statistic] = []
        for match in place.rule.matches:
            if isinstance(match, Statistic):
                drawn.append(match)
                if not self._turns.take(place, match):
                    self.draws.append(Draw(place, taken=False))
                    return False
                continue
            if isinstance(match, Direction) and tracked:
                found: bool | None = ((match.direction == "reply") is self._reply) is not match.invert
            else:
                found = meets(self._packet, changed, match, tracked=tracked)
            if found is False:
                return False
            known = known and found is not None
        if not known and _matters(place.rule):
            if not self._translating:
                raise _NotKnownError
            self.doubtful = True
        if known and drawn:
            self.draws.append(Draw(place, taken=True))
        return known

    def _after(self, place: Place, changed: Changed) -> Changed:
        for action in place.rule.actions:
            changed = self._acted(place, action, changed)
        return changed

    def _acted(self, place: Place, action: Action, changed: Changed) -> Changed:
        if isinstance(action, Translate):
            self.translated = place
        if not isinstance(action, Choose):
            return changed.after((action,))
        value = self._turns.choose(place, action)
        if action.mode != "hash":
            self.draws.append(Draw(place, taken=value is not None))
        if value is None:
            return changed
        return changed._replace(mark=value) if action.of == "packet" else changed._replace(ct_mark=value)


def _matters(rule: Rule) -> bool:
    return bool(rule.verdict) or any(isinstance(action, _OF_MARKS) for action in rule.actions)


def again(packet: Passing, before: Marked, *, established: bool = False) -> Passing:
    """Return a later packet of the same connection: one that is sent again, or one behind the first answer."""
    return replace(packet, mark=0, ct_mark=before.ct_mark, state="established" if established else "new")
