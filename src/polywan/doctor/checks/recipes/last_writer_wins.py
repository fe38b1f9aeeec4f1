"""Rules that choose a mark in turn, whose shares are not what they ask for.

MARK and CONNMARK do not end a chain, so that a later rule overwrites what an earlier one chose; and each `statistic`
counts only packets that come to it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

from polywan.api.doctor import Finding, Fix
from polywan.core.firewall.model import SetMark, Statistic
from polywan.core.firewall.passing import Passing
from polywan.core.net import Family
from polywan.doctor.box import Box
from polywan.doctor.facts.clients import Client, connections
from polywan.doctor.facts.mark_rules import led, written_anew
from polywan.doctor.facts.marking import Place, Turns, marked, writes_marks

_CONNECTIONS: Final = 720
"""Connections that are counted: a multiple of all small numbers, so that `nth` comes out even."""

_OFF: Final = {"nth": 0.03, "random": 0.08}
"""How far a share may be from what is asked for; what is drawn scatters."""

_LEAST: Final = 0.05


class _Shares(NamedTuple):
    client: Client
    places: tuple[Place, ...]
    actual: Mapping[int, float]


def check(box: Box) -> Iterator[Finding]:
    """Find groups of rules whose marks come out in other shares than their numbers say."""
    if not writes_marks(box.firewall):
        return
    seen: set[tuple[str, ...]] = set()
    for client, packet in connections(box):
        shares = _counted(box, client, packet)
        if shares is None or (texts := tuple(place.rule.text for place in shares.places)) in seen:
            continue
        asked = _asked(box, shares)
        mode = _statistic(shares.places[0]).mode
        if any(abs(shares.actual.get(mark, 0.0) - part) > _OFF[mode] for mark, part in asked.items()):
            seen.add(texts)
            yield _finding(shares, asked)


def _counted(box: Box, client: Client, packet: Passing) -> _Shares | None:
    """Return the shares of marks among connections; None when nothing is chosen, or it is not known."""
    turns, marks = Turns(), Counter[int]()
    places: dict[tuple[str, str, int], Place] = {}
    for _ in range(_CONNECTIONS):
        result = marked(box.firewall, packet, client.hooks, turns)
        if result is None:
            return None
        chosen_of = {a.of for draw in result.draws for a in draw.place.rule.actions if isinstance(a, SetMark)}
        mark = result.ct_mark if "connection" in chosen_of else result.mark
        marks[mark if led(box, client.family, mark) else 0] += 1
        places |= {(d.place.table.name, d.place.chain.name, d.place.number): d.place for d in result.draws}
        if not places:
            return None
    chosen = tuple(places[key] for key in sorted(places))
    if not all(_plain(box, client.family, place) for place in chosen):
        return None
    return _Shares(client, chosen, {mark: count / _CONNECTIONS for mark, count in marks.items()})


def _plain(box: Box, family: Family, place: Place) -> bool:
    drawn = [match for match in place.rule.matches if isinstance(match, Statistic) and not match.invert]
    written = [action for action in place.rule.actions if isinstance(action, SetMark)]
    return len(drawn) == 1 and len(written) == 1 and led(box, family, written[0].value)


def _statistic(place: Place) -> Statistic:
    return next(match for match in place.rule.matches if isinstance(match, Statistic))


def _value(place: Place) -> int:
    return next(action.value for action in place.rule.actions if isinstance(action, SetMark))


def _asked(box: Box, shares: _Shares) -> Mapping[int, float]:
    """Return which shares the rules ask for, as far as their numbers leave no doubt."""
    statistics = [_statistic(place) for place in shares.places]
    parts = _of_turns(statistics) if statistics[0].mode == "nth" else _of_draws(box, shares, statistics)
    found: dict[int, float] = {}
    for place, part in zip(shares.places, parts, strict=True) if parts else ():
        found[_value(place)] = found.get(_value(place), 0.0) + part
    if not found:  # Whatever they mean, none means to be overwritten every time.
        return {_value(p): 1.0 for p in shares.places if _overwritten(p, shares)}
    return found


def _overwritten(place: Place, shares: _Shares) -> bool:
    return _statistic(place).probability >= _LEAST and shares.actual.get(_value(place), 0.0) == 0


def _of_turns(statistics: list[Statistic]) -> list[float]:
    """Every 3rd packet, with different numbers; or every 3rd, then every 2nd of the rest."""
    everys = [each.every for each in statistics]
    if any(each.mode != "nth" for each in statistics):
        return []
    first, count = everys[0], len(everys)
    same = set(everys) == {first} and len({each.packet for each in statistics}) == count
    ladder = count > 1 and everys == list(range(first, first - count, -1)) and everys[-1] in (1, 2)
    return [1 / first] * count if same or ladder else []


def _of_draws(box: Box, shares: _Shares, statistics: list[Statistic]) -> list[float]:
    """A third, then half of the rest; or parts that make a whole, while some packets get no mark at all."""
    chances = [each.probability for each in statistics]
    if any(each.mode != "random" for each in statistics) or len(chances) < 2:
        return []
    size = round(1 / chances[0]) if chances[0] else 0
    if len(chances) in (size - 1, size) and all(
        abs(chance - 1 / (size - number)) < 0.01 for number, chance in enumerate(chances)
    ):
        return [1 / size] * len(chances)
    whole = abs(sum(chances) - 1) < 0.02
    return chances if whole and shares.actual.get(0, 0.0) > _LEAST and not _main_is_another(box, shares) else []


def _main_is_another(box: Box, shares: _Shares) -> bool:
    """Tell whether main's default is a line of its own, which may be meant to take what gets no mark."""
    family = shares.client.family
    values = {_value(place) for place in shares.places}
    own = {egress.device for egress in box.sending(family) if egress.mark in values}
    return not box.observed.main_default_links(family) <= own


def _finding(shares: _Shares, asked: Mapping[int, float]) -> Finding:
    lost = [mark for mark in asked if not shares.actual.get(mark)]
    never = asked and set(asked.values()) == {1.0}
    wanted = ", ".join(f"mark {mark:#x} {part:.0%}" for mark, part in asked.items())
    real = [f"mark {mark:#x} {part:.0%}" for mark, part in sorted(shares.actual.items()) if mark]
    real += [f"mark {mark:#x} never" for mark in lost]
    real += [f"no mark {shares.actual[0]:.0%}"] if shares.actual.get(0) else []
    steps = written_anew(shares.places) if _equal(shares, asked) else ()
    return Finding(
        check="last-writer-wins",
        severity="fault" if lost else "warning",
        what=f"rules that share connections out give {', '.join(real)}"
        + ("" if never else f"; they ask for {wanted}")
        + f" (chain {shares.places[0].chain.name} of {shares.places[0].table})",
        evidence=tuple(str(place) for place in shares.places),
        consequence="the lines are not used as you meant: one carries too much, another too little"
        + (", and what has no mark uses main" if shares.actual.get(0) else ""),
        fix=Fix(
            how="MARK and CONNMARK do not end a chain, and each rule counts only what comes to it: let each rule ask "
            "for mark 0 and take one of all, one of the rest, and so on; the last one takes what is left over",
            steps=steps,
        ),
    )


def _equal(shares: _Shares, asked: Mapping[int, float]) -> bool:
    """Tell whether equal shares among these rules alone are meant."""
    return len(set(asked.values())) == 1 and abs(sum(asked.values()) - 1) < 0.02 and len(asked) == len(shares.places)
