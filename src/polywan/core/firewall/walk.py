"""What rules do with a packet: through all base chains of a hook, along every way that it may take."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple, TypeAlias

from polywan.core.firewall.model import ActionOther, Chain, Firewall, Hook, Rule, Table
from polywan.core.firewall.passing import Changed, Passing, joined, meets

__all__ = ["Outcome", "Passing", "outcome"]

_MOST_STEPS: Final = 100_000
"""Rules that are looked at, each as often as chains lead there; what has more is not followed to its end."""

_DEEPEST: Final = 32
"""Chains within chains; the kernel takes 16 (NFT_JUMP_STACK_SIZE)."""

_TRACKING: Final = -200
"""Priority of connection tracking at prerouting and output (NF_IP_PRI_CONNTRACK)."""

_End: TypeAlias = Literal["accept", "drop", "reject", "unknown"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What becomes of a packet at one hook.

    Attributes:
        verdict: "unknown" when it depends on what the question leaves open, or on rules that the model does not know.
        table, chain: where that is decided; None when no chain looks at the packet.
        rule: what decides; of "unknown" the first rule that may. None: the chain's policy.
        text: a sentence for people.
    """

    verdict: Literal["accept", "drop", "reject", "unknown"]
    table: Table | None
    chain: Chain | None
    rule: Rule | None
    text: str


class _Place(NamedTuple):
    table: Table
    chain: Chain
    rule: Rule | None

    def __str__(self) -> str:
        where = f"chain {self.chain.name} of {self.table}"
        return f"the policy of {where}" if self.rule is None else f'rule "{self.rule.text}" in {where}'


def outcome(firewall: Firewall, packet: Passing, hook: Hook = "forward") -> Outcome:
    """Send a packet through all base chains of a hook, in the order of their priorities.

    A chain that accepts ends its own way only; one that drops or rejects ends the packet's.
    "drop" and "reject" are said only when no packet that fits the question passes (the first of them, when it may meet
    either), and "accept" only when all of them pass.
    """
    hooked = [(t, c) for t in firewall.tables if t.meets(packet.family) for c in t.chains if _sees(c, hook, packet)]
    changed: Changed | None = Changed(packet.mark, packet.ct_mark)
    last: _Place | None = None
    doubtful: _Place | None = None
    lost: list[tuple[_End, _Place]] = []
    for table, chain in sorted(hooked, key=lambda place: place[1].priority):
        if changed is None:
            break
        walk = _Walk(packet, table, tracked=hook not in ("prerouting", "output") or chain.priority > _TRACKING)
        changed = walk.base(chain, changed)
        lost += [end for end in walk.ends if end[0] != "accept"]
        last = walk.ends[-1][1]
        if lost and doubtful is None:
            doubtful = walk.ends[0][1]
    if last is None:
        return Outcome("accept", None, None, None, f"no chain is at the hook {hook}")
    if not lost:
        return Outcome("accept", last.table, last.chain, last.rule, f"{last} accepts it")
    verdict, place = lost[0]
    if doubtful is not None and (changed is not None or any(end == "unknown" for end, _ in lost)):
        return Outcome("unknown", doubtful.table, doubtful.chain, doubtful.rule, f"{doubtful} may decide")
    return Outcome(verdict, place.table, place.chain, place.rule, f"{place} {verdict}s it")


def _sees(chain: Chain, hook: Hook, packet: Passing) -> bool:
    """Chains of the kind nat see first packets only."""
    return chain.hook == hook and (chain.kind != "nat" or packet.state in ("new", "related"))


class _Walk:
    """The way through one base chain, and the chains that it leads to.

    Attributes:
        ends: where the way of a packet may end, in the order of the rules.
    """

    def __init__(self, packet: Passing, table: Table, *, tracked: bool) -> None:
        self.ends: list[tuple[_End, _Place]] = []
        self._accepted: Changed | None = None
        self._packet, self._table, self._tracked = packet, table, tracked
        self._chains: Mapping[str, Chain] = {chain.name: chain for chain in table.chains}
        self._steps = 0

    def base(self, chain: Chain, changed: Changed) -> Changed | None:
        """Return what goes on to the next base chain; None when no packet does."""
        passed = self._chain(chain, changed, 0)
        if passed is not None:
            place = _Place(self._table, chain, None)
            if chain.policy == "drop":
                self.ends.append(("drop", place))
            else:
                self._accept(passed, place)
        return self._accepted

    def _accept(self, changed: Changed, place: _Place) -> None:
        self._accepted = joined(self._accepted, changed)
        self.ends.append(("accept", place))

    def _chain(self, chain: Chain, changed: Changed, depth: int) -> Changed | None:
        """Return what comes back from a chain; None when no packet does."""
        current: Changed | None = changed
        returned: Changed | None = None
        for rule in chain.rules:
            if current is None:
                break
            self._steps += 1
            met = self._met(rule, current)
            if met is False:
                continue
            place = _Place(self._table, chain, rule)
            if self._steps > _MOST_STEPS or depth > _DEEPEST:
                self.ends.append(("unknown", place))
                return current
            after = current.after(rule.actions)
            if any(isinstance(action, ActionOther) and not action.harmless for action in rule.actions):
                self.ends.append(("unknown", place))
            following, back = self._verdict(rule, place, after, depth)
            returned = joined(returned, back)
            current = following if met else joined(current, following)
        return joined(returned, current)

    def _verdict(self, rule: Rule, place: _Place, after: Changed, depth: int) -> tuple[Changed | None, Changed | None]:
        """Return what goes on to the next rule, and what goes back to the chain that led here."""
        match rule.verdict:
            case "accept":
                self._accept(after, place)
            case "drop" | "reject":
                self.ends.append((rule.verdict, place))
            case "queue":
                self.ends.append(("unknown", place))
                return after, None
            case "return":
                return None, after
            case "jump" | "goto":
                chain = self._chains.get(rule.target)
                if chain is None:
                    self.ends.append(("unknown", place))
                    return after, None
                back = self._chain(chain, after, depth + 1)
                return (back, None) if rule.verdict == "jump" else (None, back)
            case "":
                return after, None
        return None, None

    def _met(self, rule: Rule, changed: Changed) -> bool | None:
        found: bool | None = True
        for match in rule.matches:
            met = meets(self._packet, changed, match, tracked=self._tracked)
            if met is False:
                return False
            found = found and met
        return found
