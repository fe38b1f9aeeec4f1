"""When the kernel refuses to change our table again and again: replace it whole.

A change relies on what was read, and not all can be read that a change meets: declarations of sets, who refers to a
chain, objects of others. A replacement relies on nothing.
"""

from __future__ import annotations

from typing import Final

from polywan.core.plan import ApplyReport, NftBatch

PATIENCE: Final = 2
"""Refusals after which the table is replaced; a single one may only mean that somebody else was faster."""

SOON: Final = 0.25
"""Seconds until a change that was refused once is tried again, whatever else is refused for how long."""


def refused(report: ApplyReport) -> bool:
    """Tell whether the nft transaction of a plan was refused."""
    return any(isinstance(failure.op, NftBatch) for failure in report.failures)


def replaces(refusals: int) -> bool:
    """Tell whether the next transaction replaces the table, after so many that were refused.

    Replacement and change take turns, since a change may be possible where a replacement is not: it does not name
    what it leaves alone, as a control group that is gone.
    """
    return refusals >= PATIENCE and refusals % 2 == PATIENCE % 2


def wait(refusals: int, usual: float) -> float:
    """Return seconds until the next try, where any other operation would wait for the `usual` ones."""
    if refusals == PATIENCE:
        return 0.0
    return min(SOON, usual) if refusals < PATIENCE else usual
