"""The file of measurements has a bound, whatever is measured and however often its places are used again."""

from __future__ import annotations

import random
import sqlite3

import pytest

from polywan.core.measurements.points import Point, Reading, merged, packed, point_of
from polywan.core.measurements.tiers import SECONDS, TIERS
from polywan.core.policy.uplink_state import UplinkState
from polywan.daemon.measurements import points

PAGES: float = 1.2
"""Size of a file, as a multiple of what is in its rows: pages are not full."""


def measured(chance: random.Random, seconds: int) -> Point:
    """Return what a busy line might show, with nothing in it that compresses well."""
    few = [
        point_of(
            Reading(
                UplinkState.UP,
                chance.gauss(20, 5),
                abs(chance.gauss(2, 1)),
                chance.random() / 20,
                chance.randrange(1000),
            ),
            int(chance.lognormvariate(12, 3)),
            int(chance.lognormvariate(10, 3)),
            known=True,
        )
        for _ in range(min(seconds, 10))
    ]
    return merged(few * (seconds // len(few)))


@pytest.mark.parametrize(("uplinks", "megabytes"), [(3, 10), (53, 100)])
def test_all_tiers_together_stay_below_their_bound(uplinks: int, megabytes: int) -> None:
    chance = random.Random(1)
    rows = [packed({n: measured(chance, tier.step) for n in range(uplinks)}) for tier in TIERS]
    size = sum((len(row) + 12) * tier.kept for row, tier in zip(rows, TIERS, strict=True))
    assert size * PAGES < megabytes * 1e6


def test_a_ring_that_is_used_again_does_not_grow() -> None:
    chance, database = random.Random(1), sqlite3.connect(":memory:", isolation_level=None)
    for statement in points.POINT_TABLES:
        database.execute(statement)
    sizes, written = [], 0
    rows = [{n: measured(chance, 1) for n in range(10)} for _ in range(100)]
    for second in range(3 * SECONDS.kept):
        row = chance.choice(rows)
        points._put_one(database, SECONDS, second, row)
        written += len(packed(row)) + 12
        if (second + 1) % SECONDS.kept == 0:
            (pages,), (size,) = (database.execute(f"PRAGMA {what}").fetchone() for what in ("page_count", "page_size"))
            sizes.append(pages * size)
    assert sizes[2] < 1.1 * sizes[0]
    assert sizes[2] < PAGES * written / 3
