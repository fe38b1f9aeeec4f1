"""Who runs in this network namespace, as the kernel tells."""

import os
import subprocess
from pathlib import Path

import pytest

from polywan import presence
from polywan.presence import Presence, found

HEAD = "Num       RefCount Protocol Flags    Type St Inode Path\n"


def names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *names_in_use: str) -> None:
    file = tmp_path / "unix"
    file.write_text(
        HEAD + "".join(f"0000000000000000: 00000002 00000000 00000000 0002 01 1234 {t}\n" for t in names_in_use)
    )
    monkeypatch.setattr(presence, "_NAMES", file)


def test_nobody_is_found_where_nobody_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names(tmp_path, monkeypatch, "/run/dbus/system_bus_socket", "@/tmp/.X11-unix/X0")
    assert found() is None


def test_a_daemon_is_found_with_its_runtime_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # No process has this number, as one of another pid namespace.
    names(tmp_path, monkeypatch, "@polywan", "@polywan:9999999:/run/my polywan")
    assert found() == Presence(9999999, Path("/run/my polywan"))


def test_oneself_is_not_another_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names(tmp_path, monkeypatch, f"@polywan:{os.getpid()}:/run/polywan")
    assert found() is None


def test_a_program_that_cannot_change_networking_is_no_daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with subprocess.Popen(["sleep", "60"]) as sleeper:
        names(tmp_path, monkeypatch, f"@polywan:{sleeper.pid}:/run/polywan")
        status = Path(f"/proc/{sleeper.pid}/status").read_text()
        rights = int(next(line for line in status.splitlines() if line.startswith("CapEff")).split()[1], 16)
        assert (found() is not None) is bool(rights >> 12 & 1)
        sleeper.kill()
