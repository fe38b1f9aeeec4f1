"""Devices that carry PPPoE sessions are known by their names."""

from __future__ import annotations

from pathlib import Path

from polywan.kernel.pppoe import carriers, l2tp, sessions

SESSIONS = """Id       Address              Device
00000001 02:00:00:00:00:01     eth1
00000002 02:00:00:00:00:02     eth1
0000000a 02:00:00:00:00:03     eth2.7
"""


def test_each_device_is_told_once(tmp_path: Path) -> None:
    file = tmp_path / "pppoe"
    file.write_text(SESSIONS)
    assert carriers(file) == {"eth1", "eth2.7"}


def test_each_session_is_told_with_its_device(tmp_path: Path) -> None:
    file = tmp_path / "pppoe"
    file.write_text(SESSIONS)
    assert sessions(file) == ("eth1", "eth1", "eth2.7")


def test_ends_of_l2tp_sessions_are_told_by_their_devices(tmp_path: Path) -> None:
    file = tmp_path / "pppol2tp"
    assert l2tp(file) == frozenset()
    file.write_text(
        "PPPoL2TP driver info, V2.0\nTUNNEL name, user-data-ok session-count\nTUNNEL 'tunl 1', N 1\n"
        "  SESSION '' 0A000001/1701 0001/0001 -> 0001/0001 Connected N\n   0/0/0/client 1 0 ms\n   interface ppp3\n"
    )
    assert l2tp(file) == {"ppp3"}


def test_without_sessions_or_without_pppoe_there_are_none(tmp_path: Path) -> None:
    file = tmp_path / "pppoe"
    assert carriers(file) == frozenset()
    file.write_text("Id       Address              Device\n")
    assert carriers(file) == frozenset()
