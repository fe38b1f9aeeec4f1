"""What the kernel refused: when it is tried again, what people are told, and when our table is replaced whole.

A change relies on what was read, and not all can be read that a change meets: declarations of sets, who refers to a
chain, objects of others. A replacement relies on nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from errno import ENOENT
from typing import Final

from polywan.core.evolve import replace
from polywan.core.plan.plan import ApplyReport, Failure, Op, PutNexthop, PutRoute, headline
from polywan.core.shaping.changes import PutRedirect, PutTree
from polywan.core.state.effects import Level, Log

MOST_REFUSALS: Final = 2
"""Refusals after which the table is replaced; a single one may only mean that somebody else was faster."""

FIRST_RETRY: Final = 0.25
"""Seconds until a change that was refused once is tried again, whatever else is refused for how long."""

APPLY_RETRY: Final = (0.25, 30.0)
"""Seconds until a refused operation is tried again: first and longest wait; it doubles in between."""


@dataclass(frozen=True, kw_only=True)
class Retries:
    """What became of the last plans; without slots, for `evolve.replace`.

    Attributes:
        applied: how the last plan went.
        refused: operations of the last plan that the kernel refused, and how many times in a row.
        tries: plans in a row with a refusal, of those that were made after a read.
        stale: a plan was refused, and nobody has read since: what is known is not what is there.
        stuck: nft transactions that were refused since a read last found our table as it should be.
        undone: operations that were refused and have not succeeded since: nobody else has taken what was never there.
    """

    applied: ApplyReport | None = None
    refused: Mapping[str, int] = field(default_factory=dict)
    tries: int = 0
    stale: bool = False
    stuck: int = 0
    undone: frozenset[Op] = frozenset()


def reported(before: Retries, report: ApplyReport) -> tuple[Retries, float | None, tuple[Log, ...]]:
    """Take in how a plan went.

    Returns:
        What is known now; seconds until the next try, None when nothing was refused; what people are told.
    """
    undone = (before.undone - frozenset(report.plan.ops)) | {failure.op for failure in report.failures}
    before = before if undone == before.undone else replace(before, undone=undone)
    if not report.failures:
        return replace(before, applied=report, refused={}, tries=0, stale=False), None, ()
    failures = {f"{headline(f.op)}: {f.message}": f for f in report.failures}
    if before.stale:
        # Made before anybody had read why the last one was refused: it says nothing new, and is not one more in a row.
        new = {text: f for text, f in failures.items() if text not in before.refused}
        notes = tuple(note for text, f in new.items() for note in _log_of(f, text, 1, first=before.tries <= 1))
        refused = {**before.refused, **dict.fromkeys(new, 1)}
        return replace(before, applied=report, refused=refused), FIRST_RETRY, notes
    times = {text: before.refused.get(text, 0) + 1 for text in failures}
    soon, longest = APPLY_RETRY
    usual = min(longest, soon * 2**before.tries)
    more = report.table_refused
    refusals = before.stuck + more
    notes = tuple(
        note for text, f in failures.items() for note in _log_of(f, text, times[text], first=times[text] > before.tries)
    )
    after = replace(before, applied=report, refused=times, tries=before.tries + 1, stale=True, stuck=refusals)
    return after, _wait(refusals, usual) if more else usual, notes


def _log_of(failure: Failure, text: str, times: int, *, first: bool) -> Iterator[Log]:
    """Tell of an operation that was refused so many times in a row, since the `first` plan that was or a later one.

    That first time may only mean that somebody was faster: a link that went down and took routes and next hops with
    it, another program that took what the operation refers to.
    """
    raced = failure.errno == ENOENT or isinstance(failure.op, PutNexthop | PutRoute | PutTree | PutRedirect)
    patience = 1 if raced and first else 0
    if times == 1 + patience:
        yield Log(Level.ERROR, "apply.refused", text)
    elif times == patience:
        yield Log(Level.INFO, "apply.again", text)


def replaces(refusals: int) -> bool:
    """Tell whether the next transaction replaces the table, after so many that were refused.

    Replacement and change take turns, since a change may be possible where a replacement is not: it does not name
    what it leaves alone, as a control group that is gone.
    """
    return refusals >= MOST_REFUSALS and refusals % 2 == MOST_REFUSALS % 2


def _wait(refusals: int, usual: float) -> float:
    if refusals == MOST_REFUSALS:
        return 0.0
    return min(FIRST_RETRY, usual) if refusals < MOST_REFUSALS else usual
