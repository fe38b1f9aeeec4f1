"""One rule of nft(8), as libnftables-json(5) has it: conditions, actions, verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple

from polywan.core.firewall.model import (
    ALL_MARK_BITS,
    Action,
    ActionOther,
    Choose,
    MarkIs,
    MarkOf,
    Match,
    Offload,
    Other,
    Restore,
    Rule,
    Save,
    SetMark,
    Translate,
    Verdict,
)
from polywan.core.firewall.nftables_match import Elements, conditions, elements_of, mark_of
from polywan.core.firewall.nftables_text import expression_text

_VERDICTS: Final[Mapping[str, Verdict]] = {
    "accept": "accept",
    "drop": "drop",
    "reject": "reject",
    "return": "return",
    "queue": "queue",
}
_TRANSLATIONS: Final[Mapping[str, Literal["masquerade", "snat", "dnat", "redirect", "tproxy"]]] = {
    "masquerade": "masquerade",
    "snat": "snat",
    "dnat": "dnat",
    "redirect": "redirect",
    "tproxy": "tproxy",
}
_SILENT: Final = frozenset({"counter", "continue", "last"})
_HARMLESS: Final = frozenset({"log", "notrack", "dup", "ct helper", "ct timeout", "ct expectation", "secmark"})
_MAY_END: Final = frozenset({"limit", "quota", "ct count", "connlimit"})
"""Statements behind which the rest of a rule is met by some packets only."""


@dataclass(slots=True)
class _Draft:
    """The rules that one rule becomes.

    Attributes:
        acted: an action was there, so that a condition that follows needs a rule of its own.
    """

    text: str
    sets: Elements
    packets: int | None = None
    size: int | None = None
    matches: list[Match] = field(default_factory=list)
    actions: list[Action] = field(default_factory=list)
    rules: list[Rule] = field(default_factory=list)

    def condition(self, matches: Sequence[Match]) -> None:
        """Ask for more; what was done so far is done also where the rest does not match."""
        if self.actions:
            self.end()
            self.actions = []
            # A mark that it has looked at may be another one by now.
            self.matches = [Other(self.text) if isinstance(match, MarkIs) else match for match in self.matches]
        self.matches += matches

    def end(self, verdict: Verdict = "", target: str = "", key: Sequence[Match] = ()) -> None:
        """Add a rule with what was said so far."""
        rule = Rule(self.text, (*self.matches, *key), tuple(self.actions), verdict, target, self.packets, self.size)
        self.rules.append(rule)


def rules_of(expressions: Sequence[object], sets: Elements, comment: str = "") -> list[Rule]:
    """Return what a rule does; several rules where it looks a verdict up, or acts before its last condition.

    Args:
        expressions: the rule's.
        sets: of its table, but for those that packets fill.
        comment: the administrator's.
    """
    shown = [expression_text(e) for e in expressions if not (isinstance(e, dict) and e.keys() & {"counter"})]
    if comment:
        shown.append(f'comment "{comment}"')
    draft = _Draft(" ".join(shown), sets)
    for expression in expressions:
        match expression:
            case {"counter": {"packets": int(packets), "bytes": int(size)}}:
                draft.packets, draft.size = packets, size
    for expression in expressions:
        if _ended(draft, expression):
            return draft.rules
    draft.end()
    return draft.rules


def _ended(draft: _Draft, expression: object) -> bool:
    """Take one expression into the draft; True when nothing of the rule follows."""
    match expression:
        case {"match": {"left": operand, "right": right, **rest}}:
            draft.condition(conditions(operand, str(rest.get("op", "==")), right, draft.sets))
            return False
        case {"vmap": {"key": key, "data": data}}:
            _look_up(draft, key, data)
            return True
        case {"jump": {"target": str()}} | {"goto": {"target": str()}}:
            found = _verdict(expression)
            draft.end(*(found or ()))
            return True
        case {"mangle": {"key": key, "value": value}}:
            draft.actions.append(_written(key, value) or _changed(key, expression_text(expression)))
            return False
        case {"flow": {"flowtable": str(name)}}:
            draft.actions.append(Offload(name.removeprefix("@")))
            return False
    text = expression_text(expression)
    if not isinstance(expression, dict) or len(expression) != 1:
        draft.condition([Other(text)])
        draft.actions.append(ActionOther(text, harmless=False))
        return False
    ((word, details),) = expression.items()
    return _statement(draft, str(word), details, text)


def _statement(draft: _Draft, word: str, details: object, text: str) -> bool:
    if word in _SILENT:
        return False
    if word in _VERDICTS:
        draft.end(_VERDICTS[word])
        return True
    if word in _TRANSLATIONS:
        draft.actions.append(Translate(_TRANSLATIONS[word], text))
        if word == "tproxy":
            return False
        draft.end("accept")
        return True
    if word in _MAY_END or (word == "xt" and isinstance(details, dict) and details.get("type") == "match"):
        draft.condition([Other(text)])
    elif word in ("set", "map"):  # a set that is full ends the rule
        draft.condition([Other(text)])
        draft.actions.append(ActionOther(text))
    elif word in _HARMLESS:
        draft.actions.append(ActionOther(text))
    else:
        if not (word == "xt" and isinstance(details, dict) and details.get("type") == "target"):
            draft.condition([Other(text)])
        draft.actions.append(ActionOther(text, harmless=False))
    return False


class _Found(NamedTuple):
    verdict: Verdict
    target: str


def _look_up(draft: _Draft, key: object, data: object) -> None:
    """Add a rule for each verdict of a map."""
    draft.condition([])
    text = draft.text
    try:
        pairs = elements_of(data, draft.sets)
    except KeyError:
        pairs = [None]
    for pair in pairs:
        match pair:
            case ["*", result]:
                asked: list[Match] = [Other(text)]
            case [element, result]:
                # A chain may change the mark, and the next rule of these would look at it again.
                asked = [Other(text)] if mark_of(key) else conditions(key, "==", element, draft.sets)
            case _:
                draft.actions = [ActionOther(text, harmless=False)]
                draft.end(key=[Other(text)])
                return
        found = _verdict(result)
        if found is None:
            draft.actions = [ActionOther(text, harmless=False)]
            draft.end(key=asked)
            draft.actions = []
        else:
            draft.end(found.verdict, found.target, asked)


def _verdict(result: object) -> _Found | None:
    match result:
        case {"jump": {"target": str(target)}}:
            return _Found("jump", target)
        case {"goto": {"target": str(target)}}:
            return _Found("goto", target)
        case dict() if len(result) == 1:
            (word,) = result
            return _Found("", "") if word == "continue" else _Found(_VERDICTS[word], "") if word in _VERDICTS else None
    return None


def _changed(key: object, text: str) -> ActionOther:
    """What changes anything but a mark: a field of the packet may be one that later rules look at."""
    return ActionOther(text, harmless=isinstance(key, dict) and "payload" not in key and mark_of(key) is None)


def _written(key: object, value: object) -> Action | None:
    """Return what is written over a mark; None when it is no mark, or not known."""
    of = mark_of(key)
    if of is None:
        return None
    match value:
        case {"map": {"key": index, "data": {"set": list(pairs)}}}:
            return _choose(of, index, pairs)
        case {"|": [one, other]} | {"^": [one, other]}:
            copied = _both(of, _masked(one), _masked(other))
            if copied is not None:
                return copied
    masked = _masked(value)
    if masked is None:
        return None
    if masked.of is None:
        return SetMark(of, masked.value)
    if masked.of == of:
        return SetMark(of, masked.value, ~masked.mask & ALL_MARK_BITS)
    return None if masked.value else _copy(of, masked.mask, 0)


class _Masked(NamedTuple):
    """``(mark & mask) ^ value``; of no mark for a constant."""

    of: MarkOf | None
    mask: int
    value: int


def _masked(expression: object) -> _Masked | None:
    if isinstance(expression, int) and not isinstance(expression, bool):
        return _Masked(None, 0, expression) if 0 <= expression <= ALL_MARK_BITS else None
    if (of := mark_of(expression)) is not None:
        return _Masked(of, ALL_MARK_BITS, 0)
    match expression:
        case {"&": [inner, int(bits)]} if (found := _masked(inner)) is not None:
            return found._replace(mask=found.mask & bits, value=found.value & bits)
        case {"|": [inner, int(bits)]} if (found := _masked(inner)) is not None:
            return found._replace(mask=found.mask & ~bits & ALL_MARK_BITS, value=found.value | bits)
        case {"^": [inner, int(bits)]} if (found := _masked(inner)) is not None:
            return found._replace(value=found.value ^ bits)
    return None


def _both(of: MarkOf, one: _Masked | None, other: _Masked | None) -> Action | None:
    """Return what joins both marks: newer versions write ``meta mark & 0xff00 | ct mark & 0xff``."""
    if one is None or other is None or one.value or other.value or one.mask & other.mask:
        return None
    own, foreign = (one, other) if one.of == of else (other, one)
    return _copy(of, foreign.mask, own.mask) if own.of == of and foreign.of not in (of, None) else None


def _copy(of: MarkOf, mask: int, keep: int) -> Action:
    return Restore(mask, keep) if of == "packet" else Save(mask, keep)


def _choose(of: MarkOf, index: object, pairs: Sequence[object]) -> Choose | None:
    mode: Literal["nth", "random", "hash"]
    match index:
        case {"numgen": {"mode": "inc", "mod": int(every)}}:
            mode = "nth"
        case {"numgen": {"mode": "random", "mod": int(every)}}:
            mode = "random"
        case {"jhash": {"mod": int(every)}} | {"symhash": {"mod": int(every)}}:
            mode = "hash"
        case _:
            return None
    shares = []
    for pair in pairs:
        match pair:
            case [{"range": [int(first), int(last)]}, int(value)]:
                shares.append((value, last - first + 1))
            case [int(), int(value)]:
                shares.append((value, 1))
            case _:
                return None
    return Choose(of, mode, every, tuple(shares))
