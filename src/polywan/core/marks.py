"""Give every uplink a number that it keeps: mark, table and rule priorities follow from it.

The number survives restart, reordering, and the coming and going of others, because connections carry the mark.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from polywan.config.model import numbering
from polywan.core.errors import CapacityError
from polywan.core.net import Mark, MarkLayout, RulePriority, TableId

# Offsets of the blocks of policy rules within the priority band of 900; each has room for `MOST_NUMBERS` uplinks.
FORWARDED: Final = 0
QUESTION: Final = 1
BOUND: Final = 3
BY_ANY_ROUTER: Final = 9
OIF: Final = 10
UNMARKED: Final = 265
ENTRY: Final = 266
WORDS: Final = 267
SPECIFIC: Final = 268
FWMARK: Final = 270
END: Final = 600
FROM: Final = 610
SOURCE: Final = 609
LOCK: Final = 866
PAST: Final = 899

MOST_NUMBERS: Final = numbering.MOST_NUMBERS
"""Numbers that the blocks have room for."""

FIRST_SPECIFIC: Final = RulePriority(32764)
FIRST_TCP: Final = RulePriority(32765)
"""Just before main (32766): where the box's own TCP gets the first route that nobody else decides."""

FALLBACK: Final = RulePriority(32800)
"""Behind main (32766) and default (32767): serves only when nobody else has a default route."""


def allocate(names: Iterable[str], remembered: Mapping[str, int], layout: MarkLayout) -> dict[str, int]:
    """Return the number of every name: remembered ones keep theirs, new ones take the lowest never used.

    Names that are no longer configured keep theirs too while there is room, so that connections which
    still carry a mark never find it in another uplink's hands.

    Raises:
        CapacityError: more names than the mark mask has room for.
    """
    names = list(names)
    capacity = numbering.capacity(layout.mask)
    if len(names) > capacity:
        raise CapacityError(f"mark mask {layout.mask:#x} has room for {capacity} uplinks, not {len(names)}")
    ids = {n: i for n, i in remembered.items() if 1 <= i <= capacity}
    taken = set(ids.values())
    free = [i for i in range(1, capacity + 1) if i not in taken]
    wanted = set(names)
    retired = [n for n in ids if n not in wanted]
    for name in names:
        if name in ids:
            continue
        ids[name] = free.pop(0) if free else ids.pop(retired.pop(0))
    return ids


@dataclass(frozen=True, slots=True)
class Numbers:
    """The numbers of one uplink, all derived from its id."""

    id: int
    mark: Mark
    table: TableId
    base: int

    def priority(self, block: int) -> RulePriority:
        """Priority of this uplink's rule in a block (`OIF` or `FROM`)."""
        return RulePriority(self.base + block + self.id)


@lru_cache(maxsize=2 * MOST_NUMBERS)
def numbers(ident: int, layout: MarkLayout, *, table_base: int, priority: int) -> Numbers:
    """Derive mark, table and priorities from an uplink's id."""
    return Numbers(ident, layout.mark(ident), TableId(table_base + ident), priority)
