from __future__ import annotations

import dataclasses

from polywan.core.evolve import replace
from polywan.core.health import rounds as hl
from polywan.core.health.rounds import Health
from polywan.core.net import Family
from polywan.core.state.agenda import Sweep
from polywan.core.state.state import Known


def test_a_copy_is_what_dataclasses_would_make_and_the_original_stays() -> None:
    for value, changes in (
        (Known(zone=1.0), {"unix": 2.0, "advice": ("be careful",)}),
        (hl.initial(Health.UP, "has a path", 1.0), {"good": 2}),
        (Sweep(1.0, "u1", 0x100, Family.V4), {"tcp": False}),
    ):
        before = dataclasses.replace(value)
        assert replace(value, **changes) == dataclasses.replace(value, **changes)
        assert value == before
