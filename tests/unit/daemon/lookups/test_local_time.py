"""Local time as the system has it now, whatever zone the daemon was started in."""

from __future__ import annotations

import time

import pytest

from polywan.core.world.lookups import References
from polywan.daemon.lookups.machine import Local, look


def test_a_zone_that_was_changed_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as zoned:
        for zone, offset in (("UTC0", 0), ("JST-9", 9 * 3600)):
            zoned.setenv("TZ", zone)
            assert look(References(), Local()).utc_offset == offset
    time.tzset()
