"""Devices that carry PPPoE sessions are known by their names."""

from __future__ import annotations

from pathlib import Path

from polywan.kernel.pppoe import carriers

SESSIONS = """Id       Address              Device
00000001 02:00:00:00:00:01     eth1
00000002 02:00:00:00:00:02     eth1
0000000a 02:00:00:00:00:03     eth2.7
"""


def test_each_device_is_told_once(tmp_path: Path) -> None:
    file = tmp_path / "pppoe"
    file.write_text(SESSIONS)
    assert carriers(file) == {"eth1", "eth2.7"}


def test_without_sessions_or_without_pppoe_there_are_none(tmp_path: Path) -> None:
    file = tmp_path / "pppoe"
    assert carriers(file) == frozenset()
    file.write_text("Id       Address              Device\n")
    assert carriers(file) == frozenset()
