"""Which marks lead somewhere, and iptables rules that choose them written anew."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from polywan.api.doctor import Step
from polywan.core.firewall.iptables import split_words
from polywan.core.firewall.model import MarkIs, SetMark, Statistic, Table
from polywan.core.net import PROTOCOL, Family
from polywan.doctor.box import Box
from polywan.doctor.facts.marking import Place

_OF_STATISTIC = frozenset({"--mode", "--every", "--packet", "--probability"})


def led(box: Box, family: Family, mark: int) -> bool:
    """Tell whether a policy rule of others leads packets of this mark to a table."""
    for rule in box.observed.rules:
        if rule.family is family and rule.mark is not None and rule.action == "table" and rule.protocol != PROTOCOL:
            value, mask = rule.mark
            if value & mask and mark & mask == value & mask:
                return True
    return False


def program_of(table: Table) -> str:
    """Return the program by whose words the rules of a table are written; empty for nft(8)."""
    if table.program == "nftables":
        return ""
    name = "ip6tables" if table.family == "ip6" else "iptables"
    return f"{name}-legacy" if table.program == "iptables-legacy" else name


def written_anew(places: Sequence[Place]) -> tuple[Step, ...]:
    """Return commands that put rules with equal shares in the place of rules that choose: first in, then out.

    Args:
        places: all of one chain, each choosing one mark, in the order of the chain. The new ones ask that the mark is
            0 before they choose.

    Returns:
        nothing when they are not such rules.
    """
    if not _alike(places):
        return ()
    new: list[Step] = []
    old: list[Step] = []
    for number, place in enumerate(places):
        before, after = _words(place), [*_rewritten(place, len(places) - number)]
        start = (program_of(place.table), "-t", place.table.name)
        if before != after:
            new.append(Step(command=(*start, "-I", place.chain.name, str(place.number + len(new)), *after)))
            old.append(Step(command=(*start, "-D", place.chain.name, *before)))
    return (*new, *old)


def _alike(places: Sequence[Place]) -> bool:
    chains = {(place.table.program, place.table.family, place.table.name, place.chain.name) for place in places}
    plain = all(len(p.rule.actions) == 1 and isinstance(p.rule.actions[0], SetMark) for p in places)
    drawn = all(sum(isinstance(m, Statistic) for m in p.rule.matches) == 1 for p in places)
    values = {(a.value, a.of, a.mask) for p in places for a in p.rule.actions if isinstance(a, SetMark)}
    return len(chains) == 1 and bool(program_of(places[0].table)) and plain and drawn and len(values) == len(places)


def _words(place: Place) -> list[str]:
    """Return a rule's words behind ``-A CHAIN``."""
    return [word.text for word in split_words(place.rule.text)][2:]


def _rewritten(place: Place, remaining: int) -> Iterator[str]:
    """Yield the words with another `statistic`: one of as many as are still to be served; the last takes the rest."""
    (action,) = place.rule.actions
    assert isinstance(action, SetMark)  # noqa: S101 - `_alike` has seen to it
    words = _words(place)
    position = words.index("statistic") - 1
    before, behind = words[:position], words[position + 2 :]
    while behind and (behind[0] in _OF_STATISTIC or behind[0] == "!"):
        del behind[: 1 if behind[0] == "!" else 2]
    guarded = any(isinstance(m, MarkIs) and not m.value and not m.invert for m in place.rule.matches)
    yield from before
    if not guarded:
        mask = "" if action.mask == 0xFFFF_FFFF else f"/{action.mask:#x}"
        yield from ("-m", "connmark" if action.of == "connection" else "mark", "--mark", f"0x0{mask}")
    if remaining > 1:
        yield from ("-m", "statistic", "--mode", "nth", "--every", str(remaining), "--packet", "0")
    yield from behind
