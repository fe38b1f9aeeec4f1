"""From deeds to expectations: when was which uplink broken, and when may the daemon not have acted yet?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import inf

from chaos.history import Deed, History, Span, any_meets, merged
from chaos.plan import FAULTS, Kind

BLINK = 0.05
"""Seconds around a deed for which clocks of several threads may disagree."""


@dataclass(frozen=True, slots=True)
class Fault:
    """An uplink was broken from `begun` to `mended`; by `known` the daemon must have acted upon it."""

    uplink: int
    kind: Kind
    begun: float
    mended: float
    known: float


@dataclass(frozen=True, slots=True)
class Calendar:
    """What can be expected of whom, and when.

    Attributes:
        faults: all of them, in order.
        exchanged: addresses that were exchanged, with devices or without, in the same form; nothing of that is mended.
        broken: by uplink: broken, or mended and not surely in use again; nothing is asked of its flows.
        useless: by uplink: broken, or mended and maybe not even used when nobody else serves.
        slow: by uplink: its line is full; packets come late or are lost, but nothing ends and nothing moves.
        unsettled: the daemon may not have acted yet on what was done.
        forgotten: somebody flushed connection tracking; whoever was alive is judged no more.
        torn: routes or rules of ours were gone: flows are held up.
        chosen: what is ours was gone: new connections go by main's default, whatever is held down.
        open: the rule set was gone while no daemon held the second table: nothing is translated or kept in.
    """

    faults: tuple[Fault, ...]
    exchanged: tuple[Fault, ...]
    broken: Mapping[int, list[Span]]
    useless: Mapping[int, list[Span]]
    slow: Mapping[int, list[Span]]
    unsettled: list[Span]
    forgotten: list[Span]
    torn: list[Span]
    chosen: list[Span]
    open: list[Span]

    @property
    def nobody(self) -> list[Span]:
        """When no uplink at all was usable."""
        common = [Span(-inf, inf)]
        for spans in self.useless.values():
            common = [
                Span(max(a.begin, b.begin), min(a.end, b.end)) for a in common for b in spans if a.meets(b.begin, b.end)
            ]
        return merged(common)


def acted(history: History, moment: float, need: float) -> float:
    """Return when a daemon has been alive and ready for `need` seconds without a break since that moment."""
    for life in history.lives:
        if life.ready is None:
            continue
        begin = max(moment, life.ready)
        if begin + need <= (inf if life.ended is None else life.ended):
            return begin + need
    return inf


def make_calendar(history: History) -> Calendar:
    """Derive what can be expected from what was done."""
    numbers = range(1, history.plan.uplinks + 1)
    slow = {n: merged(_slow(history, n)) for n in numbers}
    faults = tuple(_faults(history, slow))
    flushed = _after(history, (Kind.FLUSH_NFT,), history.rules.repair)
    open_ = [span for span in flushed if not _held(history, span)]
    torn = _after(history, (Kind.FLUSH_RULES, Kind.FLUSH_ROUTES), history.rules.repair)
    changes = _after(history, (Kind.READDRESS, Kind.REMAKE), history.rules.repair)
    forgotten = _after(history, (Kind.FLUSH_TRACKING,), history.rules.repair)
    lost = [Span(fault.begun - BLINK, fault.known) for fault in faults]
    # Nothing of ours is in force before the first daemon is ready.
    first = [Span(-inf, min((life.ready for life in history.lives if life.ready is not None), default=inf))]
    unsettled = merged([*first, *lost, *flushed, *torn, *forgotten, *changes, *history.stalls])
    return Calendar(
        faults=faults,
        exchanged=tuple(_exchanged(history)),
        broken={n: merged(_broken(history, faults, n, history.rules.back)) for n in numbers},
        useless={n: merged(_broken(history, faults, n, history.rules.answer)) for n in numbers},
        slow=slow,
        unsettled=unsettled,
        forgotten=forgotten,
        torn=torn,
        chosen=merged([*flushed, *torn]),
        open=merged(open_),
    )


def need_of(history: History, fault: Deed, slow: Mapping[int, list[Span]]) -> float:
    """Return how long a daemon has to notice that fault."""
    if fault.action.kind in (Kind.CUT, Kind.LINK_DOWN):
        return history.rules.loss
    # The answers that a queue holds still arrive, and a line that is filled just now is given time to show its length.
    full = any_meets(slow[fault.action.uplink], fault.begun - history.rules.silence, fault.begun)
    return history.rules.silence + (history.rules.flood if full else 0.0)


def _slow(history: History, number: int) -> Iterator[Span]:
    for index, deed in enumerate(history.deeds):
        if deed.action.kind is Kind.FILL and deed.action.uplink == number:
            later = (d for d in history.deeds[index + 1 :] if d.action.kind is Kind.DRAIN and d.action.uplink == number)
            yield Span(deed.begun - BLINK, next((d.done for d in later), inf) + BLINK)


def _faults(history: History, slow: Mapping[int, list[Span]]) -> Iterator[Fault]:
    for index, deed in enumerate(history.deeds):
        kind = deed.action.kind
        if kind not in FAULTS or (kind is Kind.ECHO_LOST and history.plan.both_methods):
            continue
        later = (
            d
            for d in history.deeds[index + 1 :]
            if d.action.kind is FAULTS[kind] and d.action.uplink == deed.action.uplink
        )
        mending = next(later, None)
        mended = inf if mending is None else mending.done
        need = need_of(history, deed, slow)
        known = acted(history, deed.done, need)
        if mending is not None:
            # A daemon that starts after the mending finds nothing to notice, unless it was noticed before.
            known = min(known, max(mended, acted(history, mended, 0.0)) + need)
        yield Fault(deed.action.uplink, kind, deed.begun, mended, known)


def _exchanged(history: History) -> Iterator[Fault]:
    for deed in history.deeds:
        if deed.action.kind in (Kind.READDRESS, Kind.REMAKE):
            known = acted(history, deed.done, history.rules.loss)
            yield Fault(deed.action.uplink, deed.action.kind, deed.begun, inf, known)


def _broken(history: History, faults: tuple[Fault, ...], number: int, rest: float) -> Iterator[Span]:
    for fault in faults:
        if fault.uplink == number:
            yield Span(fault.begun - BLINK, max(fault.known, acted(history, fault.mended, rest)))
    for deed in history.deeds:
        if deed.action.uplink == number and deed.action.kind in (Kind.READDRESS, Kind.REMAKE):
            yield Span(deed.begun - BLINK, acted(history, deed.done, rest))


def _held(history: History, span: Span) -> bool:
    """True when one daemon lived all the time: its second table carries what is under way."""
    return any(
        life.ready is not None and life.ready <= span.begin and (life.ended is None or life.ended >= span.end)
        for life in history.lives
    )


def _after(history: History, kinds: tuple[Kind, ...], need: float) -> list[Span]:
    return [
        Span(deed.begun - BLINK, acted(history, deed.done, need)) for deed in history.deeds if deed.action.kind in kinds
    ]
