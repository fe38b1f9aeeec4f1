"""What `polywan events` prints."""

from __future__ import annotations

from typing import Any

import pytest

from polywan.api.codec import decode
from polywan.api.events import LinkEvent
from polywan.cli.events import text


def event(**values: Any) -> LinkEvent:
    nothing = dict.fromkeys(LinkEvent.__fields__)
    usual = {
        "id": 1,
        "time": "2026-11-30T08:00:00.123+00:00",
        "uplink": "fibre",
        "interface": "eth1",
        "event": "state",
        "reason": "no carrier",
    }
    return decode(LinkEvent, {**nothing, **usual, **values})


@pytest.mark.parametrize(
    ("values", "line"),
    [
        (
            {"state": "down", "previous_state": "up", "lasted_s": 266000.0, "rx_bytes": 1_500_000, "tx_bytes": 20_000},
            "fibre   up → down: no carrier (up for 3 d 1 h; 1.5 MB in, 20.0 kB out)",
        ),
        (
            {"state": "up", "previous_state": "down", "reason": "answers", "lasted_s": 61.0, "address": "192.0.2.7"},
            "fibre   down → up: answers (down for 1 min 1 s; address 192.0.2.7)",
        ),
        ({"event": "found", "state": "up", "reason": "well"}, "fibre   found up: well"),
        (
            {"event": "found", "state": "down", "previous_state": "up", "lasted_s": 5.0},
            "fibre   found down, was up: no carrier (up for 5 s)",
        ),
        (
            {"event": "address", "reason": "address 192.0.2.7 → 192.0.2.9", "lasted_s": 86400.0},
            "fibre   address: address 192.0.2.7 → 192.0.2.9 (before that for 1 d)",
        ),
        (
            {"event": "removed", "reason": "no longer in the configuration"},
            "fibre   removed: no longer in the configuration",
        ),
        ({"event": "renamed", "reason": "called dsl before"}, "fibre   renamed: called dsl before"),
    ],
)
def test_each_entry_is_a_line(values: dict[str, Any], line: str) -> None:
    assert text(event(**values), 6)[21:] == line
